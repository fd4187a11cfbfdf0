"""The paired permutation test: could the labels of the two systems as well stand the other way round?

If the systems are equal, each sample is as likely with their labels exchanged. So labels are exchanged sample by
sample, each with chance one half and independently, which leaves every group its samples; both systems' figures are
computed again by the protocol's arithmetic; and the p-value is the share of exchanges whose difference is at least as
large as the one that was seen, on either side (Good, Permutation, Parametric and Bootstrap Tests of Hypotheses,
chapter 3).

With few samples that differ all exchanges are gone through, the one that was seen among them. Else they are drawn, and
the one that was seen is counted with them: p = (b + 1) / (m + 1) (Phipson and Smyth, Permutation P-values Should Never
Be Zero, Statistical Applications in Genetics and Molecular Biology 9, 2010).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from knowgen.stats.combine import Mask, Means
from knowgen.stats.values import Floats

PERMUTATIONS = 10_000

_CELLS = 4_000_000
"""Exchanges held in memory at once (32 MB); one of all samples is never split, so the draws do not depend on it."""

_STEP = 2.0**32
"""As in the bootstrap: sums of multiples of 2^-32 are exact, so that equal differences are equal to the last digit."""

_LEVEL_WITHIN = 1e-9


@dataclass(frozen=True)
class PermutationTest:
    """What exchanging labels found.

    Attributes:
        p: For each figure, in (0, 1]; NaN where it has no value.
        relabellings: How many exchanges were looked at, the one that was seen included.
        exact: Were these all there are?
    """

    p: Floats
    relabellings: int
    exact: bool


def permutation_test(
    statistic: Callable[[Floats], Floats], differs: Mask, permutations: int, rng: np.random.Generator
) -> PermutationTest:
    """Tests that the labels of two systems may be exchanged.

    Args:
        statistic: From exchanges of shape (some, N), 1 where a sample's labels are exchanged, to differences of shape
            (some, figures). A difference without a value counts as one that is as large as the one seen.
        differs: Shape (N,): samples on which the systems are not the same. Exchanging the others changes nothing.
        permutations: Exchanges to draw, at least 1; where there are not more than these, all are gone through.
        rng: Source of the draws.
    """
    seen = statistic(np.zeros((1, len(differs))))[0]
    number = int(differs.sum())
    exact = number < 63 and 2**number <= permutations
    blocks = _every(differs) if exact else _drawn(differs, permutations, rng)
    extreme, total = np.zeros(len(seen)), 0
    for exchanges in blocks:
        found = statistic(exchanges)
        extreme += (~(np.abs(found) < np.abs(seen) - _LEVEL_WITHIN)).sum(axis=0)
        total += len(exchanges)
    if not exact:
        extreme, total = extreme + 1, total + 1
    return PermutationTest(np.where(np.isfinite(seen), extreme / total, math.nan), total, exact)


def _every(differs: Mask) -> Iterator[Floats]:
    places = np.flatnonzero(differs)
    block = max(1, _CELLS // max(len(differs), 1))
    for start in range(0, 2 ** len(places), block):
        numbers = np.arange(start, min(start + block, 2 ** len(places)))
        exchanges = np.zeros((len(numbers), len(differs)))
        exchanges[:, places] = numbers[:, None] >> np.arange(len(places)) & 1
        yield exchanges


def _drawn(differs: Mask, permutations: int, rng: np.random.Generator) -> Iterator[Floats]:
    places = np.flatnonzero(differs)
    block = max(1, min(permutations, _CELLS // max(len(differs), 1)))
    for start in range(0, permutations, block):
        exchanges = np.zeros((min(block, permutations - start), len(differs)))
        exchanges[:, places] = rng.integers(0, 2, size=(len(exchanges), len(places)), dtype=np.int8)
        yield exchanges


def exchanged_means(own: Floats, other: Floats, exchanges: Floats) -> Means:
    """Returns the means of one system's table where some samples are the other's.

    Args:
        own: Shape (N, columns), NaN where there is no value.
        other: The same of the other system.
        exchanges: Shape (some, N), 1 where the other's values stand.

    Returns:
        From a mask of samples to means of shape (some, columns); NaN where there is no value.
    """
    width = own.shape[1]
    mine, theirs = (_sums_and_counts(table) for table in (own, other))

    def means(mask: Mask) -> Floats:
        # all samples are multiplied, those outside of the mask by 0: cheaper than to copy their exchanges away
        found = mine[mask].sum(axis=0) + exchanges @ np.where(mask[:, None], theirs - mine, 0.0)
        totals, number = found[:, :width], found[:, width:]
        out: Floats = np.full_like(totals, math.nan)
        np.divide(totals, number, out=out, where=number > 0.5)
        return out

    return means


def _sums_and_counts(table: Floats) -> Floats:
    """Returns values and, beside them, ones where there is a value; 0 where there is none."""
    held = np.isfinite(table)
    return np.column_stack([np.round(np.where(held, table, 0.0) * _STEP) / _STEP, held.astype(np.float64)])


def alike(tables: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Repeats the slices of two tables until both have the same number, which changes none of their means.

    Args:
        tables: Shapes (slices, N, columns); the numbers of slices may differ.
    """
    first, second = tables
    common = math.lcm(len(first), len(second))
    return np.tile(first, (common // len(first), 1, 1)), np.tile(second, (common // len(second), 1, 1))


def differing(first: Floats, second: Floats) -> Mask:
    """Tells for each sample whether two tables of shape (slices, N, columns) differ in any value, or lack one."""
    same = np.isclose(first, second, rtol=0, atol=_LEVEL_WITHIN, equal_nan=True)
    unlike: Mask = np.logical_not(same.all(axis=(0, 2)))
    return unlike
