"""Intervals of coefficients of agreement: the expanded percentile bootstrap by sample, stratified by group.

Each resample takes, within each group, as many samples as the group has, with replacement (Efron and Tibshirani, An
Introduction to the Bootstrap, chapters 8 and 13). A resample is stored as counts, not as copies: a row of numbers that
give how often each sample was taken.

A percentile interval is too narrow for few samples, because the spread of resamples has the divisor n and the
quantiles are those of the normal distribution. The ends are therefore moved outwards (Hesterberg, What Teachers Should
Know About the Bootstrap, The American Statistician 69, 2015, section 5.3: the expanded percentile interval).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from knowgen.stats.combine import Mask, Means
from knowgen.stats.values import Floats

LEVEL = 0.95
"""Confidence level of every interval."""

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


def count_deviating(values: Floats) -> int:
    """Return how many values differ from the most frequent one by more than rounding errors of addition."""
    if not len(values):
        return 0
    return len(values) - int(np.unique(np.round(values, 9), return_counts=True)[1].max())
