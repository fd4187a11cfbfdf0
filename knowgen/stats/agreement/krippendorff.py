"""Krippendorff's alpha: any number of raters, any of whom may have left out any unit.

Source: Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011 (University of Pennsylvania). With c, k two
values, o_ck how often they meet within units (each unit of m ratings counts its pairs with weight 1 / (m - 1)), n_c
how often c is paired at all, n their sum and d(c, k) the squared metric difference:

    alpha = 1 - (n - 1) * sum_ck o_ck d(c, k) / sum_ck n_c n_k d(c, k)
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from knowgen.stats.values import Floats

Metric = Literal["nominal", "ordinal", "interval"]

SAME = 1e-9


def alpha(ratings: Floats, metric: Metric = "interval") -> float:
    """Returns Krippendorff's alpha.

    Args:
        ratings: Shape (raters, units), NaN where a unit was not rated. Units with a single rating take no part.
        metric: How far two values are apart: nominal (same or not), ordinal (by the ranks between them), interval (by
            their difference).

    Returns:
        At most 1, which is perfect agreement; 0 is what chance would give. NaN where nothing is paired or where all
        values are the same, so that there is nothing to agree on.
    """
    paired = ratings[:, np.isfinite(ratings).sum(axis=0) >= 2]
    values, codes = np.unique(np.round(paired[np.isfinite(paired)], 9), return_inverse=True)
    if not len(values):
        return math.nan
    coded = np.full(paired.shape, -1)
    coded[np.isfinite(paired)] = codes
    counts = np.stack([(coded == code).sum(axis=0) for code in range(len(values))])  # (values, units)
    shares = counts / (counts.sum(axis=0) - 1)
    meetings = shares @ counts.T - np.diag(shares.sum(axis=1))
    margins = meetings.sum(axis=1)
    apart = _distances(values, margins, metric)
    expected = float((np.outer(margins, margins) * apart).sum())
    if expected <= 0:
        return math.nan
    return 1.0 - (float(margins.sum()) - 1) * float((meetings * apart).sum()) / expected


def _distances(values: Floats, margins: Floats, metric: Metric) -> Floats:
    """Returns the squared metric difference of every two values, shape (values, values)."""
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
    """Returns alpha with the interval metric over resamples of units.

    Within a unit the squared differences of all pairs add up to 2 m SS, SS being its sum of squares about its mean, and
    over all paired values to 2 n SS; so sums are all that is needed.

    Args:
        ratings: Shape (raters, units), NaN where a unit was not rated.
        counts: Shape (resamples, units): how often each unit was drawn.

    Returns:
        Shape (resamples,), NaN where a resample has nothing to agree on.
    """
    number = np.isfinite(ratings).sum(axis=0).astype(np.float64)
    paired = number >= 2
    held = np.where(np.isfinite(ratings), ratings, 0.0)[:, paired]
    m, drawn = number[paired], counts[:, paired]
    total, squares = held.sum(axis=0), np.square(held).sum(axis=0)
    within = 2 * m * (squares - total**2 / m) / (m - 1)
    n, s1, s2 = drawn @ m, drawn @ total, drawn @ squares
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = (drawn @ within) / n
        expected = 2 * (s2 - s1**2 / n) / (n - 1)
        found: Floats = np.where(expected > SAME, 1 - observed / expected, math.nan)
    return found
