"""Intervals, against a bootstrap that copies samples one by one and against simulated benchmarks."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from knowgen.core.records import POP, SCIENCE, Row
from knowgen.stats import aggregate as aggregate_module
from knowgen.stats.aggregate import aggregate
from knowgen.stats.bootstrap import counted_means, resample_counts, seeded
from knowgen.stats.compare import systems as compare_module
from knowgen.stats.compare.systems import compare
from knowgen.stats.subsets import sample_subsets
from knowgen.stats.summary import Figure
from tests.helpers.score_rows import perfect, reading, row
from tests.helpers.simulated_benchmarks import SIZES, Benchmark, published, true_score

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


def slow_strict(rows: list[Row]) -> dict[str, float]:
    """Compute the strict K-Score and dimensions from copies of samples (which may repeat)."""
    per_group = []
    for category in ("physics", "news"):
        members = [one for one in rows if one.category == category]
        figures: dict[str, float] = {}
        for name in ("faithfulness", "visual_correctness", "text_accuracy", "aesthetics"):
            counted = [one for one in members if name != "text_accuracy" or one.text_required]
            values = [0.0 if one.generation != "ok" else one.strict.values[name] for one in counted]
            if values:
                figures[name] = sum(values) / len(values)
        weights = {"faithfulness": 0.1, "visual_correctness": 0.4, "text_accuracy": 0.4, "aesthetics": 0.1}
        share = sum(weights[name] for name in figures)
        figures["overall"] = sum(weights[name] * value for name, value in figures.items()) / share
        per_group.append(figures)
    names = set(per_group[0]) | set(per_group[1])
    return {
        name: sum(one[name] for one in per_group if name in one) / sum(name in one for one in per_group)
        for name in names
    }


def test_the_interval_equals_a_plain_loop() -> None:
    rows = random_rows(random.Random(5), 60)
    chance = random.Random(6)
    groups = [[one for one in rows if one.category == name] for name in ("physics", "news")]
    resampled_values: dict[str, list[float]] = {}
    for _ in range(4000):
        resampled = [one for group in groups for one in chance.choices(group, k=len(group))]
        for name, value in slow_strict(resampled).items():
            resampled_values.setdefault(name, []).append(value)
    figures = aggregate(rows).slice().figures
    for name, figure in figures.items():
        assert figure.value == pytest.approx(slow_strict(rows)[name], abs=1e-12)
        smallest = min(len(texts(group) if name == "text_accuracy" else group) for group in groups)
        low, high = np.quantile(resampled_values[name], expanded(smallest))
        assert (figure.low, figure.high) == pytest.approx((low, high), abs=0.012)


def expanded(n: int) -> list[float]:
    """Return the quantiles of an expanded percentile interval whose smallest group has n samples."""
    tail = float(norm.cdf(-math.sqrt(n / (n - 1)) * student.ppf(0.975, n - 1)))
    return [tail, 1 - tail]


def texts(rows: list[Row]) -> list[Row]:
    return [one for one in rows if one.text_required]


def test_official_intervals_use_the_same_arithmetic_without_rounding() -> None:
    """An empty group counts 0 in every resample too, and a resample without text has .5 there."""
    rows = [row(f"s{i:02}", "physics", reading(1, i % 2, i / 2 if i < 2 else None, 0)) for i in range(24)]
    figures = aggregate(rows, "official").slice().figures
    # V is about .5 and T about .25, .5 where a resample has no text: the K-Score about .5 * (.1 + .2 + .1) = .2
    assert figures["overall"].value == pytest.approx(0.5 * (0.1 + 0.2 + 0.1))
    assert figures["overall"].low is not None and 0.05 <= figures["overall"].low < 0.2
    assert figures["overall"].high is not None and 0.2 < figures["overall"].high <= 0.5 * (0.1 + 0.4 + 0.2)
    assert figures["text_accuracy"].note == "n too small"


def test_resamples_without_required_text_are_renormalised() -> None:
    """One sample of 24 needs text: a third of the resamples has none, and weighs the other dimensions alone."""
    rows = [row(f"s{i:02}", "physics", reading(1, i % 2, 0, 1), text_required=i == 0) for i in range(24)]
    group = aggregate(rows).slice("group", SCIENCE)
    figure = group.figures["overall"]
    assert figure.value == pytest.approx(0.1 + 0.2 + 0.1)
    assert figure.low is not None and figure.high is not None
    assert figure.low < 0.4 < (0.1 + 0.2 + 0.1) / 0.6 < figure.high
    assert group.figures["text_accuracy"].note == "n too small"


@pytest.mark.parametrize(("apart", "shown"), [(4, False), (5, True)])
def test_a_dimension_needs_five_differing_samples(apart: int, shown: bool) -> None:
    """Text as with Qwen-Image, right on a few of 294 samples: with fewer than five the spread is not known."""
    rows = [
        row(f"s{i:03}", "physics", reading(i % 2, i % 3 / 2, 1 if i < apart else 0, 1), text_required=True)
        for i in range(294)
    ]
    group = aggregate(rows).slice("group", SCIENCE)
    text = group.figures["text_accuracy"]
    assert text.value == pytest.approx(apart / 294) and text.n == 294
    assert (text.low is not None, text.note) == (shown, "" if shown else "n too small")
    assert group.figures["aesthetics"].note == "n too small"  # 1 on every sample: no interval of no width
    assert group.figures["overall"].low is not None


@pytest.mark.parametrize(("apart", "shown"), [(9, False), (10, True)])
def test_an_overall_needs_ten_differing_samples(apart: int, shown: bool) -> None:
    rows = [perfect(f"s{i:03}", "physics") for i in range(48 - apart)]
    rows += [row(f"t{i:03}", "physics", reading(1, 0.5, 1, 1), text_required=True) for i in range(apart)]
    figure = aggregate(rows).slice("group", SCIENCE).figures["overall"]
    assert (figure.low is not None, figure.note) == (shown, "" if shown else "n too small")


def test_a_group_of_equal_values_has_no_interval() -> None:
    """Where every sample of one group has the same value, the mean of the groups gets no interval."""
    rows = [row(f"s{i:02}", "physics", reading(i % 2, i % 2, i % 2, i % 2), text_required=True) for i in range(40)]
    rows += [row(f"p{i:02}", "news", reading(0, 0, 0, 0), text_required=True) for i in range(40)]
    summary = aggregate(rows)
    assert summary.headline.note == "n too small"
    assert summary.slice("group", SCIENCE).figures["overall"].low is not None
    assert summary.slice("group", POP).figures["overall"].note == "n too small"


def test_fewer_than_five_samples_in_a_group_give_no_interval() -> None:
    chance = random.Random(1)
    rows = random_rows(chance, 30, texts=1.0)
    few = [one for one in rows if one.category == "physics"] + [one for one in rows if one.category == "news"][:4]
    summary = aggregate(few)
    assert summary.headline.low is None and summary.headline.note == "n too small"
    assert summary.slice("group", POP).figures["overall"].note == "n too small"
    assert summary.slice("group", SCIENCE).figures["overall"].low is not None
    five = [*few, next(one for one in rows if one.category == "news" and one not in few)]
    assert aggregate(five).headline.low is not None


def test_intervals_depend_only_on_rows_and_seed() -> None:
    rows = random_rows(random.Random(2), 40)
    assert aggregate(rows, seed=1) == aggregate(rows, seed=1)
    assert aggregate(rows, seed=1).headline.low != aggregate(rows, seed=2).headline.low
    alone = aggregate([one for one in rows if one.category == "news"], seed=1)
    assert alone.slice("group", POP).figures == aggregate(rows, seed=1).slice("group", POP).figures
    assert aggregate(rows).headline.low is None


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


def test_the_paired_interval_equals_a_plain_loop_and_is_narrower_than_an_unpaired_one() -> None:
    a = random_rows(random.Random(5), 60)
    b = improved_scores(a, random.Random(7), 0.3)
    chance, resampled_values = random.Random(8), []
    places = [[i for i, one in enumerate(a) if one.category == name] for name in ("physics", "news")]
    for _ in range(3000):
        picked = [i for group in places for i in chance.choices(group, k=len(group))]
        first, second = slow_strict([a[i] for i in picked]), slow_strict([b[i] for i in picked])
        resampled_values.append(second["overall"] - first["overall"])
    result = compare(a, b).headline
    assert result.value == pytest.approx(slow_strict(b)["overall"] - slow_strict(a)["overall"], abs=1e-12)
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(resampled_values, expanded(20))), abs=0.008)
    assert result.p is not None and result.p < 0.01
    widths = [figure.high - figure.low for figure in (aggregate(a).headline, aggregate(b).headline, result)]  # type: ignore[operator]
    assert widths[2] < 0.75 * math.hypot(widths[0], widths[1])  # what two independent sets of samples would give


def only_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out groups and categories, which thousands of simulated benchmarks do not need."""
    for module in (aggregate_module, compare_module):
        monkeypatch.setattr(module, "sample_subsets", lambda units, protocol: sample_subsets(units, protocol)[:1])


NEAR_THE_CEILING = [
    {"faithfulness": 0.98, "visual_correctness": 0.95, "text_accuracy": 0.97, "aesthetics": 0.9},
    {"faithfulness": 0.97, "visual_correctness": 0.94, "text_accuracy": 0.96, "aesthetics": 0.92},
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "sizes", "at_least"),
    [
        ("Qwen-Image", SIZES, 0.93),
        ("Nano Banana Pro", SIZES, 0.93),
        ("Qwen-Image", (18, 30), 0.92),
        ("Nano Banana Pro", (18, 30), 0.92),
        ("", (18, 30), 0.92),
        ("Nano Banana Pro", (8, 8), 0.92),
    ],
)
def test_intervals_of_the_k_score_contain_the_true_value_at_the_nominal_rate(
    system: str, sizes: tuple[int, int], at_least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand simulated benchmarks of each size, 45 % of the prompts of one group without text."""
    only_the_whole(monkeypatch)
    levels = published(system) if system else NEAR_THE_CEILING
    rounds = 1000
    score, text = Coverage(true_score(levels)), Coverage(sum(level["text_accuracy"] for level in levels) / 2)
    for number in range(rounds):
        rows = Benchmark(levels, sizes, np.random.default_rng(number)).system()
        figures = aggregate(rows).slice().figures
        score.see(figures["overall"])
        text.see(figures["text_accuracy"])
    if min(sizes) >= 40:
        assert score.shown == rounds and 0.93 <= score.share <= 0.97
    else:
        assert score.shown >= 0.3 * rounds and at_least <= score.share <= 0.98
    if system == "Qwen-Image" and sizes == SIZES:
        # text at .34 and 1.4 %: where the rule gives no interval, one in ten would miss the truth
        assert 0.2 * rounds < text.shown < 0.8 * rounds and text.share >= 0.93


@dataclass
class Coverage:
    """Counts how often intervals contain the true value, among those that are given."""

    truth: float
    shown: int = 0
    covered: int = 0

    def see(self, figure: Figure) -> None:
        if figure.low is not None and figure.high is not None:
            self.shown += 1
            self.covered += figure.low <= self.truth <= figure.high

    @property
    def share(self) -> float:
        return self.covered / self.shown


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [SIZES, (18, 30)])
def test_paired_intervals_contain_the_true_difference(sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    only_the_whole(monkeypatch)
    levels = published("Nano Banana Pro")
    covered, shown, rounds = 0, 0, 300 if sizes == SIZES else 1000
    for number in range(rounds):
        benchmark = Benchmark(levels, sizes, np.random.default_rng(number))
        figure = compare(benchmark.system(), benchmark.system(), permutations=0).headline
        if figure.low is not None and figure.high is not None:
            shown += 1
            covered += figure.low <= 0 <= figure.high
    assert shown >= 0.95 * rounds
    assert 0.92 <= covered / shown <= 0.98
