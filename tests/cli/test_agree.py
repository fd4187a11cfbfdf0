"""`knowgen agree` on the command line."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from knowgen import api
from knowgen.cli.main import run
from knowgen.report.agreement_tables import agreement_csv, agreement_terminal
from knowgen.stats.agreement.records import Agreement, DimensionAgreement, PairAgreement
from knowgen.stats.summary import Figure

pytestmark = pytest.mark.usefixtures("in_process")

JUDGES = '''
from knowgen.core.records import DIMENSIONS, ParsedScore, Score, ScoreStatus

class One:
    """Gives 0, 0.5 or 1, depending on the number of the sample."""
    needs = frozenset({"image"})
    version = "1"
    shift = 0
    async def score(self, sample, truth, generation):
        value = (int(sample.id[1:]) + self.shift * (sample.id == "s1")) % 3 / 2
        reading = ParsedScore(status=ScoreStatus.OK, values=dict.fromkeys(DIMENSIONS, value))
        place = {"sample_id": sample.id, "repeat": generation.repeat, "scorer": type(self).__name__}
        return Score(**place, status=ScoreStatus.OK, strict=reading)

class Other(One):
    shift = 1

class Third(One):
    pass
'''
SCORERS = ("agreeing_judges:One", "agreeing_judges:Other", "agreeing_judges:Third")


@pytest.fixture
def scored_runs(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Path]:
    """Yield a folder with a run `a` scored by three judges; the second disagrees on sample s1."""
    (workspace / "agreeing_judges.py").write_text(JUDGES)
    words = ["run", "--task", "small", "--generator", "my_generator.py:draw", "--out", "a"]
    assert run([*words, *(word for scorer in SCORERS for word in ("--scorer", scorer))]) == 0
    capsys.readouterr()
    yield workspace
    sys.modules.pop("agreeing_judges", None)


def test_judges_of_one_run(scored_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agree", "a", "--json"]) == 0
    result = Agreement.model_validate(json.loads(capsys.readouterr().out))
    assert result.raters == SCORERS and len(result.pairs) == 3
    first = result.pairs[0].dimensions["aesthetics"]
    assert first.exact.value == pytest.approx(5 / 6) and first.exact.note == "n too small"
    assert result.pairs[1].dimensions["aesthetics"].kappa.value == 1.0
    # by hand: one 0-.5-1 judge and the other with s1 at 1 instead of .5: the mean squared distance is .25 / 6
    var = [1 / 6, (1 + 1 + 1 + 0.25) / 6 - (3.5 / 6) ** 2]
    assert first.kappa.value == pytest.approx(1 - (0.25 / 6) / (sum(var) + (0.5 / 6) ** 2))
    assert run(["agree", "a"]) == 0
    text = capsys.readouterr().out
    assert "agreeing_judges:One and agreeing_judges:Other" in text and "83 %" in text and "n too small" in text
    assert "All raters together" in text and "Krippendorff's, interval metric" in text


def test_labels_make_people_raters(scored_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["sample_id,rater,aesthetics"] + [f"s{n},anna,{n % 3 / 2}" for n in range(6)] + ["s0,ben,"]
    (scored_runs / "labels.csv").write_text("\n".join(lines))
    assert run(["agree", "a", "--labels", "labels.csv", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["raters"] == [*SCORERS, "human:anna", "human:ben"]
    pair = next(
        one for one in result["pairs"] if (one["first"], one["second"]) == ("agreeing_judges:One", "human:anna")
    )
    assert pair["dimensions"]["aesthetics"]["exact"]["value"] == 1.0 and set(pair["dimensions"]) == {"aesthetics"}


def test_a_panel_is_one_more_rater(scored_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agree", "a", "--panel", ",".join(SCORERS), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    panel = f"panel({', '.join(SCORERS)}; quorum 2)"
    pair = next(one for one in result["pairs"] if (one["first"], one["second"]) == ("agreeing_judges:One", panel))
    assert pair["dimensions"]["aesthetics"]["exact"]["value"] == 1.0  # the median of x, y, x


def test_several_runs_rank_the_systems(scored_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--task", "small", "--generator", "my_generator.py:draw"]
    for seed, name in ((1, "b"), (2, "c")):
        scorers = [word for scorer in SCORERS for word in ("--scorer", scorer)]
        assert run([*words, *scorers, "--seed", str(seed), "--out", name]) == 0
    capsys.readouterr()
    assert run(["agree", "a", "b", "c"]) == 0
    text = capsys.readouterr().out
    assert "Rank correlation of 3 systems" in text and "all systems are equal under one scorer" in text
    assert api.agree([api.load_run(name) for name in "abc"]).ranks[0].kendall.n == 3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["a", "--labels", "none.csv"], 3, "none.csv: is missing"),
        (["a", "--labels", "bad.csv"], 3, "bad.csv:2: aesthetics must be a number from 0 to 1, got 'fine'"),
        (["a", "--quorum", "2"], 2, "--quorum needs a panel"),
        (["a", "--panel", "agreeing_judges:One,nobody"], 2, "no scorer 'nobody' in this run"),
        (["lone"], 2, "one rater (agreeing_judges:One) is not enough to measure agreement"),
        (["nowhere"], 3, "not a run directory"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(
    scored_runs: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    (scored_runs / "bad.csv").write_text("sample_id,aesthetics\ns0,fine\n")
    lone = ["run", "--task", "small", "--generator", "my_generator.py:draw", "--out", "lone"]
    assert run([*lone, "--scorer", "agreeing_judges:One"]) == 0
    capsys.readouterr()
    assert run(["agree", *words]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_hostile_names_do_not_reach_the_terminal_raw_and_the_csv_has_every_digit() -> None:
    figure = Figure(value=1 / 3, low=0.1, high=0.7, n=31)
    one = DimensionAgreement(exact=figure, kappa=figure, alpha=Figure(n=31, note="no spread"), only_first=2)
    pair = PairAgreement(first="=a\x1b[31m", second="b|c", dimensions={"text_accuracy": one})
    result = Agreement(systems=("x",), protocol="strict", raters=("=a\x1b[31m", "b|c"), pairs=(pair,))
    text = agreement_terminal(result)
    assert "\x1b" not in text and "0.33 [0.10, 0.70]" in text and "no spread" in text
    rows = list(csv.DictReader(io.StringIO(agreement_csv(result))))
    assert [row["measure"] for row in rows] == ["exact", "kappa", "alpha"]
    assert float(rows[1]["value"]) == 1 / 3 and rows[2]["value"] == "" and rows[0]["first"].startswith("'=a")
