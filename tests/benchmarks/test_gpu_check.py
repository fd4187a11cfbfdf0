"""The check for a GPU, run in its tiny form on the CPU: every part runs, and its figures can be true."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu import check


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
    assert [painter[f"batch_{batch}_used"][-1] for batch in check.BATCHES] == list(check.BATCHES)
    assert all(judge[f"batch_{batch}_seconds_per_judgement"] > 0 for batch in (1, check.JUDGED))
