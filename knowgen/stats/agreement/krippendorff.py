"""Krippendorff's alpha for any number of raters, with missing ratings.

Source: Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011 (University of Pennsylvania):

    alpha = 1 - (n - 1) * sum_ck o_ck d(c, k) / sum_ck n_c n_k d(c, k)

o_ck is the number of pairs of the values c and k within units, where the pairs of a unit with m ratings have the weight
1 / (m - 1); n_c is the number of paired ratings with value c, n their sum, and d(c, k) the squared metric difference.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from knowgen.stats.values import Floats

Metric = Literal["nominal", "ordinal", "interval"]

_TOLERANCE = 1e-9


def alpha(ratings: Floats, metric: Metric = "interval") -> float:
    """Return Krippendorff's alpha.

    Args:
        ratings: Ratings, shape (raters, units), NaN where a unit is not rated. Units with one rating are ignored.
        metric: Distance of two values: nominal (equal or not), ordinal (number of ranks between them), or interval
            (their difference).

    Returns:
        At most 1, which is perfect agreement; 0 is agreement by chance. NaN if no unit has two ratings or all values
        are equal.

    Example:
        >>> alpha(np.array([[0.0, 0.5, 1.0], [0.0, 0.5, 1.0]]))
        1.0
    """
    paired = ratings[:, np.isfinite(ratings).sum(axis=0) >= 2]
    values, codes = np.unique(np.round(paired[np.isfinite(paired)], 9), return_inverse=True)
    if not len(values):
        return math.nan
    coded = np.full(paired.shape, -1)
    coded[np.isfinite(paired)] = codes
    counts = np.stack([(coded == code).sum(axis=0) for code in range(len(values))])  # (values, units)
    shares = counts / (counts.sum(axis=0) - 1)
    coincidences = shares @ counts.T - np.diag(shares.sum(axis=1))
    margins = coincidences.sum(axis=1)
    distances = _distances(values, margins, metric)
    expected = float((np.outer(margins, margins) * distances).sum())
    if expected <= 0:
        return math.nan
    return 1.0 - (float(margins.sum()) - 1) * float((coincidences * distances).sum()) / expected


def _distances(values: Floats, margins: Floats, metric: Metric) -> Floats:
    """Return the squared metric difference of every two values, shape (values, values)."""
    if metric == "nominal":
        different: Floats = 1.0 - np.eye(len(values))
        return different
    if metric == "interval":
        gaps: Floats = np.square(values[:, None] - values[None, :])
        return gaps
    places = np.arange(len(values))
    low, high = np.minimum.outer(places, places), np.maximum.outer(places, places)
    up_to = np.concatenate([[0.0], np.cumsum(margins)])
    between = up_to[high + 1] - up_to[low] - (margins[low] + margins[high]) / 2
    ranks: Floats = np.where(low == high, 0.0, np.square(between))
    return ranks


def interval_alphas(ratings: Floats, counts: Floats) -> Floats:
    """Return alpha with the interval metric over resamples of units.

    The squared differences of all pairs within a unit add up to 2 m SS, where SS is the sum of squares about the mean
    of its m ratings; those of all paired values add up to 2 n SS. Sums are therefore sufficient.

    Args:
        ratings: Ratings, shape (raters, units), NaN where a unit is not rated.
        counts: How often each resample takes each unit, shape (resamples, units).

    Returns:
        Shape (resamples,), NaN where all ratings of a resample are equal.
    """
    number = np.isfinite(ratings).sum(axis=0).astype(np.float64)
    paired = number >= 2
    filled = np.where(np.isfinite(ratings), ratings, 0.0)[:, paired]
    m, weights = number[paired], counts[:, paired]
    total, squares = filled.sum(axis=0), np.square(filled).sum(axis=0)
    within = 2 * m * (squares - total**2 / m) / (m - 1)
    n, s1, s2 = weights @ m, weights @ total, weights @ squares
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = (weights @ within) / n
        expected = 2 * (s2 - s1**2 / n) / (n - 1)
        alphas: Floats = np.where(expected > _TOLERANCE, 1 - observed / expected, math.nan)
    return alphas
