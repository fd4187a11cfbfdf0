"""The macro mean: a system's mean over the tasks of a suite, with equal weight for every task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from knowgen.stats.summary import Figure


@dataclass(frozen=True)
class MacroMean:
    """The macro mean of one system under one scorer and protocol.

    Attributes:
        system: Name of the system.
        scorer: Name of the scorer.
        protocol: Name of the scoring protocol.
        dimensions: Dimensions that the scorer gives values for.
        figure: Mean of the tasks' headlines, with its interval; without a value when a task has no final headline. `n`
            is the number of samples of all tasks.
        by_task: Headline of each task.
    """

    system: str
    scorer: str
    protocol: str
    dimensions: tuple[str, ...]
    figure: Figure
    by_task: dict[str, Figure]


def mean_figure(figures: Sequence[Figure]) -> Figure:
    """Return the mean of independent figures with its 95 % interval.

    The interval recovers variances from the tasks' own intervals [l, u] (Zou and Donner, Statistics in Medicine 27,
    2008, "Construction of confidence limits about effect measures"): with T tasks and values v its ends are
    mean(v) - sqrt(sum((v - l)^2)) / T and mean(v) + sqrt(sum((u - v)^2)) / T.

    Args:
        figures: One headline per task, each with a value.

    Returns:
        The mean; without an interval when one of the figures has none.

    Raises:
        ValueError: There are no figures, or one of them has no value.

    Example:
        >>> mean = mean_figure([Figure(value=0.5, low=0.4, high=0.6, n=48), Figure(value=0.7, low=0.7, high=0.7, n=48)])
        >>> round(mean.value, 3), round(mean.low, 3), round(mean.high, 3), mean.n
        (0.6, 0.55, 0.65, 96)
    """
    values = [figure.value for figure in figures if figure.value is not None]
    if not values or len(values) != len(figures):
        raise ValueError("every task needs a value")
    value, n = math.fsum(values) / len(values), sum(figure.n for figure in figures)
    below, above = [], []
    for figure, each in zip(figures, values, strict=True):
        if figure.low is None or figure.high is None:
            return Figure(value=value, n=n, note="no interval: a task has none")
        below.append(max(0.0, each - figure.low))  # a rounded value can be slightly outside its interval
        above.append(max(0.0, figure.high - each))
    return Figure(
        value=value, low=value - math.hypot(*below) / len(values), high=value + math.hypot(*above) / len(values), n=n
    )
