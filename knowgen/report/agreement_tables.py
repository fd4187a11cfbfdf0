"""Tables of agreement: terminal and CSV."""

from __future__ import annotations

from collections.abc import Mapping

from knowgen.report.text_table import NONE, TextTable, csv_text, terminal_text
from knowgen.stats.agreement.records import Agreement, DimensionAgreement, PairAgreement, RankAgreement
from knowgen.stats.summary import Figure


def agreement_terminal(agreement: Agreement) -> str:
    """Return plain text: a table for each pair of raters, one for all raters, and rank correlations of systems."""
    return terminal_text(_grids(agreement))


_CSV_HEAD = ("first", "second", "dimension", "measure", "value", "low", "high", "n", "note")


def agreement_csv(agreement: Agreement) -> str:
    """Return CSV with full precision: one row for each coefficient; `second` is empty for all raters together."""
    rows: list[list[str | float | int | None]] = []
    for pair in agreement.pairs:
        for name, one in pair.dimensions.items():
            for measure, figure in (("exact", one.exact), ("kappa", one.kappa), ("alpha", one.alpha)):
                rows.append([pair.first, pair.second, name, measure, *_numbers(figure)])
    rows += [["all", "", name, "alpha", *_numbers(figure)] for name, figure in agreement.together.items()]
    for rank in agreement.ranks:
        for measure, figure in (("kendall_tau_b", rank.kendall), ("spearman", rank.spearman)):
            rows.append([rank.first, rank.second, "", measure, *_numbers(figure)])
    return csv_text(_CSV_HEAD, rows)


def _numbers(figure: Figure) -> list[str | float | int | None]:
    return [figure.value, figure.low, figure.high, figure.n, figure.note]


def _grids(agreement: Agreement) -> list[TextTable]:
    grids = [_pair(pair) for pair in agreement.pairs]
    if agreement.together:
        grids.append(_together(agreement.together))
    if agreement.ranks:
        grids.append(_ranks(agreement.ranks, len(agreement.systems)))
    lines = [
        f"kappa: Cohen's, quadratic weights; alpha: Krippendorff's, interval metric; protocol {agreement.protocol}; "
        "[95 % interval by sample]",
        *(f"note: {note}" for note in agreement.notes),
    ]
    last = grids[-1] if grids else TextTable("", ["raters"], [[rater] for rater in agreement.raters])
    return [*grids[:-1], TextTable(last.title, last.head, last.rows, last.left, [*last.lines, *lines])]


def _pair(pair: PairAgreement) -> TextTable:
    head = ["", "same value", "kappa", "alpha", "n", "only one rater", "note"]
    rows = [[name.replace("_", " "), *_cells(one)] for name, one in pair.dimensions.items()]
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return TextTable(f"{pair.first} and {pair.second}", head, rows, frozenset({0, 6}))


def _cells(one: DimensionAgreement) -> list[str]:
    share = NONE if one.exact.value is None else f"{100 * one.exact.value:.0f} %"
    notes = dict.fromkeys(figure.note for figure in (one.exact, one.kappa, one.alpha) if figure.note)
    alone = one.only_first + one.only_second
    return [share, with_ends(one.kappa), with_ends(one.alpha), str(one.kappa.n), str(alone), "; ".join(notes)]


def with_ends(figure: Figure) -> str:
    """Format a coefficient and its interval with two decimals; a dash if there is none."""
    if figure.value is None:
        return NONE
    ends = "" if figure.low is None else f" [{figure.low:.2f}, {figure.high:.2f}]"
    return f"{figure.value:.2f}{ends}"


def _together(figures: Mapping[str, Figure]) -> TextTable:
    rows = [
        [name.replace("_", " "), with_ends(figure), str(figure.n), figure.note or ""]
        for name, figure in figures.items()
    ]
    head = ["", "alpha", "n", "note"]
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return TextTable("All raters together", head, rows, frozenset({0, 3}))


def _ranks(ranks: tuple[RankAgreement, ...], systems: int) -> TextTable:
    rows = [
        [
            f"{rank.first} and {rank.second}",
            with_ends(rank.kendall),
            with_ends(rank.spearman),
            str(rank.kendall.n),
            str(rank.samples),
            rank.kendall.note,
        ]
        for rank in ranks
    ]
    head = ["", "Kendall's tau-b", "Spearman's rho", "systems", "samples", "note"]
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return TextTable(f"Rank correlation of {systems} systems", head, rows, frozenset({0, 5}))
