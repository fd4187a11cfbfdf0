"""Tables for a paper: LaTeX (booktabs) or Markdown, the statistically tied best of each column in bold.

A system is tied with the best of a column if the paired permutation test does not tell the two apart at 5 %, with
Holm's correction for the systems that are compared with the best. Where no test could tell two systems apart, because
too few samples are paired, nothing is bold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from knowgen.core.records import DIMENSIONS
from knowgen.core.text import one_line
from knowgen.report.numbers import in_words, money
from knowgen.report.paper.charts import PaperSystem
from knowgen.report.tables import SHORT, score_name
from knowgen.report.text_table import NONE, escape_markdown
from knowgen.stats.compare.holm import holm
from knowgen.stats.compare.records import SIGNIFICANCE, Comparison
from knowgen.stats.summary import OVERALL, Figure, Summary

Form = Literal["latex", "markdown"]

FEWEST = 6
"""Minimum number of pairs with which a two-sided permutation test can reach 5 %: with n pairs the lowest p is 2/2^n."""

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
        "|": r"\textbar{}", '"': r"\textquotedbl{}", "–": "--", "\N{MINUS SIGN}": "$-$", "…": r"\ldots{}",
    }
)  # fmt: skip


@dataclass(frozen=True)
class TableLayout:
    """Layout of a table.

    Attributes:
        percent: Whether figures are multiplied by 100, as in the published table.
        intervals: Whether the headline figure has its 95 % interval.
        cost: Whether there is a column with the cost of an image.
    """

    percent: bool = False
    intervals: bool = True
    cost: bool = False


@dataclass(frozen=True)
class _Column:
    """A column of figures: its head, and the figure that it shows of a subset of the samples."""

    head: str
    kind: str
    part: str
    name: str
    interval: bool = False

    def figure(self, summary: Summary) -> Figure | None:
        return next(
            (one.figures[self.name] for one in summary.slices if (one.kind, one.name) == (self.kind, self.part)), None
        )


def caption(summaries: Sequence[Summary]) -> str:
    """Return a caption that says how figures were computed: task, samples, scorer, judges and protocol.

    Example:
        >>> from knowgen.stats.summary import Slice
        >>> whole = Slice(kind="all", samples=8, figures={"overall": Figure(value=0.5, n=8)})
        >>> caption([Summary(task="birds", task_version="1", scorer="pixels", protocol="strict", protocol_version="2",
        ...     dimensions=("ssim",), slices=(whole,))])
        'Task birds (version 1), 8 samples; scorer pixels; protocol strict 2; 95 % intervals over samples.'
    """
    one = summaries[0]
    judges = sorted({judge for each in summaries for judge in each.judges})
    counts = sorted({each.slice().samples for each in summaries})
    samples = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    parts = [
        f"Task {one.task} (version {one.task_version}), {samples} samples",
        f"scorer {one.scorer}" + (f" ({one.scorer_note})" if one.scorer_note else ""),
        f"judge {', '.join(judges)}" if judges else "",
        f"protocol {one.protocol} {one.protocol_version}",
        "95 % intervals over samples",
    ]
    return "; ".join(part for part in parts if part) + "."


def paper_table(
    kind: str,
    systems: Sequence[PaperSystem],
    pairs: Mapping[tuple[int, int], Comparison],
    form: Form,
    layout: TableLayout,
) -> str:
    """Return a table of systems.

    Args:
        kind: `systems` for the headline figure and its dimensions with one row for each system; group, category or
            difficulty for the overall of each part with one column for each system.
        systems: The systems, in any order: rows are sorted by the headline figure.
        pairs: Comparison of each two systems that may be ranked, by their places in `systems`.
        form: latex or markdown.
        layout: Layout of the table.
    """
    order = sorted(
        range(len(systems)),
        key=lambda place: (systems[place].privileged, *systems[place].order),
    )
    columns = _columns(kind, systems, layout)
    bold = [_tied_best(column, systems, pairs) for column in columns]
    cells = {
        (place, number): _cell(column.figure(systems[place].summary), column, layout)
        for place in order
        for number, column in enumerate(columns)
    }
    writer = _WRITERS[form]
    names = [
        writer.text(systems[place].label) + (writer.text(" *") if systems[place].privileged else "") for place in order
    ]
    body = [
        [writer.bold(writer.text(cells[place, number])) if place in bold[number] else writer.text(cells[place, number])
         for number in range(len(columns))]
        for place in order
    ]  # fmt: skip
    if kind == "systems":
        head = ["system", *(column.head for column in columns), *(["cost"] if layout.cost else [])]
        costs = [[writer.text(money(systems[place].cost))] if layout.cost else [] for place in order]
        rows = [[name, *row, *cost] for name, row, cost in zip(names, body, costs, strict=True)]
        text = writer.table([writer.text(one) for one in head], rows)
    else:
        rows = [
            [writer.text(in_words(column.part)), *(row[number] for row in body)]
            for number, column in enumerate(columns)
        ]
        text = writer.table([writer.text(kind), *names], rows)
    notes = [caption([one.summary for one in systems])]
    if any(bold):
        notes.append("Bold: best, and all that a paired permutation test does not tell apart from it at 5 % (Holm).")
    if sum(not one.privileged and not one.no_result for one in systems) > 1 and not all(bold):
        notes.append(f"Nothing is bold where fewer than {FEWEST} samples are paired, which no test can tell apart.")
    if any(one.privileged for one in systems):
        notes.append("*: sees the ground truth, not ranked.")
    notes += [f"{one.label}: no result, {one.no_result}." for one in systems if one.no_result]
    return text + writer.notes(notes)


def _columns(kind: str, systems: Sequence[PaperSystem], layout: TableLayout) -> list[_Column]:
    first = systems[0].summary
    if kind == "systems":
        known = set(first.dimensions) == set(DIMENSIONS)
        headline = score_name(first.dimensions, first.protocol)
        dimensions = [_Column(SHORT[name] if known else in_words(name), "all", "", name) for name in first.dimensions]
        return [_Column(headline, "all", "", OVERALL, interval=layout.intervals), *dimensions]
    names = dict.fromkeys(part.name for one in systems for part in one.summary.slices if part.kind == kind)
    return [_Column(name, kind, name, OVERALL) for name in names]


def _cell(figure: Figure | None, column: _Column, layout: TableLayout) -> str:
    if figure is None or figure.value is None:
        return NONE
    factor, digits = (100, 1) if layout.percent else (1, 3)
    text = f"{factor * figure.value:.{digits}f}"
    if column.interval and figure.low is not None and figure.high is not None:
        text += f" [{factor * figure.low:.{digits}f}, {factor * figure.high:.{digits}f}]"
    return text


def _tied_best(
    column: _Column, systems: Sequence[PaperSystem], pairs: Mapping[tuple[int, int], Comparison]
) -> frozenset[int]:
    """Return the best systems of a column: the highest figure, and those that the test does not tell apart from it."""
    figures = {
        place: figure.value
        for place, one in enumerate(systems)
        if not one.privileged
        and not one.no_result
        and (figure := column.figure(one.summary)) is not None
        and figure.value is not None
    }
    if len(figures) < 2:
        return frozenset()
    best = max(figures, key=lambda place: (figures[place], -place))
    p_values: dict[int, float] = {}
    tied = {place for place, value in figures.items() if value == figures[best]}
    for place in figures:
        comparison = pairs.get((min(place, best), max(place, best)))
        if place == best or comparison is None:
            continue
        part = next((one for one in comparison.slices if (one.kind, one.name) == (column.kind, column.part)), None)
        difference = part.figures[column.name] if part is not None else None
        if difference is None or difference.p is None or difference.n < FEWEST:
            continue  # a difference that cannot be tested is not called a tie
        p_values[place] = difference.p
    if not p_values:
        return frozenset()
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return frozenset(tied | {place for place, p in adjusted.items() if p > SIGNIFICANCE})


def _guarded(row: str) -> str:
    """Return a row that the command before it does not take for its optional argument."""
    return f"{{}}{row}" if row.startswith(("[", "*")) else row


class _Latex:
    """LaTeX with the packages booktabs and fontenc."""

    def text(self, text: str) -> str:
        return one_line(text).translate(_LATEX)

    def bold(self, text: str) -> str:
        return rf"\textbf{{{text}}}"

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        lines = [
            r"% needs \usepackage{booktabs} and, for quotation marks, \usepackage[T1]{fontenc}",
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\toprule",
            f"{' & '.join(head)} \\\\",
            r"\midrule",
            *(f"{_guarded(' & '.join(row))} \\\\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        return "\n".join(lines) + "\n"

    def notes(self, notes: Sequence[str]) -> str:
        return "".join(f"% {one_line(note)}\n" for note in notes)


class _Markdown:
    """Markdown with a table."""

    def text(self, text: str) -> str:
        return escape_markdown(one_line(text))

    def bold(self, text: str) -> str:
        return f"**{text}**"

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        rule = ["---", *("---:" for _ in head[1:])]
        return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rows))

    def notes(self, notes: Sequence[str]) -> str:
        return "\n" + "\n".join(f"{escape_markdown(one_line(note))}  " for note in notes) + "\n"


_WRITERS: Mapping[Form, _Latex | _Markdown] = {"latex": _Latex(), "markdown": _Markdown()}
