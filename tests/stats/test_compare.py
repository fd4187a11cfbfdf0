"""Paired comparisons, worked by hand."""

from __future__ import annotations

import pytest

from knowgen.core.errors import DataError, UsageError
from knowgen.stats.aggregate import aggregate
from knowgen.stats.compare.records import Comparison
from knowgen.stats.compare.systems import check_comparable, compare
from knowgen.stats.protocol import OFFICIAL
from tests.helpers.score_rows import FAILED, UNBOUND, perfect, reading, row

# Four common samples of one group; overall by sample:   a: 1 .5 0 1   b: 1 1 0 0
A = [
    row("1", "physics", reading(1, 1, 1, 1), text_required=True),
    row("2", "physics", reading(0.5, 0.5, 0.5, 0.5), text_required=True),
    row("3", "art", reading(0, 0, 0, 0), text_required=True),
    row("4", "art", reading(1, 1, 1, 1), text_required=True),
    row("5", "art", FAILED, text_required=True),
    row("only a", "art", reading(1, 1, 1, 1), text_required=True),
]
B = [
    row("4", "art", generation="failed", text_required=True),
    row("3", "art", reading(0, 0, 0, 0), text_required=True),
    row("2", "physics", reading(1, 1, 1, 1), text_required=True),
    row("1", "physics", reading(1, 1, 1, 1), text_required=True),
    row("5", "art", reading(1, 1, 1, 1), text_required=True),
]


def test_only_samples_scored_in_both_runs_are_compared() -> None:
    result = compare(A, B, UNBOUND, a_name="plain", b_name="agent")
    assert (result.paired, result.better, result.equal, result.worse) == (4, 1, 2, 1)
    assert (result.only_a, result.only_b, result.unscored) == (("only a",), (), ("5",))
    assert result.headline.a == pytest.approx(2.5 / 4) and result.headline.b == pytest.approx(2 / 4)
    assert result.headline.value == pytest.approx(-0.125)
    assert result.slice("category", "physics").figures["overall"].value == pytest.approx(0.25)
    assert result.slice("category", "art").figures["text_accuracy"].value == pytest.approx(-0.5)
    assert result.headline.note == "n too small" and result.headline.low is None
    assert (result.better_on, result.worse_on) == (("2",), ("4",))
    assert result.headline.p == 1.0  # gains .5 and -1: as large with any signs
    assert result.notes[0] == "1 sample only in the first run: left out"
    assert result.notes[1] == "1 sample without a score in one of the runs: left out of both"
    assert Comparison.model_validate_json(result.model_dump_json()) == result


def test_official_leaves_out_a_failed_generation_on_both_sides() -> None:
    result = compare(A, B, OFFICIAL.model_copy(update={"min_coverage": 0.0}))
    assert result.unscored == ("4", "5")
    assert result.headline.a == pytest.approx(0.5 * 0.5) and result.headline.b == pytest.approx(0.3334, abs=1e-4)


def test_a_difference_on_every_sample_has_the_smallest_possible_p_value() -> None:
    """Half of the samples gain .2 and half .4: one exchange in 2^17 is as large."""
    a = [row(f"{i:02}", "physics", reading(0, 0, 0.5, 0), text_required=True) for i in range(18)]
    b = [row(f"{i:02}", "physics", reading(0, 0.5 + i % 2 / 2, 0.5, 0), text_required=True) for i in range(18)]
    result = compare(a, b, permutations=2**18)
    head = result.headline
    assert head.value == pytest.approx(0.3) and head.low is not None and head.high is not None
    assert 0.2 <= head.low < 0.3 < head.high <= 0.4
    assert head.p == 2 / 2**18 and (result.relabellings, result.exact) == (2**18, True)
    assert head.effect == pytest.approx(0.3 / (0.1 * (18 / 17) ** 0.5))
    assert head.standard_error is not None
    assert head.standard_error == pytest.approx(0.1 / 17**0.5, rel=0.08)
    assert head.detectable == pytest.approx((2.10982 + 0.86328) * head.standard_error, rel=1e-4)
    level = result.slice().figures["text_accuracy"]
    assert (level.value, level.low, level.note, level.p) == (0.0, None, "all values equal", 1.0)
    assert len(result.better_on) == 18 and result.better_on[0] == "01"  # the larger gains first


def test_an_equal_difference_on_all_samples_has_no_interval() -> None:
    """An interval would have no width and claim too much; the test is exact."""
    a = [row(str(i), "physics", reading(0, 0.5, 0.5, 0), text_required=True) for i in range(18)]
    b = [row(str(i), "physics", reading(0, 1, 0.5, 0), text_required=True) for i in range(18)]
    result = compare(a, b, permutations=2**18).headline
    assert result.value == pytest.approx(0.2) and (result.low, result.note) == (None, "all values equal")
    assert result.p == 2 / 2**18 and result.effect is None and result.detectable is None
    assert compare(a, b, permutations=0).headline.p is None


def test_different_judges_and_repeats_are_noted() -> None:
    a = [perfect("1", "physics", judge_returned="judge-a"), perfect("1", "physics", judge_returned="judge-a", repeat=1)]
    b = [perfect("1", "physics", judge_returned="judge-b")]
    notes = compare(a, b).notes
    assert "the judge models of the runs differ: judge-a and judge-b" in notes
    assert any("differ in repeats" in note for note in notes)


def test_a_sample_that_differs_between_the_runs_is_refused() -> None:
    with pytest.raises(DataError, match="sample '1': the two runs have different categories"):
        compare([perfect("1", "physics")], [perfect("1", "art")])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task_version", "2-ff"),
        ("scorer", "vlm:x"),
        ("scorer_version", "9"),
        ("protocol", "official"),
        ("task", "other"),
    ],
)
def test_runs_measured_differently_are_refused(name: str, value: str) -> None:
    labels = {"task": "t", "task_version": "1-aa", "scorer": "world_check", "scorer_version": "1"}
    a = aggregate([perfect("1", "physics")], system="plain", **labels)  # type: ignore[arg-type]
    b = a.model_copy(update={"system": "agent", name: value})
    check_comparable(a, a.model_copy(update={"system": "agent", "selection": "limit 3 (ab)"}))
    with pytest.raises(
        UsageError, match=f"plain and agent: different {name.replace('_', ' ')}: .* cannot be compared; score both"
    ):
        check_comparable(a, b)
