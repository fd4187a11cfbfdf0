"""Effect size, standard error and smallest detectable difference of a paired comparison."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from knowgen.stats.values import Floats

POWER = 0.8
"""Power of the test in `detectable`."""

SIGNIFICANCE = 0.05
"""Significance level of the test in `detectable`."""


def paired_effect(differences: Floats) -> float | None:
    """Return the standardised mean difference of pairs: d_z = mean(d) / sd(d), sd with the divisor n - 1.

    Source: Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd edition, section 2.3.5; Lakens,
    Frontiers in Psychology 4, 2013, equation 6. All samples have the same weight, whatever their group.

    Args:
        differences: Difference b - a of each sample, shape (N,); NaN where one of them has no value.

    Returns:
        The effect size; None for fewer than two samples, or if all differences are equal.

    Example:
        >>> paired_effect(np.array([0.0, 1.0, 2.0]))
        1.0
    """
    known = differences[np.isfinite(differences)]
    if len(known) < 2:
        return None
    spread = float(np.std(known, ddof=1))
    return float(np.mean(known)) / spread if spread > 1e-9 else None


def standard_error(resampled: Floats, smallest: int) -> float | None:
    """Return the standard error of a difference: the standard deviation of its resamples times sqrt(n / (n - 1)).

    The factor corrects for the divisor n in the spread of resamples (Efron and Tibshirani, An Introduction to the
    Bootstrap, section 5.3).

    Args:
        resampled: Difference in each resample; NaN where there is none.
        smallest: Number of samples n in the smallest group.
    """
    known = resampled[np.isfinite(resampled)]
    if len(known) < 2 or smallest < 2:
        return None
    return float(np.std(known, ddof=1)) * math.sqrt(smallest / (smallest - 1))


def detectable(error: float) -> float:
    """Return the smallest true difference that a two-sided test at 5 % detects with 80 % power at this sample size.

    Formula: (z(.975) + z(.8)) SE = 2.80 SE (Bloom, Minimum Detectable Effects, Evaluation Review 19, 1995).

    Args:
        error: Standard error of the paired difference.
    """
    normal = NormalDist()
    return (normal.inv_cdf(1 - SIGNIFICANCE / 2) + normal.inv_cdf(POWER)) * error
