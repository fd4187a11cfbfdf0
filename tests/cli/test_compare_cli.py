"""`knowgen compare` with several runs, panels and protocols."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from knowgen import api
from knowgen.cli.main import run

pytestmark = pytest.mark.usefixtures("in_process")

JUDGES = '''
import hashlib
from knowgen.core.records import DIMENSIONS, ParsedScore, Score, ScoreStatus

class Strict:
    """Derives the score from the bytes of the image: systems differ, and scores are deterministic."""
    needs = frozenset({"image"})
    version = "1"
    lenience = 0.0
    fails = ()
    async def score(self, sample, truth, generation):
        digest = hashlib.sha256((generation.image.sha256 + sample.id).encode()).digest()
        place = {"sample_id": sample.id, "repeat": generation.repeat, "scorer": type(self).__name__}
        if sample.id in self.fails:
            reading = ParsedScore(status=ScoreStatus.FAILED, reason="no answer")
        else:
            values = {name: min(1.0, digest[n] % 2 / 2 + self.lenience) for n, name in enumerate(DIMENSIONS)}
            reading = ParsedScore(status=ScoreStatus.OK, values=values, rationale="seen")
        return Score(**place, status=reading.status, strict=reading)

class Kind(Strict):
    lenience = 0.5

class Absent(Strict):
    lenience = 0.5
    fails = ("s0", "s1")
'''
SCORERS = ("three_judges:Strict", "three_judges:Kind", "three_judges:Absent")
PANEL = ",".join(SCORERS)


@pytest.fixture
def runs(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Path]:
    """Yield a folder with runs a, b and c of one generator with different seeds, each scored by three judges."""
    (workspace / "three_judges.py").write_text(JUDGES)
    for seed, name in enumerate("abc"):
        words = ["run", "--task", "small", "--generator", "my_generator.py:draw", "--seed", str(seed), "--out", name]
        assert run([*words, *(word for scorer in SCORERS for word in ("--scorer", scorer))]) in (0, 6)
    capsys.readouterr()
    yield workspace
    sys.modules.pop("three_judges", None)


def output_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    code = run(words)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def test_further_runs_are_compared_with_the_first_and_corrected_for_their_number(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comparisons = json.loads(output_of(["compare", "a", "b", "c", "--json"], capsys))
    assert [(one["a"][-3:], one["b"][-3:]) for one in comparisons] == [("(a)", "(b)"), ("(a)", "(c)")]
    raw = [one["slices"][0]["figures"]["overall"]["p"] for one in comparisons]
    low, high = sorted(raw)
    expected = {low: min(1.0, 2 * low), high: max(high, min(1.0, 2 * low))}
    assert [one["p_holm"] for one in comparisons] == pytest.approx([expected[p] for p in raw])
    assert all(one["family"] == 2 and one["exact"] and one["paired"] == 6 for one in comparisons)
    text = output_of(["compare", "a", "b", "c"], capsys)
    assert "p: paired permutation test, all" in text and "corrected for 2 comparisons (Holm)" in text
    assert "All comparisons: K-Score" in text


def test_pairs_compares_every_two_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comparisons = json.loads(output_of(["compare", "a", "b", "c", "--pairs", "--json"], capsys))
    assert [(one["a"][-3:], one["b"][-3:]) for one in comparisons] == [("(a)", "(b)"), ("(a)", "(c)"), ("(b)", "(c)")]
    assert {one["family"] for one in comparisons} == {3}
    assert "All comparisons" not in output_of(["compare", "a", "b", "--pairs"], capsys)


def test_a_panel_takes_the_median_and_names_itself(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comparison = json.loads(output_of(["compare", "a", "b", "--panel", PANEL, "--quorum", "2", "--json"], capsys))[0]
    assert comparison["scorer"] == f"panel({', '.join(SCORERS)}; quorum 2)"
    assert comparison["paired"] == 6
    first = api.load_run("a")
    rows = {scorer: {row.sample_id: row.strict for row in first.rows(scorer)} for scorer in SCORERS}
    for row in api.panel_rows(first, SCORERS, 2):
        values = [one[row.sample_id].values for one in rows.values() if one[row.sample_id].values]
        middle = {name: sorted(one[name] for one in values)[(len(values) - 1) // 2] for name in values[0]}
        assert row.strict.values == middle
    assert api.panel_summary(first, SCORERS).scorer_note == "lower median of the members"
    text = output_of(["compare", "a", "b", "--panel", PANEL], capsys)
    assert "quorum 2) (lower median of the members)" in text


def test_a_quorum_of_all_leaves_out_samples_that_a_member_lacks(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comparison = json.loads(output_of(["compare", "a", "b", "--panel", PANEL, "--quorum", "3", "--json"], capsys))[0]
    assert comparison["paired"] == 4 and sorted(comparison["unscored"]) == ["s0", "s1"]
    coverage = api.panel_summary(api.load_run("a"), SCORERS, 3).slice().coverage
    assert (coverage.scored, coverage.score_failed) == (4, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--quorum", "2"], "--quorum needs a panel"),
        (["--panel", "three_judges:Strict"], "a panel needs at least two judges"),
        (["--panel", "three_judges:Strict,three_judges:Kind", "--quorum", "3"], "quorum: 3 of 2 members"),
        (["--panel", "three_judges:Strict,nobody"], "no scorer 'nobody' in this run"),
        (["--panel", PANEL, "--scorer", "three_judges:Kind"], "a scorer and a panel exclude each other"),
        (["--protocol", "na-renormalize"], "did you mean 'na-renormalise'?"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(["compare", "a", "b", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("protocol", ["na-renormalise", "genevolve-micro"])
def test_other_protocols_say_that_they_are_not_the_k_score(
    runs: Path, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    text = output_of(["compare", "a", "b", "c", "--protocol", protocol], capsys)
    assert f"note: {protocol} does not give a K-Score" in text
    assert "All comparisons: overall" in text and "\nK-Score" not in text
