"""Check submissions of boards, and judge some of their images again where that is asked for."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from knowgen.core.errors import KnowgenError, UsageError
from knowgen.leaderboards.check import check_boards
from knowgen.leaderboards.checks.findings import CheckReport
from knowgen.leaderboards.checks.rejudged import Rejudged
from knowgen.leaderboards.folder import BOARD_FILE, Board, Submission, read_board
from knowgen.stats.compare.inflation import LEVEL
from knowgen.workflows.board_submission import scorer_defaults
from knowgen.workflows.rejudge import rejudge

SEEDS = 2**31
"""Number of seeds that one is chosen from."""


@dataclass(frozen=True)
class Rejudging:
    """How images are judged again.

    Attributes:
        number: Number of images of each submission.
        seed: Seed of the draw; None for one that nobody knew before.
        images: Folders with images.
        scorer_args: Further arguments of the scorer.
        budget: Maximum cost in US dollars for all submissions; None for no limit.
        level: Level of the test.
        out: Folder of the run directories; `reports` when None.
        workers: Worker processes of a scorer that measures; 0 for none.
        progress: Whether to show progress.
    """

    number: int
    seed: int | None = None
    images: tuple[Path, ...] = ()
    scorer_args: Mapping[str, Any] | None = None
    budget: float | None = None
    level: float = LEVEL
    out: Path | None = None
    workers: int | None = None
    progress: bool = False


@dataclass(frozen=True)
class BoardCheck:
    """The result of a check.

    Attributes:
        report: What was found, that of judging again included.
        rejudged: What judging again gave, for each submission.
    """

    report: CheckReport
    rejudged: tuple[Rejudged, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {**self.report.to_json(), "rejudged": [each.to_json() for each in self.rejudged]}


def check(
    root: Path, names: Sequence[str] = (), *, against: Path | None = None, rejudging: Rejudging | None = None
) -> BoardCheck:
    """Check submissions; arguments and errors as in `check_boards`.

    Args:
        root: Folder of boards.
        names: Boards, systems or revisions.
        against: An earlier state of `root`.
        rejudging: How to judge images again; None not to. Submissions with an error and withdrawn ones are left out.

    Raises:
        UsageError: No submission has images that could be judged again.
    """
    report = check_boards(root, names, against=against, scorer_defaults=scorer_defaults)
    if rejudging is None:
        return BoardCheck(report)
    chosen = [each for each in report.submissions if not each.errors and not each.withdrawn]
    if not chosen and report.ok and against is None:
        raise UsageError("no submission to judge again", where="--rejudge", fix="name one that is not withdrawn")
    seed = secrets.randbelow(SEEDS) if rejudging.seed is None else rejudging.seed
    done: list[Rejudged] = []
    for checked in chosen:
        slug, _, revision = checked.key.partition("/")
        board = read_board(root / checked.board)
        submission = Submission(board.path / slug / revision, board.name, slug, revision)
        try:
            result = _rejudge(board, submission, rejudging, seed, len(chosen))
        except KnowgenError as error:
            report = replace(
                report, notes=(*report.notes, f"{checked.board}/{checked.key} was not judged again: {error}")
            )
            report = replace(report, incomplete=True)
            continue
        done.append(result)
        place = f"{checked.board}/{checked.key}"
        findings = [each if "/" in each.where else each.inside(place) for each in result.findings()]
        report = report.with_findings(checked.board, checked.key, findings)
        report = replace(report, incomplete=report.incomplete or not result.complete)
    return BoardCheck(report, tuple(done))


def named_boards(root: Path, names: Sequence[str]) -> tuple[Path, tuple[str, ...]]:
    """Return the folder of boards, and the names in it, of names or paths of boards, systems and revisions.

    Args:
        root: The folder of boards that names are in.
        names: `BOARD[/SYSTEM[/REVISION]]` each, or the path of such a folder, or of a folder of boards.

    Raises:
        UsageError: Paths lead to different folders of boards.
    """
    found: dict[Path, list[str]] = {}
    for name in names:
        folder, own = root, name.strip("/")
        if not (root / own.split("/")[0] / BOARD_FILE).is_file():
            path = Path(name)
            board = next((each for each in (path, *path.parents[:2]) if (each / BOARD_FILE).is_file()), None)
            if board is not None:
                folder, own = board.parent, path.relative_to(board.parent).as_posix()
            elif any(path.glob(f"*/{BOARD_FILE}")):
                folder, own = path, ""
        found.setdefault(folder, []).append(own)
    if len(found) > 1:
        folders = " and ".join(str(folder) for folder in found)
        raise UsageError(f"boards of {folders}", where="board check", fix="check one folder of boards at a time")
    return next(((folder, () if "" in own else tuple(own)) for folder, own in found.items()), (root, ()))


def _rejudge(board: Board, submission: Submission, how: Rejudging, seed: int, submissions: int) -> Rejudged:
    folder = how.out or Path("reports")
    return rejudge(
        board,
        submission,
        how.number,
        seed=seed,
        images=how.images,
        scorer_args=how.scorer_args,
        budget=None if how.budget is None else how.budget / submissions,
        level=how.level,
        out=folder / f"rejudge__{board.name}__{submission.slug}__{submission.revision}__{seed}",
        workers=how.workers,
        progress=how.progress,
    )
