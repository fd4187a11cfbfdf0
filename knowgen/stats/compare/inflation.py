"""Can claimed scores be true? A one-sided paired test of claimed against repeated scores of the same images.

A judge may give an image another score when it is asked again. If nothing was changed, a claimed score and a repeated
one of the same image are two draws from one distribution, so their difference is as likely d as -d, however noisy the
judge is and whatever the images are. The test flips the signs of the differences, each with probability one half; the
p-value is the share of flips whose sum is at least the observed one (Good, Permutation, Parametric and Bootstrap Tests
of Hypotheses, chapter 3). With few differences all flips are evaluated, otherwise m random ones, p = (b + 1) / (m + 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from knowgen.stats.bootstrap import seeded
from knowgen.stats.compare.effect import POWER
from knowgen.stats.values import Floats

LEVEL = 0.01
"""Default level of the test: the share of honest submissions that it accuses."""

MOST_EXACT = 16
"""Number of images with a difference up to which all flips are evaluated, which are 65,536 then."""

FLIPS = 20_000
"""Number of random flips where there are more."""

_STEP = 2.0**32
"""Sums of multiples of 2^-32 are exact, so that equal sums are equal to the last digit."""

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class InflationTest:
    """Result of comparing claimed with repeated scores.

    Attributes:
        n: Number of images with both scores.
        differing: Number of images whose scores differ.
        mean: Mean of claimed - repeated, in [-1, 1]; None without images.
        low: Lower end of its 95 % interval; None where the differences do not vary.
        high: Upper end of the interval.
        p: p-value against the claimed scores being higher; None without images.
        level: Level of the test.
        detectable: Smallest mean inflation that a test of this size detects with 80 % power, at the spread that was
            observed; None where the differences do not vary.
        share: Smallest share of images with a raised score that it detects with 80 % power if the judge repeats itself
            exactly; above 1 if not even all of them would be enough.
    """

    n: int
    differing: int
    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    level: float
    detectable: float | None
    share: float

    @property
    def refuted(self) -> bool:
        """Whether the claimed scores cannot be true at this level."""
        return self.p is not None and self.p <= self.level


def inflation_test(
    differences: Floats, *, level: float = LEVEL, seed: int = 0, needed: int | None = None
) -> InflationTest:
    """Test whether claimed scores are higher than repeated ones by more than the noise of the judge.

    Args:
        differences: Claimed minus repeated score of each image, shape (N,); NaN where one of them is missing.
        level: Level of the test, in (0, 1).
        seed: Seed of random flips.
        needed: Number of raised scores that refute the claim, for `share`; by the level when None. 1 for a scorer
            that repeats itself exactly.

    Example:
        >>> inflation_test(np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0])).p
        0.0078125
        >>> inflation_test(np.array([0.5, -0.5, 0.0])).refuted
        False
    """
    known = differences[np.isfinite(differences)]
    number = len(known)
    fewest = math.ceil(-math.log2(level)) if needed is None else needed
    share = _share(number, fewest)
    moved = known[np.abs(known) > _TOLERANCE]
    if not number:
        return InflationTest(0, 0, None, None, None, None, level, None, share)
    mean = float(known.mean())
    spread = float(known.std(ddof=1)) / math.sqrt(number) if number > 1 else 0.0
    low = high = detectable = None
    if spread > _TOLERANCE:
        from scipy.stats import t

        half = float(t.ppf(0.975, number - 1)) * spread
        low, high = max(mean - half, -1.0), min(mean + half, 1.0)
        detectable = float(t.ppf(1 - level, number - 1) + t.ppf(POWER, number - 1)) * spread
    return InflationTest(number, len(moved), mean, low, high, _p_value(moved, seed), level, detectable, share)


def _p_value(moved: Floats, seed: int) -> float:
    steps = np.round(moved * _STEP) / _STEP
    observed = steps.sum()
    number = len(steps)
    if number <= MOST_EXACT:
        signs = 1.0 - 2.0 * (np.arange(2**number)[:, None] >> np.arange(number) & 1)
        return float((signs @ steps >= observed - _TOLERANCE).mean())
    signs = 1.0 - 2.0 * seeded(seed, "inflation").integers(0, 2, size=(FLIPS, number), dtype=np.int8)
    return float(((signs @ steps >= observed - _TOLERANCE).sum() + 1) / (FLIPS + 1))


def _share(number: int, fewest: int) -> float:
    """Return the smallest share of raised scores of which at least `fewest` are among `number` with 80 % power."""
    if number < fewest:
        return math.inf
    from scipy.stats import beta

    # at least k of N successes have probability I(s; k, N - k + 1), the distribution function of a beta variable
    return float(beta.ppf(POWER, fewest, number - fewest + 1))
