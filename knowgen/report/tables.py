"""Tables of summaries: terminal, Markdown and CSV. Figures are from 0 to 1 with three decimals; CSV has all digits.

The line below a table names task version, selection, protocol, scorer and judges; further lines are caveats. Summaries
that differ in one of these are shown in separate tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from knowgen.core.records import DIMENSIONS, GROUPS, UNKNOWN_GROUP
from knowgen.core.text import count
from knowgen.report.comparison_tables import comparison_csv, comparison_markdown, comparison_terminal
from knowgen.report.numbers import duration, missing, money
from knowgen.report.text_table import NONE, TextTable, csv_text, markdown_text, terminal_text
from knowgen.stats.coverage import NO_RESULT
from knowgen.stats.protocol import PROTOCOLS, counting_words
from knowgen.stats.summary import ALL_EQUAL, OVERALL, TOO_FEW_DIFFERENT, Coverage, Figure, RefusedScores, Slice, Summary

__all__ = [
    "comparison_csv",
    "comparison_markdown",
    "comparison_terminal",
    "csv",
    "markdown",
    "terminal",
]

By = Literal["all", "group", "category", "difficulty"]
BY: tuple[By, ...] = ("all", "group", "category", "difficulty")

SHORT = dict(zip(DIMENSIONS, "FVTA", strict=True))
LEGEND = "F faithfulness, V visual correctness, T text accuracy, A aesthetics"
_TITLES = {"group": "By group", "category": "By category", "difficulty": "By difficulty", "judge": "By judge model"}


def terminal(summaries: Sequence[Summary], by: By = "all") -> str:
    """Return plain text, aligned for a monospaced font.

    Args:
        summaries: Summaries of one or more systems; the best K-Score comes first.
        by: Whether to show the whole, or figures by group, category or difficulty.
    """
    return terminal_text(_grids(summaries, by))


def markdown(summaries: Sequence[Summary], by: Sequence[By] = BY) -> str:
    """Return Markdown; by default the whole and then every subset.

    Args:
        summaries: Summaries of one or more systems; the best K-Score comes first.
        by: Tables to show, in this order.
    """
    return markdown_text(grid for each in by for grid in _grids(summaries, each))


_COVERAGE = tuple(Coverage.model_fields)
_CSV_HEAD = (
    "system", "task", "task_version", "selection", "scorer", "scorer_version", "scorer_note", "judges", "protocol",
    "protocol_version", "repeats", "judge_repeats", "kind", "name", "samples", "figure", "value", "low", "high", "n",
    "note", "partial", "no_result", "refused_lowest", "refused_highest", "counting",
    *_COVERAGE, "cost", "seconds", "fit_for_board", "notes",
)  # fmt: skip


def csv(summaries: Sequence[Summary]) -> str:
    """Return CSV with full precision: one row for each system, subset and figure; the first line names the columns.

    Values, interval ends and counts are empty if there is none. `cost` is in US dollars.
    """
    return csv_text(
        _CSV_HEAD,
        (
            [
                one.system, one.task, one.task_version, one.selection, one.scorer, one.scorer_version, one.scorer_note,
                "; ".join(one.judges), one.protocol, one.protocol_version, one.repeats, one.judge_repeats, part.kind,
                part.name, part.samples, name, figure.value, figure.low, figure.high, figure.n, figure.note,
                figure.partial, one.no_result, *_bounds(one), counting_words(one.protocol),
                *(getattr(part.coverage, field) for field in _COVERAGE), one.cost, one.seconds,
                str(one.fit_for_board).lower(), "; ".join(one.notes),
            ]
            for one in _sorted(summaries)
            for part in one.slices
            for name, figure in part.figures.items()
        ),
    )  # fmt: skip


def _bounds(one: Summary) -> tuple[float | None, float | None]:
    return (None, None) if one.refused is None else (one.refused.lowest, one.refused.highest)


def _sorted(summaries: Sequence[Summary]) -> list[Summary]:
    """Return summaries sorted by K-Score, best first; those without one last; equal ones by name."""
    return sorted(summaries, key=lambda one: (bool(one.no_result), -_rank(one.headline), one.system))


def _rank(figure: Figure) -> float:
    return -1.0 if figure.value is None else figure.value


def _alike(summaries: Sequence[Summary]) -> list[list[Summary]]:
    """Return summaries grouped into tables, which share task, selection, scorer and protocol."""
    tables: dict[tuple[object, ...], list[Summary]] = {}
    for one in summaries:
        key = (
            one.task, one.task_version, one.selection, one.scorer, one.scorer_version, one.scorer_note, one.protocol,
            one.protocol_version, one.dimensions,
        )  # fmt: skip
        tables.setdefault(key, []).append(one)
    return [_sorted(table) for table in tables.values()]


def _grids(summaries: Sequence[Summary], by: By) -> list[TextTable]:
    grids = []
    for table in _alike(summaries):
        if by == "all":
            grids.append(_whole(table))
            split = [one for one in table if any(part.kind == "judge" for part in one.slices)]
            grids += [_one_by(one, "judge") for one in split]
        elif not any(part.kind == by for one in table for part in one.slices):
            continue
        else:
            grids.append(_one_by(table[0], by) if len(table) == 1 else _many_by(table, by))
    return grids


def format_figure(figure: Figure) -> str:
    """Format a value with three decimals; a partial value in brackets; a dash if there is none."""
    if figure.value is None and figure.partial is not None:
        return f"({figure.partial:.3f})"
    return NONE if figure.value is None else f"{figure.value:.3f}"


def with_interval(figure: Figure) -> str:
    """Format a value and its interval, such as `0.713 [0.679, 0.753]`, padded so that values align in a column."""
    if figure.value is None and figure.partial is not None:
        return f"{format_figure(figure)} partial"
    if figure.low is None or figure.high is None:
        why, _ = SHORT_NOTES.get(figure.note, (figure.note, ""))
        why = why if figure.value is not None and len(why) < 15 else ""
        return f"{format_figure(figure)} {why:<14}"
    return f"{format_figure(figure)} [{figure.low:.3f}, {figure.high:.3f}]"


SHORT_NOTES = {
    ALL_EQUAL: ("all equal", "all samples have the same value"),
    TOO_FEW_DIFFERENT: ("few different", "nearly all samples have the same value"),
}
"""Short form of the note of a figure without an interval, and its reason in words."""


def score_name(dimensions: Sequence[str], protocol: str = "strict") -> str:
    """Return the name of the headline: K-Score for the four dimensions and a mean of groups, otherwise `overall`."""
    other = protocol in PROTOCOLS and PROTOCOLS[protocol].not_for_board
    return "K-Score" if set(dimensions) == set(DIMENSIONS) and not other else "overall"


def _head(dimensions: Sequence[str]) -> list[str]:
    knowgen = set(dimensions) == set(DIMENSIONS)
    return [SHORT[name] if knowgen else name for name in dimensions]


def _figures(part: Slice, dimensions: Sequence[str]) -> list[str]:
    return [with_interval(part.figures[OVERALL]), *(format_figure(part.figures[name]) for name in dimensions)]


def _result(one: Summary) -> list[str]:
    """Return the headline figure and its dimensions, without figures where the result is missing.

    The headline of the published arithmetic is shown and marked as partial.
    """
    if not one.no_result:
        return _figures(one.slice(), one.dimensions)
    if one.headline.value is None:
        return ["no result", *(NONE for _ in one.dimensions)]
    return [f"{format_figure(one.headline)} partial", *_figures(one.slice(), one.dimensions)[1:]]


def _covered(part: Slice) -> list[str]:
    coverage = part.coverage
    return [str(part.figures[OVERALL].n), f"{coverage.scored}/{coverage.expected}", str(missing(coverage))]


def _whole(table: Sequence[Summary]) -> TextTable:
    dimensions, refused = table[0].dimensions, any(one.refused for one in table)
    rows = [
        [
            one.system or NONE,
            _result(one)[0],
            *([format_worst(one)] if refused else []),
            *_result(one)[1:],
            *_covered(one.slice()),
            NONE if one.cost is None else money(one.cost),
            NONE if one.seconds is None else duration(one.seconds),
        ]
        for one in table
    ]
    head = [
        "system",
        score_name(dimensions, table[0].protocol),
        *(["worst case"] if refused else []),
        *_head(dimensions),
        "n",
        "coverage",
        "failed",
        "cost",
        "time",
    ]
    return TextTable(
        "",
        head,
        rows,
        lines=[
            *_no_results(table),
            *_refusals(table),
            _provenance(table),
            *_counting(table),
            *_legend(dimensions),
            *_short_notes(table),
            *_notes(table),
        ],
    )


def format_worst(one: Summary) -> str:
    """Format the headline that a system would have if each refused score counted 0; a dash if none was refused."""
    return NONE if one.refused is None else f"{one.refused.lowest:.3f}"


def _refusals(table: Sequence[Summary]) -> list[str]:
    """Return which systems have refused scores, and what they could change."""
    return [
        (f"{one.system}: " if len(table) > 1 else "") + refusal_words(one.refused)
        for one in table
        if one.refused is not None
    ]


def refusal_words(refused: RefusedScores) -> str:
    """Return in words how many scores the judge refused, and what the headline would be with them."""
    left_out = "and is left out" if refused.scores == 1 else "and are left out"
    return (
        f"{count(refused.scores, 'score')} refused by the judge {left_out}: worst case {refused.lowest:.3f} if each "
        f"counted 0, {refused.highest:.3f} if each counted 1"
    )


def _counting(table: Sequence[Summary]) -> list[str]:
    words = counting_words(table[0].protocol)
    return [words] if words else []


def _short_notes(table: Sequence[Summary]) -> list[str]:
    """Return a line for each short note of a headline without an interval."""
    notes = {one.headline.note for one in table}
    return [f"{short}: no interval, because {why}" for note, (short, why) in SHORT_NOTES.items() if note in notes]


def _one_by(one: Summary, kind: str) -> TextTable:
    """Return figures of one system with one row per subset."""
    head = [kind, score_name(one.dimensions, one.protocol) if kind == "judge" else "overall", *_head(one.dimensions)]
    rows = [
        [part.name or NONE, *_figures(part, one.dimensions), *_covered(part)]
        for part in one.slices
        if part.kind == kind
    ]
    lines = [_provenance([one]), *_counting([one]), *_legend(one.dimensions)]
    title = f"{_TITLES[kind]}: {one.system}" if one.system else _TITLES[kind]
    return TextTable(title, [*head, "n", "coverage", "failed"], rows, lines=lines)


def _many_by(table: Sequence[Summary], kind: str) -> TextTable:
    """Return overall figures with one row per subset and one column per system."""
    slices = [{part.name: part for part in one.slices if part.kind == kind} for one in table]
    rows = []
    for name in _in_order({name for parts in slices for name in parts}, slices):
        parts = [one.get(name) for one in slices]
        n = sorted({part.figures[OVERALL].n for part in parts if part is not None})
        cells = [NONE if part is None else with_interval(part.figures[OVERALL]) for part in parts]
        rows.append([name or NONE, *cells, str(n[0]) if len(n) == 1 else f"{n[0]} to {n[-1]}"])
    head = [kind, *(one.system or NONE for one in table), "n"]
    return TextTable(f"{_TITLES[kind]}: overall", head, rows, lines=[_provenance(table), *_counting(table)])


def _in_order(names: set[str], slices: Sequence[dict[str, Slice]]) -> list[str]:
    """Return names in the order of the summaries, with groups and categories of KnowGen first."""
    fixed = [*GROUPS, UNKNOWN_GROUP, *(category for members in GROUPS.values() for category in members)]
    seen = [name for parts in slices for name in parts]
    return sorted(names, key=lambda name: (fixed.index(name) if name in fixed else len(fixed), seen.index(name)))


def _provenance(table: Sequence[Summary]) -> str:
    """Return one line with the provenance of a table's figures."""
    one = table[0]
    judges = sorted({judge for each in table for judge in each.judges})
    repeats = sorted({(each.repeats, each.judge_repeats) for each in table})
    counts = sorted({each.headline.n for each in table})
    parts = [
        f"task {one.task or NONE} {one.task_version}".strip(),
        f"selection {one.selection or NONE}",
        f"protocol {one.protocol} {one.protocol_version}".strip(),
        f"scorer {one.scorer or NONE}{f' {one.scorer_version}' if one.scorer_version else ''}"
        + (f" ({one.scorer_note})" if one.scorer_note else ""),
        f"{'judge' if len(judges) < 2 else 'judges'} {', '.join(judges)}" if judges else "",
        ", ".join(f"{count(a, 'image')} per sample, {count(b, 'score')} per image" for a, b in repeats)
        if repeats != [(1, 1)]
        else "",
        f"n {counts[0]}" if len(counts) == 1 else f"n {counts[0]} to {counts[-1]}",
        "[95 % interval]",
    ]
    return "; ".join(part for part in parts if part)


def _legend(dimensions: Sequence[str]) -> list[str]:
    return [LEGEND] if set(dimensions) == set(DIMENSIONS) else []


def _notes(table: Sequence[Summary]) -> list[str]:
    """Return failures and notes by system; a note that all systems share is one line."""
    notes_by_system = [(one.system or NONE, [*_failures(one.slice().coverage), *_other(one)]) for one in table]
    every = dict.fromkeys(note for _, notes in notes_by_system for note in notes)
    shared = [note for note in every if all(note in notes for _, notes in notes_by_system)]
    lines = [f"note: {note}" for note in shared]
    lines += [f"{system}: {note}" for system, notes in notes_by_system for note in notes if note not in shared]
    unfit = [one.system or NONE for one in table if not one.fit_for_board]
    if unfit:
        lines.append(f"not fit for a leaderboard: {', '.join(unfit)}")
    return lines


def _no_results(table: Sequence[Summary]) -> list[str]:
    """Return which systems have no result, and why."""
    reasons = [(one, note) for one in table for note in one.notes if note.startswith(NO_RESULT)]
    return [note if len(table) == 1 else f"{one.system or NONE}: {note}" for one, note in reasons]


def _other(one: Summary) -> list[str]:
    return [note for note in one.notes if not note.startswith(NO_RESULT)]


def _failures(coverage: Coverage) -> list[str]:
    parts = [
        count(coverage.generation_failed, "generation") + " failed" if coverage.generation_failed else "",
        count(coverage.generation_refused, "generation") + " refused" if coverage.generation_refused else "",
        count(coverage.generation_unavailable, "generation") + " failed for reasons outside the system"
        if coverage.generation_unavailable
        else "",
        count(coverage.score_failed, "score") + " failed" if coverage.score_failed else "",
        count(coverage.score_refused, "score") + " refused" if coverage.score_refused else "",
        count(coverage.not_applicable, "score") + " not applicable" if coverage.not_applicable else "",
    ]
    line = ", ".join(part for part in parts if part)
    return [line] if line else []
