"""What failed for reasons outside the system is missing; what the judge refused is missing and bounded."""

from __future__ import annotations

from typing import Any

import pytest

from knowgen.core.records import FailureCause, Row
from knowgen.report import tables
from knowgen.stats.aggregate import aggregate
from knowgen.stats.compare.systems import compare
from knowgen.stats.counting import counted_score
from knowgen.stats.protocol import STRICT, counting_words
from knowgen.stats.summary import Summary
from tests.helpers.score_rows import FAILED, perfect, reading, row

CATEGORIES = ("physics", "news")
OUTSIDE: dict[str, Any] = {
    "generation": "failed",
    "generation_cause": FailureCause.INFRASTRUCTURE,
    "generation_reason": "endpoint answered 503",
}
REFUSED: dict[str, Any] = {"score": FAILED, "score_cause": FailureCause.REFUSAL}


def rows_of(size: int, changed: int, **fields: Any) -> list[Row]:
    """Return perfect rows of both groups; the first `changed` ones have the given fields."""
    return [
        row(f"s{index:02}", CATEGORIES[index % 2], text_required=True, **fields)
        if index < changed
        else perfect(f"s{index:02}", CATEGORIES[index % 2])
        for index in range(size)
    ]


@pytest.mark.parametrize("protocol", ["strict", "official", "na-renormalise"])
def test_generations_that_failed_outside_the_system_are_missing(protocol: str) -> None:
    summary = aggregate(rows_of(48, 12, **OUTSIDE), protocol)
    reason = "12 of 48 generations failed for reasons outside the system (endpoint answered 503)"
    assert summary.no_result == reason and not summary.fit_for_board
    assert summary.slice().coverage.generation_unavailable == 12
    assert summary.slice().coverage.generation_failed == 0
    assert summary.headline.value == (1.0 if protocol == "official" else None)
    assert f"No result: {reason}" in tables.terminal([summary])


def test_one_that_failed_outside_the_system_does_not_count_zero() -> None:
    """2 of 48 are within the coverage: the figure is that of the others, not lowered by the outage."""
    outside, own = aggregate(rows_of(48, 2, **OUTSIDE)), aggregate(rows_of(48, 2, generation="failed"))
    assert (outside.headline.value, outside.headline.n) == (1.0, 46)
    assert own.headline.value == pytest.approx(46 / 48)
    assert "2 generations failed for reasons outside the system" in tables.terminal([outside])


def test_different_kinds_of_missing_scores_are_named_apart() -> None:
    rows = [*rows_of(3, 3, **OUTSIDE), *(one.model_copy(update={"sample_id": f"r{i}"})
            for i, one in enumerate(rows_of(4, 4, **REFUSED))), *rows_of(48, 0)[10:]]  # fmt: skip
    reason = aggregate(rows).no_result
    assert reason == (
        "7 of 45 scores missing (3 generations failed for reasons outside the system (endpoint answered 503), "
        "4 refused by the judge)"
    )


def weak_with_refusals(refused: int) -> list[Row]:
    """Return 15 perfect scores and 33 images that would get 0, of which the judge refuses the first ones."""
    good = [perfect(f"a{index:02}", CATEGORIES[index % 2]) for index in range(15)]
    bad = [
        row(f"b{index:02}", CATEGORIES[index % 2], text_required=True, **REFUSED)
        if index < refused
        else row(f"b{index:02}", CATEGORIES[index % 2], reading(0, 0, 0, 0), text_required=True)
        for index in range(33)
    ]
    return good + bad


def test_a_judge_that_withholds_wrong_images_gives_no_result() -> None:
    honest, withheld = aggregate(weak_with_refusals(0)), aggregate(weak_with_refusals(33))
    assert withheld.headline.value is None and not withheld.fit_for_board
    assert withheld.no_result == "33 of 48 scores refused by the judge"
    assert withheld.refused is not None and withheld.refused.scores == 33
    assert withheld.refused.lowest == pytest.approx(honest.headline.value)
    assert withheld.refused.highest == 1.0
    assert withheld.slice().coverage.score_failed == 0


def test_a_few_refusals_are_stated_with_the_worst_case_beside_the_headline() -> None:
    summary = aggregate(weak_with_refusals(2), system="weak")
    honest = aggregate(weak_with_refusals(0), system="honest")
    assert summary.no_result == "" and summary.headline.value is not None and honest.headline.value is not None
    assert summary.headline.value > honest.headline.value
    assert summary.refused is not None and summary.refused.lowest == pytest.approx(honest.headline.value)
    text = tables.terminal([summary, honest])
    assert "worst case" in text.splitlines()[0] and f"{honest.headline.value:.3f}" in text.splitlines()[2]
    assert "weak: 2 scores refused by the judge and are left out: worst case" in text
    line = next(each for each in tables.csv([summary]).splitlines()[1:] if ",all," in each)
    assert str(summary.refused.lowest) in line
    assert Summary.model_validate_json(summary.model_dump_json()) == summary


def test_a_comparison_names_what_failed_outside_the_system() -> None:
    result = compare(rows_of(48, 12, **OUTSIDE), rows_of(48, 0), a_name="old", b_name="new")
    assert result.no_result.startswith("old: 12 of 48 generations failed for reasons outside the system")
    assert (result.better, result.equal, result.worse, result.worse_on) == (0, 0, 0, ())


def test_every_table_says_what_a_failure_counts_as() -> None:
    strict, official = (aggregate(rows_of(48, 2, generation="failed"), name) for name in ("strict", "official"))
    for summary in (strict, official):
        for by in ("all", "group", "category"):
            assert counting_words(summary.protocol) in tables.terminal([summary], by)
        assert counting_words(summary.protocol) in tables.markdown([summary])
        assert counting_words(summary.protocol) in tables.csv([summary])
    assert "a failed or refused generation counts 0" in counting_words("strict")
    assert "a failed or refused generation is left out" in counting_words("official")


@pytest.mark.parametrize(
    ("one", "counts", "overall"),
    [
        (row("a", "physics", reading(1, 0.5, 1, 1), text_required=True), "0.8", 0.8),
        (row("a", "physics", reading(0, 0, 0, 0), text_required=True), "0.0", 0.0),
        (row("a", "physics", generation="refused", text_required=True), "0", 0.0),
        (row("a", "physics", text_required=True, **OUTSIDE), "excluded", None),
        (row("a", "physics", text_required=True, **REFUSED), "excluded", None),
        (row("a", "physics", text_required=True), "excluded", None),
    ],
)
def test_a_row_says_what_it_counts_as(one: Row, counts: str, overall: float | None) -> None:
    counted = counted_score(one, STRICT, ("faithfulness", "visual_correctness", "text_accuracy", "aesthetics"))
    assert counted.counts_as == counts
    assert counted.overall == (None if overall is None else pytest.approx(overall))


def test_counted_values_average_to_the_strict_figures() -> None:
    rows = [
        *rows_of(44, 0),
        *(row(f"x{i}", CATEGORIES[i % 2], generation="failed", text_required=i < 2) for i in range(4)),
    ]
    summary, names = aggregate(rows), summary_dimensions(rows)
    for name in names:
        means = []
        for category in CATEGORIES:
            values = [counted_score(one, STRICT, names).values for one in rows if one.category == category]
            known = [each[name] for each in values if name in each]
            means.append(sum(known) / len(known))
        assert summary.slice().figures[name].value == pytest.approx(sum(means) / 2)


def summary_dimensions(rows: list[Row]) -> tuple[str, ...]:
    return aggregate(rows).dimensions


def test_a_comparison_names_the_samples_and_explains_a_disagreement() -> None:
    """One sample of 48 is much worse: the interval and the test lead to different answers, or the names are enough."""
    a = rows_of(48, 0)
    b = [one if one.sample_id != "s07" else row("s07", "news", reading(0, 0, 0, 0), text_required=True) for one in a]
    result = compare(a, b, a_name="old", b_name="new")
    assert (result.better, result.equal, result.worse) == (0, 47, 1)
    assert result.worse_on == ("s07",)
    text = tables.comparison_terminal([result])
    assert "worse on: s07" in text
    head = result.headline
    if head.low is not None and head.high is not None and head.p is not None:
        agree = (head.low > 0 or head.high < 0) == (head.p <= 0.05)
        assert agree or "Read it as undecided" in text


def test_p_values_of_categories_are_corrected_and_say_so() -> None:
    a = rows_of(48, 0)
    b = [row(one.sample_id, one.category, reading(0.5, 0.5, 0.5, 0.5), text_required=True) for one in a]
    result = compare(a, b)
    parts = [part.figures["overall"] for part in result.slices if part.kind == "category"]
    raw = [part.p for part in parts]
    assert all(p is not None and p < 0.01 for p in raw)
    assert [part.p_holm for part in parts] == [pytest.approx(min(1.0, 2 * min(p for p in raw if p is not None)))] * 2
    assert "p: corrected for 2 tests (Holm)" in tables.comparison_terminal([result])
    assert result.slice().figures["faithfulness"].p_holm is None


def test_a_part_of_a_task_is_marked_in_a_comparison() -> None:
    result = compare(rows_of(48, 0), rows_of(48, 0), selections=("all 48", "limit 8 (3f2a5b6c7d8e)"))
    text = tables.comparison_terminal([result])
    assert "selection all 48 and limit 8 (3f2a5b6c7d8e)" in text
    assert "note: the second run is only a part of the task (limit 8 (3f2a5b6c7d8e))" in text
    assert "limit 8 (3f2a5b6c7d8e)" in tables.comparison_csv([result])
