"""Compare two systems over the same samples.

Both systems are compared sample by sample, so that the difficulty of a sample that affects both cancels out. Each
difference has a 95 % interval, the p-value of a paired permutation test, the effect size and the smallest detectable
difference. There is one test: the interval says how large the difference may be, the test whether there is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from knowgen.core.errors import UsageError
from knowgen.core.records import DIMENSIONS, Row
from knowgen.core.steps import counted, step
from knowgen.stats.aggregate import NO_SCORES, sampled_values
from knowgen.stats.bootstrap import seeded
from knowgen.stats.combine import averaged, observed, point_means, sample_overalls, sliced_figures
from knowgen.stats.compare.effect import detectable, paired_effect
from knowgen.stats.compare.holm import corrected_subsets
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
from knowgen.stats.intervals import Interval, Spread, difference_intervals
from knowgen.stats.protocol import ScoringProtocol, get_protocol
from knowgen.stats.subsets import SampleSubset, counted_states, group_names, sample_subsets
from knowgen.stats.summary import OVERALL, Summary, is_part
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
class PermutationPlan:
    """Maximum number of exchanges of labels, and their seed."""

    permutations: int
    seed: int


def _as_text(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


@step("comparing two systems")
def compare(
    a: Iterable[Row],
    b: Iterable[Row],
    protocol: ScoringProtocol | str = "strict",
    *,
    dimensions: Sequence[str] = DIMENSIONS,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    a_name: str = "",
    b_name: str = "",
    task: str = "",
    task_version: str = "",
    scorer: str = "",
    scorer_note: str = "",
    selections: tuple[str, str] = ("", ""),
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
        permutations: Maximum number of exchanges of labels in the permutation test; 0 for no test.
        seed: Seed of the exchanges; the same rows and seed give the same comparison.
        a_name: Name of the baseline; this and the following arguments are copied into the comparison.
        b_name: Name of the other system.
        task: Name of the task.
        task_version: Version of the task.
        scorer: Label of the scorer.
        scorer_note: Note on the scorer, shown beside its figures.
        selections: Labels of the samples of both runs.

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
    plan = PermutationPlan(permutations, seed)
    with_scores = [part for part in parts if part.counted.any() or not part.name]
    words = f"comparing {a_name} and {b_name}" if a_name and b_name else "comparing two systems"
    compared = [_compare_subset(part, pair, plan) for part in counted(with_scores, words)]
    test = compared[0][1]
    shortfall = _shortfall(pair, (a_name or "first", b_name or "second"))
    slices = corrected_subsets([_without_result(part, shortfall) if shortfall else part for part, _ in compared])
    ids = [unit.id for unit, counts in zip(pair.units, parts[0].counted, strict=True) if counts]
    better, worse = ((), ()) if shortfall else (_ids_above(ids, gap), _ids_above(ids, -gap))
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
        better=len(better),
        equal=0 if shortfall else int((np.abs(gap) <= EQUAL_WITHIN).sum()),
        worse=len(worse),
        better_on=better,
        worse_on=worse,
        selection_a=selections[0],
        selection_b=selections[1],
        relabellings=test.relabellings if test and not shortfall else 0,
        exact=test.exact if test and not shortfall else False,
        p_holm=slices[0].figures[OVERALL].p,
        only_a=pair.only[0],
        only_b=pair.only[1],
        unscored=pair.unscored,
        notes=(*_selection_notes(selections), *pair_caveats(pair)),
    )


def _ids_above(ids: Sequence[str], gaps: Floats) -> tuple[str, ...]:
    """Return the ids of the samples with a positive difference, the largest first."""
    places = [place for place in np.argsort(-gaps, kind="stable").tolist() if gaps[place] > EQUAL_WITHIN]
    return tuple(ids[place] for place in places)


def _selection_notes(selections: tuple[str, str]) -> list[str]:
    """Return a note for each run that covers only a part of its task."""
    sides = zip(selections, ("first", "second"), strict=True)
    return [f"the {side} run is only a part of the task ({label})" for label, side in sides if is_part(label)]


def _shortfall(pair: PairedValues, names: tuple[str, str]) -> str:
    """Return which systems have too few scores for a result, and why; empty if both have enough."""
    reasons = []
    for name, values in zip(names, pair.values, strict=True):
        whole = sample_subsets(values.units, pair.protocol)[0]
        if reason := reason_for_no_result(counted_states(values, whole), pair.protocol, values.outside):
            reasons.append(f"{name}: {reason}")
    return "; ".join(reasons)


def _without_result(part: ComparedSlice, shortfall: str) -> ComparedSlice:
    figures = {name: FigureDifference(n=figure.n, note=no_result(shortfall)) for name, figure in part.figures.items()}
    return part.model_copy(update={"figures": figures})


def _sample_levels(pair: PairedValues, whole: SampleSubset, side: int) -> Floats:
    """Return the overall of each paired sample that counts for the whole."""
    return sample_overalls(pair.tables[side][:, whole.counted, :], pair.dimensions, pair.protocol)


def _compare_subset(
    part: SampleSubset, pair: PairedValues, plan: PermutationPlan
) -> tuple[ComparedSlice, PermutationTest | None]:
    sides = _paired_sides(part, pair)
    points = [
        sliced_figures(
            part.kind, sides.strata, [point_means(one) for one in table], pair.dimensions, pair.protocol, rounded=True
        )[0].tolist()
        for table in sides.tables
    ]
    counts = np.isfinite(sides.differences).sum(axis=0).tolist()
    spreads = _spreads(part, pair, sides, [second - first for first, second in zip(*points, strict=True)])
    test = _permutation_test(part, pair, sides, plan)
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
        values: Values of a and of b, shape (slices, N, dimensions) each.
        tables: Columns that the protocol averages, of a and of b, shape (slices, N, columns) each.
        differences: Difference b - a of the values and the overall of each sample, shape (N, dimensions + 1); NaN
            where one of them has no value.
    """

    strata: NDArray[np.str_]
    values: tuple[Floats, Floats]
    tables: tuple[Floats, Floats]
    differences: Floats


def _paired_sides(part: SampleSubset, pair: PairedValues) -> _Sides:
    tables = [table[:, part.counted, :] for table in pair.tables]
    first, second = (observed(table, pair.dimensions, pair.protocol) for table in tables)
    return _Sides(
        group_names([unit for unit, counted in zip(pair.units, part.counted, strict=True) if counted]),
        (tables[0], tables[1]),
        (averaged(tables[0], pair.dimensions, pair.protocol), averaged(tables[1], pair.dimensions, pair.protocol)),
        second - first,
    )


def _spreads(
    part: SampleSubset, pair: PairedValues, sides: _Sides, differences: Sequence[float]
) -> list[tuple[Interval, Spread] | str]:
    """Return the interval and spread of the difference of each figure, or the reason why it has none."""
    sampled = sampled_values(part.kind, sides.values, sides.strata, sides.differences, pair.dimensions, pair.protocol)
    return difference_intervals(sampled, differences)


def _permutation_test(
    part: SampleSubset, pair: PairedValues, sides: _Sides, plan: PermutationPlan
) -> PermutationTest | None:
    """Return the permutation test of a subset; None if no permutations are requested."""
    if not plan.permutations or not len(sides.strata):
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

    rng = seeded(plan.seed, "permutation", part.kind, part.name)
    return permutation_test(statistic, differing(first, second), plan.permutations, rng)


def _difference(
    a: float, b: float, number: int, spread: tuple[Interval, Spread] | str, p_value: float, effect: float | None
) -> FigureDifference:
    values = {"a": None if math.isnan(a) else a, "b": None if math.isnan(b) else b}
    if math.isnan(a) or math.isnan(b):
        return FigureDifference(**values, n=number, note=NO_SCORES)
    known = {**values, "value": b - a, "p": None if math.isnan(p_value) else p_value, "effect": effect}
    if isinstance(spread, str):
        return FigureDifference(**known, n=number, note=spread)
    (low, high), sampling = spread
    return FigureDifference(
        **known, low=low, high=high, standard_error=sampling.error, detectable=detectable(sampling), n=number
    )
