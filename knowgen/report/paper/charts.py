"""The figures: ladder, parts, score against cost, where search helped and hurt, agreement.

Each function takes results and returns a figure of matplotlib, to be called within `style.drawing`. An interval is a
line through a dot; where it is missing, the dot stands alone. No value is shown by a colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knowgen.core.errors import UsageError
from knowgen.report.numbers import in_words
from knowgen.report.paper.style import INK, LINE, MARKERS, QUIET, ROW, Layout, colour, new_chart, tidy
from knowgen.report.view import SystemMarker
from knowgen.stats.agreement.records import Agreement
from knowgen.stats.compare.records import Comparison
from knowgen.stats.summary import OVERALL, Figure, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Chart

LONGEST = 44
"""Longest label of a system in characters."""


@dataclass(frozen=True)
class PaperSystem:
    """A system of a figure or table.

    Attributes:
        label: Its name.
        mark: Its colour and shape, the same in all figures of these runs.
        summary: Its figures.
        privileged: Whether it sees the ground truth.
        cost: US dollars for each image, those of an agent included; None if unknown.
    """

    label: str
    mark: SystemMarker
    summary: Summary
    privileged: bool = False
    cost: float | None = None


def score_axis(summary: Summary, layout: Layout) -> str:
    """Return the title of an axis of the headline figure."""
    from knowgen.report.tables import score_name

    name = score_name(summary.dimensions, summary.protocol)
    return f"{name[0].upper()}{name[1:]} ({summary.protocol}{', x 100' if layout.percent else ''}), 95 % interval"


def ladder(systems: Sequence[PaperSystem], layout: Layout) -> Chart:
    """Return the headline figure of each system with its interval, the best at the top.

    Systems without a result are listed below the others, with the reason.
    """
    order = sorted(systems, key=lambda one: (one.summary.headline.value is None, -(one.summary.headline.value or 0)))
    chart = new_chart(layout.width, 0.55 + ROW * len(order))
    axes = chart.add_subplot()
    for row, system in enumerate(order):
        figure = system.summary.headline
        if figure.value is None:
            _remark(axes, row, f"no result: {_short(system.summary.no_result, 60)}")
            continue
        _dot(axes, figure, row, system.mark, layout)
        end = figure.value if figure.high is None else figure.high
        text = f"{layout.factor * figure.value:.{1 if layout.percent else 3}f}"
        axes.annotate(text, (layout.factor * end, row), (5, 0), textcoords="offset points", va="center", fontsize=7)
    _rows(axes, [_label(system) for system in order])
    axes.set_xlim(0, layout.factor * 1.09)
    axes.set_xlabel(score_axis(systems[0].summary, layout))
    tidy(axes)
    return chart


def parts(systems: Sequence[PaperSystem], kind: str, layout: Layout) -> Chart:
    """Return the overall figure of each group, category or difficulty, one row each, with a dot for each system.

    Args:
        systems: The systems.
        kind: group, category or difficulty.
        layout: Layout of the figure.

    Raises:
        UsageError: The task has no such parts.
    """
    names = list(dict.fromkeys(part.name for one in systems for part in one.summary.slices if part.kind == kind))
    if not names:
        raise UsageError(f"the task has no {kind}", fix="choose another kind of figure")
    slot = 0.13
    height = max(ROW, slot * len(systems) + 0.08)
    chart = new_chart(layout.width, 0.8 + height * len(names) + 0.16 * len(systems))
    axes = chart.add_subplot()
    for row, name in enumerate(names):
        for place, system in enumerate(systems):
            figure = next(
                (one.figures[OVERALL] for one in system.summary.slices if (one.kind, one.name) == (kind, name)), None
            )
            if figure is not None and figure.value is not None:
                offset = (place - (len(systems) - 1) / 2) * slot / height
                _dot(axes, figure, row + offset, system.mark, layout, size=4)
        if row:
            axes.axhline(row - 0.5, color=LINE, linewidth=0.6)
    _rows(axes, [f"{in_words(name)} ({_number(systems, kind, name)})" for name in names])
    axes.set_xlim(0, layout.factor)
    axes.set_xlabel(f"overall ({systems[0].summary.protocol}), 95 % interval")
    _legend(chart, systems)
    tidy(axes)
    return chart


def cost(systems: Sequence[PaperSystem], layout: Layout) -> Chart:
    """Return the headline figure of each system against its cost for each image.

    Systems without a result or a known cost cannot be placed; they are named under the figure.

    Raises:
        UsageError: No system has both.
    """
    shown = [one for one in systems if one.cost is not None and one.summary.headline.value is not None]
    if not shown:
        raise UsageError("no run has both a result and a known cost", fix="choose another kind of figure")
    chart = new_chart(layout.width, 0.62 * layout.width if layout.width < 5 else 3.2)
    axes = chart.add_subplot()
    costs = [one.cost or 0.0 for one in shown]
    positive = [value for value in costs if value > 0]
    spread = bool(positive) and max(positive) > 10 * min(positive)
    if spread:
        # linear up to the lowest cost, so that a system that costs nothing has a place as well
        axes.set_xscale("symlog", linthresh=min(positive)) if min(costs) == 0 else axes.set_xscale("log")
    for system in shown:
        figure = system.summary.headline
        assert figure.value is not None and system.cost is not None
        x, y = system.cost, layout.factor * figure.value
        if figure.low is not None and figure.high is not None:
            ends = [layout.factor * figure.low, layout.factor * figure.high]
            axes.plot([x, x], ends, color=colour(system.mark), linewidth=1)
        axes.plot([x], [y], **_marker(system.mark, 6))
        axes.annotate(_label(system), (x, y), (6, 3), textcoords="offset points", fontsize=7)
    axes.set_ylim(0, layout.factor)
    if not spread:
        axes.set_xlim(-0.04 * (max(costs) or 1.0), 1.25 * (max(costs) or 1.0))
    axes.margins(x=0.15)
    axes.set_xlabel("paid to services for each image in US dollars" + (" (logarithmic)" if spread else ""))
    axes.set_ylabel(score_axis(systems[0].summary, layout))
    missing = [_label(one) for one in systems if one not in shown]
    if missing:
        words = f"Without a result or a known cost: {', '.join(missing)}"
        chart.text(0.01, -0.02, words, fontsize=6.5, color=QUIET, va="top", wrap=True)
    tidy(axes, "both")
    return chart


def search(comparison: Comparison, differences: Sequence[float], layout: Layout) -> Chart:
    """Return where search helped and hurt: the difference of each sample, sorted, and of each category.

    Args:
        comparison: The paired comparison, system with search minus system without.
        differences: Difference of the overall of each paired sample.
        layout: Layout of the figure.

    Raises:
        UsageError: The comparison has no result.
    """
    if comparison.no_result or not differences:
        raise UsageError(comparison.no_result or "the runs share no sample with a score", fix="score them first")
    categories = sorted(
        (part for part in comparison.slices if part.kind == "category" and part.figures[OVERALL].value is not None),
        key=lambda part: -(part.figures[OVERALL].value or 0.0),
    )
    narrow = layout.width < 5
    height = 0.9 + ROW * max(len(categories), 6)
    chart = new_chart(layout.width, 2.2 + height if narrow else height)
    left, right = (chart.add_subplot(2 if narrow else 1, 1 if narrow else 2, number) for number in (1, 2))
    ordered = [layout.factor * value for value in sorted(differences, reverse=True)]
    shades = [INK if value >= 0 else QUIET for value in ordered]
    left.bar(range(len(ordered)), ordered, width=1.0, color=shades, linewidth=0)
    left.axhline(0, color=INK, linewidth=0.6)
    left.set_xlabel(
        f"samples: {comparison.better} better, {comparison.equal} equal, {comparison.worse} worse with search"
    )
    left.set_ylabel("difference of the sample")
    left.set_xlim(-0.5, len(ordered) - 0.5)
    tidy(left, "y")
    for row, part in enumerate(categories):
        figure = part.figures[OVERALL]
        if figure.low is not None and figure.high is not None:
            right.plot([layout.factor * figure.low, layout.factor * figure.high], [row, row], color=INK, linewidth=1)
        right.plot([layout.factor * (figure.value or 0.0)], [row], "o", color=INK, markersize=4)
    right.axvline(0, color=INK, linewidth=0.6)
    _rows(right, [f"{in_words(part.name)} ({part.samples})" for part in categories])
    right.set_xlabel("difference of the category, 95 % interval")
    tidy(right)
    return chart


def agreement(result: Agreement, layout: Layout) -> Chart:
    """Return the agreement of each pair of raters by dimension: Cohen's kappa with its interval.

    Raises:
        UsageError: No pair of raters has a coefficient.
    """
    dimensions = list(dict.fromkeys(name for pair in result.pairs for name in pair.dimensions))
    pairs = [pair for pair in result.pairs if any(one.kappa.value is not None for one in pair.dimensions.values())]
    if not pairs:
        raise UsageError("no two raters have a coefficient", fix="name runs with several scorers, or --labels")
    chart = new_chart(layout.width, 0.9 + (ROW * len(dimensions)) * len(pairs))
    axes = chart.add_subplot()
    labels: list[str] = []
    for pair in pairs:
        for name in dimensions:
            figure = pair.dimensions[name].kappa if name in pair.dimensions else Figure()
            row = len(labels)
            labels.append(f"{_short(pair.first, 18)} / {_short(pair.second, 18)}: {in_words(name)}")
            if figure.low is not None and figure.high is not None:
                axes.plot([figure.low, figure.high], [row, row], color=INK, linewidth=1)
            if figure.value is not None:
                axes.plot([figure.value], [row], "o", color=INK, markersize=4)
            else:
                _remark(axes, row, figure.note or "not rated by both")
    _rows(axes, labels)
    ends = [one.kappa.low for pair in pairs for one in pair.dimensions.values() if one.kappa.low is not None]
    axes.set_xlim(min([0.0, *ends]) - 0.02, 1.02)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.set_xlabel("Cohen's kappa, quadratic weights, 95 % interval")
    tidy(axes)
    return chart


def _dot(axes: Axes, figure: Figure, row: float, mark: SystemMarker, layout: Layout, size: float = 5.5) -> None:
    assert figure.value is not None
    if figure.low is not None and figure.high is not None:
        ends = [layout.factor * figure.low, layout.factor * figure.high]
        axes.plot(ends, [row, row], color=colour(mark), linewidth=1.2, solid_capstyle="butt")
    axes.plot([layout.factor * figure.value], [row], **_marker(mark, size))


def _marker(mark: SystemMarker, size: float) -> dict[str, Any]:
    return {
        "marker": MARKERS[mark.shape],
        "markersize": size,
        "color": colour(mark),
        "markeredgecolor": "white",
        "markeredgewidth": 0.5,
        "linestyle": "none",
    }


def _remark(axes: Axes, row: int, text: str) -> None:
    axes.text(0.0, row, f" {text}", va="center", color=QUIET, fontsize=7)


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    """Label the rows of a plot, the first at the top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _legend(chart: Chart, systems: Sequence[PaperSystem]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=_label(one), **_marker(one.mark, 5)) for one in systems]
    chart.legend(handles=handles, loc="outside upper left", frameon=False, ncols=1, handletextpad=0.3)


def _label(system: PaperSystem) -> str:
    return _short(system.label, LONGEST) + (" (sees the ground truth)" if system.privileged else "")


def _short(text: str, limit: int) -> str:
    from knowgen.core.text import one_line

    line = one_line(text)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _number(systems: Sequence[PaperSystem], kind: str, name: str) -> str:
    found = {one.samples for each in systems for one in each.summary.slices if (one.kind, one.name) == (kind, name)}
    return str(min(found)) if len(found) == 1 else f"{min(found)} to {max(found)}"
