"""Paired differences between all systems of a set at once, with their intervals and p-values.

The figures are those of `compare` for each pair: the samples for which both systems have a score, the same difference,
the same interval. A pair differs from another one only in which samples it has and whose values they are, so that all
pairs are computed together, sample by sample, as arrays over pairs. With 60 systems that is 1,770 pairs at the price of
a few. Nothing is approximated where scores are missing: each pair has its own sums.

A figure is linear in the means of its values, as long as the same means exist. Its change with a sample (the
infinitesimal jackknife of `knowgen.stats.intervals`) is therefore J (v - m) / W for a value v with the mean m over the
weight W, where J is the change of the figure with that mean. Its standard error, degrees of freedom and interval follow
as described there.

**The p-value** is the one that belongs to the interval: two-sided, of the t statistic f / e with the difference f, its
standard error e and Satterthwaite's degrees of freedom. It is below .05 exactly where the 95 % interval leaves out 0. A
permutation test of 10,000 exchanges cannot give less than 1/10,001. Holm's method for the 1,770 pairs of 60 systems
asks for .05 / 1,770 = .00003 first, so that no pair could ever differ; the t statistic has no such floor.
`benchmarks/board_false_alarms.py` prints how often systems that are equal come out as different.

Where nearly all samples differ by the same amount, their spread is unknown and the difference has no interval, though
it may be as large as can be. Such pairs have the exact sign test instead (Conover, Practical Nonparametric Statistics,
3rd edition, section 3.4): if exchanging the two systems changes nothing, the number of samples on which b is above a,
among those on which they differ, is binomial with probability 1/2. A majority that contradicts the sign of the
difference has the p-value 1.

Additions run over the samples in their order, one after the other, and never through a matrix product: the order in
which a linear-algebra library adds depends on the processor and on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knowgen.core.steps import step
from knowgen.stats.aggregate import NO_SCORES, present
from knowgen.stats.combine import Mask, Means, averaged, observed, sliced_figures
from knowgen.stats.compare.pairing import check_same
from knowgen.stats.intervals import (
    DECIMALS,
    GRADED_DIFFERENCE,
    LEVEL,
    MIN_CONTRIBUTING,
    MIN_SAMPLES,
    MIN_VALUES,
    MIN_VALUES_ALONE,
    OVERALL_DIFFERENCE,
    TOLERANCE,
)
from knowgen.stats.protocol import ScoringProtocol
from knowgen.stats.subsets import SampleSubset, group_names, sample_subsets
from knowgen.stats.summary import ALL_EQUAL, OVERALL, TOO_FEW_DIFFERENT, TOO_SMALL
from knowgen.stats.values import Floats, Unit, Values

Indices = NDArray[np.int64]

_BLOCK = 256
"""Number of pairs that are computed together; memory grows with it, results do not depend on it."""

T_TEST, SIGN_TEST = "t", "sign"
"""Tests that a p-value comes from; a pair without a p-value has neither."""


@dataclass(frozen=True)
class PairedFigure:
    """Difference b - a of a figure of two systems on a subset of the samples.

    Attributes:
        value: Difference, in [-1, 1]; None if one of them has no figure.
        low: Lower end of the 95 % interval; None without an interval.
        high: Upper end of the interval.
        p: Two-sided p-value, in [0, 1], rounded to 10 decimals; None without a test.
        test: `t`, `sign`, or empty without a test.
        n: Number of samples that both have.
        note: Reason for having no value or no interval.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    test: str
    n: int
    note: str


@dataclass(frozen=True)
class PairedSubset:
    """Differences of all pairs on a subset of the samples.

    Attributes:
        kind: all, group, category or difficulty.
        name: Name of the subset; empty for all.
        pairs: Difference by the places of both systems (a, b), with a < b, in order.
    """

    kind: str
    name: str
    pairs: Mapping[tuple[int, int], PairedFigure]


@step("comparing systems")
def all_pairs(
    systems: Sequence[Values],
    protocol: ScoringProtocol,
    dimensions: Sequence[str],
    figure: str = OVERALL,
    *,
    parts: bool = True,
) -> list[PairedSubset]:
    """Compare each system with each later one over the samples for which both have a score; differences are b - a.

    Args:
        systems: Values of each system under the protocol, with common samples in the same order.
        protocol: Scoring protocol.
        dimensions: Dimensions that the scorer gives values for.
        figure: A dimension, or `overall`.
        parts: Whether groups, categories and difficulties are compared as well.

    Returns:
        The whole first, then groups, categories and difficulties. Whether a system has enough scores for a result is
        for the caller to decide: `compare` gives a pair without one no figures.

    Raises:
        DataError: Two systems have a sample with different properties.
        ValueError: The figure is unknown.
    """
    names = tuple(dimensions)
    aligned = _Aligned(systems, protocol, names)
    place = (*names, OVERALL).index(figure)
    subsets = sample_subsets(aligned.units, protocol)
    subsets = subsets if parts else subsets[:1]
    found: list[dict[tuple[int, int], PairedFigure]] = [{} for _ in subsets]
    for block in aligned.blocks():
        for part, pairs in zip(subsets, found, strict=True):
            results = _PairedBlock(aligned, part, block).results(place)
            pairs.update(zip(block.keys, results, strict=True))
    return [
        PairedSubset(part.kind, part.name, {key: pairs[key] for key in sorted(pairs)})
        for part, pairs in zip(subsets, found, strict=True)
    ]


@dataclass(frozen=True)
class _Block:
    """Pairs whose first systems have the same number of slices, and whose second ones have.

    Attributes:
        keys: The pairs.
        first: Place of a among the systems of the same number of slices, shape (P,).
        second: Place of b, likewise.
        tables: Values of those systems for a and for b, shape (slices, N, systems, columns) each.
        rated: Whether both have a score, shape (N, P).
        gaps: Difference of the values and overall of each sample, shape (N, P, dimensions + 1).
    """

    keys: Sequence[tuple[int, int]]
    first: Indices
    second: Indices
    tables: tuple[Floats, Floats]
    rated: Mask
    gaps: Floats


class _Aligned:
    """Values of all systems over the union of their samples.

    Attributes:
        units: The N samples.
        groups: Group of each sample, shape (N,).
    """

    def __init__(self, systems: Sequence[Values], protocol: ScoringProtocol, dimensions: tuple[str, ...]) -> None:
        self.protocol, self.dimensions = protocol, dimensions
        known: dict[str, Unit] = {}
        for values in systems:
            for unit in values.units:
                check_same(known.setdefault(unit.id, unit), unit)
        self.units = [known[name] for name in sorted(known)] if protocol.unit == "sample" else list(known.values())
        self.groups = group_names(self.units)
        places = {unit.id: place for place, unit in enumerate(self.units)}
        tables = [self._spread_out(values, places) for values in systems]
        self._columns = [averaged(table, dimensions, protocol) for table in tables]
        self._observed = [observed(table, dimensions, protocol) for table in tables]
        self._rated = [np.isfinite(present(table)[:, -1]) for table in tables]

    def _spread_out(self, values: Values, places: Mapping[str, int]) -> Floats:
        table = np.full((len(values.table), len(places), len(self.dimensions)), np.nan)
        table[:, [places[unit.id] for unit in values.units]] = values.table
        return table

    def blocks(self) -> Iterator[_Block]:
        """Yield all pairs in blocks."""
        by_slices: dict[int, list[int]] = {}
        for system, table in enumerate(self._columns):
            by_slices.setdefault(len(table), []).append(system)
        stacked = {number: np.stack([self._columns[one] for one in own], 2) for number, own in by_slices.items()}
        rank = {system: place for own in by_slices.values() for place, system in enumerate(own)}
        kinds: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for a, b in combinations(range(len(self._columns)), 2):
            kinds.setdefault((len(self._columns[a]), len(self._columns[b])), []).append((a, b))
        for (slices_a, slices_b), pairs in kinds.items():
            for start in range(0, len(pairs), _BLOCK):
                keys = pairs[start : start + _BLOCK]
                yield _Block(
                    keys,
                    np.array([rank[a] for a, _ in keys], dtype=np.int64),
                    np.array([rank[b] for _, b in keys], dtype=np.int64),
                    (stacked[slices_a], stacked[slices_b]),
                    np.stack([self._rated[a] & self._rated[b] for a, b in keys], 1),
                    np.stack([self._observed[b] - self._observed[a] for a, b in keys], 1),
                )


class _Side:
    """One system of each pair of a block, on a subset of the samples.

    Args:
        values: Values that the pair has, shape (slices, n, P, columns), NaN elsewhere.
        groups: Group of each of the n samples.
        strata: The groups that samples are drawn within, with the places of their samples.
    """

    def __init__(self, values: Floats, groups: NDArray[np.str_], strata: Mapping[str, Indices], combine: _Combine):
        self.values, self.groups, self.strata, self.combine = values, groups, strata, combine
        self.known = np.isfinite(values)
        filled = np.where(self.known, values, 0.0)
        self.totals = {name: _added(filled[:, own]) for name, own in strata.items()}
        self.counts = {name: self.known[:, own].sum(axis=1).astype(np.float64) for name, own in strata.items()}

    def points(self) -> Floats:
        """Return the figures as the protocol rounds them, shape (P, dimensions + 1)."""
        means = {name: _divided(self.totals[name], self.counts[name]) for name in self.strata}
        return self.combine(self.groups, means, rounded=True)

    def linearised(self, weights: Floats, place: int) -> _PairChanges:
        """Return a figure with two added samples of these weights a group, and its change with each sample.

        Args:
            weights: Weight of the added samples, shape (P, columns).
            place: Number of the figure.
        """
        shares = {name: self.counts[name] + 2 * weights * (self.counts[name] > 0) for name in self.strata}
        means = {
            name: _divided(self.totals[name] + weights * (self.counts[name] > 0), shares[name]) for name in self.strata
        }
        value = self.combine(self.groups, means, rounded=False)[:, place]
        changes = np.zeros(self.values.shape[1:3])
        ends: dict[str, tuple[Floats, Floats]] = {}
        for name, own in self.strata.items():
            slopes = self._slopes(means, name, place, value)
            factors = np.where(self.counts[name] > 0, _divided(slopes, shares[name]), 0.0)
            centres = np.where(self.counts[name] > 0, means[name], 0.0)
            inside = np.where(self.known[:, own], self.values[:, own] - centres[:, None], 0.0)
            changes[own] = _added_last(factors[:, None] * inside)
            low, high = (_added_last((factors * (end - centres))[:, None])[0] for end in (0.0, 1.0))
            ends[name] = low, high
        return _PairChanges(value, changes, ends)

    def _slopes(self, means: Mapping[str, Floats], name: str, place: int, value: Floats) -> Floats:
        """Return the change of a figure with each mean of a group, shape (slices, P, columns)."""
        slopes = np.zeros_like(means[name])
        for one in range(slopes.shape[0]):
            for column in range(slopes.shape[2]):
                moved = means[name].copy()
                moved[one, :, column] += 1
                changed = self.combine(self.groups, {**means, name: moved}, rounded=False)[:, place]
                slopes[one, :, column] = changed - value
        return slopes


@dataclass(frozen=True)
class _PairChanges:
    """A figure and its changes: shape (P,), (n, P), and of the lowest and highest value of each group (P,)."""

    value: Floats
    changes: Floats
    ends: Mapping[str, tuple[Floats, Floats]]


@dataclass(frozen=True)
class _Combine:
    """The function from the means of each group, shape (slices, P, columns), to figures of shape (P, figures)."""

    kind: str
    by_group: bool
    dimensions: tuple[str, ...]
    protocol: ScoringProtocol

    def __call__(self, groups: NDArray[np.str_], means: Mapping[str, Floats], *, rounded: bool) -> Floats:
        """Return the figures."""

        def of_slice(number: int) -> Means:
            def found(mask: Mask) -> Floats:
                inside = groups[mask]
                if not len(inside):
                    return np.full(next(iter(means.values()))[number].shape, np.nan)
                own: Floats = means[str(inside[0]) if self.by_group else self.kind][number]
                return own

            return found

        number = len(next(iter(means.values())))
        each = [of_slice(one) for one in range(number)]
        return sliced_figures(self.kind, groups, each, self.dimensions, self.protocol, rounded=rounded)


class _PairedBlock:
    """The pairs of a block on a subset of the samples."""

    def __init__(self, aligned: _Aligned, part: SampleSubset, block: _Block) -> None:
        self.dimensions = len(aligned.dimensions)
        rows = np.flatnonzero(part.counted)
        self.used = block.rated[rows]
        groups = aligned.groups[rows]
        by_group = part.kind == "all" and aligned.protocol.combination != "mean_of_samples"
        labels = groups if by_group else np.full(len(rows), part.kind)
        self.strata = {str(name): np.flatnonzero(labels == name) for name in np.unique(labels)}
        self.gaps = np.where(self.used[:, :, None], block.gaps[rows], np.nan)
        self.grouped = aligned.protocol.combination == "mean_of_groups"
        combine = _Combine(part.kind, by_group, aligned.dimensions, aligned.protocol)
        self.sides = [
            _Side(
                np.where(self.used[None, :, :, None], table[:, rows][:, :, own], np.nan), groups, self.strata, combine
            )
            for table, own in zip(block.tables, (block.first, block.second), strict=True)
            if len(rows)
        ]

    def results(self, place: int) -> list[PairedFigure]:
        """Return the difference of a figure for each pair."""
        number = np.isfinite(self.gaps[:, :, place]).sum(axis=0)
        if not self.sides:
            return [_without_value(0)] * len(number)
        points = self.sides[1].points()[:, place] - self.sides[0].points()[:, place]
        spread = self._spread(place)
        notes = self._notes(place, spread)
        low, high = _ends(points, spread)
        p_values = _t_test(spread), _sign_test(self.gaps[:, :, place], points)
        columns = (points, number, self.used.any(axis=0), notes, low, high, *p_values)
        return [_paired_figure(*cells) for cells in zip(*(column.tolist() for column in columns), strict=True)]

    def _weights(self, place: int) -> tuple[Floats, Floats]:
        """Return the weights of the added samples by column, shape (P, columns), and for the figure, shape (P,)."""
        on_grades = np.zeros((self.used.shape[1], self.dimensions), dtype=bool)
        for values in (side.values[..., : self.dimensions] for side in self.sides):
            on_grades |= ((values <= TOLERANCE) | (values >= 1 - TOLERANCE)).any(axis=(0, 1))
        graded = np.where(on_grades, GRADED_DIFFERENCE, OVERALL_DIFFERENCE)
        several, last = self.dimensions > 1, place == self.dimensions
        if several and last:
            graded = np.full_like(graded, OVERALL_DIFFERENCE)
        own = graded[:, 0 if last else place]
        others = self.sides[0].values.shape[3] - self.dimensions
        return np.column_stack([graded, *[graded.min(axis=1)] * others]), own

    def _spread(self, place: int) -> _Spreads:
        weights, own_weight = self._weights(place)
        a, b = (side.linearised(weights, place) for side in self.sides)
        changes = b.changes - a.changes
        shape = changes.shape[1]
        total, freedom, second, fourth = np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for name, own in self.strata.items():
            number = np.isfinite(self.gaps[own, :, place]).sum(axis=0)
            has = number > 0
            squares = changes[own] ** 2
            extra = (b.ends[name][0] - a.ends[name][1]) ** 2 + (b.ends[name][1] - a.ends[name][0]) ** 2
            size = number + 2 * own_weight
            own_second = _added(squares[None])[0]
            variance = np.where(has, (own_second + own_weight * extra) * _divided(size, size - 1, 0.0), 0.0)
            total += variance
            least = self._fewest(own, place)
            freedom += np.where(has, _divided(variance**2, least - 1.0, 0.0), 0.0)
            second += np.where(has, own_second, 0.0)
            fourth += np.where(has, _added((squares**2)[None])[0], 0.0)
        return _Spreads(
            value=b.value - a.value,
            error=np.sqrt(total),
            freedom=np.maximum(1.0, _divided(total**2, freedom, 1.0)),
            contributing=_divided(second**2, fourth, 0.0),
        )

    def _fewest(self, own: Indices, place: int) -> NDArray[np.int64]:
        """Return the fewest values of a group that a figure depends on, shape (P,); 0 without any."""
        counts = np.isfinite(self.gaps[own]).sum(axis=0)
        combined = place == self.dimensions and self.dimensions > 1 and self.grouped
        counts = counts[:, : self.dimensions] if combined else counts[:, place : place + 1]
        most = np.iinfo(np.int64).max
        least: NDArray[np.int64] = np.where(counts > 0, counts, most).min(axis=1)
        return np.where(least == most, 0, least)

    def _notes(self, place: int, spread: _Spreads) -> NDArray[np.object_]:
        """Return why a pair has no interval; empty if it has one."""
        alone = not (place == self.dimensions and self.dimensions > 1)
        minimum = MIN_VALUES_ALONE if alone else MIN_SAMPLES
        gaps = self.gaps[:, :, place]
        enough, some = np.ones(gaps.shape[1], dtype=bool), np.zeros(gaps.shape[1], dtype=bool)
        for own in self.strata.values():
            number = np.isfinite(gaps[own]).sum(axis=0)
            enough &= (number == 0) | ((number >= minimum) & (self._fewest(own, place) >= MIN_VALUES))
            some |= number > 0
        known = np.isfinite(gaps)
        top, bottom = (
            np.where(known, gaps, -np.inf).max(axis=0, initial=-np.inf),
            np.where(known, gaps, np.inf).min(axis=0, initial=np.inf),
        )
        notes = np.full(gaps.shape[1], "", dtype=object)
        notes[spread.contributing < MIN_CONTRIBUTING - TOLERANCE] = TOO_FEW_DIFFERENT
        notes[some & (top - bottom <= TOLERANCE)] = ALL_EQUAL
        notes[~(enough & some)] = TOO_SMALL
        return notes


@dataclass(frozen=True)
class _Spreads:
    """What `knowgen.stats.intervals.Spread` is for one difference, for all pairs of a block; shape (P,) each."""

    value: Floats
    error: Floats
    freedom: Floats
    contributing: Floats


def _added(terms: Floats) -> Floats:
    """Return the sums over the second axis, added one after the other."""
    total = np.zeros((terms.shape[0], *terms.shape[2:]))
    for place in range(terms.shape[1]):
        total += terms[:, place]
    return total


def _added_last(terms: Floats) -> Floats:
    """Return the sums over slices and columns of an array of shape (slices, n, P, columns), added in order."""
    total = np.zeros(terms.shape[1:3])
    for one in terms:
        for column in range(terms.shape[3]):
            total += one[:, :, column]
    return total


def _divided(totals: Floats, by: NDArray[np.floating[Any]], otherwise: float = np.nan) -> Floats:
    out = np.full(np.broadcast(totals, by).shape, otherwise)
    np.divide(totals, by, out=out, where=by > 0)
    return out


def _ends(points: Floats, spread: _Spreads) -> tuple[Floats, Floats]:
    """Return the ends of the intervals, which always contain the difference."""
    from scipy.special import stdtrit

    half = stdtrit(spread.freedom, (1 + LEVEL) / 2) * spread.error
    low = np.minimum(np.maximum(-1.0, spread.value - half), points)
    high = np.maximum(np.minimum(1.0, spread.value + half), points)
    return low, high


def _t_test(spread: _Spreads) -> Floats:
    from scipy.special import stdtr

    statistic = _divided(np.abs(spread.value), spread.error, np.inf)
    p_values: Floats = 2 * stdtr(spread.freedom, -statistic)
    return p_values


def _sign_test(gaps: Floats, points: Floats) -> Floats:
    """Return the two-sided p-values of the exact sign test; 1 where the majority contradicts the difference."""
    from scipy.special import bdtr

    above, below = (gaps > TOLERANCE).sum(axis=0), (gaps < -TOLERANCE).sum(axis=0)
    differing = above + below
    tail = bdtr(np.minimum(above, below).astype(np.float64), np.maximum(differing, 1), 0.5)
    agrees = np.sign(above - below) == np.sign(np.where(np.abs(points) > TOLERANCE, points, 0.0))
    p_values: Floats = np.where(agrees & (above != below), np.minimum(1.0, 2 * tail), 1.0)
    return p_values


def _without_value(number: int) -> PairedFigure:
    return PairedFigure(None, None, None, None, "", number, NO_SCORES)


def _paired_figure(
    point: float, number: int, used: bool, note: str, low: float, high: float, t_test: float, sign_test: float
) -> PairedFigure:
    if not used or math.isnan(point):
        return _without_value(number)
    if note:
        tested = note in (ALL_EQUAL, TOO_FEW_DIFFERENT)
        p_value = round(sign_test, DECIMALS) if tested else None
        return PairedFigure(point, None, None, p_value, SIGN_TEST if tested else "", number, note)
    ends = round(low, DECIMALS), round(high, DECIMALS)
    return PairedFigure(point, *ends, round(t_test, DECIMALS), T_TEST, number, "")
