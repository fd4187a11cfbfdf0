"""Intervals, against formulas written out for a simple case and against simulated benchmarks."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy.stats import beta
from scipy.stats import t as student

from benchmarks.interval_coverage import (
    FIGURES,
    PAIRS,
    SIZES,
    SYSTEMS,
    Measured,
    difference_coverage,
    figure_coverage,
)
from knowgen.core.records import POP, SCIENCE, TEXT, Row
from knowgen.report import tables
from knowgen.stats.aggregate import aggregate
from knowgen.stats.bootstrap import counted_means, resample_counts, seeded
from knowgen.stats.compare.systems import compare
from knowgen.stats.summary import Figure
from tests.helpers.score_rows import perfect, reading, row

GRID = (0.0, 0.5, 1.0)


def random_rows(chance: random.Random, size: int, *, skill: float = 0.5, texts: float = 0.7) -> list[Row]:
    """Return rows whose values tend upwards with skill; one third of the samples is in the second group."""

    def value() -> float:
        return GRID[sum(chance.random() < skill for _ in range(2))]

    rows = []
    for index in range(size):
        text = chance.random() < texts
        score = reading(value(), value(), value() if text else None, value())
        category = "news" if index % 3 == 0 else "physics"
        generation = "failed" if chance.random() < 0.05 else "ok"
        rows.append(row(f"s{index:04}", category, score, generation, text_required=text))
    return rows


def grades(count: int, ones: int) -> list[Row]:
    """Return rows of one group that have 1 in every dimension for the first `ones` samples, and 0 for the others."""
    values = [float(index < ones) for index in range(count)]
    return [row(f"s{i:03}", "physics", reading(*[each] * 4), text_required=True) for i, each in enumerate(values)]


@pytest.mark.parametrize(("count", "ones"), [(48, 12), (48, 7), (20, 10), (300, 290)])
def test_the_interval_of_an_overall_equals_its_formula(count: int, ones: int) -> None:
    """All dimensions are equal, so the overall is a plain mean of zeros and ones, with .02 of each added."""
    figure = aggregate(grades(count, ones)).slice("group", SCIENCE).figures["overall"]
    size = count + 0.04
    mean = (ones + 0.02) / size
    error = math.sqrt(mean * (1 - mean) / (size - 1))
    half = student.ppf(0.975, count - 1) * error / (mean * (1 - mean))
    low, high = (1 / (1 + math.exp(-(math.log(mean / (1 - mean)) + sign * half))) for sign in (-1, 1))
    assert figure.value == pytest.approx(ones / count)
    assert (figure.low, figure.high) == pytest.approx((low, high), abs=1e-8)


@pytest.mark.parametrize(("count", "ones"), [(48, 12), (48, 2), (48, 46), (20, 10), (294, 3)])
def test_the_interval_of_a_dimension_equals_its_formula(count: int, ones: int) -> None:
    figure = aggregate(grades(count, ones)).slice("group", SCIENCE).figures["faithfulness"]
    mean = (ones + 0.5) / (count + 1)
    ends = beta.ppf([0.025, 0.975], count * mean, count * (1 - mean))
    assert (figure.low, figure.high) == pytest.approx(ends, abs=1e-6)


@pytest.mark.parametrize("count", [20, 48, 294])
@pytest.mark.parametrize("deviating", [0, 1, 2])
def test_a_dimension_has_an_interval_from_two_samples_with_another_value_on(count: int, deviating: int) -> None:
    expected = ("all values equal", "too few different values", "")[deviating]
    for ones in (deviating, count - deviating):
        figure = aggregate(grades(count, ones)).slice("group", SCIENCE).figures["faithfulness"]
        assert (figure.value, figure.note) == (ones / count, expected)
        assert (figure.low is None) == (deviating < 2)


@pytest.mark.parametrize(("ones", "given"), [(0, False), (5, False), (6, True), (42, True), (43, False), (48, False)])
def test_an_overall_has_an_interval_from_six_samples_with_another_value_on(ones: int, given: bool) -> None:
    figure = aggregate(grades(48, ones)).slice("group", SCIENCE).figures["overall"]
    assert (figure.low is not None) == given == (figure.note == "")


@pytest.mark.parametrize(("gains", "losses"), [(0, 0), (1, 0), (2, 2), (3, 2), (4, 0), (24, 24)])
def test_a_difference_has_an_interval_if_more_than_four_pairs_differ(gains: int, losses: int) -> None:
    """Pairs of a gain and a loss of the same size; with four of them the share of the largest is at the limit."""
    before = [1.0] * losses + [0.0] * (48 - losses)
    after = [0.0] * losses + [1.0] * gains + [0.0] * (48 - losses - gains)
    first, second = (
        [row(f"s{i:03}", "physics", reading(*[each] * 4), text_required=True) for i, each in enumerate(values)]
        for values in (before, after)
    )
    figure = compare(first, second, permutations=0).slice("group", SCIENCE).figures["overall"]
    known = np.array(after) - np.array(before)
    changes = known - known.mean()
    contributing = (changes**2).sum() ** 2 / (changes**4).sum() if known.any() else 0.0
    assert (figure.low is not None) == (contributing >= 4) == (figure.standard_error is not None)
    assert figure.value == pytest.approx((gains - losses) / 48)
    assert figure.note == (
        "all values equal" if not known.any() else "" if contributing >= 4 else "too few different values"
    )


def test_a_short_note_in_the_table_says_that_nearly_all_samples_are_equal() -> None:
    rows = [row(f"s{i:02}", "physics" if i % 2 else "news", reading(*[float(i < 4)] * 4)) for i in range(48)]
    summary = aggregate(rows, system="weak")
    assert (summary.headline.low, summary.headline.note) == (None, "too few different values")
    text = tables.terminal([summary])
    assert "0.083 few different" in text
    assert "few different: no interval, because nearly all samples have the same value" in text


def test_a_measure_that_hardly_varies_has_no_interval() -> None:
    """A measure such as a similarity does not reach 0 and 1; twelve different values do, one other value does not."""

    def note(values: list[float]) -> str:
        rows = [row(f"s{i:02}", "physics", reading(each, each, each, each)) for i, each in enumerate(values)]
        return aggregate(rows).slice("group", SCIENCE).figures["faithfulness"].note

    assert note([0.7 + i / 100 for i in range(12)]) == ""
    assert note([0.7] * 30 + [0.8]) == "too few different values"


def test_equal_values_have_no_interval_of_the_overall_and_the_note_says_so() -> None:
    """48 samples are not too few: where nothing varies, nothing is known of the spread."""
    rows = [perfect(f"s{i:02}", "physics" if i % 2 else "news") for i in range(48)]
    summary = aggregate(rows, system="perfect")
    assert (summary.headline.value, summary.headline.low, summary.headline.note) == (1.0, None, "all values equal")
    text = tables.terminal([summary])
    assert "1.000 all equal" in text and "too small" not in text
    assert "all equal: no interval, because all samples have the same value" in text


def test_few_samples_or_values_give_no_interval() -> None:
    chance = random.Random(1)
    rows = random_rows(chance, 66, texts=1.0)
    few = [one for one in rows if one.category == "physics"] + [one for one in rows if one.category == "news"][:17]
    summary = aggregate(few)
    assert summary.headline.low is None and summary.headline.note == "n too small"
    assert summary.slice("group", POP).figures["overall"].note == "n too small"
    assert summary.slice("group", SCIENCE).figures["overall"].low is not None
    eighteen = [*few, next(one for one in rows if one.category == "news" and one not in few)]
    assert aggregate(eighteen).headline.low is not None


def test_a_heavy_dimension_with_few_values_gives_no_interval() -> None:
    """Text weighs .4 from one sample alone, whose spread is not known."""
    rows = [row(f"s{i:02}", "physics", reading(1, i % 2, 0, 1), text_required=i == 0) for i in range(24)]
    group = aggregate(rows).slice("group", SCIENCE)
    assert group.figures["overall"].note == group.figures[TEXT].note == "n too small"
    assert group.figures["visual_correctness"].low is not None


def test_intervals_contain_their_figure_and_stay_in_range() -> None:
    for seed in range(12):
        for protocol in ("strict", "official", "na-renormalise", "genevolve-micro"):
            rows = random_rows(random.Random(seed), 20 + 15 * seed, skill=seed / 11)
            for part in aggregate(rows, protocol).slices:
                for figure in part.figures.values():
                    if figure.low is not None and figure.high is not None and figure.value is not None:
                        assert (
                            -1e-9 <= figure.low <= figure.value + 1e-4 and figure.value - 1e-4 <= figure.high <= 1.0001
                        )


def test_intervals_depend_only_on_rows() -> None:
    rows = random_rows(random.Random(2), 60)
    assert aggregate(rows) == aggregate(rows)
    alone = aggregate([one for one in rows if one.category == "news"])
    assert alone.slice("group", POP).figures == aggregate(rows).slice("group", POP).figures
    assert aggregate(rows[::-1]) == aggregate(rows)


def test_repeats_do_not_make_an_interval_narrower_than_their_samples() -> None:
    """The same scores three times are no more samples than once."""
    rows = random_rows(random.Random(3), 60)
    thrice = [one.model_copy(update={"repeat": repeat}) for one in rows for repeat in range(3)]
    once, three = aggregate(rows).headline, aggregate(thrice).headline
    assert (three.low, three.high) == pytest.approx((once.low, once.high), abs=1e-9)


def test_every_resample_keeps_the_group_sizes() -> None:
    strata = np.array(["a"] * 7 + ["b"] * 3)
    blocks = list(resample_counts(strata, 50, seeded(0, "x")))
    counts = np.concatenate(blocks)
    assert counts.shape == (50, 10)
    assert (counts[:, :7].sum(axis=1) == 7).all() and (counts[:, 7:].sum(axis=1) == 3).all()


def test_the_block_size_does_not_change_resamples() -> None:
    strata = np.array(["a"] * 500_000)
    blocks = resample_counts(strata, 20, seeded(0, "x"))
    assert [len(block) for block in blocks] == [8, 8, 4]


def test_sums_over_resamples_do_not_depend_on_the_order_of_addition() -> None:
    chance = np.random.default_rng(0)
    table, counts = chance.random((3000, 2)), chance.integers(0, 4, (5, 3000)).astype(float)
    everyone = np.ones(3000, dtype=bool)
    there = counted_means(table, counts)(everyone)
    back = counted_means(table[::-1], counts[:, ::-1])(everyone)
    assert (there == back).all()
    assert there == pytest.approx((counts @ table) / counts.sum(axis=1, keepdims=True), abs=1e-9)


def improved_scores(rows: list[Row], chance: random.Random, share: float) -> list[Row]:
    """Return the same samples of a system that is a step better on a share of them."""

    def better(one: Row) -> Row:
        if chance.random() > share or one.generation != "ok":
            return one
        values = {name: min(1.0, value + 0.5) for name, value in one.strict.values.items()}
        return one.model_copy(update={"strict": one.strict.model_copy(update={"values": values})})

    return [better(one) for one in rows]


def width(figure: Figure) -> float:
    assert figure.low is not None and figure.high is not None
    return figure.high - figure.low


def test_a_paired_interval_is_narrower_than_an_unpaired_one() -> None:
    a = random_rows(random.Random(5), 60)
    b = improved_scores(a, random.Random(7), 0.3)
    result = compare(a, b).headline
    assert result.low is not None and result.high is not None and result.low > 0
    assert result.p is not None and result.p < 0.01
    unpaired = math.hypot(width(aggregate(a).headline), width(aggregate(b).headline))
    assert result.high - result.low < 0.75 * unpaired


def test_the_paired_interval_equals_its_formula() -> None:
    """All dimensions gain the same, so that the difference is a plain mean of 0 and 1, with .005 of -1 and 1 added."""
    a, b = grades(40, 10), grades(40, 22)
    result = compare(a, b, permutations=0).slice("group", SCIENCE).figures["overall"]
    gains = np.array([1.0] * 12 + [0.0] * 28)
    size = 40.01
    mean = gains.sum() / size
    squares = ((gains - mean) ** 2).sum() + 0.005 * ((1 - mean) ** 2 + (1 + mean) ** 2)
    error = math.sqrt(squares / size / (size - 1))
    assert result.standard_error == pytest.approx(error, rel=1e-9)
    assert result.low == pytest.approx(mean - student.ppf(0.975, 39) * error, abs=1e-8)


NOMINAL = (0.93, 0.97)


def near_nominal(found: Measured) -> None:
    """Check the share of intervals that contain the truth, with two binomial standard errors of tolerance."""
    tolerance = 2 * math.sqrt(0.05 * 0.95 / found.given)
    assert NOMINAL[0] - tolerance <= found.share <= NOMINAL[1] + tolerance, found


@pytest.mark.parametrize("system", ["floor", "middle"])
def test_intervals_of_48_samples_contain_the_true_value_at_the_nominal_rate(system: str) -> None:
    found = figure_coverage(SYSTEMS[system], (18, 30), 300, np.random.default_rng(1))[-1]
    assert found.given > 0.9 * found.rounds
    near_nominal(found)


USUALLY_GIVEN = 0.5
"""Share of the benchmarks with an interval from which on those that are given are judged by themselves."""


def near_nominal_or_rare(found: Measured) -> None:
    """Check the intervals of a figure.

    Where nearly all values are equal in most benchmarks, the few with an interval are those in which rare values happen
    to be frequent. Of them, more than 5 % are wrong; of all benchmarks, no more than elsewhere.
    """
    if found.given >= USUALLY_GIVEN * found.rounds:
        near_nominal(found)
    else:
        assert found.wrong <= 0.05, found


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [name for name in SIZES if name != "10 + 200"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_intervals_of_every_figure_contain_the_true_value_at_the_nominal_rate(system: str, sizes: str) -> None:
    found = figure_coverage(SYSTEMS[system], SIZES[sizes], 800, np.random.default_rng(0))
    for one in found:
        near_nominal_or_rare(one)
    if sizes != "category of 20":
        assert found[-1].given > 0.7 * found[-1].rounds


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [name for name in SIZES if name != "10 + 200"])
@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_paired_intervals_contain_the_true_difference(one: str, two: str, sizes: str) -> None:
    for found in difference_coverage(SYSTEMS[one], SYSTEMS[two], SIZES[sizes], 800, np.random.default_rng(0)):
        near_nominal_or_rare(found)


def test_a_group_of_ten_samples_gives_no_interval_but_a_test() -> None:
    """10 and 200 samples: the small group has half of the weight, and nobody can say how far it varies."""
    assert figure_coverage(SYSTEMS["middle"], (10, 200), 3, np.random.default_rng(0))[-1].given == 0


@pytest.mark.parametrize("system", ["floor", "ceiling"])
def test_text_that_is_nearly_always_right_or_wrong_has_an_interval_in_few_benchmarks(system: str) -> None:
    """An interval wide enough for the samples that could have differed would contain the true value nearly always."""
    found = figure_coverage(SYSTEMS[system], (18, 30), 200, np.random.default_rng(1))[FIGURES.index(TEXT)]
    assert found.given < 0.2 * found.rounds and found.wrong <= 0.05
