"""Is the difference real? Two systems over the same samples.

Both systems' figures are computed on the same resampled samples, so that what makes a sample hard for both cancels
out. Beside the interval stand the p-value of a paired permutation test, the effect size and the smallest difference
that could have been found. The bootstrap's own p-value is twice the smaller share of resamples on either side of no
difference, each counted with one more (Davison and Hinkley, Bootstrap Methods and their Application, section 4.4), at
most 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from knowgen.core.errors import UsageError
from knowgen.core.records import DIMENSIONS, Row
from knowgen.stats.aggregate import NOTHING, RESAMPLES
from knowgen.stats.bootstrap import (
    APART,
    TOO_SMALL,
    counted_means,
    distribution,
    interval,
    large_enough,
    seeded,
    smallest_groups,
)
from knowgen.stats.combine import averaged, observed, point_means, sample_overalls, sliced_figures
from knowgen.stats.compare.effect import detectable, paired_effect, standard_error
from knowgen.stats.compare.pairing import PairedValues, notes_of_pair
from knowgen.stats.compare.permutation import (
    PERMUTATIONS,
    PermutationTest,
    alike,
    differing,
    exchanged_means,
    permutation_test,
)
from knowgen.stats.compare.records import ComparedSlice, Comparison, FigureDifference
from knowgen.stats.coverage import no_result, reason_for_no_result
from knowgen.stats.protocol import ScoringProtocol, get_protocol
from knowgen.stats.subsets import SampleSubset, counted_states, group_names, parts_of
from knowgen.stats.summary import OVERALL, Summary
from knowgen.stats.values import Floats, read_values

_MUST_AGREE = ("task", "task_version", "scorer", "scorer_version", "protocol", "protocol_version", "dimensions")

LEVEL_WITHIN = 1e-9
"""Sample values closer than this are level: they differ by the order of additions alone."""


def check_comparable(a: Summary, b: Summary) -> None:
    """Refuses to compare what was not measured alike.

    Raises:
        UsageError: The two differ in task, scorer or protocol, or in the version of one.
    """
    for name in _MUST_AGREE:
        first, second = getattr(a, name), getattr(b, name)
        if first != second:
            words = name.replace("_", " ")
            raise UsageError(
                f"{words} {_plain(first)!r} here, {_plain(second)!r} there: the runs cannot be compared",
                where=f"{a.system or 'the first run'} and {b.system or 'the second run'}",
                fix=f"score both with the same {words.removesuffix(' version')}",
            )


@dataclass(frozen=True)
class ResamplingPlan:
    """How much chance is drawn: resamples, exchanges of labels, and their seed."""

    resamples: int
    permutations: int
    seed: int


@dataclass(frozen=True)
class _Spread:
    """How sure a difference is: the ends of its interval, the bootstrap's p, its standard error."""

    low: float
    high: float
    p: float
    error: float


def _plain(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def compare(
    a: Iterable[Row],
    b: Iterable[Row],
    protocol: ScoringProtocol | str = "strict",
    *,
    dimensions: Sequence[str] = DIMENSIONS,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    a_name: str = "",
    b_name: str = "",
    task: str = "",
    task_version: str = "",
    scorer: str = "",
    scorer_note: str = "",
) -> Comparison:
    """Compares two systems over the samples that both have a figure for; differences are b - a.

    The rows must come from the same version of the task and the same scorer: `check_comparable` sees to that. A sample
    that one of them lacks is reported and takes no part. Where too few scores of a system are there for a result under
    the protocol, there is no result of the comparison either, under any protocol.

    Args:
        a: Rows of the baseline.
        b: Rows of the other system.
        protocol: A protocol or its name.
        dimensions: What the scorer gives values for.
        resamples: Of the bootstrap; 0 for no intervals.
        permutations: Exchanges of labels in the permutation test, at most; 0 for no test.
        seed: Of both; the same rows and seed give the same comparison.
        a_name: Name of the baseline; this and the following are copied into the comparison.
        b_name: Name of the other system.
        task: Name of the task.
        task_version: Its version.
        scorer: Label of the scorer.
        scorer_note: What tables say beside its figures.

    Raises:
        DataError: A row comes twice, or rows of one sample contradict each other.
        UsageError: There is no such protocol.
    """
    rule = get_protocol(protocol) if isinstance(protocol, str) else protocol
    names = tuple(dimensions)
    pair = PairedValues(read_values(a, rule, names), read_values(b, rule, names), rule, names)
    parts = parts_of(pair.units, rule)
    levels = [_level(pair, parts[0], side) for side in (0, 1)]
    gap = levels[1] - levels[0]
    amount = ResamplingPlan(resamples, permutations, seed)
    compared = [_compared(part, pair, amount) for part in parts if part.counted.any() or not part.name]
    test = compared[0][1]
    lacking = _lacking(pair, (a_name or "first", b_name or "second"))
    slices = [_without_result(part, lacking) if lacking else part for part, _ in compared]
    judges = {judge for values in pair.values for judge in values.judges}
    return Comparison(
        a=a_name,
        b=b_name,
        task=task,
        task_version=task_version,
        scorer=scorer,
        scorer_note=scorer_note,
        protocol=rule.name,
        protocol_version=rule.version,
        judges=tuple(sorted(judges)),
        dimensions=names,
        slices=tuple(slices),
        no_result=lacking,
        paired=int(parts[0].counted.sum()),
        better=int((gap > LEVEL_WITHIN).sum()),
        equal=int((np.abs(gap) <= LEVEL_WITHIN).sum()),
        worse=int((gap < -LEVEL_WITHIN).sum()),
        relabellings=test.relabellings if test and not lacking else 0,
        exact=test.exact if test and not lacking else False,
        p_holm=slices[0].figures[OVERALL].p_permutation,
        only_a=pair.only[0],
        only_b=pair.only[1],
        unscored=pair.unscored,
        notes=tuple(notes_of_pair(pair)),
    )


def _lacking(pair: PairedValues, names: tuple[str, str]) -> str:
    """Return which systems have no result of their own, and why; empty where both have one."""
    found = []
    for name, values in zip(names, pair.values, strict=True):
        whole = parts_of(values.units, pair.protocol)[0]
        if reason := reason_for_no_result(counted_states(values, whole), pair.protocol):
            found.append(f"{name}: {reason}")
    return "; ".join(found)


def _without_result(part: ComparedSlice, lacking: str) -> ComparedSlice:
    figures = {name: FigureDifference(n=figure.n, note=no_result(lacking)) for name, figure in part.figures.items()}
    return part.model_copy(update={"figures": figures})


def _level(pair: PairedValues, whole: SampleSubset, side: int) -> Floats:
    """Returns the overall of each paired sample that counts for the whole, for the counts of better and worse."""
    return sample_overalls(pair.tables[side][:, whole.counted, :], pair.dimensions, pair.protocol)


def _compared(
    part: SampleSubset, pair: PairedValues, amount: ResamplingPlan
) -> tuple[ComparedSlice, PermutationTest | None]:
    sides = _sides(part, pair)
    points = [
        sliced_figures(
            part.kind, sides.strata, [point_means(one) for one in table], pair.dimensions, pair.protocol, rounded=True
        )[0].tolist()
        for table in sides.tables
    ]
    counts = np.isfinite(sides.differences).sum(axis=0).tolist()
    spreads = _spread(part, pair, sides, amount)
    test = _tested(part, pair, sides, amount)
    chances = test.p.tolist() if test else [math.nan] * len(counts)
    effects = [paired_effect(column) for column in sides.differences.T]
    figures = {
        name: _difference(first, second, number, spread, chance, effect)
        for name, first, second, number, spread, chance, effect in zip(
            (*pair.dimensions, OVERALL), *points, counts, spreads, chances, effects, strict=True
        )
    }
    return ComparedSlice(kind=part.kind, name=part.name, samples=int(part.counted.sum()), figures=figures), test


@dataclass(frozen=True)
class _Sides:
    """What a part of the paired samples holds.

    Attributes:
        strata: Shape (N,), the group of each sample.
        tables: What the protocol averages, a and b, shape (slices, N, columns) each.
        seen: Values and overall of each sample, a and b, shape (N, dimensions + 1) each.
        differences: b - a of these; NaN where one of them has none.
    """

    strata: NDArray[np.str_]
    tables: tuple[Floats, Floats]
    seen: tuple[Floats, Floats]
    differences: Floats


def _sides(part: SampleSubset, pair: PairedValues) -> _Sides:
    tables = [table[:, part.counted, :] for table in pair.tables]
    first, second = (observed(table, pair.dimensions, pair.protocol) for table in tables)
    return _Sides(
        group_names([unit for unit, counted in zip(pair.units, part.counted, strict=True) if counted]),
        (averaged(tables[0], pair.dimensions, pair.protocol), averaged(tables[1], pair.dimensions, pair.protocol)),
        (first, second),
        second - first,
    )


def _spread(part: SampleSubset, pair: PairedValues, sides: _Sides, amount: ResamplingPlan) -> list[_Spread | str]:
    """Returns for each figure how sure its difference is, or why that cannot be said."""
    enough = large_enough(sides.differences, sides.strata, [APART] * sides.differences.shape[1])
    if not amount.resamples or not any(enough):
        return [TOO_SMALL if amount.resamples else ""] * len(enough)

    def statistic(counts: Floats) -> Floats:
        first, second = (
            sliced_figures(
                part.kind,
                sides.strata,
                [counted_means(one, counts) for one in table],
                pair.dimensions,
                pair.protocol,
                rounded=False,
            )
            for table in sides.tables
        )
        difference: Floats = second - first
        return difference

    draws = distribution(statistic, sides.strata, amount.resamples, seeded(amount.seed, part.kind, part.name))
    sizes = smallest_groups(sides.differences, sides.strata)
    return [
        _ends(column, smallest) if fine else TOO_SMALL
        for column, smallest, fine in zip(draws.T, sizes, enough, strict=True)
    ]


def _ends(draws: Floats, smallest: int) -> _Spread | str:
    found, error = interval(draws, smallest), standard_error(draws, smallest)
    if found is None or error is None:
        return TOO_SMALL
    held = draws[np.isfinite(draws)]
    # A resample that differs from 0 by the rounding of additions alone is one without a difference.
    below, above = int((held <= LEVEL_WITHIN).sum()), int((held >= -LEVEL_WITHIN).sum())
    return _Spread(*found, min(1.0, 2 * (min(below, above) + 1) / (len(held) + 1)), error)


def _tested(part: SampleSubset, pair: PairedValues, sides: _Sides, amount: ResamplingPlan) -> PermutationTest | None:
    """Exchanges the labels of the two systems, sample by sample; None where no test was asked for."""
    if not amount.permutations or not len(sides.strata):
        return None
    first, second = alike(sides.tables)

    def statistic(exchanges: Floats) -> Floats:
        a, b = (
            sliced_figures(
                part.kind,
                sides.strata,
                [exchanged_means(one, other, exchanges) for one, other in zip(own, others, strict=True)],
                pair.dimensions,
                pair.protocol,
                rounded=False,
            )
            for own, others in ((first, second), (second, first))
        )
        difference: Floats = b - a
        return difference

    rng = seeded(amount.seed, "permutation", part.kind, part.name)
    return permutation_test(statistic, differing(first, second), amount.permutations, rng)


def _difference(
    a: float, b: float, number: int, spread: _Spread | str, chance: float, effect: float | None
) -> FigureDifference:
    values = {"a": None if math.isnan(a) else a, "b": None if math.isnan(b) else b}
    if math.isnan(a) or math.isnan(b):
        return FigureDifference(**values, n=number, note=NOTHING)
    known = {**values, "value": b - a, "p_permutation": None if math.isnan(chance) else chance, "effect": effect}
    if isinstance(spread, str):
        return FigureDifference(**known, n=number, note=spread)
    return FigureDifference(
        **known,
        low=spread.low,
        high=spread.high,
        p=spread.p,
        standard_error=spread.error,
        detectable=detectable(spread.error),
        n=number,
    )
