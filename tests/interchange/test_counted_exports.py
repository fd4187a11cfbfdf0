"""What each row of an export counts as, and that its means are the strict figures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from knowgen.cli.main import run as knowgen
from knowgen.core.records import DIMENSIONS, GROUPS
from knowgen.workflows.run import load_run
from tests.helpers.report_runs import RunMaker, make_samples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of 48 samples, some of whose generations and scores failed or were refused."""
    maker = RunMaker(tmp_path)
    maker.fail_rate = 0.12
    made = maker.run("painter", make_samples(48), 0.6, folder="run")
    made.store.close()  # type: ignore[attr-defined]
    return tmp_path / "run"


def read_csv(folder: Path, out: Path) -> list[dict[str, str]]:
    assert knowgen(["export", str(folder), "--format", "csv", "-o", str(out)]) == 0
    with out.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_means_of_the_csv_are_the_strict_figures(folder: Path, tmp_path: Path) -> None:
    rows = read_csv(folder, tmp_path / "rows.csv")
    summary = load_run(folder).summarise("strict")
    figures = {name: summary.slice().figures[name] for name in DIMENSIONS}
    for name in DIMENSIONS:
        means = []
        for group in GROUPS:
            values = [float(row[name]) for row in rows if row["group"] == group and row[name]]
            means.append(sum(values) / len(values))
        value = figures[name].value if figures[name].value is not None else figures[name].partial
        assert value == pytest.approx(sum(means) / 2)


def test_each_row_says_what_it_counts_as(folder: Path, tmp_path: Path) -> None:
    rows = read_csv(folder, tmp_path / "rows.csv")
    kinds = {(row["generation_status"], row["score_status"]): row for row in rows}
    assert {status for status, _ in kinds} == {"ok", "failed", "refused"}
    for (generation, score), row in kinds.items():
        if generation != "ok":
            assert row["counts_as"] == "0" and float(row["overall"]) == 0.0 and float(row["faithfulness"]) == 0.0
        elif score == "failed":
            assert row["counts_as"] == "excluded" and row["overall"] == "" and row["faithfulness"] == ""
        else:
            assert float(row["counts_as"]) == pytest.approx(float(row["overall"]), abs=1e-4)
    assert {row["system"] for row in rows} == {"painter"} and all(row["prompt"] for row in rows)
    assert {row["selection"] for row in rows} == {"all 48"} and "score" not in rows[0]


def test_pandas_has_the_columns_of_the_csv(folder: Path, tmp_path: Path) -> None:
    rows = read_csv(folder, tmp_path / "rows.csv")
    frame = load_run(folder).to_pandas()
    assert list(frame.columns) == list(rows[0]) and len(frame) == len(rows)
    assert frame["generation_cost"].sum() > 0 and set(frame["counts_as"]) >= {"0", "excluded"}


def test_a_part_of_a_task_is_marked_in_every_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    command = ["run", "--task", "knowgen_mini", "--generator", "noise", "--limit", "2", "--out", str(run)]
    assert knowgen([*command, "--workers", "0"]) == 0
    capsys.readouterr()
    rows = read_csv(run, tmp_path / "rows.csv")
    assert rows[0]["selection"].startswith("2 stratified (")
    assert "only a part of the task: 2 stratified (" in capsys.readouterr().out
    official = tmp_path / "results.json"
    assert knowgen(["export", str(run), "--format", "official", "-o", str(official)]) == 0
    closing = [row for row in json.loads(official.read_text()) if "summary_type" in row]
    assert len(closing) == 3 and all(row["selection"].startswith("2 stratified (") for row in closing)
