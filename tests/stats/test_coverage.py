"""No result and no eligibility below the coverage that a protocol requires."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowgen.core.records import GenerationStatus, Row
from knowgen.report import tables
from knowgen.stats.aggregate import aggregate
from knowgen.stats.compare.systems import compare
from knowgen.stats.protocol import MIN_COVERAGE, OFFICIAL, PROTOCOLS, STRICT
from knowgen.stats.summary import Summary
from tests.helpers.score_rows import FAILED, NOT_APPLICABLE, NOT_RUN, perfect, row
from tests.stats.test_properties import some_rows

MISSING: dict[str, dict[str, Any]] = {
    "score failed": {"score": FAILED},
    "score not run": {"score": NOT_RUN},
    "generation not run": {"generation": "not_run"},
}
CATEGORIES = ("physics", "news")


def rows_of(size: int, missing: int, **fields: Any) -> list[Row]:
    """Return perfect rows of both groups; the first `missing` ones have the given `fields`."""
    return [
        row(f"s{index:02}", CATEGORIES[index % 2], text_required=True, **fields)
        if index < missing
        else perfect(f"s{index:02}", CATEGORIES[index % 2])
        for index in range(size)
    ]


def test_every_protocol_requires_the_documented_coverage() -> None:
    assert MIN_COVERAGE == 0.95
    assert {protocol.min_coverage for protocol in PROTOCOLS.values()} == {MIN_COVERAGE}
    assert (STRICT.below_coverage, OFFICIAL.below_coverage) == ("withhold", "note")


@pytest.mark.parametrize("size", [20, 40, 60, 100, 140, 180])
def test_exactly_95_percent_is_sufficient_and_one_fewer_is_not(size: int) -> None:
    allowed = size // 20
    enough, short = (aggregate(rows_of(size, n, score=FAILED)) for n in (allowed, allowed + 1))
    assert enough.headline.value == 1.0 and enough.no_result == "" and enough.fit_for_board
    assert short.headline.value is None and not short.fit_for_board
    assert short.no_result == f"{allowed + 1} of {size} scores failed"
    assert short.headline.note == f"No result: {allowed + 1} of {size} scores failed"
    assert short.headline.partial == 1.0


@pytest.mark.parametrize("missing", list(MISSING))
def test_a_failed_score_and_one_that_has_not_run_are_missing(missing: str) -> None:
    summary = aggregate(rows_of(48, 43, **MISSING[missing]))
    words = "failed" if missing == "score failed" else "not run yet"
    assert summary.headline.note == f"No result: 43 of 48 scores {words}"
    assert not summary.fit_for_board
    assert any(note.endswith("run the same command again to add the missing scores") for note in summary.notes)


def test_both_kinds_of_missing_scores_are_counted_together() -> None:
    rows = rows_of(48, 43, score=FAILED)
    rows[0] = rows[0].model_copy(update={"strict": NOT_RUN})
    assert aggregate(rows).no_result == "43 of 48 scores missing (42 failed, 1 not run yet)"


@pytest.mark.parametrize("status", ["failed", "refused"])
def test_failed_generations_are_covered_and_count_zero(status: str) -> None:
    summary = aggregate(rows_of(48, 24, generation=status))
    assert summary.headline.value == 0.5 and summary.no_result == "" and summary.fit_for_board
    nearly = aggregate([*rows_of(47, 47, generation=status), row("x", "news", FAILED, text_required=True)])
    assert nearly.headline.value == 0.0 and nearly.no_result == ""  # 47 of 48, all of them the system's own failures


def test_scores_that_do_not_apply_are_not_expected() -> None:
    rows = rows_of(20, 10, score=NOT_APPLICABLE)
    assert aggregate(rows).headline.value == 1.0
    rows[-1] = row(rows[-1].sample_id, rows[-1].category, FAILED, text_required=True)
    assert aggregate(rows).no_result == "1 of 10 scores failed"


def test_samples_outside_of_the_groups_do_not_make_up_for_missing_scores() -> None:
    others = [perfect(f"other{index}", "volcanology") for index in range(2000)]
    summary = aggregate([*rows_of(48, 43, score=FAILED), *others])
    assert summary.no_result == "43 of 48 scores failed"


def test_repeats_and_judge_repeats_count_one_by_one() -> None:
    def one(index: int, repeat: int, judge: int) -> Row:
        sample, category = f"s{index}", CATEGORIES[index % 2]
        if (index, repeat, judge) == (0, 0, 0):
            return row(sample, category, FAILED, text_required=True, repeat=repeat, judge_repeat=judge)
        return perfect(sample, category, repeat=repeat, judge_repeat=judge)

    rows = [one(index, repeat, judge) for index in range(5) for repeat in range(2) for judge in range(2)]
    assert aggregate(rows).headline.value == 1.0  # 19 of 20
    second = rows[1].model_copy(update={"strict": FAILED})
    assert aggregate([rows[0], second, *rows[2:]]).no_result == "2 of 20 scores failed"


def test_official_keeps_its_figures_but_is_not_fit_for_a_leaderboard() -> None:
    summary = aggregate(rows_of(48, 43, score=FAILED), "official")
    assert summary.headline.value == 1.0
    assert summary.no_result == "43 of 48 scores failed" and not summary.fit_for_board
    text = tables.terminal([summary])
    assert text.splitlines()[2].split("  ")[0] == "-" and "1.000 partial" in text.splitlines()[2]
    assert "No result: 43 of 48 scores failed" in text and "the figures of the published arithmetic are partial" in text


def test_official_is_not_fit_for_a_leaderboard_without_many_failed_generations() -> None:
    summary = aggregate(rows_of(48, 43, generation="failed"), "official")
    assert summary.headline.value == 1.0 and summary.no_result == ""
    assert not summary.fit_for_board
    assert "43 of 48 scores left out: the generation failed or was refused" in summary.notes


def test_a_subset_with_all_its_scores_keeps_its_figures() -> None:
    rows = [one.model_copy(update={"strict": FAILED}) if one.category == "news" and i > 4 else one
            for i, one in enumerate(rows_of(40, 0))]  # fmt: skip
    summary = aggregate(rows)
    assert summary.slice("group", "science_and_knowledge").figures["overall"].value == 1.0
    lost = summary.slice("group", "pop_culture_and_news").figures["overall"]
    assert (lost.value, lost.partial, lost.n) == (None, 1.0, 2)
    assert lost.note == "partial: 18 of 20 scores failed"
    assert "(1.000) partial" in tables.terminal([summary], "group")


def test_tables_show_no_figure_below_the_minimum_coverage() -> None:
    good = aggregate(rows_of(48, 0), system="good")
    bad = aggregate(rows_of(48, 43, score=FAILED), system="bad")
    lines = tables.terminal([bad, good]).splitlines()
    assert lines[2].startswith("good") and lines[3].startswith("bad") and "no result" in lines[3]
    assert "1.000" not in lines[3]
    assert any(line.startswith("bad: No result: 43 of 48 scores failed (at least 95 % are needed)") for line in lines)
    head, *cells = tables.csv([bad]).splitlines()
    overall = dict(zip(head.split(","), cells[4].split(","), strict=False))
    assert overall["figure"] == "overall" and overall["value"] == "" and float(overall["partial"]) == 1.0
    assert overall["no_result"] == "43 of 48 scores failed" and ",false," in cells[4]
    assert Summary.model_validate_json(bad.model_dump_json()) == bad


@pytest.mark.parametrize("protocol", ["strict", "official"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_comparison_with_a_run_without_result_has_no_result(protocol: str, which: int) -> None:
    sides = [rows_of(48, 0), rows_of(48, 0)]
    sides[which] = rows_of(48, 43, score=FAILED)
    result = compare(sides[0], sides[1], protocol, a_name="old", b_name="new")
    name = ("old", "new")[which]
    assert result.no_result == f"{name}: 43 of 48 scores failed"
    for part in result.slices:
        for figure in part.figures.values():
            assert (figure.a, figure.b, figure.value, figure.low, figure.p) == (None,) * 5
            assert figure.note == f"No result: {name}: 43 of 48 scores failed"
    assert result.p_holm is None and result.relabellings == 0
    text = tables.comparison_terminal([result])
    assert f"No result: {name}: 43 of 48 scores failed; run that system again" in text
    assert "better on" not in text


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(some_rows(), st.sampled_from(sorted(PROTOCOLS)))
def test_a_result_requires_the_minimum_coverage(rows: list[Row], protocol: str) -> None:
    """Counted again from the rows: a figure and eligibility exist only at the coverage, and a strict figure always."""
    summary = aggregate(rows, protocol)
    counted = [one for one in rows if protocol == "genevolve-micro" or one.category != "volcanology"]
    scores = [_state(one) for one in counted]
    expected = [state for state in scores if state != "not applicable"]
    missing = expected.count("missing")
    enough = 100 * (len(expected) - missing) >= 95 * len(expected)
    assert bool(summary.no_result) is not enough
    if summary.fit_for_board:
        assert enough and summary.headline.value is not None
    if protocol in ("strict", "na-renormalise"):
        if not enough:
            assert all(figure.value is None for figure in summary.slice().figures.values())
            assert summary.headline.note == f"No result: {summary.no_result}"
        elif "scored" in expected or (expected and len(expected) == len(counted) == len(rows)):
            assert summary.headline.value is not None


def _state(one: Row) -> str:
    if one.generation in (GenerationStatus.FAILED, GenerationStatus.REFUSED):
        return "own failure"
    if one.generation is GenerationStatus.OK and one.strict.status == "not_applicable":
        return "not applicable"
    return "scored" if one.generation is GenerationStatus.OK and one.strict.status == "ok" else "missing"
