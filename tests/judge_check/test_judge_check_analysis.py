"""The analysis of a judge's scores of known changes, by worked cases and against the definition of the interval."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowgen.core.records import DIMENSIONS, ParsedScore
from knowgen.judge_check.analysis import (
    MIN_IMAGES,
    CheckedImage,
    Expectation,
    check_image,
    judge_changes,
    overall,
    wilson,
)
from knowgen.judge_check.records import ChangeResult
from tests.helpers.score_rows import FAILED, NOT_RUN, reading

F, V, T, A = DIMENSIONS

NOTHING = Expectation("nothing", "nothing is done", unchanged=True)
DIGIT = Expectation("digit", "a digit is wrong", falls=frozenset({T}))
MISSING = Expectation("missing", "a subject is gone", falls=frozenset({F, V}), may=frozenset({A}))
LAYOUT = Expectation("layout", "arranged otherwise")
FULL = reading(1, 1, 1, 1)
WRONG_TEXT = reading(1, 1, 0.5, 1)

Change = tuple[Expectation, list[ParsedScore]]


def scored_as(base: list[ParsedScore], *changes: Change) -> dict[str, ChangeResult]:
    """Results by change, where the n-th reading of each list is of the n-th sample."""
    checked = [CheckedImage(f"s{number}", "nothing", (one,)) for number, one in enumerate(base)]
    for expectation, readings in changes:
        checked += [CheckedImage(f"s{number}", expectation.name, (one,)) for number, one in enumerate(readings)]
    results = judge_changes([NOTHING, *(expectation for expectation, _ in changes)], checked, DIMENSIONS)
    return {result.name: result for result in results}


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [  # as R's prop.test(..., correct = FALSE) gives them
        (8, 10, 0.4901625, 0.9433178),
        (10, 10, 0.7224672, 1.0),
        (0, 10, 0.0, 0.2775328),
    ],
)
def test_wilson_intervals_equal_those_of_r(hits: int, n: int, low: float, high: float) -> None:
    rate = wilson(hits, n)
    assert (rate.value, rate.n) == (hits / n, n)
    assert rate.low == pytest.approx(low, abs=5e-7) and rate.high == pytest.approx(high, abs=5e-7)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_at_its_ends_the_score_test_is_just_significant(case: tuple[int, int]) -> None:
    hits, n = case
    rate = wilson(hits, n)
    assert rate.value is not None and rate.low is not None and rate.high is not None
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    for end in (rate.low, rate.high):
        if 1e-9 < end < 1 - 1e-9:
            assert abs(rate.value - end) / math.sqrt(end * (1 - end) / n) == pytest.approx(1.959964, abs=1e-5)


def test_no_images_have_no_rate() -> None:
    assert wilson(0, 0).value is None
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson(3, 2)


def test_a_judge_that_detects_only_the_change_is_fit() -> None:
    result = scored_as([FULL] * 10, (DIGIT, [WRONG_TEXT] * 10))["digit"]
    assert result.verdict == "fit" and result.reason == ""
    assert result.sensitivity is not None and result.sensitivity.value == 1
    assert result.specificity is not None and result.specificity.value == 1
    text = next(moved for moved in result.movements if moved.dimension == T)
    assert (text.down, text.unchanged, text.up, text.mean, text.n) == (1, 0, 0, -0.5, 10)


def test_rates_are_shares_of_images() -> None:
    """Ten images: seven right, one unseen, one seen with a fault beside it, one seen while aesthetics rose."""
    base = [FULL] * 9 + [reading(1, 1, 1, 0.5)]
    after = [WRONG_TEXT] * 7 + [FULL, reading(1, 0.5, 0, 1), WRONG_TEXT]
    result = scored_as(base, (DIGIT, after))["digit"]
    assert result.sensitivity is not None and result.sensitivity.hits == 9
    assert result.specificity is not None and result.specificity.hits == 8
    moved = {one.dimension: one for one in result.movements}
    assert (moved[V].down, moved[V].up) == (0.1, 0)
    assert (moved[A].down, moved[A].up) == (0, 0.1) and moved[A].mean == pytest.approx(0.05)
    assert moved[T].mean == pytest.approx((8 * -0.5 + 0 - 1) / 10)


def test_all_dimensions_that_must_fall_have_to_fall() -> None:
    after = [reading(0.5, 0, 1, 1)] * 6 + [reading(1, 0, 1, 1)] * 4
    result = scored_as([FULL] * 10, (MISSING, after))["missing"]
    assert result.sensitivity is not None and result.sensitivity.hits == 6
    assert result.specificity is not None and result.specificity.hits == 10
    assert result.verdict == "unfit" and "sensitivity 0.600" in result.reason


def test_dimensions_that_may_fall_do_not_count() -> None:
    after = [reading(0, 0, 1, 0)] * 5 + [reading(0, 0, 1, 1)] * 5
    assert scored_as([FULL] * 10, (MISSING, after))["missing"].verdict == "fit"


def test_a_judge_is_compared_with_its_own_score_of_the_truth() -> None:
    """A judge that gives the truth 0.5 is measured from 0.5; the unchanged image is compared with full marks."""
    half = reading(0.5, 0.5, 0.5, 0.5)
    results = scored_as([half] * 10, (DIGIT, [reading(0.5, 0.5, 0, 0.5)] * 10))
    assert results["digit"].verdict == "fit"
    assert results["nothing"].verdict == "unfit" and "specificity 0.000" in results["nothing"].reason
    assert results["nothing"].sensitivity is None


def test_a_value_that_is_already_0_counts_as_not_detected() -> None:
    base = [FULL] * 8 + [reading(1, 1, 0, 1)] * 2
    result = scored_as(base, (DIGIT, [reading(1, 1, 0, 1)] * 10))["digit"]
    text = next(moved for moved in result.movements if moved.dimension == T)
    assert text.floored == 2 and text.down == 0.8
    assert result.sensitivity is not None and result.sensitivity.hits == 8
    checked = check_image(
        DIGIT, CheckedImage("s8", "digit", (base[8],)), CheckedImage("s8", "nothing", (base[8],)), DIMENSIONS
    )
    assert checked.faults == ((T, "was 0 already and could not fall"),)


def test_small_differences_do_not_count_as_moves() -> None:
    steady = scored_as([reading(0.9, 0.9, 0.9, 0.9)] * 10, (LAYOUT, [reading(0.7, 1, 0.8, 0.9)] * 10))["layout"]
    assert steady.verdict == "fit"
    loose = scored_as([reading(0.9, 0.9, 0.9, 0.9)] * 10, (LAYOUT, [reading(0.65, 1, 0.8, 0.9)] * 10))["layout"]
    assert loose.verdict == "unfit"


def test_several_scores_count_by_their_mean_and_failed_ones_are_left_out() -> None:
    checked = [CheckedImage("s", "nothing", (FULL, FULL, FULL)), CheckedImage("s", "digit", (WRONG_TEXT, FULL, FAILED))]
    digit = judge_changes([NOTHING, DIGIT], checked, DIMENSIONS)[1]
    assert digit.sensitivity is not None and digit.sensitivity.hits == 1  # 0.75 is a quarter below 1
    assert (digit.n, digit.failed, digit.scores) == (1, 1, 3)


def test_a_gained_or_lost_value_counts_as_moved() -> None:
    gone = scored_as([FULL] * 10, (LAYOUT, [reading(1, 1, None, 1)] * 10))["layout"]
    assert gone.specificity is not None and gone.specificity.hits == 0
    unseen = scored_as([FULL] * 10, (DIGIT, [reading(1, 1, None, 1)] * 10))["digit"]
    assert unseen.sensitivity is not None and unseen.sensitivity.hits == 0
    without = reading(1, 1, None, 1)
    assert scored_as([without] * 10, (LAYOUT, [without] * 10))["layout"].verdict == "fit"


def test_failures_count_for_no_rate_and_have_their_own_limit() -> None:
    result = scored_as([FULL] * 20, (DIGIT, [WRONG_TEXT] * 10 + [FAILED] * 10))["digit"]
    assert (result.n, result.failed, result.images) == (10, 10, 20)
    assert result.sensitivity is not None and result.sensitivity.value == 1
    assert result.verdict == "unfit" and "10 of 20 scores failed" in result.reason


def test_an_image_counts_only_if_its_unchanged_image_has_a_score() -> None:
    result = scored_as([FULL] * 9 + [FAILED, NOT_RUN], (DIGIT, [WRONG_TEXT] * 10 + [NOT_RUN]))["digit"]
    assert (result.n, result.no_baseline, result.not_run, result.images) == (9, 1, 1, 11)
    checked = check_image(
        DIGIT, CheckedImage("s9", "digit", (WRONG_TEXT,)), CheckedImage("s9", "nothing", (FAILED,)), DIMENSIONS
    )
    assert checked.outcome == "not scored" and "unchanged" in checked.faults[0][1]


@pytest.mark.parametrize(
    ("seen", "n", "verdict"),
    [
        (MIN_IMAGES, MIN_IMAGES, "fit"),
        (MIN_IMAGES - 1, MIN_IMAGES - 1, "n too small"),  # all seen, and too few
        (0, 2, "unfit"),  # the whole interval is below the limit, although there are few images
        (0, 1, "n too small"),  # so it does here, but a good judge misses the first one time in ten
        (21, 24, "n too small"),  # below the limit, but the limit is within its interval
        (19, 24, "n too small"),  # ends at 0.908
        (18, 24, "unfit"),  # ends at 0.880
        (22, 24, "fit"),
        (127, 144, "n too small"),
        (880, 1000, "unfit"),
    ],
)
def test_verdicts_depend_on_rate_interval_and_number_of_images(seen: int, n: int, verdict: str) -> None:
    after = [WRONG_TEXT] * seen + [FULL] * (n - seen)
    assert scored_as([FULL] * n, (DIGIT, after))["digit"].verdict == verdict


def test_a_change_of_no_dimension_of_the_judge_is_not_applicable() -> None:
    checked = [CheckedImage("s", name, (ParsedScore(status="ok", values={A: 1.0}),)) for name in ("nothing", "digit")]
    nothing, digit = judge_changes([NOTHING, DIGIT], checked, (A,))
    assert digit.verdict == "not applicable" and nothing.verdict == "n too small"


def test_a_judge_is_fit_when_every_change_is() -> None:
    fit = scored_as([FULL] * 10, (DIGIT, [WRONG_TEXT] * 10), (LAYOUT, [FULL] * 10))
    assert overall(list(fit.values())) == (True, "it is fit for all 3 changes")
    few = scored_as([FULL] * 10, (DIGIT, [WRONG_TEXT] * 4), (LAYOUT, [FULL] * 10))
    assert overall(list(few.values())) == (False, "there are too few images to decide about digit")
    blind = scored_as([FULL] * 10, (DIGIT, [FULL] * 10), (LAYOUT, [FULL] * 4))
    assert overall(list(blind.values())) == (False, "it fails on digit")


def test_exactly_one_unchanged_image_is_required() -> None:
    with pytest.raises(ValueError, match="0 changes"):
        judge_changes([DIGIT], [], DIMENSIONS)


def test_image_results_name_the_wrong_dimensions() -> None:
    base = CheckedImage("s", "nothing", (FULL,))
    right = check_image(DIGIT, CheckedImage("s", "digit", (WRONG_TEXT,)), base, DIMENSIONS)
    assert (right.outcome, right.faults) == ("right", ())
    wrong = check_image(DIGIT, CheckedImage("s", "digit", (reading(0.5, 1, 1, 1),)), base, DIMENSIONS)
    assert wrong.outcome == "wrong" and set(wrong.faults) == {(T, "did not fall"), (F, "fell")}
    assert check_image(DIGIT, CheckedImage("s", "digit", (FAILED,)), base, DIMENSIONS).outcome == "failed"
    assert check_image(DIGIT, CheckedImage("s", "digit", (NOT_RUN,)), base, DIMENSIONS).outcome == "not scored"
