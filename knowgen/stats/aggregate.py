"""The only function that computes headline figures: `aggregate(rows, protocol)`.

Under `strict`, judge repeats are averaged within a generation and generations within a sample; the sample is the unit.
Under `official`, the published arithmetic is applied to each (repeat, judge repeat) and the results are averaged.
Parity with the published evaluator was verified on Python 3.11, where `sum` of floats is plain addition in row order.
These additions are written out here, so that later Python versions give the same digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from knowgen.core.records import DIMENSIONS, Row
from knowgen.core.steps import step
from knowgen.stats.answers import agent_counts, agent_note
from knowgen.stats.caveats import caveats, fitness
from knowgen.stats.combine import Means, averaged, observed, point_means, sliced_figures
from knowgen.stats.coverage import no_result, reason_for_no_result, withheld
from knowgen.stats.intervals import Interval, Sampled, figure_intervals
from knowgen.stats.protocol import ScoringProtocol, get_protocol
from knowgen.stats.subsets import SampleSubset, counted_states, group_names, sample_subsets
from knowgen.stats.summary import OVERALL, Coverage, Figure, RefusedScores, Slice, Summary
from knowgen.stats.values import SCORED_TEXT, STATES, Floats, Values, read_values

NO_SCORES = "no scores"
"""Note of a figure without a value."""


@step("computing figures")
def aggregate(
    rows: Iterable[Row],
    protocol: ScoringProtocol | str = "strict",
    *,
    dimensions: Sequence[str] = DIMENSIONS,
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
    """Compute every figure of one run for one scorer under one protocol.

    For the four KnowGen dimensions, the `overall` of a subset is .1 F + .4 V + .4 T + .1 A of its means; for any other
    set of dimensions it is their plain mean. A figure of the whole is the mean of the figures of its groups; the
    `overall` of the whole is the K-Score.

    Args:
        rows: One row for each (sample, repeat, judge repeat). Combinations without a row count as not run.
        protocol: Scoring protocol, or its name.
        dimensions: Dimensions that the scorer gives values for.
        system: Name of the generator; this and the following arguments are copied into the summary.
        task: Name of the task.
        task_version: Version of the task.
        scorer: Label of the scorer.
        scorer_version: Version of the scorer.
        scorer_note: Note on the scorer, shown beside its figures.
        selection: Label of the selected samples; any label that does not start with `all` is not fit for a
            leaderboard.
        cost: Cost in US dollars; None if a price is not known.
        seconds: Wall time of the run in seconds.

    Raises:
        DataError: A row is duplicated, or rows of one sample contradict each other.
        UsageError: The protocol is unknown.

    Example:
        >>> from knowgen.core.records import GenerationStatus, ParsedScore, Row, ScoreStatus
        >>> rows = [
        ...     Row(
        ...         sample_id=name,
        ...         category="biology",
        ...         generation=GenerationStatus.OK,
        ...         strict=ParsedScore(status=ScoreStatus.OK, values={"ssim": value}),
        ...     )
        ...     for name, value in (("a", 0.5), ("b", 1.0))
        ... ]
        >>> summary = aggregate(rows, dimensions=("ssim",))
        >>> summary.headline.value, summary.headline.note
        (0.75, 'n too small')
    """
    rule = get_protocol(protocol) if isinstance(protocol, str) else protocol
    names = tuple(dimensions)
    row_list = list(rows)
    values, parts, slices, shortfall = _sliced(row_list, names, rule)
    if len(values.judges) > 1:
        slices += [_judge_slice(row_list, judge, names, rule) for judge in values.judges]
    slices += _answer_slices(row_list, names, rule)
    answers = agent_counts(row_list)
    notes = caveats(values, slices, names, rule)
    reasons = fitness(values, slices, names, rule, selection, shortfall)
    if shortfall and rule.below_coverage == "withhold":
        slices = [_withhold(each, shortfall, rule) for each in slices]
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
        no_result=shortfall,
        answers=answers,
        refused=_refused_scores(row_list, values, parts[0], names, rule),
        fit_for_board=not reasons,
        notes=(*reasons, *([agent_note(answers)] if answers is not None else []), *notes),
        cost=cost,
        seconds=seconds,
    )


def reasons_against_board(
    rows: Iterable[Row], protocol: ScoringProtocol, *, dimensions: Sequence[str], selection: str
) -> list[str]:
    """Return the reasons why figures must not appear on a board, one line each, as `aggregate` notes them.

    Args:
        rows: As in `aggregate`.
        protocol: Scoring protocol, with the minimum coverage of the board.
        dimensions: Dimensions that the scorer gives values for.
        selection: Label of the selected samples.
    """
    names = tuple(dimensions)
    values, _, slices, shortfall = _sliced(list(rows), names, protocol)
    return fitness(values, slices, names, protocol, selection, shortfall)


def _sliced(
    rows: list[Row], dimensions: tuple[str, ...], protocol: ScoringProtocol
) -> tuple[Values, list[SampleSubset], list[Slice], str]:
    """Return the values of rows, their subsets, the figures of each, and the reason for having no result."""
    values = read_values(rows, protocol, dimensions)
    parts = sample_subsets(values.units, protocol)
    slices = [_slice(part, values, dimensions, protocol) for part in parts]
    return values, parts, slices, reason_for_no_result(counted_states(values, parts[0]), protocol, values.outside)


def _withhold(part: Slice, shortfall: str, protocol: ScoringProtocol) -> Slice:
    """Withhold the figures of the whole and of each subset whose own coverage is too low; keep the others."""
    if part.kind in {"all", "judge"}:
        note = no_result(shortfall)
    elif reason := reason_for_no_result(part.coverage, protocol):
        note = f"partial: {reason}"
    else:
        return part
    figures = {name: withheld(figure, note) for name, figure in part.figures.items()}
    return part.model_copy(update={"figures": figures})


def _judge_slice(rows: list[Row], judge: str, dimensions: tuple[str, ...], protocol: ScoringProtocol) -> Slice:
    """Return the figures of the whole from the scores of one judge model alone."""
    values = read_values([row for row in rows if row.judge_returned == judge], protocol, dimensions)
    whole = sample_subsets(values.units, protocol)[0]
    return _slice(SampleSubset("judge", judge, whole.members, whole.counted), values, dimensions, protocol)


def _answer_slices(rows: list[Row], dimensions: tuple[str, ...], protocol: ScoringProtocol) -> list[Slice]:
    """Return the figures of images that an agent's answer was used for, and of the others; none if all are alike."""
    parts = {
        "used": [row for row in rows if not row.fallback],
        "fallback": [row for row in rows if row.fallback],
    }
    if not all(parts.values()):
        return []
    slices = []
    for name, chosen in parts.items():
        values = read_values(chosen, protocol, dimensions)
        whole = sample_subsets(values.units, protocol)[0]
        slices.append(_slice(SampleSubset("answer", name, whole.members, whole.counted), values, dimensions, protocol))
    return slices


def _refused_scores(
    rows: list[Row], values: Values, whole: SampleSubset, dimensions: tuple[str, ...], protocol: ScoringProtocol
) -> RefusedScores | None:
    """Return what the headline would be if each refused score counted 0, and 1; None if none was refused."""
    number = counted_states(values, whole).score_refused
    if not number:
        return None
    ends = []
    for value in (0.0, 1.0):
        filled = read_values(rows, protocol, dimensions, refused=value)
        table = filled.table[:, whole.counted, :]
        strata = group_names([unit for unit, counted in zip(filled.units, whole.counted, strict=True) if counted])
        means = [point_means(one) for one in averaged(table, dimensions, protocol)]
        ends.append(float(sliced_figures("all", strata, means, dimensions, protocol, rounded=True)[0][-1]))
    return RefusedScores(scores=number, lowest=ends[0], highest=ends[1])


def _slice(
    part: SampleSubset,
    values: Values,
    dimensions: tuple[str, ...],
    protocol: ScoringProtocol,
) -> Slice:
    table = values.table[:, part.counted, :]
    units = [unit for unit, counted in zip(values.units, part.counted, strict=True) if counted]
    strata = group_names(units)
    kind = "all" if part.kind == "judge" else part.kind
    means = [point_means(one) for one in averaged(table, dimensions, protocol)]
    figures = sliced_figures(kind, strata, means, dimensions, protocol, rounded=True)[0]
    intervals = _intervals(kind, table, strata, dimensions, protocol, figures.tolist())
    counts = np.isfinite(present(table)).sum(axis=0).tolist()
    return Slice(
        kind=part.kind,
        name=part.name,
        samples=int(part.members.sum()),
        figures={
            name: _figure(value, count, ends)
            for name, value, count, ends in zip(
                (*dimensions, OVERALL), figures.tolist(), counts, intervals, strict=True
            )
        },
        coverage=_coverage(values, part),
    )


def _figure(value: float, count: int, ends: tuple[float, float] | str) -> Figure:
    if math.isnan(value):
        return Figure(n=count, note=NO_SCORES)
    if isinstance(ends, str):
        return Figure(value=value, n=count, note=ends)
    return Figure(value=value, low=ends[0], high=ends[1], n=count)


def _intervals(
    kind: str,
    table: Floats,
    strata: NDArray[np.str_],
    dimensions: tuple[str, ...],
    protocol: ScoringProtocol,
    points: Sequence[float],
) -> list[Interval | str]:
    """Return the interval of each figure, or the reason why it has none."""
    sampled = sampled_values(kind, (table,), strata, observed(table, dimensions, protocol), dimensions, protocol)
    return figure_intervals(sampled, points)


def sampled_values(
    kind: str,
    tables: Sequence[Floats],
    groups: NDArray[np.str_],
    values: Floats,
    dimensions: Sequence[str],
    protocol: ScoringProtocol,
) -> Sampled:
    """Return the input of an interval: a figure of one table of values, or the difference of two (second - first).

    Args:
        kind: Kind of the subset.
        tables: Values, shape (slices, N, dimensions) each.
        groups: Group of each sample, shape (N,).
        values: Values or differences by sample, shape (N, dimensions + 1), the overall last.
        dimensions: Names of the dimensions.
        protocol: Scoring protocol.
    """
    names = tuple(dimensions)
    by_group = kind == "all" and protocol.combination != "mean_of_samples"
    used = np.isfinite(values[:, -1])
    columns = tuple(averaged(table, names, protocol)[:, used] for table in tables)

    def figures(means: Sequence[Sequence[Means]], strata: NDArray[np.str_]) -> Floats:
        each = [sliced_figures(kind, strata, one, names, protocol, rounded=False) for one in means]
        return each[0] if len(each) == 1 else each[1] - each[0]

    return Sampled(
        tables=columns,
        strata=groups[used] if by_group else np.full(int(used.sum()), kind),
        figures=figures,
        values=values[used],
        grouped=protocol.combination == "mean_of_groups",
    )


def present(table: Floats) -> Floats:
    """Mark the samples that have a value in any slice.

    Args:
        table: Values, shape (slices, N, dimensions).

    Returns:
        Shape (N, dimensions + 1), the last column for the overall: 1 where a sample has a value, NaN elsewhere.
    """
    has_value = np.any(np.isfinite(table), axis=0)
    return np.where(np.column_stack([has_value, np.any(has_value, axis=1)]), 1.0, math.nan)


def _coverage(values: Values, part: SampleSubset) -> Coverage:
    counts = values.coverage[part.members].sum(axis=0).tolist()
    states = dict(zip(STATES, counts, strict=False))
    return Coverage(expected=sum(states.values()), scored_text=counts[SCORED_TEXT], **states)
