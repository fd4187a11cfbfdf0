"""Measure how often a board calls systems different that are equal.

    python benchmarks/board_false_alarms.py [--rounds 1000] [--systems 20] [--seed 0]

Benchmarks are simulated in which all systems have the same true values (see `interval_coverage.py`). A board has a
false alarm if any pair counts as different at 5 % after Holm's correction for all pairs. Each line is one setting: the
share of boards with a false alarm, which should be at most .05, and the share of single pairs with p <= .05 before the
correction. The last lines add one system that is better by .1, and print in which share of boards it is found to be
better than each of the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.interval_coverage import SIZES, SYSTEMS, Levels, Simulation
from knowgen.core.records import DIMENSIONS, GROUPS
from knowgen.stats.compare.all_pairs import PairedFigure, all_pairs
from knowgen.stats.compare.holm import holm
from knowgen.stats.protocol import STRICT
from knowgen.stats.values import STATES, Floats, RowProblems, Unit, Values

LEVEL = 0.05
SETTINGS = ("18 + 30", "18 + 200", "294 + 336", "category of 20", "group of 48")


@dataclass(frozen=True)
class Alarms:
    """What was found on simulated boards.

    Attributes:
        boards: Share of the boards on which any pair counts as different.
        pairs: Share of the pairs with p <= .05 before the correction.
        tested: Share of the pairs that have a p-value.
    """

    boards: float
    pairs: float
    tested: float


def values_of(table: Floats, simulation: Simulation) -> Values:
    """Return a table of shape (1, N, 4) as the values of a system."""
    units = tuple(
        Unit(f"{place:04}", GROUPS[group][0], group, "", None) for place, group in enumerate(simulation.strata.tolist())
    )
    coverage = np.zeros((len(units), len(STATES) + 1), dtype=np.int64)
    coverage[:, 0] = 1
    return Values(units, table, coverage, 1, 1, (), RowProblems())


def pairs_of(simulation: Simulation, levels: Sequence[Levels]) -> dict[tuple[int, int], PairedFigure]:
    """Return all pairs of a simulated board of systems with these levels; of a category alone if it has one group."""
    systems = [values_of(table, simulation) for table in simulation.draw(levels)]
    parts = all_pairs(systems, STRICT, DIMENSIONS, parts=simulation.kind != "all")
    part = parts[0] if simulation.kind == "all" else next(one for one in parts if one.kind == simulation.kind)
    return dict(part.pairs)


def differing(pairs: dict[tuple[int, int], PairedFigure]) -> set[tuple[int, int]]:
    """Return the pairs that count as different after the correction."""
    tested = {key: pair.p for key, pair in pairs.items() if pair.p is not None}
    return {key for key, p in zip(tested, holm(list(tested.values())), strict=True) if p <= LEVEL}


def false_alarms(levels: Levels, sizes: tuple[int, ...], systems: int, rounds: int, seed: int) -> Alarms:
    """Simulate boards of equal systems.

    Args:
        levels: Mean of each dimension in both groups.
        sizes: Number of samples of each group; with one, the samples are those of a category.
        systems: Number of systems.
        rounds: Number of boards.
        seed: Seed of the simulation.
    """
    simulation, alarms, low, tested = Simulation(sizes, np.random.default_rng(seed)), 0, 0, 0
    for _ in range(rounds):
        pairs = pairs_of(simulation, [levels] * systems)
        alarms += bool(differing(pairs))
        known = [pair.p for pair in pairs.values() if pair.p is not None]
        tested += len(known)
        low += sum(p <= LEVEL for p in known)
    total = rounds * systems * (systems - 1) // 2
    return Alarms(alarms / rounds, low / max(tested, 1), tested / total)


def found_better(levels: Levels, sizes: tuple[int, ...], systems: int, rounds: int, seed: int) -> float:
    """Return the share of the pairs with a system that is better by .1 that count as different."""
    better = [[mean + 0.1 for mean in level] for level in levels]
    simulation, found = Simulation(sizes, np.random.default_rng(seed)), 0
    for _ in range(rounds):
        pairs = differing(pairs_of(simulation, [better, *[levels] * (systems - 1)]))
        found += sum(first == 0 for first, _ in pairs)
    return found / (rounds * (systems - 1))


def lines(rounds: int, systems: int, seed: int) -> Iterator[str]:
    """Yield one line for each setting."""
    for size in SETTINGS:
        for name, levels in SYSTEMS.items():
            found = false_alarms(levels, SIZES[size], systems, rounds, seed)
            yield (
                f"{name:8} {size:16} false alarms {found.boards:.3f}   p <= .05 {found.pairs:.3f}   "
                f"tested {found.tested:.2f}"
            )
    for name in ("weak", "middle"):
        share = found_better(SYSTEMS[name], SIZES["294 + 336"], systems, max(1, rounds // 10), seed)
        yield f"{name:8} {'294 + 336':16} a difference of .1 is found in {share:.2f}"


def main() -> None:
    """Print every setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--systems", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for line in lines(arguments.rounds, arguments.systems, arguments.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
