"""The table of a run: one row per generation and score, equal in all three formats."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import ConfigError, MissingDependencyError, UsageError
from knowgen.core.records import Attempt, ParsedScore
from knowgen.core.spec import ScorerSpec
from knowgen.core.text import from_csv_cell
from knowgen.interchange.table_export import export_rows
from knowgen.store.run import RunStore
from tests.helpers import store_records

HOSTILE = 'a "quoted", line\nbreak;\t<b>\x00é\u2028'


@pytest.fixture
def run(tmp_path: Path) -> Any:
    second = ScorerSpec(name="similarity", dimensions=("cosine",))
    with RunStore.open(
        tmp_path / "run", store_records.spec(store_records.spec().scorers[0], second, judge_repeats=2)
    ) as store:
        store.put_samples(store_records.items("a", "b", "c"))
        ref = store.put_image(store_records.image_bytes(), width=24, height=16, format="PNG")
        store.put_generation("1", store_records.generation("a", ref, used_prompt=HOSTILE, settings={"steps": 4}))
        store.put_generation("2", store_records.generation("b", reason=HOSTILE))
        lenient = ParsedScore(status="ok", values={"faithfulness": 1.0}, na=("text_accuracy",))
        score = store_records.score("a", ref.sha256, 0.25, lenient=lenient, attempts=(Attempt(reply=HOSTILE),))
        store.put_score("s", score, store.spec.scorers[0])
        yield store


def test_every_score_has_its_row_and_the_formats_agree(run: RunStore, tmp_path: Path) -> None:
    import pyarrow.parquet

    for format in ("jsonl", "csv", "parquet"):
        assert export_rows(run, format, tmp_path / format, "judge") == 6
    lines = [json.loads(line) for line in (tmp_path / "jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    table = pyarrow.parquet.read_table(tmp_path / "parquet").to_pylist()
    with (tmp_path / "csv").open(encoding="utf-8", newline="") as file:
        plain = list(csv.DictReader(line.replace("\0", "\x01") for line in file))
    assert lines == table
    for line, words in zip(lines, plain, strict=True):
        expected = {name: "" if value is None else str(value).replace("\0", "\x01") for name, value in line.items()}
        assert words == expected
    assert [(line["sample_id"], line["judge_repeat"], line["generation_status"]) for line in lines] == [
        (name, judge, status) for name, status in (("a", "ok"), ("b", "failed"), ("c", "not_run")) for judge in (0, 1)
    ]
    first = lines[0]
    assert (first["faithfulness"], first["lenient_faithfulness"], first["lenient_aesthetics"]) == (None, 1.0, None)
    assert first["counts_as"] == "excluded"  # .25 is off the grid, which strict does not count
    assert first["lenient_na"] == "text_accuracy" and json.loads(first["replies"]) == [HOSTILE]
    assert first["used_prompt"] == HOSTILE and json.loads(first["settings"]) == {"steps": 4}
    assert (run.path / first["image"]).is_file()
    assert lines[1]["score_status"] == "not_run" and lines[1]["faithfulness"] is None
    assert lines[2]["generation_reason"] == HOSTILE


def test_all_scorers_are_written_unless_one_is_named(run: RunStore, tmp_path: Path) -> None:
    assert export_rows(run, "jsonl", tmp_path / "all") == 12
    lines = [json.loads(line) for line in (tmp_path / "all").read_text(encoding="utf-8").split("\n")[:-1]]
    assert [line["scorer"] for line in lines] == ["judge"] * 6 + ["similarity"] * 6
    assert "cosine" in lines[0] and "cosine" in lines[6]
    with pytest.raises(UsageError, match="no scorer 'x'"):
        export_rows(run, "csv", tmp_path / "none", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "run"]


def test_parquet_without_pyarrow_is_reported_with_its_fix(
    run: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match="pip install pyarrow"):
        export_rows(run, "parquet", tmp_path / "out.parquet", "judge")
    assert not (tmp_path / "out.parquet").exists()


def test_a_file_that_cannot_be_written_is_reported(run: RunStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        export_rows(run, "jsonl", tmp_path / "absent" / "out.jsonl", "judge")


def test_csv_cells_are_no_formulas_and_can_be_read_back(tmp_path: Path) -> None:
    texts = ["=cmd()", "+1", "-2", "@sum", "\t=1", "'=1", "''@", "'s", "plain"]
    with RunStore.open(tmp_path / "run", store_records.spec()) as store:
        store.put_samples(store_records.items(*map(str, range(len(texts)))))
        for number, text in enumerate(texts):
            store.put_generation(str(number), store_records.generation(str(number), reason=text, seconds=-0.0))
        export_rows(store, "csv", tmp_path / "csv")
    with (tmp_path / "csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    cells = [row["generation_reason"] for row in rows]
    assert not [
        cell
        for row in rows
        for name, cell in row.items()
        if cell[:1] in set("=+-@\t\r") and name != "generation_seconds"
    ]
    assert [from_csv_cell(cell) for cell in cells] == texts
    assert {row["generation_seconds"] for row in rows} == {"-0.0"}  # a number stays a number
