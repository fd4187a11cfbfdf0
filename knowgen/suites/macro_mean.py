"""The summary over tasks: each system's plain mean over the tasks, every task counting the same (a macro mean)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from knowgen.stats.summary import Figure


@dataclass(frozen=True)
class MacroMean:
    """One system over all tasks, under one scorer and protocol.

    Attributes:
        system: The system.
        scorer: Label of the scorer.
        protocol: Name of the protocol.
        dimensions: What the scorer gives values for.
        figure: Mean of the tasks' headlines with its interval; no value where a task has none that stands. `n` counts
            the samples of all tasks.
        by_task: The headline of each task.
    """

    system: str
    scorer: str
    protocol: str
    dimensions: tuple[str, ...]
    figure: Figure
    by_task: dict[str, Figure]


def mean_figure(figures: Sequence[Figure]) -> Figure:
    """Returns the mean of independent figures and its 95 % interval.

    The interval recovers variances from the tasks' own intervals [l, u] (Zou and Donner, Statistics in Medicine 27,
    2008, "Construction of confidence limits about effect measures"): with T tasks and values v the ends are
    mean(v) - sqrt(sum((v - l)^2)) / T and mean(v) + sqrt(sum((u - v)^2)) / T.

    Args:
        figures: Headlines, one a task, each with a value.

    Returns:
        Without an interval where one of them has none.

    Raises:
        ValueError: One of them has no value, or there is none.
    """
    values = [figure.value for figure in figures if figure.value is not None]
    if not values or len(values) != len(figures):
        raise ValueError("a mean needs a value of every task")
    value, n = math.fsum(values) / len(values), sum(figure.n for figure in figures)
    below, above = [], []
    for figure, each in zip(figures, values, strict=True):
        if figure.low is None or figure.high is None:
            return Figure(value=value, n=n, note="no interval: a task has none")
        below.append(max(0.0, each - figure.low))  # a rounded value may stand a little outside of its interval
        above.append(max(0.0, figure.high - each))
    return Figure(
        value=value, low=value - math.hypot(*below) / len(values), high=value + math.hypot(*above) / len(values), n=n
    )
