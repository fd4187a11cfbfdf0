"""Paired comparisons, worked by hand."""

from __future__ import annotations

from typing import Any

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


def test_only_samples_that_both_have_a_figure_for_are_compared() -> None:
    found = compare(A, B, UNBOUND, a_name="plain", b_name="agent")
    assert (found.paired, found.better, found.equal, found.worse) == (4, 1, 2, 1)
    assert (found.only_a, found.only_b, found.unscored) == (("only a",), (), ("5",))
    assert found.headline.a == pytest.approx(2.5 / 4) and found.headline.b == pytest.approx(2 / 4)
    assert found.headline.value == pytest.approx(-0.125)
    assert found.slice("category", "physics").figures["overall"].value == pytest.approx(0.25)
    assert found.slice("category", "art").figures["text_accuracy"].value == pytest.approx(-0.5)
    assert found.headline.note == "n too small" and found.headline.p is None
    assert found.headline.p_permutation == 1.0  # gains .5 and -1: as large with any signs
    assert found.notes[0] == "1 sample only in the first run: left out"
    assert found.notes[1] == "1 sample without a figure in one of the runs: left out of both"
    assert Comparison.model_validate_json(found.model_dump_json()) == found


def test_official_leaves_a_failed_generation_out_on_both_sides() -> None:
    found = compare(A, B, OFFICIAL.model_copy(update={"min_coverage": 0.0}))
    assert found.unscored == ("4", "5")
    assert found.headline.a == pytest.approx(0.5 * 0.5) and found.headline.b == pytest.approx(0.3334, abs=1e-4)


def test_a_difference_on_every_sample_is_as_sure_as_the_resamples_allow() -> None:
    """Half of the samples gain .2 and half .4: no resample is without a gain, and one exchange in 2^11 is as large."""
    a = [row(f"{i:02}", "physics", reading(0, 0, 0.5, 0), text_required=True) for i in range(12)]
    b = [row(f"{i:02}", "physics", reading(0, 0.5 + i % 2 / 2, 0.5, 0), text_required=True) for i in range(12)]
    found = compare(a, b, resamples=999)
    head = found.headline
    assert head.value == pytest.approx(0.3) and head.low is not None and head.high is not None
    assert 0.2 <= head.low < 0.3 < head.high <= 0.4
    assert head.p == pytest.approx(2 / 1000)
    assert head.p_permutation == 2 / 4096 and (found.relabellings, found.exact) == (4096, True)
    assert head.effect == pytest.approx(0.3 / (0.1 * (12 / 11) ** 0.5))
    assert head.standard_error is not None
    assert head.standard_error == pytest.approx(0.1 / 11**0.5, rel=0.08)
    assert head.detectable == pytest.approx(2.8016 * head.standard_error, rel=1e-4)
    level = found.slice().figures["text_accuracy"]
    assert (level.value, level.low, level.note, level.p_permutation) == (0.0, None, "n too small", 1.0)


def test_a_difference_that_is_the_same_on_all_samples_says_nothing_about_its_spread() -> None:
    """No resample can differ from it, so an interval of no width would claim what was not seen; the test is exact."""
    a = [row(str(i), "physics", reading(0, 0.5, 0.5, 0), text_required=True) for i in range(10)]
    b = [row(str(i), "physics", reading(0, 1, 0.5, 0), text_required=True) for i in range(10)]
    found = compare(a, b).headline
    assert found.value == pytest.approx(0.2) and (found.low, found.note) == (None, "n too small")
    assert found.p_permutation == 2 / 1024 and found.effect is None and found.detectable is None
    assert compare(a, b, resamples=0, permutations=0).headline.p_permutation is None


def test_judges_and_repeats_that_differ_are_said() -> None:
    a = [perfect("1", "physics", judge_returned="judge-a"), perfect("1", "physics", judge_returned="judge-a", repeat=1)]
    b = [perfect("1", "physics", judge_returned="judge-b")]
    notes = compare(a, b).notes
    assert "the runs were not judged by the same models: judge-a and judge-b" in notes
    assert any("differ in repeats" in note for note in notes)


def test_a_sample_that_is_not_the_same_in_both_is_refused() -> None:
    with pytest.raises(DataError, match="sample '1': the two runs disagree on its category"):
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
def test_what_was_not_measured_alike_is_not_compared(name: str, value: str) -> None:
    labels: dict[str, Any] = {"task": "t", "task_version": "1-aa", "scorer": "world_check", "scorer_version": "1"}
    a = aggregate([perfect("1", "physics")], system="plain", **labels)
    b = a.model_copy(update={"system": "agent", name: value})
    check_comparable(a, a.model_copy(update={"system": "agent", "selection": "limit 3 (ab)"}))
    with pytest.raises(
        UsageError, match=f"plain and agent: {name.replace('_', ' ')} .* cannot be compared; score both"
    ):
        check_comparable(a, b)
