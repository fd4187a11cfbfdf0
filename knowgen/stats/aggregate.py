"""The one function that makes a headline figure: `aggregate(rows, protocol)`.

Under `strict` judge repeats are averaged within a drawing, then drawings within a sample; the sample is the unit. Under
`official` the published arithmetic is computed for each (repeat, judge repeat) and the results are averaged. Parity
with the published evaluator was shown on Python 3.11, whose sums of floats are plain additions in row order; here those
additions are written out, so that later versions give the same digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from knowgen.core.records import DIMENSIONS, Row
from knowgen.stats.bootstrap import (
    APART,
    APART_OVERALL,
    TOO_SMALL,
    counted_means,
    distribution,
    interval,
    large_enough,
    seeded,
    smallest_groups,
)
from knowgen.stats.caveats import fitness, notes_of
from knowgen.stats.combine import averaged, observed, point_means, sliced_figures
from knowgen.stats.coverage import no_result, reason_for_no_result, withheld
from knowgen.stats.protocol import ScoringProtocol, get_protocol
from knowgen.stats.subsets import SampleSubset, counted_states, group_names, parts_of
from knowgen.stats.summary import OVERALL, Coverage, Figure, Slice, Summary
from knowgen.stats.values import JUDGED_TEXT, STATES, Floats, Values, read_values

RESAMPLES = 2000
NOTHING = "nothing judged"


def aggregate(
    rows: Iterable[Row],
    protocol: ScoringProtocol | str = "strict",
    *,
    dimensions: Sequence[str] = DIMENSIONS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    system: str = "",
    task: str = "",
    task_version: str = "",
    scorer: str = "",
    scorer_version: str = "",
    scorer_note: str = "",
    selection: str = "",
    cost: float | None = None,
    seconds: float | None = None,
) -> Summary:
    """Makes every figure of one run under one scorer and one protocol.

    With the four KnowGen dimensions a part's `overall` is .1 F + .4 V + .4 T + .1 A of its means; with any other set it
    is their plain mean. Every figure of the whole is the mean of its groups' figures: its `overall` is the K-Score.

    Args:
        rows: Each (sample, repeat, judge repeat) once. Rows that are missing beside others count as not run.
        protocol: A protocol or its name.
        dimensions: What the scorer gives values for.
        resamples: Of the bootstrap; 0 for no intervals.
        seed: Of the bootstrap; the same rows and seed give the same intervals.
        system: Name of the generator; this and the following are copied into the summary.
        task: Name of the task.
        task_version: Its version.
        scorer: Label of the scorer.
        scorer_version: Its version.
        scorer_note: What tables say beside its figures.
        selection: Which samples; anything but `all …` is not fit for a board.
        cost: US dollars spent, None where a price is not known.
        seconds: Wall time of the run.

    Raises:
        DataError: A row comes twice, or rows of one sample contradict each other.
        UsageError: There is no such protocol.
    """
    rule = get_protocol(protocol) if isinstance(protocol, str) else protocol
    names = tuple(dimensions)
    held = list(rows)
    values = read_values(held, rule, names)
    parts = parts_of(values.units, rule)
    slices = [_slice(part, values, names, rule, resamples, seed) for part in parts]
    lacking = reason_for_no_result(counted_states(values, parts[0]), rule)
    if len(values.judges) > 1:
        slices += [_judge_slice(held, judge, names, rule, resamples, seed) for judge in values.judges]
    notes = notes_of(values, slices, names, rule)
    reasons = fitness(values, slices, names, rule, selection, lacking)
    if lacking and rule.below_coverage == "withhold":
        slices = [_withheld(each, lacking, rule) for each in slices]
    return Summary(
        system=system,
        task=task,
        task_version=task_version,
        scorer=scorer,
        scorer_version=scorer_version,
        scorer_note=scorer_note,
        judges=values.judges,
        protocol=rule.name,
        protocol_version=rule.version,
        selection=selection,
        repeats=values.repeats,
        judge_repeats=values.judge_repeats,
        dimensions=names,
        slices=tuple(slices),
        no_result=lacking,
        fit_for_board=not reasons,
        notes=(*reasons, *notes),
        cost=cost,
        seconds=seconds,
    )


def _withheld(part: Slice, lacking: str, protocol: ScoringProtocol) -> Slice:
    """Withhold the figures of the whole, and of every part that lacks scores itself; the others keep theirs."""
    if part.kind in {"all", "judge"}:
        note = no_result(lacking)
    elif reason := reason_for_no_result(part.coverage, protocol):
        note = f"partial: {reason}"
    else:
        return part
    figures = {name: withheld(figure, note) for name, figure in part.figures.items()}
    return part.model_copy(update={"figures": figures})


def _judge_slice(
    rows: list[Row], judge: str, dimensions: tuple[str, ...], protocol: ScoringProtocol, resamples: int, seed: int
) -> Slice:
    """Returns the figures of the whole as one of several judge models sees them: what it judged, and nothing else."""
    values = read_values([row for row in rows if row.judge_returned == judge], protocol, dimensions)
    whole = parts_of(values.units, protocol)[0]
    return _slice(
        SampleSubset("judge", judge, whole.members, whole.counted), values, dimensions, protocol, resamples, seed
    )


def _slice(
    part: SampleSubset,
    values: Values,
    dimensions: tuple[str, ...],
    protocol: ScoringProtocol,
    resamples: int,
    seed: int,
) -> Slice:
    table = values.table[:, part.counted, :]
    units = [unit for unit, counted in zip(values.units, part.counted, strict=True) if counted]
    strata = group_names(units)
    kind = "all" if part.kind == "judge" else part.kind
    means = [point_means(one) for one in averaged(table, dimensions, protocol)]
    figures = sliced_figures(kind, strata, means, dimensions, protocol, rounded=True)[0]
    drawn = _intervals(part, kind, table, strata, dimensions, protocol, resamples, seed)
    counts = np.isfinite(present(table)).sum(axis=0).tolist()
    return Slice(
        kind=part.kind,
        name=part.name,
        samples=int(part.members.sum()),
        figures={
            name: _figure(value, count, low_high)
            for name, value, count, low_high in zip(
                (*dimensions, OVERALL), figures.tolist(), counts, drawn, strict=True
            )
        },
        coverage=_coverage(values, part),
    )


def _figure(value: float, count: int, drawn: tuple[float, float] | str) -> Figure:
    if math.isnan(value):
        return Figure(n=count, note=NOTHING)
    if isinstance(drawn, str):
        return Figure(value=value, n=count, note=drawn)
    return Figure(value=value, low=drawn[0], high=drawn[1], n=count)


def _intervals(
    part: SampleSubset,
    kind: str,
    table: Floats,
    strata: NDArray[np.str_],
    dimensions: tuple[str, ...],
    protocol: ScoringProtocol,
    resamples: int,
    seed: int,
) -> list[tuple[float, float] | str]:
    """Returns for each figure its interval, or why there is none. Only samples with a value are drawn from."""
    seen = observed(table, dimensions, protocol)
    held = np.isfinite(seen[:, -1])
    groups, seen = strata[held], seen[held]
    enough = large_enough(seen, groups, [APART] * len(dimensions) + [APART_OVERALL if len(dimensions) > 1 else APART])
    if not resamples or not any(enough):
        return [TOO_SMALL if resamples else ""] * len(enough)
    kept = averaged(table, dimensions, protocol)[:, held]

    def statistic(counts: Floats) -> Floats:
        means = [counted_means(one, counts) for one in kept]
        return sliced_figures(kind, groups, means, dimensions, protocol, rounded=False)

    draws = distribution(statistic, groups, resamples, seeded(seed, part.kind, part.name))
    return [
        (interval(column, smallest) or TOO_SMALL) if fine else TOO_SMALL
        for column, smallest, fine in zip(draws.T, smallest_groups(seen, groups), enough, strict=True)
    ]


def present(table: Floats) -> Floats:
    """Marks what a figure can rest on.

    Args:
        table: Shape (slices, N, dimensions).

    Returns:
        Shape (N, dimensions + 1), the last for the overall: 1 where a sample has a value in any slice, else NaN.
    """
    found = np.any(np.isfinite(table), axis=0)
    return np.where(np.column_stack([found, np.any(found, axis=1)]), 1.0, math.nan)


def _coverage(values: Values, part: SampleSubset) -> Coverage:
    counts = values.coverage[part.members].sum(axis=0).tolist()
    states = dict(zip(STATES, counts, strict=False))
    return Coverage(expected=sum(states.values()), judged_text=counts[JUDGED_TEXT], **states)
