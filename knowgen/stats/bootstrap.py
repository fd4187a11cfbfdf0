"""Intervals: the expanded percentile bootstrap by sample, stratified by group.

Each resample takes, within each group, as many samples as the group has, with replacement (Efron and Tibshirani, An
Introduction to the Bootstrap, chapters 8 and 13). The figures are then computed as for the whole, without rounding.
A resample is stored as counts, not as copies: a row of numbers that give how often each sample was taken.

A percentile interval is too narrow for few samples, because the spread of resamples has the divisor n and the
quantiles are those of the normal distribution. The ends are therefore moved outwards (Hesterberg, What Teachers Should
Know About the Bootstrap, The American Statistician 69, 2015, section 5.3: the expanded percentile interval).

The rules for when an interval is given come from simulations: values on the grid 0, .5, 1; four correlated dimensions;
45 % of the prompts of one group without text; the means of five published systems and of two systems near the maximum;
groups of 5 to 336 samples; 1,000 simulated benchmarks each. Share of benchmarks in which the interval contained the
true value, nominally 95 %:

- K-Score, plain percentile interval: 94 to 96 % with 294 + 336 samples, 91 to 93 % with 18 + 30, 79 to 88 % with 5 + 5.
- K-Score, expanded interval: 93 to 97 % from 8 + 8 samples on, if at least `MIN_DEVIATING_OVERALL` samples differ from
  the most frequent overall; 92 % with 40 + 40 samples near the maximum.
- A dimension with mean .3 % (two or three of 630 samples above 0): 85 to 90 %, and 59 to 80 % with 100 + 100 samples,
  because all samples are often 0 and resampling cannot produce values that were not observed. With at least
  `MIN_DEVIATING` differing samples required: 93 to 99 % of the cases that have an interval, 90 % in the worst case.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from knowgen.stats.combine import Mask, Means
from knowgen.stats.values import Floats

LEVEL = 0.95
"""Confidence level of every interval."""

MIN_SAMPLES = 5
"""Minimum number of samples in each group for an interval; with fewer, resampling does not show the spread."""

MIN_DEVIATING = 5
"""Minimum number of samples, over all groups, whose value differs from the most frequent value of their group."""

MIN_DEVIATING_OVERALL = 10
"""The same for the overall of a system. It mixes four dimensions, so few samples may account for most of its spread."""

TOO_SMALL = "n too small"
"""Note of a figure without an interval."""

_MAX_CELLS = 4_000_000
"""Maximum number of counts in memory (32 MB). A resample is never split, so the block size does not change results."""

_STEP = 2.0**32
"""Values are rounded to multiples of 2^-32 (2e-10). Their sums are then exact for up to two million samples, so that
the interval does not depend on the machine or the order of addition."""


def seeded(seed: int, *names: str) -> np.random.Generator:
    """Return a random generator for one slice, so that its interval does not depend on other slices.

    Args:
        seed: Seed of the bootstrap.
        names: Names that identify the slice.
    """
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def resample_counts(strata: NDArray[np.str_], resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield counts of how often each sample was taken, in blocks of shape (resamples in the block, N).

    Args:
        strata: Group of each sample, shape (N,); every resample has the same group sizes.
        resamples: Total number of resamples.
        rng: Random generator.
    """
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    block = max(1, min(resamples, _MAX_CELLS // max(len(strata), 1)))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        counts = np.zeros((size, len(strata)))
        for positions in members:
            n = len(positions)
            choices = rng.integers(0, n, size=(size, n)) + np.arange(size)[:, None] * n
            counts[:, positions] = np.bincount(choices.ravel(), minlength=size * n).reshape(size, n)
        yield counts


def counted_means(table: Floats, counts: Floats) -> Means:
    """Return a function that computes the means of a table over resamples.

    Args:
        table: Values, shape (N, columns), NaN where there is none.
        counts: How often each resample takes each sample, shape (resamples, N).

    Returns:
        A function from a mask of samples to means of shape (resamples, columns), NaN where a resample has no value.
    """
    present = np.isfinite(table)
    values = np.round(np.where(present, table, 0.0) * _STEP) / _STEP

    def means(mask: Mask) -> Floats:
        weights = counts[:, mask]
        totals, number = weights @ values[mask], weights @ present[mask].astype(np.float64)
        out = np.full_like(totals, np.nan)
        np.divide(totals, number, out=out, where=number > 0)
        return out

    return means


def distribution(
    statistic: Callable[[Floats], Floats], strata: NDArray[np.str_], resamples: int, rng: np.random.Generator
) -> Floats:
    """Return a statistic over resamples, shape (resamples, figures).

    Args:
        statistic: Function from counts of shape (resamples, N) to figures of shape (resamples, figures).
        strata: Group of each sample, shape (N,).
        resamples: Number of resamples.
        rng: Random generator.
    """
    return np.concatenate([statistic(counts) for counts in resample_counts(strata, resamples, rng)])


def interval(resampled: Floats, smallest: int) -> tuple[float, float] | None:
    """Return the ends of the 95 % expanded percentile interval; None if no resample has a value.

    Args:
        resampled: Value of the figure in each resample, NaN where there is none.
        smallest: Number of samples in the smallest resampled group, at least 2.
    """
    known = resampled[np.isfinite(resampled)]
    if not len(known):
        return None
    tail = expanded_tail(smallest)
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=1024)
def expanded_tail(n: int) -> float:
    """Return the share of resamples beyond one end: Phi(-sqrt(n / (n - 1)) t).

    t is the 97.5 % quantile of Student's distribution with n - 1 degrees of freedom. For several groups, n is the size
    of the smallest, which makes the interval rather too wide than too narrow.

    Args:
        n: Number of samples, at least 2.

    Example:
        >>> expanded_tail(30) < 0.025
        True
    """
    from scipy.special import ndtr, stdtrit

    t = stdtrit(n - 1, (1 + LEVEL) / 2)
    return round(float(ndtr(-math.sqrt(n / (n - 1)) * t)), 12)  # the same on every machine


def smallest_groups(values: Floats, strata: NDArray[np.str_]) -> list[int]:
    """Return the size of the smallest group for each column, counting samples with a value; 0 if none has one.

    Args:
        values: Shape (N, columns), NaN where a sample has no value.
        strata: Group of each sample, shape (N,).
    """
    smallest = []
    for column in values.T:
        sizes = [int(np.isfinite(column[strata == stratum]).sum()) for stratum in np.unique(strata)]
        smallest.append(min((size for size in sizes if size), default=0))
    return smallest


def large_enough(values: Floats, strata: NDArray[np.str_], minimums: Sequence[int]) -> list[bool]:
    """Return for each column whether an interval can be given; the module's docstring gives the evidence.

    Every group with values must have at least `MIN_SAMPLES` of them, not all equal, and enough samples over all groups
    must differ from the most frequent value of their group.

    Args:
        values: Shape (N, columns), NaN where a sample has no value.
        strata: Group of each sample, shape (N,).
        minimums: Minimum number of differing samples for each column.
    """
    enough = []
    for column, smallest, minimum in zip(values.T, smallest_groups(values, strata), minimums, strict=True):
        groups = [column[(strata == stratum) & np.isfinite(column)] for stratum in np.unique(strata)]
        deviating = [count_deviating(part) for part in groups if len(part)]
        enough.append(smallest >= MIN_SAMPLES and min(deviating) > 0 and sum(deviating) >= minimum)
    return enough


def count_deviating(values: Floats) -> int:
    """Return how many values differ from the most frequent one by more than rounding errors of addition."""
    if not len(values):
        return 0
    return len(values) - int(np.unique(np.round(values, 9), return_counts=True)[1].max())
