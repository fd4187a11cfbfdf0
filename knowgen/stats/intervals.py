"""95 % intervals of figures and of paired differences: linearised standard errors, small-sample corrections, limits.

A figure is a function of the means of its samples. Its standard error comes from the change of the figure with each
sample (the infinitesimal jackknife: Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982, chapter 6),
summed within each group with the divisor n - 1. The degrees of freedom of several groups are Satterthwaite's
(Biometrics Bulletin 2, 1946); a group has those of its dimension with the fewest values.

A benchmark of 48 samples may contain no sample with a rare value, such as right text of a weak system, and its spread
is then underestimated. Each group therefore gets two added samples of a small weight, one with the lowest and one with
the highest possible value, as in the intervals of Agresti and Coull (The American Statistician 52, 1998). From the
standard error e of the figure f, and the quantile t of Student's distribution, the ends are

- for one dimension on a scale of grades: the quantiles of a Beta distribution with f (1 - f) / e^2 samples (the
  interval of Korn and Graubard, Survey Methodology 24, 1998, with the prior of Jeffreys, which is where the weight 1/2
  comes from; Brown, Cai and DasGupta, Statistical Science 16, 2001, compare such intervals of a share);
- for the overall of several dimensions, and for measures that do not reach the ends of their range: logit(f) +- t e /
  (f (1 - f)), turned back;
- for a difference: f +- t e.

No interval holds its level where nearly all samples have the same value: with two samples of 48 that differ, the number
of those that could have differed is a guess, and any interval wide enough for the guess contains the true value nearly
always. Such figures have none. How many samples count as different depends on what an interval is sensitive to:

- one dimension on a scale of grades: the added samples make at most a fifth of the variance, which takes about two
  samples of another value;
- an overall or a measure: the effective number of samples apart from the median of their group, (sum |d|)^2 / sum d^2
  of their distances d to it, which is k if k of many samples differ from it by the same amount;
- a difference: the effective number of samples that make up the variance, (sum c^2)^2 / sum c^4 of their changes c.
  With three pairs that differ equally, a difference of 0 can never be excluded; with four, it can.

The weights and limits were chosen by simulation. `benchmarks/interval_coverage.py` prints the share of simulated
benchmarks whose interval contains the true value, for weak, middling and strong systems, 18 to 336 samples a group,
categories of 20 samples, single dimensions and paired differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from knowgen.stats.combine import Mask, Means
from knowgen.stats.summary import ALL_EQUAL, TOO_FEW_DIFFERENT, TOO_SMALL
from knowgen.stats.values import Floats

LEVEL = 0.95
"""Confidence level of every interval."""

MIN_SAMPLES = 18
"""Minimum number of samples in each group for an interval of an overall."""

MIN_VALUES = 5
"""Minimum number of values of each dimension in each group; with fewer, nothing is known of their spread."""

MIN_VALUES_ALONE = 12
"""Minimum number of values in each group for the interval of a single dimension."""

_GRADED, _OVERALL = 1 / 2, 0.02
"""Weight of the added samples for a dimension on a scale of grades, and for an overall or a measure."""

GRADED_DIFFERENCE, OVERALL_DIFFERENCE = 1 / 20, 0.005
"""The same for a paired difference, where the added samples are -1 and 1."""

_MAX_ADDED = 1 / 5
"""Maximum share of the variance of a dimension on a scale of grades that the added samples may make."""

_MIN_APART, _MIN_APART_ALONE = 6.0, 3.0
"""Minimum effective number of samples apart from the median: for an overall of several dimensions, for a measure."""

MIN_CONTRIBUTING = 4.0
"""Minimum effective number of samples that make up the variance of a difference."""

TOLERANCE = 1e-9
"""Values closer than this are equal; such differences come from the order of additions alone."""

DECIMALS = 10
"""Ends are rounded to this many decimals, so that they do not depend on the machine."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Spread:
    """What is known of the sampling distribution of a figure.

    Attributes:
        value: The figure, with the added samples.
        error: Its standard error.
        freedom: Degrees of freedom of the standard error.
        added: Share of the variance that the added samples make.
        apart: Effective number of samples apart from the median of their group.
        contributing: Effective number of samples that make up the variance.
    """

    value: float
    error: float
    freedom: float
    added: float
    apart: float
    contributing: float

    def quantile(self, probability: float) -> float:
        """Return a quantile of Student's distribution with these degrees of freedom."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, probability))

    @property
    def t(self) -> float:
        """The quantile of the 95 % interval."""
        return self.quantile((1 + LEVEL) / 2)


@dataclass(frozen=True)
class Sampled:
    """The values that a figure is computed from.

    Attributes:
        tables: Columns that a protocol averages, shape (slices, N, columns): one for a figure, two for a difference.
        strata: Group of each sample, shape (N,). Samples are drawn within groups.
        figures: Function from one `Means` per slice of each table, and the group of each of their samples, to figures
            of shape (rows, figures).
        values: Value of each sample by figure, shape (N, figures), NaN where it has none; the overall is last.
        grouped: Whether the overall is computed from means of dimensions, and not from one value per sample.
    """

    tables: tuple[Floats, ...]
    strata: NDArray[np.str_]
    figures: Callable[[Sequence[Sequence[Means]], NDArray[np.str_]], Floats]
    values: Floats
    grouped: bool

    @property
    def dimensions(self) -> int:
        """Number of figures without the overall."""
        return int(self.values.shape[1]) - 1

    @property
    def several(self) -> bool:
        """Whether the overall combines several dimensions."""
        return self.dimensions > 1

    def counts(self) -> NDArray[np.int64]:
        """Return the number of values, shape (strata, figures)."""
        present = np.isfinite(self.values)
        return np.array([present[self.strata == name].sum(axis=0) for name in np.unique(self.strata)], dtype=np.int64)


def figure_intervals(sampled: Sampled, points: Sequence[float]) -> list[Interval | str]:
    """Return the interval of each figure in [0, 1], or the note on why it has none.

    Args:
        sampled: The values.
        points: The figures, NaN where there is none; an interval always contains its figure.
    """
    graded = _graded(sampled.tables)[: sampled.dimensions]
    scales = [*graded.tolist(), not sampled.several and bool(graded.all())]
    weights = np.where(graded, _GRADED, _OVERALL)
    spreads = _spreads(sampled, weights, _OVERALL)
    found: list[Interval | str] = []
    for place, (point, spread, on_grades) in enumerate(zip(points, spreads, scales, strict=True)):
        if isinstance(spread, str):
            found.append(spread)
        elif _level(sampled.values[:, place]):
            found.append(ALL_EQUAL)
        elif not _varies(spread, on_grades, several=sampled.several and place == sampled.dimensions):
            found.append(TOO_FEW_DIFFERENT)
        else:
            found.append(_containing(_beta(spread) if on_grades else _logit(spread), point))
    return found


def difference_intervals(sampled: Sampled, points: Sequence[float]) -> list[tuple[Interval, Spread] | str]:
    """Return the interval and the spread of each difference, or the note on why it has none.

    Args:
        sampled: The values of both systems; `Sampled.values` are the differences.
        points: The differences, NaN where there is none.
    """
    graded = _graded(sampled.tables)[: sampled.dimensions]
    spreads = _spreads(sampled, np.where(graded, GRADED_DIFFERENCE, OVERALL_DIFFERENCE), OVERALL_DIFFERENCE)
    found: list[tuple[Interval, Spread] | str] = []
    for column, point, spread in zip(sampled.values.T, points, spreads, strict=True):
        if isinstance(spread, str):
            found.append(spread)
        elif _level(column):
            found.append(ALL_EQUAL)
        elif spread.contributing < MIN_CONTRIBUTING - TOLERANCE:
            found.append(TOO_FEW_DIFFERENT)
        else:
            half = spread.t * spread.error
            ends = max(-1.0, spread.value - half), min(1.0, spread.value + half)
            found.append((_containing(ends, point), spread))
    return found


def _graded(tables: Sequence[Floats]) -> Mask:
    """Return for each column whether some value is at an end of the range, as grades are and most measures are not."""
    at_an_end = [((table <= TOLERANCE) | (table >= 1 - TOLERANCE)).any(axis=(0, 1)) for table in tables]
    graded: Mask = np.logical_or.reduce(at_an_end)
    return graded


def _level(values: Floats) -> bool:
    known = values[np.isfinite(values)]
    return bool(len(known)) and float(known.max() - known.min()) <= TOLERANCE


def _varies(spread: Spread, on_grades: bool, *, several: bool) -> bool:
    """Return whether enough samples differ for an interval of a figure."""
    if on_grades:
        return spread.added <= _MAX_ADDED
    return spread.apart >= (_MIN_APART if several else _MIN_APART_ALONE) - TOLERANCE


def _spreads(sampled: Sampled, weights: Floats, overall_weight: float) -> list[Spread | str]:
    """Return the spread of each figure, or `TOO_SMALL`.

    Args:
        sampled: The values.
        weights: Weight of the added samples for each dimension.
        overall_weight: The same for the overall of several dimensions.
    """
    if not len(sampled.strata):
        return [TOO_SMALL] * sampled.values.shape[1]
    counts, alone = sampled.counts(), [*range(sampled.dimensions)]
    if not sampled.several:
        overall_weight = float(weights[0])
    by_dimension = _changes(sampled, weights) if sampled.several else None
    together = _changes(sampled, np.full(sampled.dimensions, overall_weight))
    spreads: list[Spread | str] = []
    for place in [*alone, sampled.dimensions]:
        last = place == sampled.dimensions
        linear = together if last or by_dimension is None else by_dimension
        weight = overall_weight if last else float(weights[place])
        numbers = counts[:, place]
        fewest = counts[:, : sampled.dimensions] if last and sampled.several and sampled.grouped else numbers[:, None]
        if not _enough(numbers, fewest, alone=not (last and sampled.several)):
            spreads.append(TOO_SMALL)
        else:
            spreads.append(_spread(sampled, place, linear, weight, fewest))
    return spreads


def _enough(numbers: NDArray[np.int64], fewest: NDArray[np.int64], *, alone: bool) -> bool:
    used = numbers[numbers > 0]
    if not len(used):
        return False
    least = min((int(number) for number in fewest[numbers > 0].ravel() if number), default=0)
    return bool(used.min() >= (MIN_VALUES_ALONE if alone else MIN_SAMPLES)) and least >= MIN_VALUES


def _spread(sampled: Sampled, place: int, linear: _Linear, weight: float, fewest: NDArray[np.int64]) -> Spread:
    """Return the spread of one figure from its change with each sample.

    Args:
        sampled: The values.
        place: Number of the figure.
        linear: Changes of all figures.
        weight: Weight of the added samples.
        fewest: Numbers of values that the degrees of freedom follow from, shape (strata, any).
    """
    total = freedom = added = distance = square = second = fourth = 0.0
    for name, least in zip(np.unique(sampled.strata), fewest.tolist(), strict=True):
        present = np.isfinite(sampled.values[sampled.strata == name, place])
        number = int(present.sum())
        if not number:
            continue
        changes = linear.changes[linear.strata == name, place]
        own, extra = changes[:-2], weight * float((changes[-2:] ** 2).sum())
        size = number + 2 * weight
        variance = (float((own**2).sum()) + extra) * size / (size - 1)
        total += variance
        added += extra * size / (size - 1)
        freedom += variance**2 / (min(count for count in least if count) - 1)
        apart = np.abs(own[present] - np.median(own[present]))
        distance, square = distance + float(apart.sum()), square + float((apart**2).sum())
        second, fourth = second + float((own**2).sum()), fourth + float((own**4).sum())
    if total <= 0:
        return Spread(linear.values[place], 0.0, 1.0, added=1.0, apart=0.0, contributing=0.0)
    return Spread(
        float(linear.values[place]),
        math.sqrt(total),
        max(1.0, total**2 / freedom),
        added=added / total,
        apart=distance**2 / square if square > 0 else 0.0,
        contributing=second**2 / fourth if fourth > 0 else 0.0,
    )


@dataclass(frozen=True)
class _Linear:
    """Figures, and how they change with each sample.

    Attributes:
        values: The figures with the added samples, shape (figures,).
        changes: Change with each sample, shape (N + added, figures). The added samples of a group follow its own,
            first the lowest value and then the highest.
        strata: Group of each sample, shape (N + added,).
    """

    values: Floats
    changes: Floats
    strata: NDArray[np.str_]


def _changes(sampled: Sampled, weights: Floats) -> _Linear:
    """Return the figures and their changes with added samples of these weights by dimension."""
    order, strata = _with_added(sampled.strata)
    each: list[list[Means]] = []
    for place, table in enumerate(sampled.tables):
        low, high = (0.0, 1.0) if place == len(sampled.tables) - 1 else (1.0, 0.0)
        columns = np.append(weights, [float(weights.min())] * (table.shape[2] - len(weights)))
        each.append([_linearised(one, order, sampled.strata, strata, (low, high), columns) for one in table])
    figures = sampled.figures(each, strata)
    return _Linear(figures[0], figures[1:] - figures[0], strata)


def _with_added(strata: NDArray[np.str_]) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Return the place of each sample, -1 and -2 for those that are added to a group, and the group of each."""
    places, names = [], []
    for name in np.unique(strata):
        own = np.flatnonzero(strata == name)
        places += [*own.tolist(), -1, -2]
        names += [name] * (len(own) + 2)
    return np.array(places, dtype=np.int64), np.array(names, dtype=np.str_)


def _linearised(
    table: Floats,
    order: NDArray[np.int64],
    own_strata: NDArray[np.str_],
    strata: NDArray[np.str_],
    ends: tuple[float, float],
    weights: Floats,
) -> Means:
    """Return a function from a mask of samples to their means: first the means, then each changed by one sample.

    Args:
        table: Values, shape (N, columns), NaN where there is none.
        order: Place of each sample in the table, negative for the added ones.
        own_strata: Group of each sample of the table.
        strata: Group of each sample, the added ones included.
        ends: Value of the two added samples.
        weights: Weight of the added samples by column.
    """
    values = np.where(order[:, None] < 0, np.nan, table[np.maximum(order, 0)])
    for name in np.unique(strata):
        known = np.isfinite(table[own_strata == name]).any(axis=0)
        for mark, end in zip((-1, -2), ends, strict=True):
            values[(order == mark) & (strata == name)] = np.where(known, end, np.nan)
    share = np.where(order[:, None] < 0, weights, 1.0) * np.isfinite(values)
    filled = np.where(np.isfinite(values), values, 0.0)

    def means(mask: Mask) -> Floats:
        weight = (share[mask]).sum(axis=0)
        mean = np.full(table.shape[1], np.nan)
        np.divide((share * filled)[mask].sum(axis=0), weight, out=mean, where=weight > 0)
        inside = (share > 0) & mask[:, None]
        change = np.zeros_like(filled)
        np.divide(filled - mean, weight, out=change, where=inside & (weight > 0))
        return np.vstack([mean, mean + change])

    return means


def _logit(spread: Spread) -> Interval:
    value = min(max(spread.value, 1e-12), 1 - 1e-12)
    centre, half = math.log(value / (1 - value)), spread.t * spread.error / (value * (1 - value))
    return _expit(centre - half), _expit(centre + half)


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0


def _beta(spread: Spread) -> Interval:
    from scipy.special import betaincinv

    value = spread.value
    size = value * (1 - value) / spread.error**2
    tail = (1 - LEVEL) / 2
    low, high = (float(betaincinv(size * value, size * (1 - value), p)) for p in (tail, 1 - tail))
    return low, high


def _containing(ends: Interval, point: float) -> Interval:
    return round(min(ends[0], point), DECIMALS), round(max(ends[1], point), DECIMALS)
