"""A panel of judges, worked by hand."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import DIMENSIONS, TEXT, ParsedScore, Row, ScoreStatus
from knowgen.stats.aggregate import aggregate
from knowgen.stats.panel import JudgePanel, panel_of, panel_rows
from tests.helpers.score_rows import FAILED, NOT_APPLICABLE, NOT_RUN, reading, row

ABC = panel_of(["a", "b", "c"])


def panelled(*scores: Row, panel: JudgePanel = ABC) -> Row:
    """Return the panel's row of a sample that each member scored once."""
    rows = dict(zip(panel.members, ([score] for score in scores), strict=True))
    result = panel_rows(panel, rows, DIMENSIONS)
    assert len(result) == 1
    return result[0]


def test_three_judges_are_combined_by_their_median() -> None:
    result = panelled(
        row("1", "physics", reading(1, 0, 0.5, 1)),
        row("1", "physics", reading(1, 0.5, 0, 0)),
        row("1", "physics", reading(0, 1, 1, 0.5)),
    )
    assert result.strict.values == dict(zip(DIMENSIONS, (1, 0.5, 0.5, 0.5), strict=True))
    assert result.strict.status is ScoreStatus.OK and result.lenient is None


def test_of_two_different_values_the_lower_counts_and_stays_on_the_grid() -> None:
    """A judge may not give 0.75, and strict would count such a score as failed."""
    result = panelled(
        row("1", "physics", reading(1, 0.5, 1, 1), lenient=reading(1, 0.5, 1, 1)),
        row("1", "physics", reading(0.5, 0.5, 0, 0.5), lenient=reading(0.5, 0.5, 0, 0.5)),
        row("1", "physics", FAILED, lenient=FAILED),
    )
    assert list(result.strict.values.values()) == [0.5, 0.5, 0, 0.5]
    assert aggregate([result]).headline.value == pytest.approx(0.05 + 0.2 + 0 + 0.05)


def test_not_applicable_needs_more_than_half() -> None:
    without, zero, one = reading(1, 1, None, 1), reading(1, 1, 0, 1), reading(1, 1, 1, 1)
    two_of_three = panelled(*(row("1", "physics", score) for score in (without, without, one)))
    assert two_of_three.strict.na == (TEXT,) and TEXT not in two_of_three.strict.values
    one_of_three = panelled(*(row("1", "physics", score) for score in (without, zero, one)))
    assert one_of_three.strict.na == () and one_of_three.strict.values[TEXT] == 0
    one_of_two = panelled(*(row("1", "physics", score) for score in (without, FAILED, one)))
    assert one_of_two.strict.values[TEXT] == 1


def test_without_a_quorum_the_score_fails_and_names_the_members() -> None:
    result = panelled(
        row("1", "physics", reading(1, 1, 1, 1)), row("1", "physics", FAILED), row("1", "physics", NOT_APPLICABLE)
    )
    assert result.strict.status is ScoreStatus.FAILED and not result.strict.values
    assert result.strict.reason == (
        "1 of 3 members have a score, 2 needed: b failed: no answer; c not applicable: no references"
    )
    assert aggregate([result]).slice().coverage.score_failed == 1


def test_a_score_whose_quorum_can_still_be_reached_is_not_run() -> None:
    waiting = panelled(
        row("1", "physics", reading(1, 1, 1, 1)), row("1", "physics", NOT_RUN), row("1", "physics", FAILED)
    )
    assert waiting.strict.status is ScoreStatus.NOT_RUN
    alone = panel_rows(ABC, {"a": [row("1", "physics", reading(1, 1, 1, 1))], "b": [], "c": []}, DIMENSIONS)[0]
    assert alone.strict.status is ScoreStatus.NOT_RUN and "b not run; c not run" in alone.strict.reason
    never = panelled(*(row("1", "physics", NOT_APPLICABLE) for _ in range(3)))
    assert never.strict.status is ScoreStatus.NOT_APPLICABLE


def test_strict_and_lenient_scores_are_combined_separately() -> None:
    """The reply of b broke the contract: strict has two members, official all three."""
    result = panelled(
        row("1", "physics", reading(0, 0, 0, 0), lenient=reading(0, 0, 0, 0)),
        row("1", "physics", FAILED, lenient=reading(0.7, 0.7, 0.7, 0.7)),
        row("1", "physics", reading(1, 1, 1, 1), lenient=reading(1, 1, 1, 1)),
    )
    assert set(result.strict.values.values()) == {0.0}  # the lower of two
    assert result.lenient is not None and set(result.lenient.values.values()) == {0.7}
    assert aggregate([result], "official").slice("category", "physics").figures["overall"].value == 0.7


def test_a_member_that_measures_counts_under_both_protocols() -> None:
    result = panelled(
        row("1", "physics", reading(0.2, 0.2, 0.2, 0.2)),
        row("1", "physics", reading(0.5, 0.5, 0.5, 0.5), lenient=reading(1, 1, 1, 1)),
        row("1", "physics", FAILED, lenient=FAILED),
        panel=panel_of(["a", "b", "c"], 2),
    )
    assert result.lenient is not None and set(result.lenient.values.values()) == {0.2}


def test_failed_generations_stay_failed() -> None:
    result = panelled(*(row("1", "physics", generation="failed", text_required=True) for _ in range(3)))
    assert result.generation == "failed"
    both = [result, row("2", "physics", reading(1, 1, 1, 1), text_required=True)]
    assert aggregate(both).headline.value == 0.5
    with pytest.raises(DataError, match="sample '1', repeat 0: the rows of the panel's members contradict each other"):
        panelled(
            row("1", "physics", reading(1, 1, 1, 1)), row("1", "art", FAILED), row("1", "physics", reading(1, 1, 1, 1))
        )


def test_judge_repeats_of_fewer_members_than_the_quorum_do_not_count() -> None:
    """Judges a and b score twice and c once: the second repeat has a quorum of two but not one of three."""
    rows = {
        "a": [row("1", "physics", reading(1, 1, 1, 1), judge_repeat=number) for number in (0, 1)],
        "b": [row("1", "physics", reading(0, 0, 0, 0), judge_repeat=number) for number in (0, 1)],
        "c": [row("1", "physics", reading(1, 1, 1, 1))],
    }
    result = panel_rows(panel_of("abc", 2), rows, DIMENSIONS)
    assert [(one.judge_repeat, one.strict.values[TEXT]) for one in result] == [(0, 1), (1, 0)]
    assert [one.judge_repeat for one in panel_rows(panel_of("abc", 3), rows, DIMENSIONS)] == [0]


def test_the_panel_keeps_the_name_of_its_models_if_a_score_is_missing() -> None:
    whole, half = reading(1, 1, 1, 1), reading(0.5, 0.5, 0.5, 0.5)
    rows = {
        "a": [row(key, "physics", whole, judge_returned="m-a") for key in "12"],
        "b": [row("1", "physics", half, judge_returned="m-b"), row("2", "physics", FAILED)],
        "c": [row(key, "physics", whole, judge_returned="m-c") for key in "12"],
    }
    result = panel_rows(ABC, rows, DIMENSIONS)
    assert {one.judge_returned for one in result} == {"m-a + m-b + m-c"}
    assert aggregate(result).judges == ("m-a + m-b + m-c",)


@pytest.mark.parametrize(
    ("members", "quorum", "message"),
    [
        (["a"], None, "a panel needs at least two judges"),
        (["a", "a"], None, "duplicate member 'a'"),
        (["a", "b"], 3, "quorum: 3 of 2 members; give a number from 1 to 2"),
        (["a", "b"], 0, "quorum: 0 of 2"),
    ],
)
def test_an_invalid_panel_is_refused(members: list[str], quorum: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        panel_of(members, quorum)


def test_the_default_quorum_is_more_than_half() -> None:
    assert [panel_of("abcde"[:size]).quorum for size in (2, 3, 4, 5)] == [2, 2, 3, 3]
    assert panel_of(["vlm:a", "vlm:b"]).label == "panel(vlm:a, vlm:b; quorum 2)"


GRID = st.sampled_from([0.0, 0.5, 1.0])
READING = st.one_of(
    st.builds(reading, GRID, GRID, st.one_of(st.none(), GRID), GRID), st.sampled_from([FAILED, NOT_APPLICABLE])
)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(READING, min_size=5, max_size=5), min_size=1, max_size=6), st.integers(1, 5), st.randoms())
def test_any_panel_stays_on_the_grid_and_does_not_depend_on_the_order_of_members(
    scores_by_sample: list[list[ParsedScore]], quorum: int, chance: random.Random
) -> None:
    rows = {
        name: [row(f"s{number}", "physics", scores[place]) for number, scores in enumerate(scores_by_sample)]
        for place, name in enumerate("abcde")
    }
    mixed = list("abcde")
    chance.shuffle(mixed)
    result = panel_rows(panel_of("abcde", quorum), rows, DIMENSIONS)
    assert [one.strict.values for one in result] == [
        one.strict.values for one in panel_rows(panel_of(mixed, quorum), rows, DIMENSIONS)
    ]
    for one, scores in zip(result, scores_by_sample, strict=True):
        sitting = [score for score in scores if score.status is ScoreStatus.OK]
        assert (one.strict.status is ScoreStatus.OK) == (len(sitting) >= quorum)
        for name, value in one.strict.values.items():
            given_values = sorted(score.values[name] for score in sitting if name in score.values)
            assert value == given_values[(len(given_values) - 1) // 2]
            assert 2 * len(given_values) >= len(sitting)
        assert set(one.strict.values) | set(one.strict.na) == (set(DIMENSIONS) if len(sitting) >= quorum else set())
        assert one.strict.status is ScoreStatus.OK or one.strict.reason


def test_a_panel_of_equal_judges_equals_that_judge() -> None:
    rows = [row(f"s{n}", "physics", reading(1, n % 3 / 2, None if n % 2 else 0.5, 0)) for n in range(9)]
    result = panel_rows(ABC, dict.fromkeys("abc", rows), DIMENSIONS)
    assert aggregate(result).slices == aggregate(rows).slices
