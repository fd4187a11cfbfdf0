"""Cases small enough to work out by hand, under both protocols."""

from __future__ import annotations

import pytest

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import POP, SCIENCE, ParsedScore, Row
from knowgen.stats.aggregate import aggregate
from knowgen.stats.protocol import get_protocol
from knowgen.stats.summary import Coverage, Slice, Summary
from tests.helpers.score_rows import FAILED, NOT_APPLICABLE, NOT_RUN, UNBOUND, perfect, reading, row

# Eight samples of one group, the other is empty.     strict                         official
#   s1 physics     scored                             F1   V.5  T1   A.5             the same
#   s2 biology     scored, prompt needs no text       F.5  V1   -    A1              the same
#   s3 art         generation failed, text required      0    0    0    0               left out
#   s4 chemistry   reply off the grid                 left out                       F.7  V1   T.5  A.1
#   s5 history     score failed                   left out                       left out
#   s6 volcanology no group has it                    a row of its own               left out
#   s7 physics     refused, prompt needs no text      0    0    -    0               left out
#   s8 sports      judge: N/A, but text is required   F1   V1   0    A1              F1   V1   -    A1
EIGHT = [
    row("s1", "physics", reading(1, 0.5, 1, 0.5), text_required=True, difficulty="easy"),
    row("s2", "biology", reading(0.5, 1, None, 1), text_required=False, difficulty="easy"),
    row("s3", "art", generation="failed", text_required=True, difficulty="easy"),
    row("s4", "chemistry", FAILED, lenient=reading(0.7, 1, 0.5, 0.1), text_required=True, difficulty="hard"),
    row("s5", "history", FAILED, text_required=True, difficulty="hard"),
    row("s6", "volcanology", reading(1, 1, 1, 1), text_required=True, difficulty="hard"),
    row("s7", "physics", generation="refused", text_required=False, difficulty="hard"),
    row("s8", "sports", reading(1, 1, None, 1), text_required=True, difficulty="hard"),
]


def figures(part: Slice) -> list[float | None]:
    return [figure.value for figure in part.figures.values()]


def counts(part: Slice) -> list[int]:
    return [figure.n for figure in part.figures.values()]


def test_eight_samples_give_the_worked_figures_under_strict() -> None:
    summary = aggregate(EIGHT, UNBOUND)
    # F (1 + .5 + 0 + 0 + 1) / 5 = .5;  V and A likewise .5;  T (s1 1 + s3 0 + s8 0) / 3 = 1/3
    # overall .05 + .2 + .4 / 3 + .05 = .3 + .4 / 3; the other group is empty and left out of the K-Score
    worked = [0.5, 0.5, 1 / 3, 0.5, 0.3 + 0.4 / 3]
    assert figures(summary.slice("group", SCIENCE)) == pytest.approx(worked, abs=1e-12)
    assert figures(summary.slice()) == pytest.approx(worked, abs=1e-12)
    assert counts(summary.slice()) == [5, 5, 3, 5, 5]
    assert summary.headline.value == figures(summary.slice())[-1]
    assert summary.slice().coverage == Coverage(
        expected=8, scored=4, generation_failed=1, generation_refused=1, score_failed=2, scored_text=3
    )
    assert [part.name for part in summary.slices if part.kind == "group"] == [SCIENCE, "unknown"]
    assert figures(summary.slice("group", "unknown")) == [1.0] * 5
    assert figures(summary.slice("category", "volcanology")) == [1.0] * 5
    # easy: s1 s2 s3; F .5, V .5, T .5, A .5.  hard: s6 s7 s8; F 2/3, V 2/3, T .5, A 2/3
    assert figures(summary.slice("difficulty", "easy")) == pytest.approx([0.5] * 5, abs=1e-12)
    assert figures(summary.slice("difficulty", "hard")) == pytest.approx([2 / 3, 2 / 3, 0.5, 2 / 3, 0.6], abs=1e-12)
    assert figures(summary.slice("category", "history")) == [None] * 5
    assert figures(summary.slice("category", "biology")) == pytest.approx([0.5, 1, None, 1, 0.55 / 0.6])
    assert any("pop_culture_and_news: no samples, left out" in note for note in summary.notes)
    assert any("1 score with text not applicable although the prompt requires text" in note for note in summary.notes)
    assert any("unknown category: shown in a separate row" in note for note in summary.notes)


def test_eight_samples_give_the_worked_figures_under_official() -> None:
    summary = aggregate(EIGHT, "official")
    # s1 s2 s4 s8: F 3.2 / 4 = .8;  V 3.5 / 4 = .875;  T (1 + .5) / 2 = .75;  A 2.6 / 4 = .65
    # overall .08 + .35 + .3 + .065 = .795; the empty group counts 0, so the K-Score is half of everything
    assert figures(summary.slice("group", SCIENCE)) == [0.8, 0.875, 0.75, 0.65, 0.795]
    assert figures(summary.slice("group", POP)) == [0.0] * 5
    assert figures(summary.slice()) == [0.4, 0.4375, 0.375, 0.325, 0.3975]
    assert counts(summary.slice()) == [4, 4, 2, 4, 4]
    assert summary.slice().coverage == Coverage(
        expected=8, scored=5, generation_failed=1, generation_refused=1, score_failed=1, scored_text=3
    )
    assert not [part for part in summary.slices if part.name in {"unknown", "volcanology"}]
    assert any("1 sample of unknown category: left out" in note for note in summary.notes)
    assert any("pop_culture_and_news: no samples, counted as 0" in note for note in summary.notes)


# Two samples, two images each, two scores an image; all need text, all four dimensions have the same value.
#                     r0 j0   r0 j1    r1 j0    r1 j1
#   a (physics)       1       0        generation failed
#   b (art)           .5      failed   1        1
REPEATS = [
    row("a", "physics", reading(1, 1, 1, 1), text_required=True, repeat=0, judge_repeat=0),
    row("a", "physics", reading(0, 0, 0, 0), text_required=True, repeat=0, judge_repeat=1),
    row("a", "physics", generation="failed", text_required=True, repeat=1, judge_repeat=0),
    row("a", "physics", generation="failed", text_required=True, repeat=1, judge_repeat=1),
    row("b", "art", reading(0.5, 0.5, 0.5, 0.5), text_required=True, repeat=0, judge_repeat=0),
    row("b", "art", FAILED, text_required=True, repeat=0, judge_repeat=1),
    row("b", "art", reading(1, 1, 1, 1), text_required=True, repeat=1, judge_repeat=0),
    row("b", "art", reading(1, 1, 1, 1), text_required=True, repeat=1, judge_repeat=1),
]


def test_repeats_give_the_worked_figures_under_strict() -> None:
    summary = aggregate(REPEATS, UNBOUND)
    # a: (mean of 1 and 0, then 0 for the failed generation) -> .25;  b: (.5, 1) -> .75
    assert summary.slice("category", "physics").figures["overall"].value == pytest.approx(0.25, abs=1e-12)
    assert summary.slice("category", "art").figures["overall"].value == pytest.approx(0.75, abs=1e-12)
    assert figures(summary.slice()) == pytest.approx([0.5] * 5, abs=1e-12)
    assert (summary.repeats, summary.judge_repeats, summary.headline.n) == (2, 2, 2)
    assert summary.slice().coverage == Coverage(
        expected=8, scored=5, generation_failed=2, score_failed=1, scored_text=5
    )


def test_repeats_give_the_worked_figures_under_official() -> None:
    summary = aggregate(REPEATS, "official")
    # slices: r0j0 mean .75;  r0j1 only a, 0;  r1j0 only b, 1;  r1j1 only b, 1.  Each K-Score is half of it.
    assert summary.slice("group", SCIENCE).figures["overall"].value == pytest.approx((0.75 + 0 + 1 + 1) / 4)
    assert summary.headline.value == pytest.approx((0.375 + 0 + 0.5 + 0.5) / 4)
    assert any("means over 4 slices (2 repeats x 2 judge repeats)" in note for note in summary.notes)


def test_a_repeat_without_scores_does_not_count_as_zeros() -> None:
    waiting = [one.model_copy(update={"strict": NOT_RUN}) if one.judge_repeat else one for one in REPEATS]
    summary = aggregate(waiting, "official")
    assert summary.headline.value == pytest.approx((0.375 + 0.5) / 2)
    assert any("incomplete: 3 scores not run yet" in note for note in summary.notes)
    assert not summary.fit_for_board


def test_one_row_of_a_failed_generation_counts_for_all_its_judge_repeats() -> None:
    short = [one for one in REPEATS if not (one.generation == "failed" and one.judge_repeat == 1)]
    assert aggregate(short).slice().coverage == aggregate(REPEATS).slice().coverage
    assert aggregate(short, UNBOUND).headline == aggregate(REPEATS, UNBOUND).headline


def test_fifty_perfect_and_fifty_failed_samples_are_half_under_strict_and_perfect_under_official() -> None:
    rows = [perfect(f"p{i}", "physics" if i % 2 else "news") for i in range(50)]
    rows += [row(f"f{i}", "physics" if i % 2 else "news", generation="failed", text_required=True) for i in range(50)]
    assert aggregate(rows, "official").headline.value == 1.0
    assert aggregate(rows, "strict").headline.value == 0.5


def test_the_prompt_decides_whether_text_applies() -> None:
    """A judge that excuses images without text cannot raise the mean, and one that invents text cannot lower it."""
    rows = [
        row("1", "physics", reading(1, 1, 1, 1), text_required=True),
        row("2", "physics", reading(1, 1, None, 1), text_required=True),
        row("3", "physics", reading(1, 1, 0, 1), text_required=False),
    ]
    strict, official = aggregate(rows, "strict"), aggregate(rows, "official")
    assert strict.slice("group", SCIENCE).figures["text_accuracy"].value == 0.5
    assert strict.slice("group", SCIENCE).figures["text_accuracy"].n == 2
    assert official.slice("group", SCIENCE).figures["text_accuracy"].value == 0.5  # rows 1 and 3
    assert strict.fit_for_board


def test_a_task_without_text_required_is_not_fit_for_a_leaderboard() -> None:
    rows = [row("1", "physics", reading(1, 1, None, 1)), row("2", "physics", reading(1, 1, 0.5, 1))]
    rows.append(row("3", "physics", generation="failed"))
    summary = aggregate(rows)
    assert summary.notes[0].startswith("na=per-image")
    assert not summary.fit_for_board
    # the failed generation counts 0 in text as well: (.5 + 0) / 2
    assert summary.slice("group", SCIENCE).figures["text_accuracy"].value == 0.25


def test_a_group_without_required_text_renormalises_the_weights() -> None:
    rows = [row("1", "physics", reading(1, 0.5, None, 0), text_required=False), perfect("2", "news")]
    summary = aggregate(rows)
    science = summary.slice("group", SCIENCE)
    assert science.figures["text_accuracy"].value is None
    assert science.figures["overall"].value == pytest.approx((0.1 + 0.2) / 0.6)
    assert summary.slice().figures["text_accuracy"].value == 1.0  # the mean of the groups that have it
    assert any(SCIENCE in note and "weights are renormalised" in note for note in summary.notes)
    official = aggregate(rows, "official")
    assert official.slice("group", SCIENCE).figures["overall"].value == 0.5  # .1 + .2 + .4 * .5
    assert any(SCIENCE in note and "counts 0.5" in note for note in official.notes)


def test_values_off_the_grid_fail_only_in_parsed_replies() -> None:
    measured = row("1", "physics", reading(0.83, 0.4, 0.9, 1), text_required=True)
    parsed = measured.model_copy(update={"sample_id": "2", "lenient": measured.strict})
    summary = aggregate([measured, parsed])
    assert summary.slice().coverage.scored == summary.slice().coverage.score_failed == 1
    assert any("off the grid (0, 0.5, 1)" in note for note in summary.notes)
    assert aggregate([measured, parsed], "official").slice().coverage.scored == 2


@pytest.mark.parametrize("values", [{"faithfulness": 1.0}, dict.fromkeys(("faithfulness",), float("nan"))])
def test_a_malformed_score_counts_as_failed(values: dict[str, float]) -> None:
    whole = {"faithfulness": 1.0, "visual_correctness": 1.0, "text_accuracy": 1.0, "aesthetics": 1.0}
    broken = values if len(values) == 1 and values["faithfulness"] == 1.0 else {**whole, **values}
    rows = [perfect("1", "physics"), row("2", "physics", ParsedScore(status="ok", values=broken), text_required=True)]
    summary = aggregate(rows, UNBOUND)
    assert summary.headline.value == 1.0
    assert summary.slice().coverage.score_failed == 1
    assert any("1 score with a missing value or a value outside [0, 1]" in note for note in summary.notes)


def test_not_run_and_not_applicable_are_not_failures() -> None:
    rows = [
        perfect("1", "physics"),
        row("2", "physics", generation="not_run", text_required=True),
        row("3", "physics", NOT_APPLICABLE, text_required=True),
        row("4", "news", NOT_RUN, text_required=True),
    ]
    summary = aggregate(rows, UNBOUND)
    assert summary.headline.value == 1.0
    assert summary.slice().coverage == Coverage(
        expected=4, scored=1, generation_not_run=1, not_applicable=1, score_not_run=1, scored_text=1
    )
    assert summary.notes[0] == "incomplete: 1 generation and 1 score not run yet"
    assert any("pop_culture_and_news: no scores" in note for note in summary.notes)
    assert not summary.fit_for_board


@pytest.mark.parametrize("status", [FAILED, NOT_RUN, NOT_APPLICABLE])
def test_failed_generations_do_not_count_zero_while_there_are_no_scores(status: ParsedScore) -> None:
    rows = [row("1", "physics", status, text_required=True), row("2", "physics", generation="failed")]
    assert aggregate(rows).headline.value is None
    assert aggregate(rows[1:]).headline.value == 0.0  # all generations failed: that is a result


def test_other_dimensions_have_equal_weights() -> None:
    def measure(sample: str, category: str, **values: float) -> Row:
        return row(sample, category, ParsedScore(status="ok", values=values))

    single = [measure("1", "physics", similarity=0.2), measure("2", "physics", similarity=0.4)]
    single += [measure("3", "news", similarity=0.9)]
    summary = aggregate(single, dimensions=("similarity",))
    assert summary.headline.value == pytest.approx((0.3 + 0.9) / 2)
    assert summary.fit_for_board  # without a text dimension nothing is open about text
    two = [measure("1", "physics", near=0.2, far=0.8), measure("2", "news", near=1.0, far=0.0)]
    assert aggregate(two, dimensions=("near", "far")).headline.value == pytest.approx(0.5)
    assert aggregate(two, "official", dimensions=("near", "far")).headline.value == 0.5


def test_several_judge_models_are_noted_and_shown_separately() -> None:
    rows = [perfect("1", "physics", judge_returned="judge-a"), perfect("2", "news", judge_returned="judge-b")]
    rows.append(row("3", "art", reading(0, 0, 0, 0), text_required=True, judge_returned="judge-b"))
    summary = aggregate(rows)
    assert summary.judges == ("judge-a", "judge-b")
    assert summary.slice("judge", "judge-a").figures["overall"].value == 1.0
    assert summary.slice("judge", "judge-b").figures["overall"].value == 0.5
    assert any("more than one judge model answered: judge-a, judge-b" in note for note in summary.notes)
    assert not [part for part in aggregate(rows[1:]).slices if part.kind == "judge"]


def test_the_order_of_subsets_is_fixed() -> None:
    names = ["zoology", "news", "physics", "anime", "astronomy", "botany"]
    levels = ["hard", "brutal", "easy", "medium", "easy", "hard"]
    rows = [perfect(str(i), name, difficulty=level) for i, (name, level) in enumerate(zip(names, levels, strict=True))]
    parts = [(part.kind, part.name) for part in aggregate(rows).slices]
    assert parts[:4] == [("all", ""), ("group", SCIENCE), ("group", POP), ("group", "unknown")]
    assert [name for kind, name in parts if kind == "category"] == [
        "astronomy", "physics", "anime", "news", "botany", "zoology",
    ]  # fmt: skip
    assert [name for kind, name in parts if kind == "difficulty"] == ["easy", "medium", "hard", "brutal"]


def test_a_part_of_the_task_is_not_fit_for_a_leaderboard() -> None:
    rows = [perfect("1", "physics"), perfect("2", "news")]
    assert aggregate(rows, selection="all 2").fit_for_board
    assert not aggregate(rows, selection="limit 2 (0123456789ab)").fit_for_board


def test_without_rows_the_summary_has_no_figures() -> None:
    strict, official = aggregate([]), aggregate([], "official")
    assert strict.headline.value is None
    assert not strict.fit_for_board and not official.fit_for_board
    assert official.headline.value == 0.0 and official.headline.n == 0  # the published arithmetic says so
    assert Summary.model_validate_json(strict.model_dump_json()) == strict


def test_contradicting_rows_are_refused() -> None:
    one = perfect("1", "physics")
    with pytest.raises(DataError, match="sample '1', repeat 0, judge repeat 0: duplicate row"):
        aggregate([one, one])
    with pytest.raises(DataError, match="rows have different categories"):
        aggregate([one, one.model_copy(update={"judge_repeat": 1, "category": "art"})])
    with pytest.raises(DataError, match="rows have different generation statuses"):
        aggregate([one, one.model_copy(update={"judge_repeat": 1, "generation": "failed"})])


def test_an_unknown_protocol_suggests_a_similar_one() -> None:
    with pytest.raises(UsageError, match="unknown protocol 'ofical'; did you mean 'official'"):
        aggregate([], "ofical")
    assert get_protocol("strict").version
