"""The check for a GPU, run in its tiny form on the CPU: every part runs, and its figures can be true."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu import check
from benchmarks.gpu.painter import BATCHES


@pytest.mark.slow
def test_every_part_runs_and_gives_figures_that_can_be_true(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    assert check.main(["--width", "tiny", "-o", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert figures["setting"]["torch"] and figures["setting"]["date"]
    training, painter, judge = (figures[part] for part in ("training", "painter", "judge"))
    assert training["sft_tokens_per_second"] > 0 and len(training["sft_loss"]) == check.STEPS
    assert 0 < training["grpo_step"]["gap_max"] < 1e-4
    assert training["grpo_step"]["tokens_sampled"] > 0 and training["grpo_share_of_time"]["share/train"] > 0
    for dtype, moved in (("bfloat16", 32), ("float32", 1)):
        table = painter[f"batches_{dtype}"]
        assert [(row["batch"], row["sizes"]) for row in table] == [(size, [size]) for size in BATCHES]
        assert all(row["seconds_per_image"] > 0 and row["levels_max_again"] == 0 for row in table)
        assert table[0]["levels_max"] == 0 and max(row["levels_max"] for row in table) <= moved
    assert set(painter["auto"]["sizes"]) <= set(BATCHES) and painter["auto"]["seconds_per_image"]["1"] > 0
    assert painter["decoding"]["whole_seconds"] > 0 and painter["files"]["files_seconds"] > 0
    rows = {row["option"]: row for row in painter["options"]}
    assert rows["none"]["levels_max"] == 0 and rows["compile=True"]["left_out"]
    assert all(judge[f"batch_{batch}_seconds_per_judgement"] > 0 for batch in (1, check.JUDGED))
