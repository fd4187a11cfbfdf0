"""The result of a check as Markdown, for a comment on a pull request.

Every text from a submission is shown as code: a code span holds neither link nor image, mention or HTML.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from knowgen.core.errors import KnowgenError
from knowgen.core.text import count, one_line
from knowgen.leaderboards.checks.arithmetic import recompute
from knowgen.leaderboards.checks.content import created_at
from knowgen.leaderboards.checks.files import find_submissions, is_safe
from knowgen.leaderboards.checks.findings import BoardFinding, CheckedSubmission, CheckReport
from knowgen.leaderboards.figures import BoardFigures, PairDifference, board_figures
from knowgen.leaderboards.folder import RESULT_FILE, SYSTEM_FILE, Board, Submission, read_board
from knowgen.leaderboards.rows import rows_of
from knowgen.report.numbers import NONE, interval, number
from knowgen.stats.compare.systems import compare
from knowgen.stats.summary import OVERALL

MOST_FINDINGS = 20
"""Number of findings of one submission that are shown."""

_CELL = 60
_LINE = 600
_SAFE = str.maketrans({"`": "'", "|": "\u00a6"})
"""Characters that end a code span or a cell of a table, and what is shown for them."""


def code(text: object, limit: int = _CELL) -> str:
    r"""Return a text as a code span that is inert in every place of a Markdown file.

    Example:
        >>> print(code("<img src=x> @all `a|b`"))
        `<img src=x> @all 'a¦b'`
    """
    return f"`{one_line(text, limit).translate(_SAFE) or ' '}`"


def comment(report: CheckReport, root: Path, rejudged: Sequence[str] = ()) -> str:
    """Return the Markdown of a check: what is wrong, and where new submissions stand on their board.

    Args:
        report: The result of the check.
        root: Folder of the boards.
        rejudged: Lines on images that were judged again.
    """
    lines = ["## Leaderboard check", "", f"**{_verdict(report)}** {report.closing_line()}.", ""]
    for board in dict.fromkeys(each.board for each in report.submissions):
        checked = [each for each in report.submissions if each.board == board]
        lines += [f"### Board {code(board)}", ""]
        lines += [*_Standing(root / board, checked).lines(), ""]
    for title, findings in _with_findings(report):
        lines += [f"#### {title}", "", *_finding_lines(findings), ""]
    notes = [*rejudged, *report.notes]
    if notes:
        lines += ["#### Notes", "", *(f"- {code(note, _LINE)}" for note in notes), ""]
    return "\n".join(lines).rstrip() + "\n"


def _verdict(report: CheckReport) -> str:
    if not report.ok:
        return "Not accepted."
    return "Not checked in full." if report.incomplete else "No error."


def _with_findings(report: CheckReport) -> Iterator[tuple[str, Sequence[BoardFinding]]]:
    if report.findings:
        yield "Boards", report.findings
    for checked in report.submissions:
        if checked.findings:
            errors, warnings = len(checked.errors), len(checked.warnings)
            name = code(f"{checked.board}/{checked.key}")
            yield f"{name}: {count(errors, 'error')}, {count(warnings, 'warning')}", checked.findings


def _finding_lines(findings: Sequence[BoardFinding]) -> list[str]:
    order = sorted(findings, key=lambda each: each.level)
    lines = [f"- {each.level} {code(each.text, _LINE)}" for each in order[:MOST_FINDINGS]]
    if rest := len(findings) - MOST_FINDINGS:
        lines += [f"- and {rest} more, see `knowgen board check`"] if rest > 0 else []
    return lines


@dataclass(frozen=True)
class _ValidBoard(Board):
    """A board without the submissions that cannot be read."""

    kept: tuple[Submission, ...] = field(default=())

    def submissions(self) -> Iterator[Submission]:
        """Yield the submissions that are kept."""
        return iter(self.kept)


class _Standing:
    """The table of the checked submissions of a board, with the figures that their scores give."""

    def __init__(self, path: Path, checked: Sequence[CheckedSubmission]) -> None:
        self.path, self.checked = path, checked
        self.submissions = {each.key: each for each in find_submissions(path).submissions}

    def lines(self) -> list[str]:
        """Return the lines of the table; the reason where there can be none."""
        try:
            board = read_board(self.path)
            wrong = {each.key for each in self.checked if each.errors}
            kept = [each for key, each in self.submissions.items() if key not in wrong and _readable(each)]
            valid = _ValidBoard(board.path, board.file, tuple(kept))
            figures = board_figures(valid)
        except KnowgenError as fault:
            return [f"No figures: {code(fault, _LINE)}"]
        ranking = "K-Score" if board.file.ranking == OVERALL else code(board.file.ranking)
        heads = (
            "system", "revision", ranking, "95 % interval", "rank", "to the one above", "to the one below",
            "to its earlier revision", "errors", "warnings",
        )  # fmt: skip
        rows = [self._row(each, valid, figures) for each in self.checked]
        ranked = sum(system.rank is not None for system in figures.systems)
        return [
            _line(heads),
            _line(["---"] * len(heads)),
            *map(_line, rows),
            "",
            f"Ranks are ranges among {count(ranked, 'system')}: systems whose ranges overlap do not differ for "
            "certain. Differences are paired, with their 95 % interval.",
        ]

    def _row(self, checked: CheckedSubmission, board: _ValidBoard, figures: BoardFigures) -> list[str]:
        slug, _, revision = checked.key.partition("/")
        ends = [str(len(checked.errors)), str(len(checked.warnings))]
        start = [code(slug), code(revision)]
        if checked.withdrawn:
            return [*start, NONE, NONE, "withdrawn", NONE, NONE, NONE, *ends]
        if checked.errors:
            return [*start, NONE, NONE, NONE, NONE, NONE, NONE, *ends]
        submission = self.submissions[checked.key]
        figure = recompute(submission.read_result(), board).slice().figures[board.file.ranking]
        place = next(
            (number for number, each in enumerate(figures.systems) if each.submission.key == checked.key), None
        )
        earlier = _to_earlier(submission, board)
        if place is None:
            return [*start, number(figure.value), interval(figure), "not its current one", NONE, NONE, earlier, *ends]
        rank = figures.systems[place].rank
        words = NONE if rank is None else str(rank.best) if rank.best == rank.worst else f"{rank.best}–{rank.worst}"
        beside = [_to_neighbour(figures, place, place + step) for step in (-1, 1)]
        return [*start, number(figure.value), interval(figure), words, *beside, earlier, *ends]


def _readable(submission: Submission) -> bool:
    """Return whether a submission can be part of the figures; the check says what is wrong with one that cannot."""
    if not all(is_safe(submission.path, name) for name in (SYSTEM_FILE, RESULT_FILE)):
        return False
    try:
        if submission.withdrawal is None:
            _ = submission.system, submission.read_result()
    except KnowgenError:
        return False
    return submission.withdrawal is None


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _to_neighbour(figures: BoardFigures, own: int, other: int) -> str:
    """Return the difference of a system to the one beside it, with the name of that."""
    if not 0 <= other < len(figures.systems):
        return NONE
    slugs = [figures.systems[place].submission.slug for place in (own, other)]
    pairs: Mapping[tuple[str, str], PairDifference] = figures.pairs
    pair = pairs.get((slugs[1], slugs[0]))
    sign = 1
    if pair is None:
        pair, sign = pairs.get((slugs[0], slugs[1])), -1
    if pair is None or pair.value is None:
        return NONE
    low, high = pair.low, pair.high
    if low is not None and high is not None and sign < 0:
        low, high = -high, -low
    return f"{_signed(sign * pair.value, low, high)} {code(slugs[1])}"


def _to_earlier(submission: Submission, board: _ValidBoard) -> str:
    own = submission.read_result()
    created = created_at(own.created)
    before = [
        (at, each.revision, result)
        for each in board.kept
        if each.slug == submission.slug and each.key != submission.key
        for result in (each.read_result(),)
        for at in (created_at(result.created),)
        if at is not None and created is not None and (at, each.revision) < (created, submission.revision)
    ]
    if not before:
        return NONE
    _, revision, result = max(before, key=lambda each: each[:2])
    figure = (
        compare(
            rows_of(result, board.samples),
            rows_of(own, board.samples),
            board.file.protocol,
            dimensions=board.file.scorer.dimensions,
            permutations=0,
        )
        .slices[0]
        .figures[board.file.ranking]
    )
    return NONE if figure.value is None else f"{_signed(figure.value, figure.low, figure.high)} {code(revision)}"


def _signed(value: float, low: float | None, high: float | None) -> str:
    ends = f" ({number(low, signed=True)} to {number(high, signed=True)})" if low is not None else ""
    return f"{number(value, signed=True)}{ends}"
