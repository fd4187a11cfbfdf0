"""Tables of paired comparisons: terminal, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Sequence

from knowgen.records import DIMENSIONS
from knowgen.report.grid import Grid, csv_text, markdown_text, terminal_text
from knowgen.stats.comparison import ComparedSlice, Comparison, Difference
from knowgen.stats.summary import OVERALL
from knowgen.stats.words import count

NONE = "-"


def comparison_terminal(comparisons: Sequence[Comparison]) -> str:
    """Returns plain text: for each comparison the whole with its dimensions, then groups, categories, difficulties."""
    return terminal_text(grid for one in comparisons for grid in _grids(one))


def comparison_markdown(comparisons: Sequence[Comparison]) -> str:
    """Returns the same tables as Markdown."""
    return markdown_text(grid for one in comparisons for grid in _grids(one))


_CSV_HEAD = (
    "a", "b", "task", "task_version", "scorer", "policy", "policy_version", "kind", "name", "samples", "figure",
    "a_value", "b_value", "difference", "low", "high", "p", "n", "note",
)  # fmt: skip


def comparison_csv(comparisons: Sequence[Comparison]) -> str:
    """Returns CSV with full precision: one row for each comparison, part and figure; differences are b - a."""
    return csv_text(
        _CSV_HEAD,
        (
            [
                one.a, one.b, one.task, one.task_version, one.scorer, one.policy, one.policy_version, part.kind,
                part.name, part.samples, name, figure.a, figure.b, figure.value, figure.low, figure.high, figure.p,
                figure.n, figure.note,
            ]
            for one in comparisons
            for part in one.slices
            for name, figure in part.figures.items()
        ),
    )  # fmt: skip


def signed(value: float | None) -> str:
    """Writes a difference with its sign and three decimals; 0.000 has none, and a dash stands where there is none."""
    if value is None:
        return NONE
    text = f"{value:+.3f}"
    return text[1:] if float(text) == 0 else text


def chance(p: float | None) -> str:
    """Writes a p-value: three decimals, `< 0.001` below them."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.0005 else f"{p:.3f}"


def _cells(figure: Difference) -> list[str]:
    ends = "" if figure.low is None else f" [{signed(figure.low):>6}, {signed(figure.high):>6}]"
    values = [NONE if value is None else f"{value:.3f}" for value in (figure.a, figure.b)]
    difference = f"{signed(figure.value)}{ends or ' ' * 17}"
    return [*values, difference, chance(figure.p), str(figure.n), figure.note]


def _grids(one: Comparison) -> list[Grid]:
    a, b = one.a or "first", one.b or "second"
    head = ["", a, b, "difference", "p", "n", "note"]
    left = frozenset({0, 6})
    whole = one.slice()
    name = "K-Score" if set(one.dimensions) == set(DIMENSIONS) else OVERALL
    rows = [
        [name, *_cells(whole.figures[OVERALL])],
        *([each.replace("_", " "), *_cells(whole.figures[each])] for each in one.dimensions),
    ]
    grids = [_trimmed(Grid(f"{b} against {a}", head, rows, left, [_verdict(one), *_lines(one)]))]
    for kind in ("group", "category", "difficulty"):
        parts = [part for part in one.slices if part.kind == kind]
        if parts:
            grids.append(_trimmed(Grid(f"By {kind}: overall", [kind, *head[1:]], _rows(parts), left)))
    return grids


def _rows(parts: Sequence[ComparedSlice]) -> list[list[str]]:
    return [[part.name or NONE, *_cells(part.figures[OVERALL])] for part in parts]


def _trimmed(grid: Grid) -> Grid:
    """Drops the column of notes where none is given."""
    if any(row[-1] for row in grid.rows):
        return grid
    return Grid(grid.title, grid.head[:-1], [row[:-1] for row in grid.rows], grid.left, grid.lines)


def _verdict(one: Comparison) -> str:
    """Says in one line whether the difference is real."""
    figure, a, b = one.headline, one.a or "first", one.b or "second"
    split = f"better on {one.better}, level on {one.equal}, worse on {one.worse} of {count(one.paired, 'sample')}"
    if figure.low is None or figure.high is None or figure.value is None:
        return f"{b} against {a}: no interval ({figure.note or 'none asked for'}); {split}"
    if figure.low > 0 or figure.high < 0:
        return f"{b} is {'above' if figure.low > 0 else 'below'} {a}: the 95 % interval is without 0; {split}"
    return f"{b} and {a} cannot be told apart: the 95 % interval holds 0; {split}"


def _lines(one: Comparison) -> list[str]:
    parts = [
        f"task {one.task} {one.task_version}".strip() if one.task else "",
        f"policy {one.policy} {one.policy_version}".strip(),
        f"scorer {one.scorer}{f' ({one.scorer_note})' if one.scorer_note else ''}" if one.scorer else "",
        f"{'judge' if len(one.judges) < 2 else 'judges'} {', '.join(one.judges)}" if one.judges else "",
        f"n {one.paired}",
        "[95 % interval, paired by sample]",
    ]
    return ["; ".join(part for part in parts if part), *(f"note: {note}" for note in one.notes)]
