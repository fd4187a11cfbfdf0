"""Score against cost as positions of dots, with the ticks of the axis; positions are shares of the plot's width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from knowgen.leaderboards.site.view import SiteBoard, SiteSystem
from knowgen.report.numbers import money
from knowgen.stats.summary import Figure

SPREAD = 20.0
"""Ratio of the highest to the lowest cost from which the axis is logarithmic."""

FREE = 0.02
"""Place of costs of 0 on a logarithmic axis, which has none; its other values begin at `START`."""

START = 0.17

NEAR = (0.2, 0.05)
"""Distance along both axes below which two names would overlap; the name of the dearer system is left out."""


@dataclass(frozen=True)
class ChartDot:
    """A system in the chart.

    Attributes:
        system: The system.
        figure: Its ranking figure.
        x: Place of its cost, from 0 to 1.
        named: Whether its name stands beside the dot: no other system is better and cheaper, and no name is near.
        left: Whether the name stands to the left of the dot.
    """

    system: SiteSystem
    figure: Figure
    x: float
    named: bool
    left: bool

    @property
    def cost(self) -> str:
        """Cost of an image in words."""
        return money(self.system.figures.cost)


@dataclass(frozen=True)
class CostChart:
    """Score against cost.

    Attributes:
        dots: Systems with a result and a known cost, the cheapest first.
        ticks: Place and text of each tick.
        logarithmic: Whether the axis of costs is.
        unknown: Systems with a result whose cost is not known.
    """

    dots: tuple[ChartDot, ...]
    ticks: tuple[tuple[float, str], ...]
    logarithmic: bool
    unknown: tuple[SiteSystem, ...]

    @property
    def one_cost(self) -> str:
        """The cost of all systems in words where they have the same, so that there is nothing to plot; else empty."""
        costs = {dot.system.figures.cost for dot in self.dots}
        return self.dots[0].cost if len(costs) == 1 else ""


def cost_chart(board: SiteBoard) -> CostChart:
    """Return the chart of a board's ranking figure against the cost of an image."""
    known = [one for one in board.ranked if one.figures.cost is not None]
    known.sort(key=lambda one: (one.figures.cost, one.index))
    unknown = tuple(one for one in board.ranked if one.figures.cost is None)
    costs = [one.figures.cost or 0.0 for one in known]
    positive = [cost for cost in costs if cost > 0]
    logarithmic = bool(positive) and max(positive) / min(positive) >= SPREAD
    ticks = _log_ticks(positive, 0.0 in costs) if logarithmic else _linear_ticks(max(costs, default=0.0))
    dots: list[ChartDot] = []
    best = -1.0
    for system, cost in zip(known, costs, strict=True):
        figure = system.figure(board.ranking)
        value = figure.value or 0.0
        x = _log_place(cost, positive) if logarithmic else cost / max(ticks[-1][2], 1e-12)
        near = any(one.named and x - one.x < NEAR[0] and abs(value - (one.figure.value or 0)) < NEAR[1] for one in dots)
        dots.append(ChartDot(system, figure, x, value > best and not near, x > 0.6))
        best = max(best, value)
    return CostChart(tuple(dots), tuple((x, text) for x, text, _ in ticks), logarithmic, unknown)


def _decades(positive: Sequence[float]) -> tuple[int, int]:
    return math.floor(math.log10(min(positive)) + 1e-9), math.ceil(math.log10(max(positive)) - 1e-9)


def _log_place(cost: float, positive: Sequence[float]) -> float:
    if cost <= 0:
        return FREE
    low, high = _decades(positive)
    return START + (1 - START) * (math.log10(cost) - low) / (high - low)


def _log_ticks(positive: Sequence[float], free: bool) -> list[tuple[float, str, float]]:
    low, high = _decades(positive)
    ticks = [(_log_place(10.0**power, positive), _dollars(10.0**power), 10.0**power) for power in range(low, high + 1)]
    return [(FREE, "$0", 0.0), *ticks] if free else ticks


def _linear_ticks(highest: float) -> list[tuple[float, str, float]]:
    if highest <= 0:
        return [(0.0, "$0", 0.0)]
    power = 10.0 ** math.floor(math.log10(highest))
    step = next(power * one for one in (0.2, 0.5, 1.0, 2.0, 2.5) if highest / (power * one) <= 5)
    number = math.ceil(highest / step - 1e-9)
    return [(place / number, _dollars(step * place), step * place) for place in range(number + 1)]


def _dollars(value: float) -> str:
    return f"${float(f'{value:.3g}'):.6f}".rstrip("0").rstrip(".") if value < 1000 else f"${value:,.0f}"
