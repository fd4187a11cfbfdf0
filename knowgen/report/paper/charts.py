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
from knowgen.report.paper.style import COLOURS, INK, LINE, MARKERS, QUIET, ROW, Layout, colour, new_chart, tidy
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
        seconds: Median seconds for each image, those of an agent included; None if unknown.
    """

    label: str
    mark: SystemMarker
    summary: Summary
    privileged: bool = False
    cost: float | None = None
    seconds: float | None = None

    @property
    def no_result(self) -> str:
        """Why the headline figure is missing or does not count; empty for a result."""
        figure = self.summary.headline
        return self.summary.no_result or ("" if figure.value is not None else figure.note or "no value")

    @property
    def order(self) -> tuple[bool, float, str]:
        """Place of the system in figures and tables: the best first, those without a result last."""
        value = self.summary.headline.value
        return value is None, -(value or 0.0), self.label


def score_axis(summary: Summary, layout: Layout) -> str:
    """Return the title of an axis of the headline figure."""
    from knowgen.report.tables import score_name

    name = score_name(summary.dimensions, summary.protocol)
    return f"{name[0].upper()}{name[1:]} ({summary.protocol}{', x 100' if layout.percent else ''}), 95 % interval"


def ladder(systems: Sequence[PaperSystem], layout: Layout) -> Chart:
    """Return the headline figure of each system with its interval, the best at the top.

    Systems without a result are listed below the others, with the reason.
    """
    order = sorted(systems, key=lambda one: one.order)
    chart = new_chart(layout.width, 0.55 + ROW * len(order))
    axes = chart.add_subplot()
    for row, system in enumerate(order):
        figure = system.summary.headline
        if figure.value is None:
            _remark(axes, row, f"no result: {_short(system.no_result, 60)}")
            continue
        _dot(axes, figure, row, system.mark, layout)
        end = figure.value if figure.high is None else figure.high
        text = f"{layout.factor * figure.value:.{1 if layout.percent else 3}f}"
        if system.no_result:
            text += f" partial: {_short(system.no_result, 40)}"
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
    systems = sorted(systems, key=lambda one: one.order)
    slot = 0.13
    height = max(ROW, slot * len(systems) + 0.08)
    chart = new_chart(layout.width, 0.8 + height * len(names) + 0.08 * (len(systems) + 1))
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
    known = any(
        one.figures[OVERALL].low is not None for each in systems for one in each.summary.slices if one.kind == kind
    )
    axes.set_xlabel(f"overall ({systems[0].summary.protocol})" + (", 95 % interval" if known else ""))
    _legend(chart, systems)
    tidy(axes)
    return chart


def against(kind: str, systems: Sequence[PaperSystem], layout: Layout) -> Chart:
    """Return the headline figure of each system against its cost or time for each image.

    Systems that cannot be placed, because they have no result or their cost is not known, are named under the figure.

    Args:
        kind: cost or time.
        systems: The systems.
        layout: Layout of the figure.

    Raises:
        UsageError: No system can be placed, or none has cost anything.
    """
    values = {id(one): one.cost if kind == "cost" else one.seconds for one in systems}
    shown = [
        (one, value)
        for one in systems
        if (value := values[id(one)]) is not None and one.summary.headline.value is not None
    ]
    largest = max((value for _, value in shown), default=0.0)
    if not largest:
        what = "no run has a result and paid a service" if shown else f"no run has a result and a known {kind}"
        raise UsageError(what, where=kind, fix="choose another kind of figure, such as time")
    chart = new_chart(layout.width, 0.8 * layout.width if layout.width < 5 else 3.2)
    axes = chart.add_subplot()
    logarithmic = _scale(axes, [value for _, value in shown])
    for system, value in shown:
        figure = system.summary.headline
        assert figure.value is not None
        if figure.low is not None and figure.high is not None:
            ends = [layout.factor * figure.low, layout.factor * figure.high]
            axes.plot([value, value], ends, color=colour(system.mark), linewidth=1)
        axes.plot([value], [layout.factor * figure.value], **_marker(system.mark, 6))
        right = value > 0.6 * largest and not logarithmic
        axes.annotate(
            _label(system),
            (value, layout.factor * figure.value),
            (-6 if right else 6, 4),
            textcoords="offset points",
            fontsize=7,
            ha="right" if right else "left",
        )
    axes.set_ylim(0, layout.factor)
    axes.margins(x=0.2 if logarithmic else 0.08)
    unit = "paid to services for each image in US dollars" if kind == "cost" else "median seconds for each image"
    axes.set_xlabel(unit + (", logarithmic" if logarithmic else ""))
    axes.set_ylabel(score_axis(systems[0].summary, layout))
    placed = {id(one) for one, _ in shown}
    if missing := [_label(one) for one in systems if id(one) not in placed]:
        words = f"Without a result or a known {kind}: {', '.join(missing)}"
        chart.supxlabel(words, fontsize=6.5, color=QUIET, x=0.01, ha="left", wrap=True)
    tidy(axes, "both")
    return chart


def _scale(axes: Axes, values: Sequence[float]) -> bool:
    """Make the horizontal axis logarithmic where values differ by more than a factor of 10; return whether it is."""
    positive = [value for value in values if value > 0]
    if max(positive) <= 10 * min(positive):
        axes.set_xlim(left=min(0.0, *values))
        return False
    if min(values) == 0:  # linear up to the lowest cost, so that a system that costs nothing has a place as well
        axes.set_xscale("symlog", linthresh=min(positive))
    else:
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, place: f"{value:g}")  # without powers in the markup of TeX
    return True


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
    height = 0.8 + 0.2 * max(len(categories), 8)
    chart = new_chart(layout.width, 2.2 + height if narrow else height)
    grid = chart.add_gridspec(2, 1, height_ratios=(2.2, height)) if narrow else chart.add_gridspec(1, 2)
    left, right = chart.add_subplot(grid[0]), chart.add_subplot(grid[1])
    ordered = [layout.factor * value for value in sorted(differences, reverse=True)]
    shades = [COLOURS[0] if value >= 0 else COLOURS[4] for value in ordered]
    left.bar(range(len(ordered)), ordered, width=1.0, color=shades, linewidth=0)
    left.axhline(0, color=INK, linewidth=0.6)
    counts = f"{comparison.better} better\n{comparison.equal} equal\n{comparison.worse} worse"
    left.text(0.98, 0.97, counts, transform=left.transAxes, ha="right", va="top")
    left.set_xlabel("samples, sorted")
    left.set_ylabel("difference with search")
    left.set_xlim(-0.5, len(ordered) - 0.5)
    tidy(left, "y")
    for row, part in enumerate(categories):
        figure = part.figures[OVERALL]
        if figure.low is not None and figure.high is not None:
            right.plot([layout.factor * figure.low, layout.factor * figure.high], [row, row], color=INK, linewidth=1)
        right.plot([layout.factor * (figure.value or 0.0)], [row], "o", color=INK, markersize=4, clip_on=False)
    right.axvline(0, color=INK, linewidth=0.6)
    _rows(right, [f"{in_words(part.name)} ({part.samples})" for part in categories])
    known = any(part.figures[OVERALL].low is not None for part in categories)
    right.set_xlabel("difference by category" + (", 95 % interval" if known else ""))
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
        "clip_on": False,
        "zorder": 3,
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
    chart.legend(
        handles=handles, loc="outside upper left", frameon=False, ncols=2, handletextpad=0.3, columnspacing=1.5
    )


def _label(system: PaperSystem) -> str:
    return _short(system.label, LONGEST) + (" (sees the ground truth)" if system.privileged else "")


def _short(text: str, limit: int) -> str:
    from knowgen.core.text import one_line

    line = one_line(text)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _number(systems: Sequence[PaperSystem], kind: str, name: str) -> str:
    found = {one.samples for each in systems for one in each.summary.slices if (one.kind, one.name) == (kind, name)}
    return str(min(found)) if len(found) == 1 else f"{min(found)} to {max(found)}"
