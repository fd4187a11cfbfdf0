"""Curves of trainings: which figures share a chart, and their geometry as SVG paths of bounded length.

A chart is as wide as its place on the page. Its lines are drawn in a box of `BOX` x `BOX` units that the browser
stretches, and its labels have positions in percent and pixels, so that no style is needed to place them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from knowgen.report.numbers import MINUS, NONE
from knowgen.report.training.view import ReportTraining, TrainingEvaluation
from knowgen.report.view import SystemMarker, marks

BOX = 1000
TOP, HEIGHT = 16, 168
"""Place of the box in the chart, in pixels from its upper edge."""

MOST_POINTS = 400
"""Maximum number of places along a path; more steps are drawn as the lowest and highest of each place."""

SMOOTH_FROM = 50
"""Least number of steps for a moving mean."""

ROWS = 13
"""Number of steps in the table of a chart; every step is in the file of all figures."""


@dataclass(frozen=True)
class ChartKind:
    """Figures that are drawn in one chart.

    Attributes:
        title: Title of the chart, with the unit.
        names: Names of the figures; one that ends in / stands for all that begin so.
        share: Whether the scale is from 0 to 1.
        stacked: Whether the figures add up to a whole and are drawn as areas.
        meaning: What is shown, in one phrase.
    """

    title: str
    names: tuple[str, ...]
    share: bool = False
    stacked: bool = False
    meaning: str = ""


KINDS = (
    ChartKind("Reward", ("reward", "reward_image", "reward_text"), True, meaning="mean over unmasked episodes"),
    ChartKind("Endings", ("ending/",), True, True, "share of the episodes by how they ended"),
    ChartKind("Searched", ("searched",), True, meaning="share of the episodes with a call of a search tool"),
    ChartKind("Calls, references and images", ("calls", "references", "images_seen"), meaning="mean per episode"),
    ChartKind("Tokens", ("tokens_sampled", "tokens_context"), meaning="mean per episode"),
    ChartKind("Masked and without spread", ("masked", "without_spread"),
              meaning="shares left out because a service failed, and of groups whose rewards are all equal"),
    ChartKind("Spread of the reward", ("reward_std",), meaning="standard deviation within groups"),
    ChartKind("Log-probabilities: engine against trainer", ("gap_mean", "gap_max"), meaning="difference in nats"),
    ChartKind("Clipped", ("clipped/", "clipped", "clipped_low", "clipped_high"), meaning="share of the tokens"),
    ChartKind("Loss", ("loss",)),
    ChartKind("Gradient norm", ("grad_norm",)),
    ChartKind("Learning rate", ("learning_rate",)),
    ChartKind("Time of a step by part", ("share/",), True, True, "shares of its seconds"),
    ChartKind("Time of a step in seconds", ("seconds",)),
    ChartKind("Tokens per second", ("tokens_per_second",)),
    ChartKind("Cost of a step in US dollars", ("cost",)),
    ChartKind("Cost so far in US dollars", ("cost_total",)),
)  # fmt: skip
"""Charts in the order of the page; a figure that is in none of them gets one of its own."""

WORDS = {
    "reward": "reward", "reward_image": "image half", "reward_text": "text half", "reward_std": "standard deviation",
    "gap_mean": "mean", "gap_max": "largest", "images_seen": "images seen", "tokens_sampled": "sampled",
    "tokens_context": "context", "without_spread": "groups without spread",
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A figure of one training.

    Attributes:
        label: What the legend says.
        mark: Colour and shape.
        training: Index of the training.
        name: Name of the figure.
        path: SVG path, of the moving mean if there is one; of the area for stacked figures.
        raw: SVG path of the single steps beside a moving mean; empty without one.
        end: Position of its last value: percent of the width, pixels from the upper edge; None for areas.
    """

    label: str
    mark: SystemMarker
    training: int
    name: str
    path: str
    raw: str = ""
    end: tuple[str, str] | None = None


@dataclass(frozen=True)
class TableRow:
    """Values of one step, formatted; `step` 0 is before the first."""

    step: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Chart:
    """One chart; positions along the height are in pixels, those along the width in percent."""

    title: str
    meaning: str
    lines: tuple[Line, ...]
    stacked: bool
    heights: tuple[tuple[str, str], ...]
    steps: tuple[int, int]
    alt: str
    rows: tuple[TableRow, ...]
    smooth: int = 0
    notes: tuple[str, ...] = ()


Series = list[tuple[int, float]]


@dataclass
class _Drawn:
    """A figure of a training with its values before it is drawn."""

    label: str
    mark: SystemMarker
    training: ReportTraining
    name: str
    values: Series
    faults: list[int] = field(default_factory=list)


def charts_of(trainings: Sequence[ReportTraining]) -> list[Chart]:
    """Return the charts of one training, or of several drawn over each other.

    Of one training, the figures of a kind share a chart. Of several, each figure has a chart with a line for each.
    """
    present = dict.fromkeys(name for each in trainings for values in each.metrics.values() for name in values)
    steps = [step for each in trainings for step in each.metrics]
    if not steps:
        return []
    span, charts = (min(steps), max(steps)), []
    for kind in _kinds(present):
        names = [name for name in present if _belongs(name, kind)]
        names.sort(key=lambda name: kind.names.index(name) if name in kind.names else len(kind.names))
        if len(trainings) == 1:
            charts.append(_chart(kind, kind.title, _of_one(trainings[0], names), span))
        else:
            for name in names:
                words = figure_words(name)
                title = kind.title if len(names) == 1 or words == kind.title.lower() else f"{kind.title}: {words}"
                charts.append(_chart(kind, title, _of_several(trainings, name), span))
    return charts


def figure_words(name: str) -> str:
    """Return the name of a figure in words.

    Example:
        >>> figure_words("ending/no_answer"), figure_words("reward_text")
        ('no answer', 'text half')
    """
    return WORDS.get(name, name.rpartition("/")[2].replace("_", " "))


def figure_text(value: float | None) -> str:
    """Format a figure of a step: four digits, or an exponent where it is small.

    Example:
        >>> figure_text(0.41237), figure_text(31250.4), figure_text(1e-6), figure_text(None)
        ('0.412', '31,250', '1.0e-06', '–')
    """
    if value is None:
        return NONE
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    size = abs(value)
    if size >= 1000:
        text = f"{size:,.0f}"
    elif size >= 100:
        text = f"{size:.1f}"
    elif size >= 0.001 or size == 0:
        text = f"{size:.3f}"
    else:
        text = f"{size:.1e}"
    return f"{MINUS}{text}" if value < 0 else text


def _belongs(name: str, kind: ChartKind) -> bool:
    return any(name.startswith(each) if each.endswith("/") else name == each for each in kind.names)


def _kinds(present: Iterable[str]) -> list[ChartKind]:
    names = list(present)
    known = [kind for kind in KINDS if any(_belongs(name, kind) for name in names)]
    others = [name for name in names if not any(_belongs(name, kind) for kind in KINDS)]
    return [*known, *(ChartKind(name.replace("_", " ").capitalize(), (name,)) for name in others)]


def _of_one(training: ReportTraining, names: Sequence[str]) -> list[_Drawn]:
    labels = [figure_words(name) for name in names]
    return [_drawn(label, mark, training, name) for label, mark, name in zip(labels, marks(labels), names, strict=True)]


def _of_several(trainings: Sequence[ReportTraining], name: str) -> list[_Drawn]:
    drawn = [_drawn(each.label, each.mark, each, name) for each in trainings]
    return [each for each in drawn if each.values or each.faults]


def _drawn(label: str, mark: SystemMarker, training: ReportTraining, name: str) -> _Drawn:
    values: Series = []
    faults: list[int] = []
    for step, figures in training.metrics.items():
        if name in figures:
            if math.isfinite(figures[name]):
                values.append((step, figures[name]))
            else:
                faults.append(step)
    return _Drawn(label, mark, training, name, values, faults)


def _chart(kind: ChartKind, title: str, drawn: Sequence[_Drawn], span: tuple[int, int]) -> Chart:
    stacked = kind.stacked and len({each.training.index for each in drawn}) == 1
    low, high = _range(kind, drawn)
    window = 0 if stacked else max((_window(len(each.values)) for each in drawn), default=0)
    lines = _areas(drawn, span) if stacked else [_line(each, span, (low, high), window) for each in drawn]
    return Chart(
        title=title,
        meaning=kind.meaning,
        lines=tuple(lines),
        stacked=stacked,
        heights=tuple((_tick_text(tick), f"{_height(tick, low, high):.1f}") for tick in _ticks(low, high)),
        steps=span,
        alt=f"{title}: {'; '.join(map(_in_words, drawn))}",
        rows=_rows(drawn),
        smooth=window,
        notes=tuple(_fault(each) for each in drawn if each.faults),
    )


def _in_words(drawn: _Drawn) -> str:
    if not drawn.values:
        return f"{drawn.label} has no value"
    (first, start), (last, end) = drawn.values[0], drawn.values[-1]
    if first == last:
        return f"{drawn.label} {figure_text(start)} at step {first}"
    return f"{drawn.label} from {figure_text(start)} at step {first} to {figure_text(end)} at step {last}"


def _fault(drawn: _Drawn) -> str:
    faults = drawn.faults
    where = f"step {faults[0]}" if len(faults) == 1 else f"{len(faults)} steps, the first is {faults[0]}"
    return f"{drawn.label}: not a finite number at {where}"


def _rows(drawn: Sequence[_Drawn]) -> tuple[TableRow, ...]:
    """Return evenly spaced steps with their values, the first and the last among them."""
    steps = sorted({step for each in drawn for step in each.training.metrics})
    places = sorted({round(number * (len(steps) - 1) / (ROWS - 1)) for number in range(ROWS)})
    return tuple(
        TableRow(
            steps[place],
            tuple(figure_text(each.training.metrics.get(steps[place], {}).get(each.name)) for each in drawn),
        )
        for place in places
    )


def _range(kind: ChartKind, drawn: Sequence[_Drawn]) -> tuple[float, float]:
    """Return the ends of the vertical scale: 0 to 1 for shares, else rounded ends that include 0."""
    values = [value for each in drawn for _, value in each.values]
    if kind.share and all(0.0 <= value <= 1.0 + 1e-9 for value in values):
        return 0.0, 1.0
    low, high = min([0.0, *values]), max([0.0, *values])
    if low == high:
        return 0.0, 1.0
    step = _nice_step((high - low) / 4)
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _nice_step(rough: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))


def _ticks(low: float, high: float) -> list[float]:
    step = _nice_step((high - low) / 4)
    return [low + number * step for number in range(round((high - low) / step) + 1)]


def _tick_text(value: float) -> str:
    if value == 0 or 0.001 <= abs(value) < 10_000:
        return f"{value:,.4g}".replace("-", MINUS) if abs(value) < 1000 else f"{value:,.0f}".replace("-", MINUS)
    return f"{value:.2g}".replace("e-0", "e-").replace("e+0", "e").replace("-", MINUS)


def _height(value: float, low: float, high: float) -> float:
    """Return a position in pixels from the upper edge of the chart."""
    return TOP + HEIGHT * (1 - (value - low) / (high - low))


def _across(step: float, span: tuple[int, int]) -> float:
    """Return a position along the width of the box."""
    first, last = span
    return BOX / 2 if first == last else BOX * (step - first) / (last - first)


def _down(value: float, low: float, high: float) -> float:
    return BOX * (1 - (value - low) / (high - low))


def _window(steps: int) -> int:
    """Return the width of the moving mean in steps; 0 for none."""
    return 0 if steps < SMOOTH_FROM else 2 * (steps // 50) + 1


def _line(drawn: _Drawn, span: tuple[int, int], scale: tuple[float, float], window: int) -> Line:
    values, raw = drawn.values, ""
    if window:
        raw = _path(_extremes(values), span, scale)
        values = _thinned(_moving_mean(values, window))
    else:
        values = _extremes(values)
    end = None
    if values:
        step, value = values[-1]
        end = f"{100 * _across(step, span) / BOX:.2f}%", f"{_height(value, *scale):.1f}"
    return Line(drawn.label, drawn.mark, drawn.training.index, drawn.name, _path(values, span, scale), raw, end)


def _moving_mean(values: Series, window: int) -> Series:
    """Return the mean of `window` values around each; fewer at both ends."""
    sums = [0.0]
    for _, value in values:
        sums.append(sums[-1] + value)
    half, means = window // 2, []
    for place, (step, _) in enumerate(values):
        start, stop = max(0, place - half), min(len(values), place + half + 1)
        means.append((step, (sums[stop] - sums[start]) / (stop - start)))
    return means


def _thinned(values: Series) -> Series:
    """Return at most `MOST_POINTS` values, evenly spaced, with the last."""
    every = math.ceil(len(values) / MOST_POINTS) or 1
    kept = values[::every]
    return kept if not values or kept[-1] == values[-1] else [*kept, values[-1]]


def _extremes(values: Series) -> Series:
    """Return the values, or the lowest and the highest of each stretch of steps where there are many."""
    if len(values) <= MOST_POINTS:
        return values
    size = math.ceil(len(values) / (MOST_POINTS // 2))
    kept: Series = []
    for start in range(0, len(values), size):
        part = values[start : start + size]
        low, high = min(part, key=lambda pair: pair[1]), max(part, key=lambda pair: pair[1])
        kept += sorted({low, high})
    return kept


def _path(values: Series, span: tuple[int, int], scale: tuple[float, float]) -> str:
    points = [f"{_across(step, span):.1f} {_down(value, *scale):.1f}" for step, value in values]
    if len(points) == 1:
        points *= 2  # a line of no length with round ends is a dot
    return "M" + "L".join(points) if points else ""


def _areas(drawn: Sequence[_Drawn], span: tuple[int, int]) -> list[Line]:
    """Return the figures as areas on top of each other, the first at the bottom."""
    values = [dict(each.values) for each in drawn]
    steps = [step for step, _ in _thinned([(step, 0.0) for step in drawn[0].training.metrics])]
    base = [0.0] * len(steps)
    lines = []
    for each, known in zip(drawn, values, strict=True):
        above = [low + known.get(step, 0.0) for low, step in zip(base, steps, strict=True)]
        path = "M" + "L".join([*_edge(steps, above, span), *reversed(_edge(steps, base, span))]) + "Z"
        lines.append(Line(each.label, each.mark, each.training.index, each.name, path))
        base = above
    return lines


def _edge(steps: Sequence[int], heights: Sequence[float], span: tuple[int, int]) -> list[str]:
    """Return the points of an edge of an area; that of a single step is as wide as the chart."""
    if len(steps) == 1:
        return [f"{place} {_down(heights[0], 0, 1):.1f}" for place in (0, BOX)]
    pairs = zip(steps, heights, strict=True)
    return [f"{_across(step, span):.1f} {_down(height, 0, 1):.1f}" for step, height in pairs]


@dataclass(frozen=True)
class EvaluationDot:
    """An evaluation in the chart of headlines; positions as in `Chart`. `low` and `high` are empty without interval."""

    training: ReportTraining
    evaluation: TrainingEvaluation
    x: str
    y: str
    low: str
    high: str


def evaluation_dots(trainings: Sequence[ReportTraining]) -> tuple[tuple[int, int], list[EvaluationDot]]:
    """Return the first and last evaluated step, and a dot for each headline on a scale from 0 to 1."""
    known = [(each, one) for each in trainings for one in each.evaluations if one.figure.value is not None]
    steps = [one.step for _, one in known]
    span = (min(steps, default=0), max(steps, default=0))
    dots = []
    for training, one in known:
        figure = one.figure
        low, high = (f"{_height(end, 0, 1):.1f}" if end is not None else "" for end in (figure.low, figure.high))
        x = f"{100 * _across(one.step, span) / BOX:.2f}%"
        dots.append(EvaluationDot(training, one, x, f"{_height(figure.value or 0.0, 0, 1):.1f}", low, high))
    return span, dots


def all_figures(trainings: Sequence[ReportTraining]) -> tuple[list[str], list[list[str | float | int | None]]]:
    """Return every figure of every step as a table: the head, and a row for each step of each training."""
    names = list(dict.fromkeys(name for each in trainings for values in each.metrics.values() for name in values))
    rows: list[list[str | float | int | None]] = [
        [each.label, step, *(values.get(name) for name in names)]
        for each in trainings
        for step, values in each.metrics.items()
    ]
    return ["training", "step", *names], rows


def as_data(trainings: Sequence[ReportTraining]) -> list[dict[str, object]]:
    """Return the figures for the script of the page: for each training its steps, and the values of each figure."""
    data: list[dict[str, object]] = []
    for each in trainings:
        names = dict.fromkeys(name for values in each.metrics.values() for name in values)
        figures: Mapping[str, list[float | None]] = {
            name: [_short(values.get(name)) for values in each.metrics.values()] for name in names
        }
        data.append({"steps": list(each.metrics), "figures": figures})
    return data


def _short(value: float | None) -> float | None:
    return float(f"{value:.5g}") if value is not None else None
