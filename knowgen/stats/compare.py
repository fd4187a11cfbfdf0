"""Is the difference real? Two systems over the same samples.

Both systems' figures are computed on the same resampled samples, so that what makes a sample hard for both cancels out.
The p-value is twice the smaller share of resamples on either side of no difference, each counted with one more (Davison
and Hinkley, Bootstrap Methods and their Application, section 4.4), at most 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from knowgen.errors import DataError, UsageError
from knowgen.records import DIMENSIONS, Row
from knowgen.stats.aggregate import NOTHING, RESAMPLES, present
from knowgen.stats.bootstrap import TOO_SMALL, counted_means, distribution, interval, large_enough, seeded
from knowgen.stats.combine import point_means, sample_overalls, sliced_figures
from knowgen.stats.comparison import ComparedSlice, Comparison, Difference
from knowgen.stats.parts import Part, group_names, parts_of
from knowgen.stats.policy import Policy, get_policy
from knowgen.stats.summary import OVERALL, Summary
from knowgen.stats.values import Floats, Unit, Values, read_values
from knowgen.stats.words import count

_MUST_AGREE = ("task", "task_version", "scorer", "scorer_version", "policy", "policy_version", "dimensions")

LEVEL_WITHIN = 1e-9
"""Sample values closer than this are level: they differ by the order of additions alone."""


def check_comparable(a: Summary, b: Summary) -> None:
    """Refuses to compare what was not measured alike.

    Raises:
        UsageError: The two differ in task, scorer or policy, or in the version of one.
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


def _plain(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def compare(
    a: Iterable[Row],
    b: Iterable[Row],
    policy: Policy | str = "strict",
    *,
    dimensions: Sequence[str] = DIMENSIONS,
    resamples: int = RESAMPLES,
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
    that one of them lacks is reported and takes no part.

    Args:
        a: Rows of the baseline.
        b: Rows of the other system.
        policy: A policy or its name.
        dimensions: What the scorer gives values for.
        resamples: Of the bootstrap; 0 for no intervals.
        seed: Of the bootstrap.
        a_name: Name of the baseline; this and the following are copied into the comparison.
        b_name: Name of the other system.
        task: Name of the task.
        task_version: Its version.
        scorer: Label of the scorer.
        scorer_note: What tables say beside its figures.

    Raises:
        DataError: A row comes twice, or rows of one sample contradict each other.
        UsageError: There is no such policy.
    """
    rule = get_policy(policy) if isinstance(policy, str) else policy
    names = tuple(dimensions)
    pair = _Pair(read_values(a, rule, names), read_values(b, rule, names), rule, names)
    parts = parts_of(pair.units, rule)
    levels = [_level(pair, parts[0], side) for side in (0, 1)]
    gap = levels[1] - levels[0]
    judges = {judge for values in pair.values for judge in values.judges}
    return Comparison(
        a=a_name,
        b=b_name,
        task=task,
        task_version=task_version,
        scorer=scorer,
        scorer_note=scorer_note,
        policy=rule.name,
        policy_version=rule.version,
        judges=tuple(sorted(judges)),
        dimensions=names,
        slices=tuple(_compared(part, pair, resamples, seed) for part in parts if part.counted.any() or not part.name),
        paired=int(parts[0].counted.sum()),
        better=int((gap > LEVEL_WITHIN).sum()),
        equal=int((np.abs(gap) <= LEVEL_WITHIN).sum()),
        worse=int((gap < -LEVEL_WITHIN).sum()),
        only_a=pair.only[0],
        only_b=pair.only[1],
        unscored=pair.unscored,
        notes=tuple(_notes(pair)),
    )


class _Pair:
    """Two sets of values brought to the same samples in the same order.

    Attributes:
        values: As they were read, a and b.
        units: The samples that both have a figure for.
        tables: Shape (slices, N, dimensions) each; the number of slices may differ.
        only: Ids that only a or only b has.
        unscored: Common ids without a figure in one of them.
    """

    def __init__(self, a: Values, b: Values, policy: Policy, dimensions: tuple[str, ...]) -> None:
        self.values, self.policy, self.dimensions = (a, b), policy, dimensions
        places = [{unit.id: index for index, unit in enumerate(one.units)} for one in self.values]
        self.only = tuple(tuple(key for key in places[i] if key not in places[1 - i]) for i in (0, 1))
        common = [unit for unit in a.units if unit.id in places[1]]
        for unit in common:
            _check_same(unit, b.units[places[1][unit.id]])
        rated = [np.isfinite(present(one.table)[:, -1]) for one in self.values]
        both = [unit for unit in common if all(rated[i][places[i][unit.id]] for i in (0, 1))]
        kept = {unit.id for unit in both}
        self.unscored = tuple(unit.id for unit in common if unit.id not in kept)
        self.units = tuple(both)
        self.tables: tuple[Floats, ...] = tuple(
            one.table[:, [places[i][unit.id] for unit in both], :] for i, one in enumerate(self.values)
        )


def _check_same(first: Unit, second: Unit) -> None:
    if first != second:
        raise DataError(
            "the two runs disagree on its category, difficulty or text_required",
            where=f"sample {first.id!r}",
            fix="compare runs of the same task version",
        )


def _level(pair: _Pair, whole: Part, side: int) -> Floats:
    """Returns the overall of each paired sample that counts for the whole, for the counts of better and worse."""
    return sample_overalls(pair.tables[side][:, whole.counted, :], pair.dimensions, pair.policy)


def _compared(part: Part, pair: _Pair, resamples: int, seed: int) -> ComparedSlice:
    tables = [table[:, part.counted, :] for table in pair.tables]
    strata = group_names([unit for unit, counted in zip(pair.units, part.counted, strict=True) if counted])
    points = [
        sliced_figures(
            part.kind, strata, [point_means(one) for one in table], pair.dimensions, pair.policy, rounded=True
        )[0].tolist()
        for table in tables
    ]
    columns = [present(table) for table in tables]
    counts = np.isfinite(columns[0] * columns[1]).sum(axis=0).tolist()
    spread = _spread(part, pair, tables, strata, columns, resamples, seed)
    figures = {
        name: _difference(first, second, number, low_high_p)
        for name, first, second, number, low_high_p in zip(
            (*pair.dimensions, OVERALL), *points, counts, spread, strict=True
        )
    }
    return ComparedSlice(kind=part.kind, name=part.name, samples=int(part.counted.sum()), figures=figures)


def _spread(
    part: Part,
    pair: _Pair,
    tables: Sequence[Floats],
    strata: NDArray[np.str_],
    columns: Sequence[Floats],
    resamples: int,
    seed: int,
) -> list[tuple[float, float, float] | str]:
    """Returns for each figure the interval of the difference and its p, or why there is none."""
    enough = [all(both) for both in zip(*(large_enough(one, strata) for one in columns), strict=True)]
    if not resamples or not any(enough):
        return [TOO_SMALL if resamples else ""] * len(enough)

    def statistic(counts: Floats) -> Floats:
        first, second = (
            sliced_figures(
                part.kind,
                strata,
                [counted_means(one, counts) for one in table],
                pair.dimensions,
                pair.policy,
                rounded=False,
            )
            for table in tables
        )
        difference: Floats = second - first
        return difference

    draws = distribution(statistic, strata, resamples, seeded(seed, part.kind, part.name))
    return [_ends(column) if fine else TOO_SMALL for column, fine in zip(draws.T, enough, strict=True)]


def _ends(draws: Floats) -> tuple[float, float, float] | str:
    found = interval(draws)
    if found is None:
        return TOO_SMALL
    held = draws[np.isfinite(draws)]
    # A resample that differs from 0 by the rounding of additions alone is one without a difference.
    below, above = int((held <= LEVEL_WITHIN).sum()), int((held >= -LEVEL_WITHIN).sum())
    return *found, min(1.0, 2 * (min(below, above) + 1) / (len(held) + 1))


def _difference(a: float, b: float, number: int, spread: tuple[float, float, float] | str) -> Difference:
    values = {"a": None if math.isnan(a) else a, "b": None if math.isnan(b) else b}
    if math.isnan(a) or math.isnan(b):
        return Difference(**values, n=number, note=NOTHING)
    if isinstance(spread, str):
        return Difference(**values, value=b - a, n=number, note=spread)
    return Difference(**values, value=b - a, low=spread[0], high=spread[1], p=spread[2], n=number)


def _notes(pair: _Pair) -> list[str]:
    notes = []
    for ids, side in zip(pair.only, ("first", "second"), strict=True):
        if ids:
            notes.append(f"{count(len(ids), 'sample')} only in the {side} run: left out")
    if pair.unscored:
        notes.append(f"{count(len(pair.unscored), 'sample')} without a figure in one of the runs: left out of both")
    judges = [set(values.judges) for values in pair.values]
    if judges[0] != judges[1]:
        named = " and ".join(", ".join(sorted(one)) or "none named" for one in judges)
        notes.append(f"the runs were not judged by the same models: {named}")
    shape = [(values.repeats, values.judge_repeats) for values in pair.values]
    if shape[0] != shape[1]:
        notes.append("the runs differ in repeats or judge repeats; each is averaged over its own")
    return notes
