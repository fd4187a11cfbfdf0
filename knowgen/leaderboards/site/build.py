"""Build the site of boards: the same files give the same bytes, on any machine and in any order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from knowgen.core.errors import DataError, UsageError
from knowgen.core.steps import counted
from knowgen.leaderboards.exports import ExportFile, write_exports
from knowgen.leaderboards.figures import BoardFigures, board_figures, board_protocol
from knowgen.leaderboards.folder import BOARD_FILE, Board, Submission, read_board, read_boards
from knowgen.leaderboards.records import SLUG, SubmissionResult
from knowgen.leaderboards.samples import result_outcomes
from knowgen.leaderboards.site import data
from knowgen.leaderboards.site.failures import missing_scores
from knowgen.leaderboards.site.folder import MARKER, check_replaceable, site_draft
from knowgen.leaderboards.site.pages import SitePages
from knowgen.leaderboards.site.view import (
    OtherRevision,
    SampleValue,
    SiteBoard,
    SiteSystem,
    SubmissionFacts,
    board_has_samples,
    rerun_commands,
)
from knowgen.report.view import SystemMarker, marks

REPORT_STATIC = ("theme.js", "address.js", "elements.js", "report.css", "icon.svg")
"""Scripts and style sheets that the site shares with the report."""

STATIC = ("site.css", "site.js", "tables.js", "ranking.js", "list.js", "compare.js", "sample.js")

STATIC_FOLDER, IMAGES_FOLDER, DATA_FOLDER, EXPORT_FOLDER = "static", "img", "data", "export"

RESERVED = frozenset({STATIC_FOLDER, IMAGES_FOLDER, MARKER, "index.html"})
"""Names in the folder of a site that no board can have."""


def build_site(boards: Sequence[Board], out: Path, *, processes: int = 1) -> Path:
    """Build the site of some boards.

    An earlier site is replaced when the new one is complete; any other folder is left as it is.

    Args:
        boards: The boards.
        out: Folder to write.
        processes: Number of processes that read submissions; the pages do not depend on it.

    Returns:
        Path of `index.html`.

    Raises:
        ConfigError: `out` is a file, or a folder with other content.
        DataError: A file of a board is missing or not valid, or the folder cannot be written.
    """
    ordered = sorted(boards, key=lambda board: board.name)
    for board in ordered:
        if not re.fullmatch(SLUG, board.name) or board.name in RESERVED:
            fix = "use another name of lower-case letters, digits, `.`, `_` and `-`"
            raise DataError(f"a board cannot have the name {board.name!r} on a site", where=str(board.path), fix=fix)
    check_replaceable(out)  # before the boards are read
    with site_draft(out) as fresh:
        _add_static(fresh / STATIC_FOLDER)
        (fresh / IMAGES_FOLDER).mkdir()
        content = [_content(board, fresh, processes) for board in ordered]
        markers = _markers(content)
        shown = [_site_board(figures, facts, markers) for figures, facts in content]
        pages = SitePages(shown)
        (fresh / "index.html").write_text(pages.front(), encoding="utf-8", newline="\n")
        for site_board in counted(shown, "writing boards"):
            _write_board(site_board, pages, fresh / site_board.name)
    return out / "index.html"


_Facts = Mapping[str, SubmissionFacts]
"""Facts of the current submissions of a board, by the name of the system's folder."""


def _add_static(folder: Path) -> None:
    folder.mkdir()
    for package, names in (("knowgen.report", REPORT_STATIC), ("knowgen.leaderboards.site", STATIC)):
        source = files(package).joinpath("static")
        for name in names:
            (folder / name).write_bytes(source.joinpath(name).read_bytes())


def _content(board: Board, fresh: Path, processes: int) -> tuple[BoardFigures, _Facts]:
    """Compute the figures of a board and write the data of its systems, one after another to bound the memory."""
    figures = board_figures(board, processes=processes)
    folder = fresh / board.name / DATA_FOLDER
    folder.parent.mkdir()
    if figures.systems or board_has_samples(board):
        folder.mkdir()
    facts = {}
    for system in counted(figures.systems, f"writing systems of {board.name}"):
        submission = system.submission
        result = submission.read_result()
        facts[submission.slug] = _facts(board, submission, result, folder, fresh / IMAGES_FOLDER)
    return figures, facts


def _facts(
    board: Board, submission: Submission, result: SubmissionResult, folder: Path, images: Path
) -> SubmissionFacts:
    """Write the data of a system, and return what its pages need besides its figures."""
    protocol = board_protocol(board)
    outcomes = result_outcomes(result, board, protocol)
    data.write_system_data(folder, images, board, submission, result, outcomes)
    troubled = [one.sample for one in outcomes if one.missing]
    return SubmissionFacts(
        created=result.created,
        system=result.spec.system,
        knowgen=result.knowgen,
        machine=result.machine,
        seconds=result.seconds,
        cost=result.cost.model_dump(),
        judges=result.judges,
        scorer=f"{result.scorer.name} {result.scorer.version}".strip(),
        rerun=rerun_commands(board, submission, result),
        failures=missing_scores(result, board, protocol, troubled),
        values=tuple(SampleValue.of(one, board) for one in outcomes),
        images=sum(len(one.images) for one in outcomes),
    )


def _markers(content: Iterable[tuple[BoardFigures, _Facts]]) -> dict[str, SystemMarker]:
    """Return the marker of each system: the same on all boards, and kept when later systems are added."""
    first: dict[str, tuple[str, str]] = {}
    for _, facts in content:
        for slug, one in facts.items():
            first[slug] = min(first.get(slug, (one.created, one.system)), (one.created, one.system))
    order = sorted(first)
    markers = marks([first[slug][1] for slug in order], [first[slug][0] for slug in order])
    return dict(zip(order, markers, strict=True))


def _site_board(figures: BoardFigures, facts: _Facts, markers: Mapping[str, SystemMarker]) -> SiteBoard:
    board = figures.board
    shown = {one.submission.slug: one.submission for one in figures.systems}
    others: dict[str, list[OtherRevision]] = {}
    for submission in board.submissions():
        if shown.get(submission.slug) != submission:
            other = _other(submission, board, shown.get(submission.slug))
            others.setdefault(submission.slug, []).append(other)
    for revisions in others.values():
        revisions.sort(key=lambda one: (one.created, one.submission.revision), reverse=True)
    names = [one.submission.system.name for one in figures.systems]
    systems = tuple(
        SiteSystem(
            index=index,
            label=name if names.count(name) == 1 else f"{name} · {one.submission.slug}",
            mark=markers[one.submission.slug],
            figures=one,
            facts=facts[one.submission.slug],
            others=tuple(others.get(one.submission.slug, ())),
        )
        for index, (one, name) in enumerate(zip(figures.systems, names, strict=True))
    )
    alone = [one for slug in sorted(others) if slug not in shown for one in others[slug]]
    return SiteBoard(figures, systems, tuple(alone))


def _other(submission: Submission, board: Board, successor: Submission | None) -> OtherRevision:
    result: SubmissionResult = submission.read_result()
    if submission.withdrawal is not None:
        reason = f"{submission.withdrawal.date}: {submission.withdrawal.reason}"
    elif board.file.task.version not in (None, submission.stated.task_version):
        reason = f"made with another version of the task: {submission.stated.task_version}"
    else:
        assert successor is not None  # the latest revision of the board's version is the current one
        reason = f"replaced by revision {successor.revision}"
    return OtherRevision(submission, result.created, result.claimed.get(board.file.ranking), reason)


def _write_board(board: SiteBoard, pages: SitePages, folder: Path) -> None:
    written = {}
    exports: tuple[ExportFile, ...] = ()
    if board.samples:
        data.write_board_data(folder / DATA_FOLDER, board)
        exports = write_exports(board.figures, folder / EXPORT_FOLDER)
        written = {"compare.html": pages.compare(board), "sample.html": pages.sample(board)}
    written["index.html"] = pages.board(board, [(f"{EXPORT_FOLDER}/{one.path}", one) for one in exports])
    for name, page in written.items():
        (folder / name).write_text(page, encoding="utf-8", newline="\n")
    for system in board.systems:
        (folder / system.page).write_text(pages.system(board, system), encoding="utf-8", newline="\n")
    for part in board.parts:
        (folder / part.page).write_text(pages.part(board, part), encoding="utf-8", newline="\n")


def chosen_boards(root: Path, names: Sequence[str]) -> list[Board]:
    """Return the boards with the given names in a folder of boards; all of them without any name.

    Raises:
        DataError: The folder has no board, or one of those wanted is not valid.
        UsageError: A board is unknown.
    """
    if not names:
        return list(read_boards(root))
    known = sorted(path.parent.name for path in root.glob(f"*/{BOARD_FILE}"))
    for name in names:
        if name not in known:
            fix = f"the boards are {', '.join(known)}" if known else "name the folder of the boards with --root"
            raise UsageError(f"the board {name!r} is unknown", where=str(root), fix=fix)
    return [read_board(root / name) for name in dict.fromkeys(names)]
