"""Intervals: the percentile bootstrap by sample, stratified by group.

Each resample draws, within each group, as many samples as the group has, with replacement (Efron and Tibshirani, An
Introduction to the Bootstrap, chapters 8 and 13); the figures are then computed as for the whole, without rounding. It
is done with counts instead of copies: a resample is a row of numbers that say how often each sample was drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from knowgen.stats.combine import Mask, Means
from knowgen.stats.values import Floats

LEVEL = 0.95
MIN_SAMPLES = 5
"""Fewest samples of a group that an interval is given for; below, resampling says nothing about the spread."""

TOO_SMALL = "n too small"

_CELLS = 4_000_000
"""Counts held in memory at once (32 MB); a resample is never split, so the draws do not depend on it."""

_STEP = 2.0**32
"""Values are taken as multiples of 2^-32 (2e-10): their sums are then exact up to two million samples, so that every
machine and every order of addition gives the same interval."""


def seeded(seed: int, *names: str) -> np.random.Generator:
    """Returns a generator of its own for each slice, so that one slice's interval does not depend on the others."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def resample_counts(strata: NDArray[np.str_], resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yields blocks of shape (some resamples, N): how often each sample was drawn.

    Args:
        strata: Shape (N,), the group of each sample; each keeps its size in every resample.
        resamples: Their number over all blocks.
        rng: Source of the draws.
    """
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    block = max(1, min(resamples, _CELLS // max(len(strata), 1)))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        counts = np.zeros((size, len(strata)))
        for positions in members:
            n = len(positions)
            drawn = rng.integers(0, n, size=(size, n)) + np.arange(size)[:, None] * n
            counts[:, positions] = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        yield counts


def counted_means(table: Floats, counts: Floats) -> Means:
    """Returns means over resamples of a table of shape (N, dimensions); NaN where a resample has no value."""
    present = np.isfinite(table)
    values = np.round(np.where(present, table, 0.0) * _STEP) / _STEP

    def means(mask: Mask) -> Floats:
        drawn = counts[:, mask]
        totals, number = drawn @ values[mask], drawn @ present[mask].astype(np.float64)
        out = np.full_like(totals, np.nan)
        np.divide(totals, number, out=out, where=number > 0)
        return out

    return means


def distribution(
    statistic: Callable[[Floats], Floats], strata: NDArray[np.str_], resamples: int, rng: np.random.Generator
) -> Floats:
    """Returns a statistic over resamples, shape (resamples, figures).

    Args:
        statistic: From counts of shape (resamples, N) to figures.
        strata: Shape (N,).
        resamples: Their number.
        rng: Source of the draws.
    """
    return np.concatenate([statistic(counts) for counts in resample_counts(strata, resamples, rng)])


def interval(draws: Floats) -> tuple[float, float] | None:
    """Returns the ends of the 95 % percentile interval, None when no resample has a value."""
    held = draws[np.isfinite(draws)]
    if not len(held):
        return None
    low, high = np.quantile(held, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def large_enough(values: Floats, strata: NDArray[np.str_]) -> list[bool]:
    """Tells for each column whether every group that has values has enough samples with one.

    Args:
        values: Shape (N, columns), NaN where a sample has no value.
        strata: Shape (N,).
    """
    enough = []
    for column in values.T:
        sizes = [int(np.isfinite(column[strata == stratum]).sum()) for stratum in np.unique(strata)]
        held = [size for size in sizes if size]
        enough.append(bool(held) and min(held) >= MIN_SAMPLES)
    return enough
