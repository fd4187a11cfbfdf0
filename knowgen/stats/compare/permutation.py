"""Paired permutation test: would exchanging the labels of the two systems give a difference of the same size?

If the systems are equal, exchanging their labels on a sample changes nothing about its probability. Labels are
therefore exchanged on each sample independently with probability one half, which keeps the group sizes. The figures of
both systems are recomputed with the protocol's arithmetic. The two-sided p-value is the share of exchanges whose
absolute difference is at least the observed one (Good, Permutation, Parametric and Bootstrap Tests of Hypotheses,
chapter 3).

If few samples differ, all exchanges are evaluated, including the observed assignment. Otherwise m random exchanges are
evaluated and the observed assignment is added: p = (b + 1) / (m + 1), where b of them reach the observed difference
(Phipson and Smyth, Permutation P-values Should Never Be Zero, Statistical Applications in Genetics and Molecular
Biology 9, 2010).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from knowgen.stats.combine import Mask, Means
from knowgen.stats.values import Floats

PERMUTATIONS = 10_000
"""Default maximum number of exchanges."""

_MAX_CELLS = 4_000_000
"""Maximum number of exchange flags in memory (32 MB); an exchange is never split, so block size changes no result."""

_STEP = 2.0**32
"""Sums of multiples of 2^-32 are exact, as in the bootstrap, so that equal differences are equal to the last digit."""

_TOLERANCE = 1e-9
"""Largest difference between values that counts as equal."""


@dataclass(frozen=True)
class PermutationTest:
    """Result of a permutation test.

    Attributes:
        p: p-value of each figure, in (0, 1]; NaN where the figure has no value.
        relabellings: Number of evaluated exchanges, including the observed assignment.
        exact: Whether these are all possible exchanges.
    """

    p: Floats
    relabellings: int
    exact: bool


def permutation_test(
    statistic: Callable[[Floats], Floats], differs: Mask, permutations: int, rng: np.random.Generator
) -> PermutationTest:
    """Test the hypothesis that the labels of two systems are exchangeable.

    Args:
        statistic: Function from exchanges of shape (exchanges, N), 1 where the labels of a sample are exchanged, to
            differences of shape (exchanges, figures). A difference without a value counts as at least the observed one.
        differs: Samples on which the systems differ, shape (N,). Exchanging the labels of others changes nothing.
        permutations: Number of random exchanges, at least 1; if there are no more than these, all are evaluated.
        rng: Random generator.
    """
    observed = statistic(np.zeros((1, len(differs))))[0]
    number = int(differs.sum())
    exact = number < 63 and 2**number <= permutations
    blocks = _all_exchanges(differs) if exact else _random_exchanges(differs, permutations, rng)
    extreme, total = np.zeros(len(observed)), 0
    for exchanges in blocks:
        differences = statistic(exchanges)
        extreme += (~(np.abs(differences) < np.abs(observed) - _TOLERANCE)).sum(axis=0)
        total += len(exchanges)
    if not exact:
        extreme, total = extreme + 1, total + 1
    return PermutationTest(np.where(np.isfinite(observed), extreme / total, math.nan), total, exact)


def _all_exchanges(differs: Mask) -> Iterator[Floats]:
    places = np.flatnonzero(differs)
    block = max(1, _MAX_CELLS // max(len(differs), 1))
    for start in range(0, 2 ** len(places), block):
        numbers = np.arange(start, min(start + block, 2 ** len(places)))
        exchanges = np.zeros((len(numbers), len(differs)))
        exchanges[:, places] = numbers[:, None] >> np.arange(len(places)) & 1
        yield exchanges


def _random_exchanges(differs: Mask, permutations: int, rng: np.random.Generator) -> Iterator[Floats]:
    places = np.flatnonzero(differs)
    block = max(1, min(permutations, _MAX_CELLS // max(len(differs), 1)))
    for start in range(0, permutations, block):
        exchanges = np.zeros((min(block, permutations - start), len(differs)))
        exchanges[:, places] = rng.integers(0, 2, size=(len(exchanges), len(places)), dtype=np.int8)
        yield exchanges


def exchanged_means(own: Floats, other: Floats, exchanges: Floats) -> Means:
    """Return a function that computes means of one system's table with some samples taken from the other system.

    Args:
        own: Values of the system, shape (N, columns), NaN where there is none.
        other: Values of the other system, same shape.
        exchanges: 1 where the other system's values are used, shape (exchanges, N).

    Returns:
        A function from a mask of samples to means of shape (exchanges, columns), NaN where there is no value.
    """
    width = own.shape[1]
    mine, theirs = (_sums_and_counts(table) for table in (own, other))

    def means(mask: Mask) -> Floats:
        # Samples outside the mask are multiplied by 0, which is cheaper than copying a part of the exchanges.
        sums = mine[mask].sum(axis=0) + exchanges @ np.where(mask[:, None], theirs - mine, 0.0)
        totals, number = sums[:, :width], sums[:, width:]
        out: Floats = np.full_like(totals, math.nan)
        np.divide(totals, number, out=out, where=number > 0.5)
        return out

    return means


def _sums_and_counts(table: Floats) -> Floats:
    """Return the values, 0 where there is none, and as further columns 1 where there is a value and 0 elsewhere."""
    present = np.isfinite(table)
    return np.column_stack([np.round(np.where(present, table, 0.0) * _STEP) / _STEP, present.astype(np.float64)])


def equalise_slices(tables: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Return both tables with the same number of slices, by repeating slices; this does not change their means.

    Args:
        tables: Values of shape (slices, N, columns); the numbers of slices may differ.
    """
    first, second = tables
    common = math.lcm(len(first), len(second))
    return np.tile(first, (common // len(first), 1, 1)), np.tile(second, (common // len(second), 1, 1))


def differing(first: Floats, second: Floats) -> Mask:
    """Return for each sample whether two tables of shape (slices, N, columns) differ in a value."""
    same = np.isclose(first, second, rtol=0, atol=_TOLERANCE, equal_nan=True)
    unlike: Mask = np.logical_not(same.all(axis=(0, 2)))
    return unlike
