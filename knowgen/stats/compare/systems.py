"""Compare two systems over the same samples.

Both systems are resampled together, so that the difficulty of a sample that affects both cancels out. Each difference
has a 95 % interval, the p-value of a paired permutation test, the effect size and the smallest detectable difference.
The bootstrap p-value is 2 min(k + 1) / (R + 1), at most 1, where k is the number of the R resamples on one side of no
difference (Davison and Hinkley, Bootstrap Methods and their Application, section 4.4).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from knowgen.core.errors import UsageError
from knowgen.core.records import DIMENSIONS, Row
from knowgen.stats.aggregate import NO_SCORES, RESAMPLES
from knowgen.stats.bootstrap import (
    MIN_DEVIATING,
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
from knowgen.stats.compare.pairing import PairedValues, pair_caveats
from knowgen.stats.compare.permutation import (
    PERMUTATIONS,
    PermutationTest,
    differing,
    equalise_slices,
    exchanged_means,
    permutation_test,
)
from knowgen.stats.compare.records import ComparedSlice, Comparison, FigureDifference
from knowgen.stats.coverage import no_result, reason_for_no_result
from knowgen.stats.protocol import ScoringProtocol, get_protocol
from knowgen.stats.subsets import SampleSubset, counted_states, group_names, sample_subsets
from knowgen.stats.summary import OVERALL, Summary
from knowgen.stats.values import Floats, read_values

_MUST_AGREE = ("task", "task_version", "scorer", "scorer_version", "protocol", "protocol_version", "dimensions")

EQUAL_WITHIN = 1e-9
"""Sample values closer than this are equal; such differences come from the order of additions alone."""


def check_comparable(a: Summary, b: Summary) -> None:
    """Raise an error if two summaries cannot be compared.

    Raises:
        UsageError: They differ in task, scorer, protocol or dimensions, or in a version.
    """
    for name in _MUST_AGREE:
        first, second = getattr(a, name), getattr(b, name)
        if first != second:
            words = name.replace("_", " ")
            raise UsageError(
                f"different {words}: {_as_text(first)!r} and {_as_text(second)!r}; the runs cannot be compared",
                where=f"{a.system or 'the first run'} and {b.system or 'the second run'}",
                fix=f"score both with the same {words.removesuffix(' version')}",
            )


@dataclass(frozen=True)
class ResamplingPlan:
    """Number of resamples, maximum number of exchanges of labels, and the seed of both."""

    resamples: int
    permutations: int
    seed: int


@dataclass(frozen=True)
class _Spread:
    """Ends of the interval of a difference, its bootstrap p-value and its standard error."""

    low: float
    high: float
    p: float
    error: float


def _as_text(value: str | Sequence[str]) -> str:
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
    """Compare two systems over the samples for which both have a score; differences are b - a.

    The rows must come from the same version of the task and the same scorer, which `check_comparable` checks. Samples
    that only one system has are listed and left out. If a system has too few scores for a result under the protocol,
    the comparison has no result, whatever the protocol.

    Args:
        a: Rows of the baseline.
        b: Rows of the other system.
        protocol: Scoring protocol, or its name.
        dimensions: Dimensions that the scorer gives values for.
        resamples: Number of bootstrap resamples; 0 for no intervals.
        permutations: Maximum number of exchanges of labels in the permutation test; 0 for no test.
        seed: Seed of both; the same rows and seed give the same comparison.
        a_name: Name of the baseline; this and the following arguments are copied into the comparison.
        b_name: Name of the other system.
        task: Name of the task.
        task_version: Version of the task.
        scorer: Label of the scorer.
        scorer_note: Note on the scorer, shown beside its figures.

    Raises:
        DataError: A row is duplicated, or rows of one sample contradict each other.
        UsageError: The protocol is unknown.

    Example:
        >>> from knowgen.core.records import GenerationStatus, ParsedScore, Row, ScoreStatus
        >>> def rows(*values: float) -> list[Row]:
        ...     scores = [ParsedScore(status=ScoreStatus.OK, values={"ssim": value}) for value in values]
        ...     facts = {"category": "biology", "generation": GenerationStatus.OK}
        ...     return [Row(sample_id=str(place), strict=score, **facts) for place, score in enumerate(scores)]
        >>> comparison = compare(rows(0.25, 0.5), rows(0.5, 0.75), dimensions=("ssim",))
        >>> comparison.headline.value, comparison.better
        (0.25, 2)
    """
    rule = get_protocol(protocol) if isinstance(protocol, str) else protocol
    names = tuple(dimensions)
    pair = PairedValues(read_values(a, rule, names), read_values(b, rule, names), rule, names)
    parts = sample_subsets(pair.units, rule)
    levels = [_sample_levels(pair, parts[0], side) for side in (0, 1)]
    gap = levels[1] - levels[0]
    resampling = ResamplingPlan(resamples, permutations, seed)
    compared = [_compare_subset(part, pair, resampling) for part in parts if part.counted.any() or not part.name]
    test = compared[0][1]
    shortfall = _shortfall(pair, (a_name or "first", b_name or "second"))
    slices = [_without_result(part, shortfall) if shortfall else part for part, _ in compared]
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
        no_result=shortfall,
        paired=int(parts[0].counted.sum()),
        better=int((gap > EQUAL_WITHIN).sum()),
        equal=int((np.abs(gap) <= EQUAL_WITHIN).sum()),
        worse=int((gap < -EQUAL_WITHIN).sum()),
        relabellings=test.relabellings if test and not shortfall else 0,
        exact=test.exact if test and not shortfall else False,
        p_holm=slices[0].figures[OVERALL].p_permutation,
        only_a=pair.only[0],
        only_b=pair.only[1],
        unscored=pair.unscored,
        notes=tuple(pair_caveats(pair)),
    )


def _shortfall(pair: PairedValues, names: tuple[str, str]) -> str:
    """Return which systems have too few scores for a result, and why; empty if both have enough."""
    reasons = []
    for name, values in zip(names, pair.values, strict=True):
        whole = sample_subsets(values.units, pair.protocol)[0]
        if reason := reason_for_no_result(counted_states(values, whole), pair.protocol):
            reasons.append(f"{name}: {reason}")
    return "; ".join(reasons)


def _without_result(part: ComparedSlice, shortfall: str) -> ComparedSlice:
    figures = {name: FigureDifference(n=figure.n, note=no_result(shortfall)) for name, figure in part.figures.items()}
    return part.model_copy(update={"figures": figures})


def _sample_levels(pair: PairedValues, whole: SampleSubset, side: int) -> Floats:
    """Return the overall of each paired sample that counts for the whole."""
    return sample_overalls(pair.tables[side][:, whole.counted, :], pair.dimensions, pair.protocol)


def _compare_subset(
    part: SampleSubset, pair: PairedValues, resampling: ResamplingPlan
) -> tuple[ComparedSlice, PermutationTest | None]:
    sides = _paired_sides(part, pair)
    points = [
        sliced_figures(
            part.kind, sides.strata, [point_means(one) for one in table], pair.dimensions, pair.protocol, rounded=True
        )[0].tolist()
        for table in sides.tables
    ]
    counts = np.isfinite(sides.differences).sum(axis=0).tolist()
    spreads = _spreads(part, pair, sides, resampling)
    test = _permutation_test(part, pair, sides, resampling)
    p_values = test.p.tolist() if test else [math.nan] * len(counts)
    effects = [paired_effect(column) for column in sides.differences.T]
    figures = {
        name: _difference(first, second, number, spread, p_value, effect)
        for name, first, second, number, spread, p_value, effect in zip(
            (*pair.dimensions, OVERALL), *points, counts, spreads, p_values, effects, strict=True
        )
    }
    return ComparedSlice(kind=part.kind, name=part.name, samples=int(part.counted.sum()), figures=figures), test


@dataclass(frozen=True)
class _Sides:
    """Values of both systems on a subset of the paired samples.

    Attributes:
        strata: Group of each sample, shape (N,).
        tables: Columns that the protocol averages, of a and of b, shape (slices, N, columns) each.
        differences: Difference b - a of the values and the overall of each sample, shape (N, dimensions + 1); NaN
            where one of them has no value.
    """

    strata: NDArray[np.str_]
    tables: tuple[Floats, Floats]
    differences: Floats


def _paired_sides(part: SampleSubset, pair: PairedValues) -> _Sides:
    tables = [table[:, part.counted, :] for table in pair.tables]
    first, second = (observed(table, pair.dimensions, pair.protocol) for table in tables)
    return _Sides(
        group_names([unit for unit, counted in zip(pair.units, part.counted, strict=True) if counted]),
        (averaged(tables[0], pair.dimensions, pair.protocol), averaged(tables[1], pair.dimensions, pair.protocol)),
        second - first,
    )


def _spreads(part: SampleSubset, pair: PairedValues, sides: _Sides, resampling: ResamplingPlan) -> list[_Spread | str]:
    """Return the spread of the difference of each figure, or the reason why it has none."""
    enough = large_enough(sides.differences, sides.strata, [MIN_DEVIATING] * sides.differences.shape[1])
    if not resampling.resamples or not any(enough):
        return [TOO_SMALL if resampling.resamples else ""] * len(enough)

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

    resampled = distribution(
        statistic, sides.strata, resampling.resamples, seeded(resampling.seed, part.kind, part.name)
    )
    sizes = smallest_groups(sides.differences, sides.strata)
    return [
        _spread(column, smallest) if sufficient else TOO_SMALL
        for column, smallest, sufficient in zip(resampled.T, sizes, enough, strict=True)
    ]


def _spread(resampled: Floats, smallest: int) -> _Spread | str:
    ends, error = interval(resampled, smallest), standard_error(resampled, smallest)
    if ends is None or error is None:
        return TOO_SMALL
    known = resampled[np.isfinite(resampled)]
    # A difference that comes from the rounding of additions alone counts as 0.
    below, above = int((known <= EQUAL_WITHIN).sum()), int((known >= -EQUAL_WITHIN).sum())
    return _Spread(*ends, min(1.0, 2 * (min(below, above) + 1) / (len(known) + 1)), error)


def _permutation_test(
    part: SampleSubset, pair: PairedValues, sides: _Sides, resampling: ResamplingPlan
) -> PermutationTest | None:
    """Return the permutation test of a subset; None if no permutations are requested."""
    if not resampling.permutations or not len(sides.strata):
        return None
    first, second = equalise_slices(sides.tables)

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

    rng = seeded(resampling.seed, "permutation", part.kind, part.name)
    return permutation_test(statistic, differing(first, second), resampling.permutations, rng)


def _difference(
    a: float, b: float, number: int, spread: _Spread | str, p_value: float, effect: float | None
) -> FigureDifference:
    values = {"a": None if math.isnan(a) else a, "b": None if math.isnan(b) else b}
    if math.isnan(a) or math.isnan(b):
        return FigureDifference(**values, n=number, note=NO_SCORES)
    known = {**values, "value": b - a, "p_permutation": None if math.isnan(p_value) else p_value, "effect": effect}
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
