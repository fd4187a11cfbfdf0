"""Effect size and smallest detectable difference of a paired comparison."""

from __future__ import annotations

import numpy as np

from knowgen.stats.compare.records import SIGNIFICANCE
from knowgen.stats.intervals import Spread
from knowgen.stats.values import Floats

POWER = 0.8
"""Power of the test in `detectable`."""


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


def detectable(spread: Spread) -> float:
    """Return the smallest true difference that a two-sided test at 5 % detects with 80 % power at this sample size.

    It holds for the spread that was observed: where a larger difference brings a larger spread, as between two systems
    near 0, more is needed.

    Formula: (t(.975) + t(.8)) e, with the quantiles of Student's distribution and the standard error e of the paired
    difference (Bloom, Minimum Detectable Effects, Evaluation Review 19, 1995). `benchmarks/interval_coverage.py`
    prints the share of simulated benchmarks in which the permutation test detects a difference of this size.

    Args:
        spread: Spread of the paired difference.
    """
    return (spread.quantile(1 - SIGNIFICANCE / 2) + spread.quantile(POWER)) * spread.error
