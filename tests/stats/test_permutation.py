"""The paired permutation test, against every exchange written out, and on systems that are equal."""

from __future__ import annotations

import itertools
import random
from statistics import mean, stdev

import numpy as np
import pytest

from knowgen.core.records import ParsedScore, Row, ScoreStatus
from knowgen.stats.aggregate import aggregate
from knowgen.stats.compare import systems as compare_module
from knowgen.stats.compare.holm import corrected, holm
from knowgen.stats.compare.systems import compare
from knowgen.stats.protocol import get_protocol
from knowgen.stats.subsets import sample_subsets
from tests.helpers.score_rows import reading, row
from tests.helpers.simulated_benchmarks import SIZES, Benchmark, published

GRID = (0.0, 0.5, 1.0)


def measured(sample: str, value: float, category: str = "physics") -> Row:
    """Return a row of a scorer with one dimension."""
    return row(sample, category, ParsedScore(status=ScoreStatus.OK, values={"x": value}))


def test_the_p_value_of_three_samples_equals_the_worked_one() -> None:
    """Differences .5, .3, -.1 add up to .7; of the eight signs only +++- patterns as large as that count:
    (+ + -) .7, (+ + +) .9 and their mirrors, so p = 4 / 8.
    """
    a = [measured("1", 0.2), measured("2", 0.2), measured("3", 0.2)]
    b = [measured("1", 0.7), measured("2", 0.5), measured("3", 0.1)]
    result = compare(a, b, dimensions=("x",))
    assert result.headline.p == 0.5
    assert (result.relabellings, result.exact) == (8, True)
    assert (result.p_holm, result.family) == (0.5, 1)
    differences = [0.5, 0.3, -0.1]
    assert result.headline.effect == pytest.approx(mean(differences) / stdev(differences))


def some_rows(chance: random.Random, size: int) -> list[Row]:
    """Rows of both groups in which the judge finds text here and there, and some generations failed."""
    rows = []
    for index in range(size):
        values = [chance.choice(GRID) for _ in range(4)]
        text = values[2] if chance.random() < 0.7 else None
        score = reading(values[0], values[1], text, values[3])
        generation = "failed" if chance.random() < 0.1 else "ok"
        category = "news" if index % 3 == 0 else "physics"
        rows.append(row(f"s{index}", category, score, generation))
    return rows


@pytest.mark.parametrize("protocol", ["strict", "official", "na-renormalise", "genevolve-micro"])
@pytest.mark.parametrize("seed", range(4))
def test_the_p_value_equals_that_of_all_exchanges_computed_one_by_one(protocol: str, seed: int) -> None:
    """Rows change sides one by one, and both sides are aggregated again, for all 2^n ways."""
    chance = random.Random(seed)
    a, b = some_rows(chance, 8), some_rows(chance, 8)
    result = compare(a, b, protocol)
    paired = [key for key in (one.sample_id for one in a) if key not in result.unscored]
    first, second = ({one.sample_id: one for one in side} for side in (a, b))

    def difference(exchanged: tuple[bool, ...]) -> float:
        sides: tuple[list[Row], list[Row]] = ([], [])
        for key, swap in zip(paired, exchanged, strict=True):
            sides[0].append((second if swap else first)[key])
            sides[1].append((first if swap else second)[key])
        k = [aggregate(side, rule).headline.value for side in sides]
        assert k[0] is not None and k[1] is not None
        return k[1] - k[0]

    rule = get_protocol(protocol).model_copy(update={"rounding": None})
    all_of_them = [difference(ways) for ways in itertools.product((False, True), repeat=len(paired))]
    as_large = sum(abs(each) >= abs(all_of_them[0]) - 1e-9 for each in all_of_them)
    assert result.exact
    assert result.headline.p == pytest.approx(as_large / len(all_of_them), abs=1e-12)
    back = compare(b, a, protocol)
    assert back.headline.p == result.headline.p


def test_random_exchanges_give_a_p_value_above_zero_and_near_the_exact_one() -> None:
    chance = random.Random(3)
    a, b = some_rows(chance, 13), some_rows(chance, 13)
    exact = compare(a, b, permutations=2**13)
    sampled = compare(a, b, permutations=4000, seed=1)
    assert exact.exact and not sampled.exact and sampled.relabellings == 4001
    assert exact.headline.p is not None
    assert sampled.headline.p == pytest.approx(exact.headline.p, abs=0.03)
    assert sampled == compare(a, b, permutations=4000, seed=1)
    worst = [measured(f"s{i:02}", 0.0) for i in range(40)]
    best = [measured(f"s{i:02}", 1.0) for i in range(40)]
    sure = compare(worst, best, dimensions=("x",), permutations=999)
    assert sure.headline.p == 1 / 1000
    assert sure.headline.effect is None  # all differ by the same


def test_official_exchanges_all_repeats_of_a_sample_together() -> None:
    """Two repeats against one: the labels of all generations of a sample are exchanged together, in both directions."""
    chance = random.Random(9)
    a = [one.model_copy(update={"repeat": repeat}) for repeat in range(2) for one in some_rows(chance, 7)]
    b = some_rows(chance, 7)
    there, back = compare(a, b, "official"), compare(b, a, "official")
    assert there.headline.p == back.headline.p
    assert there.relabellings == 2 ** (there.paired)


def test_holm_correction_of_a_worked_example() -> None:
    """Sorted .005 x 4, .01 x 3, .03 x 2, .04 x 1; the last may not be smaller than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    chance = random.Random(4)
    systems = [some_rows(chance, 8) for _ in range(3)]
    family = corrected([compare(systems[0], other) for other in systems[1:]])
    raw = [one.headline.p for one in family]
    assert None not in raw
    assert [one.p_holm for one in family] == holm([each for each in raw if each is not None])
    assert {one.family for one in family} == {2}


def only_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out groups and categories, which thousands of simulated benchmarks do not need."""
    monkeypatch.setattr(compare_module, "sample_subsets", lambda units, protocol: sample_subsets(units, protocol)[:1])


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "rounds"), [(SIZES, 1500), ((40, 40), 2500), ((18, 30), 2500)])
def test_equal_systems_differ_significantly_in_five_percent_of_benchmarks(
    sizes: tuple[int, int], rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two simulations of one system at the level of Qwen-Image, or of Nano Banana Pro where benchmarks are small."""
    only_the_whole(monkeypatch)
    levels = published("Qwen-Image" if sizes == SIZES else "Nano Banana Pro")
    alarms = 0
    for number in range(rounds):
        benchmark = Benchmark(levels, sizes, np.random.default_rng(number))
        p = compare(benchmark.system(), benchmark.system(), permutations=399).headline.p
        assert p is not None
        alarms += p <= 0.05
    assert 0.035 <= alarms / rounds <= 0.065


@pytest.mark.slow
def test_the_smallest_detectable_difference_is_detected_in_eighty_percent_of_benchmarks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only_the_whole(monkeypatch)
    n, spread, rounds, power = 120, 0.1, 800, 0
    true = (1.959964 + 0.841621) * spread / n**0.5
    promised = []
    for number in range(rounds):
        rng = np.random.default_rng(number)
        level = rng.uniform(0.3, 0.6, n)
        other = level + true + spread * rng.standard_normal(n)
        a, b = ([measured(f"s{i:02}", float(v)) for i, v in enumerate(x)] for x in (level, np.clip(other, 0, 1)))
        result = compare(a, b, dimensions=("x",), permutations=499).headline
        assert result.p is not None and result.detectable is not None
        promised.append(result.detectable)
        power += result.p <= 0.05
    assert 0.76 <= power / rounds <= 0.84
    assert mean(promised) == pytest.approx(true, rel=0.03)
