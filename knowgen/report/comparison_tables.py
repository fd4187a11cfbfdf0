"""Tables of paired comparisons: terminal, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Sequence

from knowgen.core.records import DIMENSIONS
from knowgen.core.text import count, one_line
from knowgen.report.agent_tables import MEANING, columns
from knowgen.report.text_table import NONE, TextTable, csv_text, markdown_text, terminal_text
from knowgen.stats.compare.records import SIGNIFICANCE, ComparedSlice, Comparison, FigureDifference
from knowgen.stats.coverage import NO_RESULT, no_result
from knowgen.stats.protocol import PROTOCOLS
from knowgen.stats.summary import OVERALL


def comparison_terminal(comparisons: Sequence[Comparison]) -> str:
    """Return plain text: for each comparison the whole with its dimensions, then groups, categories, difficulties.

    For several comparisons, a table of their headlines follows; where systems have agents, one of what these did.
    """
    return terminal_text(_all_grids(comparisons))


def comparison_markdown(comparisons: Sequence[Comparison]) -> str:
    """Return the same tables as Markdown."""
    return markdown_text(_all_grids(comparisons))


_CSV_HEAD = (
    "a", "b", "task", "task_version", "selection_a", "selection_b", "scorer", "protocol",
    "protocol_version", "kind", "name", "samples", "figure",
    "a_value", "b_value", "difference", "low", "high", "p", "p_holm", "n", "note", "effect_dz", "standard_error",
    "detectable",
)  # fmt: skip


def comparison_csv(comparisons: Sequence[Comparison]) -> str:
    """Return CSV with full precision: one row for each comparison, subset and figure; differences are b - a.

    `p` is that of the permutation test. `p_holm` is corrected: that of a headline for all comparisons, that of the
    overall of a group, category or difficulty for all subsets of its kind.
    """
    return csv_text(
        _CSV_HEAD,
        (
            [
                one.a, one.b, one.task, one.task_version, one.selection_a, one.selection_b, one.scorer, one.protocol,
                one.protocol_version, part.kind, part.name, part.samples, name, figure.a, figure.b, figure.value,
                figure.low, figure.high, figure.p, one.p_holm if figure is one.headline else figure.p_holm, figure.n,
                figure.note, figure.effect, figure.standard_error, figure.detectable,
            ]
            for one in comparisons
            for part in one.slices
            for name, figure in part.figures.items()
        ),
    )  # fmt: skip


MAX_NAMED = 5
"""Maximum number of samples that a table names."""

LONGEST_ID = 60
"""Maximum length of a sample id in a table, in characters."""


def _selection(one: Comparison) -> str:
    """Return the samples of both runs, once if they are the same."""
    names = [one.selection_a or NONE, one.selection_b or NONE]
    return " and ".join(dict.fromkeys(names))


def signed(value: float | None) -> str:
    """Format a difference with its sign and three decimals; 0.000 has no sign; a dash for None."""
    if value is None:
        return NONE
    text = f"{value:+.3f}"
    return text[1:] if float(text) == 0 else text


def format_p(p: float | None) -> str:
    """Format a p-value with three decimals, or as `< 0.001`."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.0005 else f"{p:.3f}"


def _with_ends(figure: FigureDifference) -> str:
    ends = "" if figure.low is None else f" [{signed(figure.low):>6}, {signed(figure.high):>6}]"
    return f"{signed(figure.value)}{ends or ' ' * 17}"


def _cells(figure: FigureDifference, *, corrected: bool = False) -> list[str]:
    values = [NONE if value is None else f"{value:.3f}" for value in (figure.a, figure.b)]
    note = "no result" if figure.note.startswith(NO_RESULT) else figure.note
    return [*values, _with_ends(figure), format_p(figure.p_holm if corrected else figure.p), str(figure.n), note]


def _all_grids(comparisons: Sequence[Comparison]) -> list[TextTable]:
    grids = [grid for one in comparisons for grid in _grids(one)]
    family = [_family(comparisons)] if len(comparisons) > 1 else []
    return [*grids, *family, *_agents(comparisons)]


def _agents(comparisons: Sequence[Comparison]) -> list[TextTable]:
    """Return a table of what the agents did, one column for each system with an agent; none without agents."""
    sides = [
        side for one in comparisons for side in ((one.a or "first", one.agent_a), (one.b or "second", one.agent_b))
    ]
    agents = {name: figures for name, figures in sides if figures is not None}
    if not agents:
        return []
    rows = [[head, *cells] for head, cells in columns(list(agents.values()))]
    return [TextTable("Agents", ["", *agents], rows, frozenset({0}), [MEANING])]


def _family(comparisons: Sequence[Comparison]) -> TextTable:
    """Return a table of the headlines of all comparisons, with p-values corrected for their number."""
    rows = [
        [
            f"{one.b or 'second'} against {one.a or 'first'}",
            _with_ends(one.headline),
            format_p(one.headline.p),
            format_p(one.p_holm),
            _effect(one.headline),
            _size(one.headline),
            str(one.headline.n),
        ]
        for one in comparisons
    ]
    head = ["", "difference", "p", "p (Holm)", "d_z", "detectable", "n"]
    tested = max(one.family for one in comparisons)
    line = f"p (Holm): corrected for {count(tested, 'comparison')}; detectable: with 80 % power at 5 %"
    return TextTable(f"All comparisons: {_headline_name(comparisons[0])}", head, rows, frozenset({0}), [line])


def _effect(figure: FigureDifference) -> str:
    return NONE if figure.effect is None else signed(figure.effect)[:-1]


def _size(figure: FigureDifference) -> str:
    return NONE if figure.detectable is None else f"{figure.detectable:.3f}"


def _headline_name(one: Comparison) -> str:
    protocol = PROTOCOLS.get(one.protocol)
    is_score = set(one.dimensions) == set(DIMENSIONS) and not (protocol and protocol.not_for_board)
    return "K-Score" if is_score else OVERALL


def _grids(one: Comparison) -> list[TextTable]:
    a, b = one.a or "first", one.b or "second"
    head = ["", a, b, "difference", "p", "n", "note"]
    left = frozenset({0, 6})
    whole = one.slice()
    rows = [
        [_headline_name(one), *_cells(whole.figures[OVERALL])],
        *([each.replace("_", " "), *_cells(whole.figures[each])] for each in one.dimensions),
    ]
    grids = [_trimmed(TextTable(f"{b} against {a}", head, rows, left, [_verdict(one), *_lines(one)]))]
    for kind in ("group", "category", "difficulty"):
        parts = [part for part in one.slices if part.kind == kind]
        if parts:
            tested = sum(part.figures[OVERALL].p is not None for part in parts)
            line = [f"p: corrected for {count(tested, 'test')} (Holm)"] if tested > 1 else []
            grids.append(_trimmed(TextTable(f"By {kind}: overall", [kind, *head[1:]], _rows(parts), left, line)))
    return grids


def _rows(parts: Sequence[ComparedSlice]) -> list[list[str]]:
    return [[part.name or NONE, *_cells(part.figures[OVERALL], corrected=True)] for part in parts]


def _trimmed(grid: TextTable) -> TextTable:
    """Return a table without the column of notes if there are none."""
    if any(row[-1] for row in grid.rows):
        return grid
    return TextTable(grid.title, grid.head[:-1], [row[:-1] for row in grid.rows], grid.left, grid.lines)


def _verdict(one: Comparison) -> str:
    """Return one line on whether the systems differ."""
    if one.no_result:
        return f"{no_result(one.no_result)}; run that system again to add the missing scores"
    figure, a, b = one.headline, one.a or "first", one.b or "second"
    split = f"better on {one.better}, equal on {one.equal}, worse on {one.worse} of {count(one.paired, 'sample')}"
    if figure.low is None or figure.high is None or figure.value is None:
        same = one.paired and not one.better + one.worse
        words = f"no difference between {b} and {a}" if same else f"{b} against {a}"
        return f"{words}: no interval ({figure.note or 'not requested'}); {split}"
    if figure.low > 0 or figure.high < 0:
        return f"{b} is {'above' if figure.low > 0 else 'below'} {a}: the 95 % interval excludes 0; {split}"
    return f"no clear difference between {b} and {a}: the 95 % interval includes 0; {split}"


def _samples(one: Comparison) -> list[str]:
    """Return lines that name the samples on which the second system is better or worse."""
    lines = []
    for words, ids in (("better on", one.better_on), ("worse on", one.worse_on)):
        if ids:
            rest = f" and {len(ids) - MAX_NAMED} more (see --json)" if len(ids) > MAX_NAMED else ""
            lines.append(f"{words}: {', '.join(one_line(each, LONGEST_ID) for each in ids[:MAX_NAMED])}{rest}")
    return lines


def _disagreement(one: Comparison) -> list[str]:
    """Return a line that explains an interval and a test that lead to different answers."""
    figure = one.headline
    if figure.low is None or figure.high is None or figure.p is None:
        return []
    excludes, detects = figure.low > 0 or figure.high < 0, figure.p <= SIGNIFICANCE
    if excludes == detects:
        return []
    first = "excludes 0" if excludes else "includes 0"
    second = "finds no difference" if excludes else "finds one"
    return [
        f"the interval {first} and the test {second} (p {format_p(figure.p)}): the case is close to the limit of 5 %. "
        "The test asks whether there is any difference; the interval says how large it may be, and only "
        "approximates. Read it as undecided"
    ]


def _lines(one: Comparison) -> list[str]:
    parts = [
        f"task {one.task} {one.task_version}".strip() if one.task else "",
        f"protocol {one.protocol} {one.protocol_version}".strip(),
        f"scorer {one.scorer}{f' ({one.scorer_note})' if one.scorer_note else ''}" if one.scorer else "",
        f"{'judge' if len(one.judges) < 2 else 'judges'} {', '.join(one.judges)}" if one.judges else "",
        f"selection {_selection(one)}" if one.selection_a or one.selection_b else "",
        f"n {one.paired}",
        "[95 % interval, paired by sample]",
    ]
    return [
        "; ".join(part for part in parts if part),
        *_samples(one),
        *_tested(one),
        *_disagreement(one),
        *(f"note: {note}" for note in one.notes),
    ]


def _tested(one: Comparison) -> list[str]:
    """Return lines on the test, the effect size and the smallest detectable difference."""
    figure = one.headline
    test, size = [], []
    if one.relabellings:
        many = f"all {one.relabellings:,}" if one.exact else f"{one.relabellings:,}"
        test.append(f"p: paired permutation test, {many} exchanges of labels")
    if one.family > 1:
        test.append(f"corrected for {count(one.family, 'comparison')} (Holm) {format_p(one.p_holm)}")
    if figure.effect is not None:
        size.append(f"effect size d_z {_effect(figure)}")
    if figure.detectable is not None:
        size.append(f"smallest detectable difference {_size(figure)} (80 % power at 5 %)")
    return ["; ".join(parts) for parts in (test, size) if parts]
