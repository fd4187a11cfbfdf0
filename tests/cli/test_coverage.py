"""A judge that fails for most samples: no surface gives a figure, and all of them say why."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from knowgen import api
from knowgen.cli.main import run
from knowgen.suites import run_suite
from tests.helpers.small_task import make_task

pytestmark = pytest.mark.usefixtures("in_process")

PARTLY_DOWN = '''
from pathlib import Path
from knowgen.core.records import DIMENSIONS, ParsedScore, Score, ScoreStatus

class PartlyDown:
    """Answers for the samples in answers.txt, and fails for all others."""
    needs = frozenset({"image"})
    version = "1"
    async def score(self, sample, truth, generation):
        if sample.id in Path("answers.txt").read_text().split():
            reading = ParsedScore(status=ScoreStatus.OK, values=dict.fromkeys(DIMENSIONS, 0.417))
        else:
            words = ("connection reset", "broken pipe")  # one reason alone would pause the scorer
            reading = ParsedScore(status=ScoreStatus.FAILED, reason=words[sum(sample.id.encode()) % 2])
        place = {"sample_id": sample.id, "repeat": generation.repeat}
        return Score(**place, scorer="partly_down", status=reading.status, strict=reading)
'''
SIZE, ANSWERED = 48, 5
REASON = "43 of 48 scores failed"
NO_RESULT = f"No result: {REASON}"
WORDS = ["run", "--task", "large", "--generator", "my_generator.py:draw", "--scorer", "partly_down:PartlyDown"]


@pytest.fixture
def large(workspace: Path) -> Iterator[Path]:
    """Yield a folder with a task of 48 samples, 8 per category, and a scorer that fails on all but the first five."""
    make_task(workspace / "large", [f"prompt {number}" for number in range(SIZE)])
    (workspace / "large" / "task.yaml").write_text("name: large\ndefault_scorers: ['partly_down:PartlyDown']\n")
    (workspace / "partly_down.py").write_text(PARTLY_DOWN)
    answer_for(workspace, ANSWERED)
    yield workspace
    sys.modules.pop("partly_down", None)


def answer_for(workspace: Path, count: int) -> None:
    (workspace / "answers.txt").write_text("\n".join(f"s{number}" for number in range(count)))


def page_of(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def text_of(markup: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", markup)).split())


def first(pattern: str, page: str) -> str:
    match = re.search(pattern, page, re.DOTALL)
    assert match is not None
    return text_of(match[1])


def test_every_surface_says_that_the_result_is_missing(large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*WORDS, "--out", "down"]) == 6
    printed = capsys.readouterr().out
    assert NO_RESULT in printed and "no result" in printed and "0.417" not in printed
    assert "run the same command again" in printed and "not fit for a leaderboard" in printed

    summaries = json.loads((large / "down" / "summary.json").read_text())["summaries"]
    strict, official = summaries
    assert [each["protocol"] for each in summaries] == ["strict", "official"]
    for each in summaries:
        assert each["no_result"] == REASON and each["fit_for_board"] is False
    overall = strict["slices"][0]["figures"]["overall"]
    assert (overall["value"], overall["low"], overall["note"]) == (None, None, NO_RESULT)
    assert overall["partial"] == pytest.approx(0.417)
    assert official["slices"][0]["figures"]["overall"]["value"] == 0.417  # the published arithmetic, to the last digit

    for protocol in ("strict", "official"):
        (markdown,) = (large / "down" / "tables").glob(f"*-{protocol}.md")
        table = markdown.read_text()
        assert NO_RESULT in table and "not fit for a leaderboard" in table
        head = next(line for line in table.splitlines() if "my" in line and "|" in line and "K-Score" not in line)
        assert ("no result" in head) if protocol == "strict" else ("0.417 partial" in head)
        with markdown.with_suffix(".csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if (row["kind"], row["figure"]) == ("all", "overall")]
        assert [(row["fit_for_board"], row["no_result"]) for row in rows] == [("false", REASON)]
        assert (rows[0]["value"] == "") is (protocol == "strict")

    loaded = api.load_run("down").summary
    assert loaded.headline.value is None and loaded.headline.note == NO_RESULT and not loaded.fit_for_board

    assert run(["list", "runs", "."]) == 0
    assert f"strict no result: {REASON}" in capsys.readouterr().out


def test_the_page_leads_with_the_reason(large: Path) -> None:
    assert run([*WORDS, "--out", "down"]) == 6
    page = page_of(large / "down" / "report")
    assert first("<title>(.*?)</title>", page).startswith(f"{NO_RESULT}.")
    panels = page.split('<div class="panel"')[1:]
    assert len(panels) == 2
    for panel, shown in zip(panels, ("no result", "0.417 partial"), strict=True):
        assert first("<h1[^>]*>(.*?)</h1>", panel) == f"{NO_RESULT}."
        lede = first('<p class="lede">(.*?)</p>', panel)
        assert "at least 95 %" in lede and "run the same command again" in lede
        board = panel[panel.index('class="board"') : panel.index("</table>")]
        cells = [text_of(cell) for cell in re.findall("<td[^>]*>(.*?)</td>", board, re.DOTALL)]
        assert cells[0] == shown
        assert f"no result: {REASON}" in text_of(board)
        assert all("partial" in cell for cell in cells if "0.417" in cell)
    assert "reaches a K" not in page


def test_a_further_run_brings_the_result(large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*WORDS, "--out", "down"]) == 6
    answer_for(large, SIZE - 3)  # 45 of 48 are 93.75 %
    assert run([*WORDS, "--out", "down"]) == 6
    assert api.load_run("down").summary.headline.note == "No result: 3 of 48 scores failed"
    answer_for(large, SIZE - 2)  # 46 of 48 are 95.8 %
    capsys.readouterr()
    assert run([*WORDS, "--out", "down"]) == 6
    assert "0.417" in capsys.readouterr().out
    summary = api.load_run("down").summary
    assert summary.headline.value == pytest.approx(0.417) and summary.fit_for_board
    title = first("<title>(.*?)</title>", page_of(large / "down" / "report"))
    assert "reaches a K-Score of 0.417" in title


def test_coverage_counts_within_the_selection(large: Path) -> None:
    assert run([*WORDS, "--ids", "s0,s1,s2,s3,s4", "--out", "few"]) == 0
    summary = api.load_run("few").summary
    assert summary.headline.value == pytest.approx(0.417) and not summary.no_result
    assert not summary.fit_for_board  # a part of the task


@pytest.mark.parametrize("protocol", ["strict", "official"])
def test_compare_and_report_give_no_difference(large: Path, protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*WORDS, "--out", "down"]) == 6
    answer_for(large, SIZE)
    assert run([*WORDS, "--seed", "1", "--out", "up"]) == 0
    capsys.readouterr()
    assert run(["compare", "up", "down", "--protocol", protocol]) == 0
    printed = capsys.readouterr().out
    verdict = next(line for line in printed.splitlines() if "No result" in line)
    assert REASON in verdict and "(down)" in verdict and "0.417" not in printed
    assert run(["compare", "up", "down", "--protocol", protocol, "--json"]) == 0
    (comparison,) = json.loads(capsys.readouterr().out)
    assert REASON in comparison["no_result"]
    assert comparison["slices"][0]["figures"]["overall"]["value"] is None

    assert run(["report", "up", "down", "-o", "both"]) == 0
    page = page_of(large / "both")
    assert first("<title>(.*?)</title>", page).startswith("my_generator") and "K-Score of 0.417" in page
    ledes = [text_of(each) for each in re.findall('<p class="lede">(.*?)</p>', page, re.DOTALL)]
    assert any(f"has no result: {REASON}." in lede for lede in ledes)


def test_a_suite_gives_no_mean_over_a_task_without_result(large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_task(large / "brief", [f"short {number}" for number in range(5)])
    (large / "brief" / "task.yaml").write_text("name: brief\ndefault_scorers: ['partly_down:PartlyDown']\n")
    (large / "suite.yaml").write_text(
        "systems:\n  - name: drawer\n    generator: my_generator.py:draw\n"
        "tasks:\n  - large\n  - brief\nscorers: ['partly_down:PartlyDown']\n"
    )
    assert run(["suite", "suite.yaml", "--out", "all"]) == 6
    printed = capsys.readouterr().out
    assert NO_RESULT in printed and f"no mean without large ({REASON})" in printed
    result = run_suite(large / "suite.yaml", large / "all")
    for mean in result.means:
        assert mean.figure.value is None and mean.by_task["large"].value is None
        assert mean.by_task["brief"].value == pytest.approx(0.417)
    frame = result.to_pandas()
    lines = frame[(frame["task"] == "large") & (frame["protocol"] == "strict")]
    assert lines["value"].isna().all() and (lines["no_result"] == REASON).all()
