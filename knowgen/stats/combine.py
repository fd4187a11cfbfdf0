"""Compute figures from values: means, the weighted overall, the mean of the groups; for points and for resamples.

Formula (Gen-Searcher, arXiv 2603.28767): in each group, overall = .1 F + .4 V + .4 T + .1 A of the group's means, and
every figure of the whole is the mean over the groups. The protocol defines rounding, empty groups, missing text, and
whether the means of a group or the samples are weighted.
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
"""Function from a mask of samples to their means, shape (resamples, dimensions), NaN where there is none."""


def weights_of(dimensions: Sequence[str], protocol: ScoringProtocol) -> list[tuple[str, float]]:
    """Return the dimensions with their weights, in the order of addition.

    The four KnowGen dimensions have the protocol's weights. Any other set has equal weights, so that its overall is
    the plain mean.
    """
    if set(dimensions) == set(DIMENSIONS):
        return list(zip(DIMENSIONS, protocol.weights, strict=True))
    return [(name, 1.0) for name in dimensions]


def overall(means: Floats, dimensions: Sequence[str], protocol: ScoringProtocol) -> Floats:
    """Return the weighted mean over dimensions; a dimension without a value is left out and the weights renormalised.

    Args:
        means: Means, shape (resamples, dimensions).
        dimensions: Names of the columns.
        protocol: Scoring protocol with the weights.

    Returns:
        Shape (resamples,), NaN where no dimension has a value.
    """
    total, weight = np.zeros(len(means)), np.zeros(len(means))
    for name, share in weights_of(dimensions, protocol):
        column = means[:, list(dimensions).index(name)]
        present = np.isfinite(column)
        total = total + np.where(present, share * column, 0.0)
        weight = weight + np.where(present, share, 0.0)
    return _divide(total, weight)


def sample_overalls(table: Floats, dimensions: Sequence[str], protocol: ScoringProtocol) -> Floats:
    """Return the overall of each sample over the dimensions that it has values for.

    Under `official`, text that is N/A counts .5, as in the overall that the published evaluator stores for a sample.

    Args:
        table: Values, shape (slices, N, dimensions).
        dimensions: Names of the columns.
        protocol: Scoring protocol with the weights.

    Returns:
        Shape (N,), averaged over slices and not rounded; NaN where a sample has no value at all.
    """
    parts = [overall(_fill_missing(one, dimensions, protocol, of_group=False), dimensions, protocol) for one in table]
    return parts[0] if len(parts) == 1 else _mean_present(parts)


def sample_overall(values: Mapping[str, float], dimensions: Sequence[str], protocol: ScoringProtocol) -> float | None:
    """Return the overall of one sample from its values; None if it has none. See `sample_overalls`."""
    row = np.array([[[values.get(name, math.nan) for name in dimensions]]])
    value = float(sample_overalls(row, dimensions, protocol)[0])
    return None if math.isnan(value) else value


def averaged(table: Floats, dimensions: Sequence[str], protocol: ScoringProtocol) -> Floats:
    """Return the columns that a protocol averages over samples: the values, and the overall if samples are weighted.

    Args:
        table: Values, shape (slices, N, dimensions).
        dimensions: Names of the columns.
        protocol: Scoring protocol; its `combination` decides whether the overall is a column.

    Returns:
        Shape (slices, N, dimensions) or (slices, N, dimensions + 1).
    """
    if protocol.combination == "mean_of_groups":
        return table
    overalls = np.stack([sample_overalls(one[None], dimensions, protocol) for one in table])
    return np.concatenate([table, overalls[:, :, None]], axis=2)


def observed(table: Floats, dimensions: Sequence[str], protocol: ScoringProtocol) -> Floats:
    """Return the values of each sample averaged over slices, and its overall.

    Args:
        table: Values, shape (slices, N, dimensions).
        dimensions: Names of the columns.
        protocol: Scoring protocol with the weights.

    Returns:
        Shape (N, dimensions + 1), NaN where there is no value.
    """
    values = _mean_present(list(table))
    return np.column_stack([values, sample_overalls(table, dimensions, protocol)])


def point_means(table: Floats) -> Means:
    """Return a function that computes the means of a table of shape (N, columns), adding in the order of samples."""

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
    """Compute every figure of a subset of the samples.

    Args:
        kind: Kind of the subset: `all` is the mean of the groups, any other kind is averaged directly.
        groups: Group of each sample, shape (N,).
        means: Function that computes means of the table returned by `averaged`.
        dimensions: Names of the columns.
        protocol: Scoring protocol.
        rounded: Whether to round after every step as the protocol does; False for intervals.

    Returns:
        Shape (resamples, dimensions + 1), the overall last; NaN where there is no figure.
    """
    places, number = protocol.rounding if rounded else None, len(dimensions)

    def one(mask: Mask, *, of_group: bool) -> Floats:
        averages = means(mask)
        figures = _round(_fill_missing(averages[:, :number], dimensions, protocol, of_group=of_group), places)
        if protocol.combination == "mean_of_groups":
            return np.column_stack([figures, _round(overall(figures, dimensions, protocol), places)])
        return np.column_stack([figures, _round(averages[:, number], places)])

    if kind != "all" or protocol.combination == "mean_of_samples":
        return one(np.ones(len(groups), dtype=bool), of_group=kind == "group")
    return _round(_mean_present([one(groups == group, of_group=True) for group in GROUPS]), places)


def _fill_missing(means: Floats, dimensions: Sequence[str], protocol: ScoringProtocol, *, of_group: bool) -> Floats:
    """Fill in the protocol's values for a group without samples and for missing text."""
    empty = ~np.isfinite(means).any(axis=1)
    filled = means.copy()
    if protocol.missing_text is not None and TEXT in dimensions:
        text = filled[:, list(dimensions).index(TEXT)]
        text[~np.isfinite(text) & ~empty] = protocol.missing_text
    if of_group and protocol.empty_group == "zero":
        filled[empty] = 0.0
    return filled


def _mean_present(parts: Sequence[Floats]) -> Floats:
    """Return the mean of each figure over the parts that have it, adding from left to right."""
    total, count = np.zeros_like(parts[0]), np.zeros_like(parts[0])
    for part in parts:
        present = np.isfinite(part)
        total = total + np.where(present, part, 0.0)
        count = count + present
    return _divide(total, count)


def _divide(totals: Floats, by: Floats) -> Floats:
    """Return the quotients, NaN where the divisor is 0."""
    out = np.full_like(totals, math.nan)
    np.divide(totals, by, out=out, where=by > 0)
    return out


def _round(values: Floats, places: int | None) -> Floats:
    """Round like Python's `round`; numpy scales first and differs in the last digit."""
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
    """Return `part_figures` averaged over the (repeat, judge repeat) slices."""
    parts = [part_figures(kind, groups, means, dimensions, protocol, rounded=rounded) for means in per_slice]
    return parts[0] if len(parts) == 1 else _mean_present(parts)
