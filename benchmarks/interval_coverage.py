"""Measure how often 95 % intervals contain the true value, and how often a detectable difference is detected.

    python benchmarks/interval_coverage.py [--rounds 4000] [--seed 0]

Benchmarks are simulated whose truth is known: values on the grid 0, .5, 1; four correlated dimensions; 45 % of the
prompts of one group and 10 % of the other without text. Each line is one setting: how often an interval is given, how
often those that are given contain the true value, and in which share of all benchmarks one is given that does not.
The last lines give the share of benchmarks in which the permutation test detects a difference of the size that
`detectable` names; 80 % is promised.

Where an interval is given in most benchmarks, those that are given contain the true value 93 to 98 % of the time. Where
it is given in a few, these are the ones in which rare values happen to be frequent: of them a larger share is wrong, of
all benchmarks at most as large a share as elsewhere.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from knowgen.core.records import (
    DIMENSIONS,
    GROUPS,
    POP,
    SCIENCE,
    TEXT,
    GenerationStatus,
    ParsedScore,
    Row,
    ScoreStatus,
)
from knowgen.stats.aggregate import sampled_values
from knowgen.stats.combine import observed
from knowgen.stats.compare.effect import detectable
from knowgen.stats.compare.systems import compare
from knowgen.stats.intervals import Interval, difference_intervals, figure_intervals
from knowgen.stats.protocol import KNOWGEN_WEIGHTS, STRICT
from knowgen.stats.summary import OVERALL

Floats = NDArray[np.float64]
Levels = Sequence[Sequence[float]]

HALVES = (0.7, 0.7, 0.3, 0.8)
"""Share of a dimension's spread that goes to the value 0.5; text is mostly right or wrong."""

CORRELATION = 0.4
"""Correlation of the dimensions of a sample, and of two systems on the same sample."""

WITHOUT_TEXT = {SCIENCE: 0.45, POP: 0.1}
PLACES = {name: place for place, name in enumerate(DIMENSIONS)}
FIGURES = (*DIMENSIONS, OVERALL)
PRINTED = (OVERALL, DIMENSIONS[1], TEXT)
"""Figures that are printed: the overall, and the two dimensions with the largest weights."""

PUBLISHED = Path(__file__).resolve().parents[1] / "leaderboards" / "knowgen-official" / "published.csv"


def published(system: str) -> Levels:
    """Return the means of a published system in both groups, in [0, 1]."""
    with PUBLISHED.open(encoding="utf-8") as file:
        line = next(each for each in csv.DictReader(file) if each["system"] == system)
    return [[float(line[f"{group}_{name.split('_')[0]}"]) / 100 for name in DIMENSIONS] for group in ("sk", "pop")]


SYSTEMS: dict[str, Levels] = {
    "floor": [[0.12, 0.04, 0.03, 0.15], [0.15, 0.03, 0.02, 0.2]],
    "weak": published("Qwen-Image"),
    "middle": [[0.5] * 4] * 2,
    "strong": published("Nano Banana Pro"),
    "good": [[0.9, 0.7, 0.8, 0.8], [0.9, 0.6, 0.8, 0.75]],
    "ceiling": [[0.98, 0.95, 0.97, 0.9], [0.97, 0.94, 0.96, 0.92]],
}
"""Mean of each dimension in both groups."""

SIZES: dict[str, tuple[int, ...]] = {
    "18 + 30": (18, 30),
    "24 + 24": (24, 24),
    "10 + 200": (10, 200),
    "18 + 200": (18, 200),
    "294 + 336": (294, 336),
    "category of 20": (20,),
    "group of 48": (48,),
}
"""Number of samples of each group; one number is a subset whose samples are averaged directly."""

PAIRS = (("floor", "floor"), ("floor", "weak"), ("weak", "strong"), ("middle", "middle"), ("good", "ceiling"))
"""Systems of which paired differences are measured."""


@dataclass(frozen=True)
class Measured:
    """How often an interval was given, and how often it contained the true value.

    Attributes:
        rounds: Number of simulated benchmarks.
        given: Number of them with an interval.
        covered: Number of these whose interval contains the true value.
    """

    rounds: int
    given: int
    covered: int

    @property
    def share(self) -> float:
        """Share of the intervals that contain the true value; NaN without any."""
        return self.covered / self.given if self.given else float("nan")

    @property
    def wrong(self) -> float:
        """Share of all benchmarks with an interval that does not contain the true value."""
        return (self.given - self.covered) / self.rounds


class Simulation:
    """Simulated benchmarks of one shape.

    Args:
        sizes: Number of samples of each group.
        rng: Random generator.
    """

    def __init__(self, sizes: tuple[int, ...], rng: np.random.Generator) -> None:
        self.kind = "all" if len(sizes) == 2 else "category"
        self.sizes, self.rng = sizes, rng
        names = (SCIENCE, POP)[: len(sizes)]
        self.strata = np.repeat(np.array(names, dtype=np.str_), sizes)
        self.without_text = [WITHOUT_TEXT[name] if len(sizes) == 2 else 0.3 for name in names]

    def draw(self, systems: Sequence[Levels]) -> tuple[Floats, ...]:
        """Return the values of several systems on the same samples, shape (1, N, 4) each, NaN for text not required."""
        hard = [self.rng.standard_normal((size, 1)) for size in self.sizes]
        text = np.concatenate(
            [self.rng.random(size) >= share for size, share in zip(self.sizes, self.without_text, strict=True)]
        )
        tables = []
        for levels in systems:
            parts = [self._values(own, level) for own, level in zip(hard, levels, strict=False)]
            table = np.concatenate(parts)
            table[~text, PLACES[TEXT]] = np.nan
            tables.append(table[None])
        return tuple(tables)

    def _values(self, hard: Floats, level: Sequence[float]) -> Floats:
        own = self.rng.standard_normal((len(hard), len(DIMENSIONS)))
        latent = hard * CORRELATION**0.5 + own * (1 - CORRELATION) ** 0.5
        return np.column_stack([on_grid(latent[:, place], mean, HALVES[place]) for place, mean in enumerate(level)])


def on_grid(latent: Floats, mean: float, halves: float) -> Floats:
    """Cut standard normal values into 0, .5 and 1 so that their expectation is `mean`."""
    half = halves * 2 * mean * (1 - mean)
    quantile = NormalDist().inv_cdf
    cuts = quantile(1 - (mean - half / 2) - half), quantile(1 - (mean - half / 2))
    return 0.5 * (latent > cuts[0]) + 0.5 * (latent > cuts[1])


def truths(levels: Levels, groups: int) -> list[float]:
    """Return the true value of each dimension, and of the overall last."""
    means = [sum(level[place] for level in levels[:groups]) / groups for place in range(len(DIMENSIONS))]
    return [*means, sum(weight * mean for weight, mean in zip(KNOWGEN_WEIGHTS, means, strict=True))]


def figure_coverage(
    levels: Levels, sizes: tuple[int, ...], rounds: int, rng: np.random.Generator
) -> tuple[Measured, ...]:
    """Measure the intervals of every dimension of a system, and of its overall last."""
    simulation, found = Simulation(sizes, rng), []
    for _ in range(rounds):
        (table,) = simulation.draw([levels])
        values = observed(table, DIMENSIONS, STRICT)
        sampled = sampled_values(simulation.kind, (table,), simulation.strata, values, DIMENSIONS, STRICT)
        found.append(figure_intervals(sampled, [float("nan")] * len(FIGURES)))
    return measured(found, truths(levels, len(sizes)))


def difference_coverage(
    first: Levels, second: Levels, sizes: tuple[int, ...], rounds: int, rng: np.random.Generator
) -> tuple[Measured, ...]:
    """Measure the intervals of the differences of two systems, that of the overalls last."""
    simulation, found = Simulation(sizes, rng), []
    for _ in range(rounds):
        tables = simulation.draw([first, second])
        one, two = (observed(table, DIMENSIONS, STRICT) for table in tables)
        sampled = sampled_values(simulation.kind, tables, simulation.strata, two - one, DIMENSIONS, STRICT)
        each = difference_intervals(sampled, [float("nan")] * len(FIGURES))
        found.append([one if isinstance(one, str) else one[0] for one in each])
    levels = (truths(each, len(sizes)) for each in (first, second))
    return measured(found, [after - before for before, after in zip(*levels, strict=True)])


def measured(found: Sequence[Sequence[Interval | str]], true_values: Sequence[float]) -> tuple[Measured, ...]:
    """Count for each figure how often an interval is given, and contains the true value.

    Args:
        found: The intervals or notes of each round.
        true_values: True value of each figure.
    """
    each = []
    for place, truth in enumerate(true_values):
        given = [ends for intervals in found if not isinstance(ends := intervals[place], str)]
        each.append(Measured(len(found), len(given), sum(low <= truth <= high for low, high in given)))
    return tuple(each)


def detection(levels: Levels, sizes: tuple[int, ...], rounds: int, rng: np.random.Generator) -> tuple[float, float]:
    """Measure whether a difference of the size that `detectable` names is detected.

    First passes find the difference for which `detectable` names this difference on average, because the spread of weak
    systems grows with their level; then one system is better by as much.

    Returns:
        The mean, and the share of benchmarks in which the permutation test finds a difference at 5 %.
    """
    simulation, size = Simulation(sizes, rng), 0.0
    for _ in range(6):
        better = [[mean + size for mean in level] for level in levels]
        size = _mean_detectable(simulation, levels, better, rounds)
    detected = 0
    for number in range(rounds):
        first, second = (rows_of(table[0], simulation.strata) for table in simulation.draw([levels, better]))
        p = compare(first, second, permutations=499, seed=number).headline.p
        detected += p is not None and p <= 0.05
    return size, detected / rounds


def _mean_detectable(simulation: Simulation, first: Levels, second: Levels, rounds: int) -> float:
    promised = []
    for _ in range(rounds):
        tables = simulation.draw([first, second])
        one, two = (observed(table, DIMENSIONS, STRICT) for table in tables)
        sampled = sampled_values(simulation.kind, tables, simulation.strata, two - one, DIMENSIONS, STRICT)
        found = difference_intervals(sampled, [float("nan")] * 5)[-1]
        if not isinstance(found, str):
            promised.append(detectable(found[1]))
    return float(np.mean(promised))


def rows_of(table: Floats, strata: NDArray[np.str_]) -> list[Row]:
    """Return the rows of a table of values, shape (N, 4), NaN for text not required."""
    rows = []
    for place, (values, group) in enumerate(zip(table.tolist(), strata.tolist(), strict=True)):
        known = {name: value for name, value in zip(DIMENSIONS, values, strict=True) if value == value}
        text = TEXT in known
        score = ParsedScore(status=ScoreStatus.OK, values=known, na=() if text else (TEXT,))
        category = GROUPS[group][0]
        rows.append(
            Row(
                sample_id=f"{place:04}",
                category=category,
                group=group,
                text_required=text,
                generation=GenerationStatus.OK,
                strict=score,
            )
        )
    return rows


def lines(rounds: int, seed: int) -> Iterator[str]:
    """Yield one line for each setting."""
    for size_words, sizes in SIZES.items():
        for name, levels in SYSTEMS.items():
            found = figure_coverage(levels, sizes, rounds, np.random.default_rng(seed))
            yield from _figure_lines(f"of {name}, {size_words}", found)
        for one, two in PAIRS:
            found = difference_coverage(SYSTEMS[one], SYSTEMS[two], sizes, rounds, np.random.default_rng(seed))
            yield from _figure_lines(f"of {two} - {one}, {size_words}", found)
    for name in ("weak", "middle"):
        size, share_detected = detection(SYSTEMS[name], SIZES["18 + 30"], rounds // 4, np.random.default_rng(seed))
        yield f"{name}, 18 + 30: a difference of {size:.3f} is named detectable   detected {share_detected:.3f}"


def _figure_lines(words: str, found: Sequence[Measured]) -> Iterator[str]:
    for name in PRINTED:
        one = found[FIGURES.index(name)]
        share = f"{one.share:.3f}" if one.given else "  -  "
        yield (
            f"{f'{name} {words}':52} given {one.given / one.rounds:5.2f}   contains the true value {share}   "
            f"wrong in {one.wrong:.3f}"
        )


def main() -> None:
    """Print the coverage of every setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for line in lines(arguments.rounds, arguments.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
