"""What a judge made of known changes, by hand-worked cases and against the definition of the interval."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowgen.core.records import DIMENSIONS, TEXT, ParsedScore, ScoreStatus
from knowgen.judge_check.analysis import (
    LEAST_PICTURES,
    CheckedImage,
    Expectation,
    account,
    judge_changes,
    overall,
    wilson,
)
from knowgen.judge_check.records import ChangeResult

F, V, T, A = DIMENSIONS
NOTHING = Expectation("nothing", "nothing is done", unchanged=True)
DIGIT = Expectation("digit", "a digit is wrong", falls=frozenset({T}))
MISSING = Expectation("missing", "a subject is gone", falls=frozenset({F, V}), may=frozenset({A}))
LAYOUT = Expectation("layout", "arranged otherwise")
FULL = reading(1, 1, 1, 1)
WRONG_TEXT = reading(1, 1, 0.5, 1)

Change = tuple[Expectation, list[ParsedScore]]


def judged_as(base: list[ParsedScore], *changes: Change) -> dict[str, ChangeResult]:
    """Results by change, where the n-th reading of each list is of the n-th sample."""
    judged = [CheckedImage(f"s{number}", "nothing", (one,)) for number, one in enumerate(base)]
    for expectation, readings in changes:
        judged += [CheckedImage(f"s{number}", expectation.name, (one,)) for number, one in enumerate(readings)]
    results = judge_changes([NOTHING, *(expectation for expectation, _ in changes)], judged, DIMENSIONS)
    return {result.name: result for result in results}


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [  # as R's prop.test(..., correct = FALSE) gives them
        (8, 10, 0.4901625, 0.9433178),
        (10, 10, 0.7224672, 1.0),
        (0, 10, 0.0, 0.2775328),
    ],
)
def test_wilson_intervals_are_the_published_ones(hits: int, n: int, low: float, high: float) -> None:
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
    with pytest.raises(ValueError, match="3 of 2"):
        wilson(3, 2)


def test_a_judge_that_sees_the_change_and_nothing_else_is_fit() -> None:
    result = judged_as([FULL] * 10, (DIGIT, [WRONG_TEXT] * 10))["digit"]
    assert result.verdict == "fit" and result.reason == ""
    assert result.sensitivity is not None and result.sensitivity.value == 1
    assert result.specificity is not None and result.specificity.value == 1
    text = next(moved for moved in result.movements if moved.dimension == T)
    assert (text.down, text.unchanged, text.up, text.mean, text.n) == (1, 0, 0, -0.5, 10)


def test_rates_are_shares_of_images() -> None:
    """Ten images: seven right, one unseen, one seen with a fault beside it, one seen while aesthetics rose."""
    base = [FULL] * 9 + [reading(1, 1, 1, 0.5)]
    after = [WRONG_TEXT] * 7 + [FULL, reading(1, 0.5, 0, 1), WRONG_TEXT]
    result = judged_as(base, (DIGIT, after))["digit"]
    assert result.sensitivity is not None and result.sensitivity.hits == 9
    assert result.specificity is not None and result.specificity.hits == 8
    moved = {one.dimension: one for one in result.movements}
    assert (moved[V].down, moved[V].up) == (0.1, 0)
    assert (moved[A].down, moved[A].up, moved[A].mean) == (0, 0.1, pytest.approx(0.05))
    assert moved[T].mean == pytest.approx((8 * -0.5 + 0 - 1) / 10)


def test_every_dimension_that_must_fall_has_to() -> None:
    after = [reading(0.5, 0, 1, 1)] * 6 + [reading(1, 0, 1, 1)] * 4
    result = judged_as([FULL] * 10, (MISSING, after))["missing"]
    assert result.sensitivity is not None and result.sensitivity.hits == 6
    assert result.specificity is not None and result.specificity.hits == 10
    assert result.verdict == "unfit" and "sensitivity 0.600" in result.reason


def test_what_may_fall_counts_neither_way() -> None:
    after = [reading(0, 0, 1, 0)] * 5 + [reading(0, 0, 1, 1)] * 5
    assert judged_as([FULL] * 10, (MISSING, after))["missing"].verdict == "fit"


def test_a_judge_is_held_against_its_own_reading_of_the_truth() -> None:
    """One that gives the truth one half moves from one half; the unchanged image is held against full marks."""
    half = reading(0.5, 0.5, 0.5, 0.5)
    results = judged_as([half] * 10, (DIGIT, [reading(0.5, 0.5, 0, 0.5)] * 10))
    assert results["digit"].verdict == "fit"
    assert results["nothing"].verdict == "unfit" and "specificity 0.000" in results["nothing"].reason
    assert results["nothing"].sensitivity is None


def test_what_is_0_already_cannot_fall_and_counts_as_unseen() -> None:
    base = [FULL] * 8 + [reading(1, 1, 0, 1)] * 2
    result = judged_as(base, (DIGIT, [reading(1, 1, 0, 1)] * 10))["digit"]
    text = next(moved for moved in result.movements if moved.dimension == T)
    assert text.floored == 2 and text.down == 0.8
    assert result.sensitivity is not None and result.sensitivity.hits == 8
    told = account(
        DIGIT, CheckedImage("s8", "digit", (base[8],)), CheckedImage("s8", "nothing", (base[8],)), DIMENSIONS
    )
    assert told.faults == ((T, "was 0 already and could not fall"),)


def test_small_wobbles_are_no_moves() -> None:
    steady = judged_as([reading(0.9, 0.9, 0.9, 0.9)] * 10, (LAYOUT, [reading(0.7, 1, 0.8, 0.9)] * 10))["layout"]
    assert steady.verdict == "fit"
    loose = judged_as([reading(0.9, 0.9, 0.9, 0.9)] * 10, (LAYOUT, [reading(0.65, 1, 0.8, 0.9)] * 10))["layout"]
    assert loose.verdict == "unfit"


def test_several_scores_count_by_their_mean_and_failed_ones_are_left_out() -> None:
    judged = [CheckedImage("s", "nothing", (FULL, FULL, FULL)), CheckedImage("s", "digit", (WRONG_TEXT, FULL, FAILED))]
    digit = judge_changes([NOTHING, DIGIT], judged, DIMENSIONS)[1]
    assert digit.sensitivity is not None and digit.sensitivity.hits == 1  # 0.75 is a quarter below 1
    assert (digit.n, digit.failed, digit.scores) == (1, 1, 3)


def test_a_value_that_comes_or_goes_did_not_stay() -> None:
    gone = judged_as([FULL] * 10, (LAYOUT, [reading(1, 1, None, 1)] * 10))["layout"]
    assert gone.specificity is not None and gone.specificity.hits == 0
    unseen = judged_as([FULL] * 10, (DIGIT, [reading(1, 1, None, 1)] * 10))["digit"]
    assert unseen.sensitivity is not None and unseen.sensitivity.hits == 0
    without = reading(1, 1, None, 1)
    assert judged_as([without] * 10, (LAYOUT, [without] * 10))["layout"].verdict == "fit"


def test_failures_are_in_no_rate_and_have_a_limit_of_their_own() -> None:
    result = judged_as([FULL] * 20, (DIGIT, [WRONG_TEXT] * 10 + [FAILED] * 10))["digit"]
    assert (result.n, result.failed, result.images) == (10, 10, 20)
    assert result.sensitivity is not None and result.sensitivity.value == 1
    assert result.verdict == "unfit" and "10 of 20 scores failed" in result.reason


def test_a_image_counts_only_beside_its_unchanged_one() -> None:
    result = judged_as([FULL] * 9 + [FAILED, NOT_RUN], (DIGIT, [WRONG_TEXT] * 10 + [NOT_RUN]))["digit"]
    assert (result.n, result.no_baseline, result.not_run, result.images) == (9, 1, 1, 11)
    told = account(
        DIGIT, CheckedImage("s9", "digit", (WRONG_TEXT,)), CheckedImage("s9", "nothing", (FAILED,)), DIMENSIONS
    )
    assert told.outcome == "not judged" and "unchanged" in told.faults[0][1]


@pytest.mark.parametrize(
    ("seen", "n", "verdict"),
    [
        (LEAST_PICTURES, LEAST_PICTURES, "fit"),
        (LEAST_PICTURES - 1, LEAST_PICTURES - 1, "n too small"),  # all seen, and too few
        (0, 2, "unfit"),  # the whole interval lies below the limit, few as they are
        (0, 1, "n too small"),  # so it does here, but a good judge misses the first one time in ten
        (21, 24, "n too small"),  # below the limit, which its interval holds
        (19, 24, "n too small"),  # ends at 0.908
        (18, 24, "unfit"),  # ends at 0.880
        (22, 24, "fit"),
        (127, 144, "n too small"),
        (880, 1000, "unfit"),
    ],
)
def test_verdicts_follow_rate_interval_and_number(seen: int, n: int, verdict: str) -> None:
    after = [WRONG_TEXT] * seen + [FULL] * (n - seen)
    assert judged_as([FULL] * n, (DIGIT, after))["digit"].verdict == verdict


def test_a_change_that_moves_nothing_the_judge_gives_is_not_applicable() -> None:
    judged = [CheckedImage("s", name, (ParsedScore(status="ok", values={A: 1.0}),)) for name in ("nothing", "digit")]
    nothing, digit = judge_changes([NOTHING, DIGIT], judged, (A,))
    assert digit.verdict == "not applicable" and nothing.verdict == "n too small"


def test_a_judge_is_fit_when_every_change_is() -> None:
    fit = judged_as([FULL] * 10, (DIGIT, [WRONG_TEXT] * 10), (LAYOUT, [FULL] * 10))
    assert overall(list(fit.values())) == (True, "it is fit for all 3 changes")
    few = judged_as([FULL] * 10, (DIGIT, [WRONG_TEXT] * 4), (LAYOUT, [FULL] * 10))
    assert overall(list(few.values())) == (False, "there are too few images to tell for digit")
    blind = judged_as([FULL] * 10, (DIGIT, [FULL] * 10), (LAYOUT, [FULL] * 4))
    assert overall(list(blind.values())) == (False, "it is unfit for digit")


def test_the_unchanged_image_must_be_there_once() -> None:
    with pytest.raises(ValueError, match="0 changes"):
        judge_changes([DIGIT], [], DIMENSIONS)


def test_accounts_name_what_went_wrong() -> None:
    base = CheckedImage("s", "nothing", (FULL,))
    right = account(DIGIT, CheckedImage("s", "digit", (WRONG_TEXT,)), base, DIMENSIONS)
    assert (right.outcome, right.faults) == ("right", ())
    wrong = account(DIGIT, CheckedImage("s", "digit", (reading(0.5, 1, 1, 1),)), base, DIMENSIONS)
    assert wrong.outcome == "wrong" and set(wrong.faults) == {(T, "did not fall"), (F, "fell")}
    assert account(DIGIT, CheckedImage("s", "digit", (FAILED,)), base, DIMENSIONS).outcome == "failed"
    assert account(DIGIT, CheckedImage("s", "digit", (NOT_RUN,)), base, DIMENSIONS).outcome == "not judged"
