"""The maximum of the likelihood of the Bradley-Terry model, which `bradley_terry` states."""

from __future__ import annotations

import numpy as np

from knowgen.stats.values import Floats

_STEPS = 200
_TOLERANCE = 1e-10


def fit(points: Floats) -> Floats:
    """Return the centred strengths that maximise the likelihood, by Newton's method with shortened steps.

    Args:
        points: Points of the row's system against the column's, shape (systems, systems), for which a maximum exists.

    Returns:
        Natural logarithms, shape (systems,), with mean 0.

    Example:
        >>> [round(each, 4) for each in fit(np.array([[0.0, 3.0], [1.0, 0.0]])).tolist()]
        [0.5493, -0.5493]
    """
    theta = np.zeros(len(points))
    value = _log_likelihood(points, theta)
    for _ in range(_STEPS):
        expected = (points + points.T) * preference(theta)
        gradient = (points - expected).sum(axis=1)
        step = np.linalg.solve(information(points, theta) + 1.0 / len(points), gradient)
        size = 1.0
        while (after := _log_likelihood(points, theta + size * step)) < value and size > _TOLERANCE:
            size /= 2
        theta, value = theta + size * step, after
        if np.abs(size * step).max() < _TOLERANCE:
            break
    centred: Floats = theta - theta.mean()
    return centred


def information(points: Floats, theta: Floats) -> Floats:
    """Return the Fisher information of the strengths under the model, for independent comparisons without ties.

    Args:
        points: As in `fit`.
        theta: Strengths, shape (systems,).

    Returns:
        Shape (systems, systems). Rows add up to 0, because only differences of strengths are determined.
    """
    chance = preference(theta)
    weights = (points + points.T) * chance * (1 - chance)
    np.fill_diagonal(weights, 0.0)
    matrix: Floats = np.diag(weights.sum(axis=1)) - weights
    return matrix


def preference(theta: Floats) -> Floats:
    """Return the probability that the row's system is preferred to the column's, shape (systems, systems)."""
    from scipy.special import expit

    chance: Floats = expit(theta[:, None] - theta[None, :])
    return chance


def _log_likelihood(points: Floats, theta: Floats) -> float:
    gaps = theta[:, None] - theta[None, :]
    return -float((points * np.logaddexp(0.0, -gaps)).sum())
