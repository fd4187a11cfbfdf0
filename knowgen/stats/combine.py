"""From values to figures: means, the weighted overall, the mean of the groups. One function for points and resamples.

Formula (Gen-Searcher, arXiv 2603.28767): in each group overall = .1 F + .4 V + .4 T + .1 A from the group's means, and
every figure of the whole is the mean of the groups. Rounding, empty groups and missing text are the protocol's, and so
is whether means are weighed or weighed samples averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knowgen.core.records import DIMENSIONS, GROUPS, TEXT
from knowgen.stats.protocol import ScoringProtocol
from knowgen.stats.values import Floats, plain_mean

Mask = NDArray[np.bool_]
Means = Callable[[Mask], Floats]
"""Gives the means over the samples of a mask: shape (resamples, dimensions), NaN where there is none."""


def weights_of(dimensions: Sequence[str], protocol: ScoringProtocol) -> list[tuple[str, float]]:
    """Returns dimensions with their weights, in the order in which they are added up.

    The four KnowGen dimensions have the protocol's weights; any other set weighs the same each, so that its overall is
    the plain mean.
    """
    if set(dimensions) == set(DIMENSIONS):
        return list(zip(DIMENSIONS, protocol.weights, strict=True))
    return [(name, 1.0) for name in dimensions]


def overall(means: Floats, dimensions: Sequence[str], protocol: ScoringProtocol) -> Floats:
    """Weighs means; a dimension without a value is left out and the weights are renormalised.

    Args:
        means: Shape (resamples, dimensions).
        dimensions: Names of the columns.
        protocol: Gives the weights.

    Returns:
        Shape (resamples,), NaN where no dimension has a value.
    """
    total, weight = np.zeros(len(means)), np.zeros(len(means))
    for name, share in weights_of(dimensions, protocol):
        column = means[:, list(dimensions).index(name)]
        have = np.isfinite(column)
        total = total + np.where(have, share * column, 0.0)
        weight = weight + np.where(have, share, 0.0)
    return _divided(total, weight)


def sample_overalls(table: Floats, dimensions: Sequence[str], protocol: ScoringProtocol) -> Floats:
    """Returns the overall of each sample; what it has no value for is not applicable to it.

    Under `official` text that is N/A counts .5, as in the figure that the published evaluator stores with a sample.

    Args:
        table: Shape (slices, N, dimensions).
        dimensions: Names of the columns.
        protocol: Gives the weights.

    Returns:
        Shape (N,), averaged over slices, unrounded; NaN where a sample has no value at all.
    """
    parts = [overall(_settled(one, dimensions, protocol, of_group=False), dimensions, protocol) for one in table]
    return parts[0] if len(parts) == 1 else _mean_present(parts)


def sample_overall(values: Mapping[str, float], dimensions: Sequence[str], protocol: ScoringProtocol) -> float | None:
    """Returns the overall of one sample from its values, None when it has none; see `sample_overalls`."""
    row = np.array([[[values.get(name, math.nan) for name in dimensions]]])
    value = float(sample_overalls(row, dimensions, protocol)[0])
    return None if math.isnan(value) else value


def averaged(table: Floats, dimensions: Sequence[str], protocol: ScoringProtocol) -> Floats:
    """Returns what a protocol averages over samples: the values, and each sample's overall where it is of samples.

    Args:
        table: Shape (slices, N, dimensions).
        dimensions: Names of the columns.
        protocol: Its `combination` decides.

    Returns:
        Shape (slices, N, dimensions), or (slices, N, dimensions + 1).
    """
    if protocol.combination == "mean_of_groups":
        return table
    overalls = np.stack([sample_overalls(one[None], dimensions, protocol) for one in table])
    return np.concatenate([table, overalls[:, :, None]], axis=2)


def observed(table: Floats, dimensions: Sequence[str], protocol: ScoringProtocol) -> Floats:
    """Returns what was seen of each sample: its values averaged over slices, and its overall.

    Args:
        table: Shape (slices, N, dimensions).
        dimensions: Names of the columns.
        protocol: Gives the weights.

    Returns:
        Shape (N, dimensions + 1), NaN where there is no value.
    """
    values = _mean_present(list(table))
    return np.column_stack([values, sample_overalls(table, dimensions, protocol)])


def point_means(table: Floats) -> Means:
    """Returns means over a table of shape (N, columns), added up sample after sample."""

    def means(mask: Mask) -> Floats:
        part = table[mask]
        columns = [[value for value in column.tolist() if not math.isnan(value)] for column in part.T]
        return np.array([[plain_mean(column) if column else math.nan for column in columns]])

    return means


def part_figures(
    kind: str,
    groups: NDArray[np.str_],
    means: Means,
    dimensions: Sequence[str],
    protocol: ScoringProtocol,
    *,
    rounded: bool,
) -> Floats:
    """Computes every figure of a part of the samples.

    Args:
        kind: all, group, or anything else that is averaged as it stands.
        groups: Shape (N,), the group of each sample.
        means: Gives the means over samples of a table made by `averaged`.
        dimensions: Names of the columns.
        protocol: Says the rest.
        rounded: Round after every step, as far as the protocol does; False for intervals.

    Returns:
        Shape (resamples, dimensions + 1), the overall last; NaN where there is no figure.
    """
    places, number = protocol.rounding if rounded else None, len(dimensions)

    def one(mask: Mask, *, of_group: bool) -> Floats:
        found = means(mask)
        figures = _rounded(_settled(found[:, :number], dimensions, protocol, of_group=of_group), places)
        if protocol.combination == "mean_of_groups":
            return np.column_stack([figures, _rounded(overall(figures, dimensions, protocol), places)])
        return np.column_stack([figures, _rounded(found[:, number], places)])

    if kind != "all" or protocol.combination == "mean_of_samples":
        return one(np.ones(len(groups), dtype=bool), of_group=kind == "group")
    return _rounded(_mean_present([one(groups == group, of_group=True) for group in GROUPS]), places)


def _settled(means: Floats, dimensions: Sequence[str], protocol: ScoringProtocol, *, of_group: bool) -> Floats:
    """Fills in what the protocol counts for a group without samples and for one without text."""
    empty = ~np.isfinite(means).any(axis=1)
    settled = means.copy()
    if protocol.missing_text is not None and TEXT in dimensions:
        text = settled[:, list(dimensions).index(TEXT)]
        text[~np.isfinite(text) & ~empty] = protocol.missing_text
    if of_group and protocol.empty_group == "zero":
        settled[empty] = 0.0
    return settled


def _mean_present(parts: Sequence[Floats]) -> Floats:
    """Averages figures over the parts that have them, added up from left to right."""
    total, count = np.zeros_like(parts[0]), np.zeros_like(parts[0])
    for part in parts:
        have = np.isfinite(part)
        total = total + np.where(have, part, 0.0)
        count = count + have
    return _divided(total, count)


def _divided(totals: Floats, by: Floats) -> Floats:
    """Divides, NaN where the divisor is 0."""
    out = np.full_like(totals, math.nan)
    np.divide(totals, by, out=out, where=by > 0)
    return out


def _rounded(values: Floats, places: int | None) -> Floats:
    """Rounds as Python does (numpy scales first, and differs in the last digit)."""
    if places is None:
        return values
    rounded: Any = [round(value, places) for value in values.ravel().tolist()]
    return np.array(rounded, dtype=np.float64).reshape(values.shape)


def sliced_figures(
    kind: str,
    groups: NDArray[np.str_],
    per_slice: Sequence[Means],
    dimensions: Sequence[str],
    protocol: ScoringProtocol,
    *,
    rounded: bool,
) -> Floats:
    """Averages `part_figures` over (repeat, judge repeat) slices; with one slice these are its figures."""
    parts = [part_figures(kind, groups, means, dimensions, protocol, rounded=rounded) for means in per_slice]
    return parts[0] if len(parts) == 1 else _mean_present(parts)
