"""What is on a board stays as it is: revisions are only added, and withdrawn by a file of their own.

Only the reveal of a private season adds to revisions: texts, images and hashes that were withheld.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from knowgen.core.errors import DataError
from knowgen.core.text import count, one_line
from knowgen.leaderboards.checks.content import named
from knowgen.leaderboards.checks.files import linked
from knowgen.leaderboards.checks.findings import BoardFinding, error, warning
from knowgen.leaderboards.checks.season_steps import late_revisions, season_step
from knowgen.leaderboards.folder import BOARD_FILE, WITHDRAWN_FILE

_RESTORE = "restore it, and submit changes as a new revision"


@dataclass(frozen=True)
class Changes:
    """How a folder of boards differs from an earlier state of it.

    Attributes:
        revisions: `board/system/revision` of every revision that is new or has another file, sorted.
        findings: Changes that are not allowed.
        notes: What could not be compared, and why.
    """

    revisions: tuple[str, ...]
    findings: tuple[BoardFinding, ...]
    notes: tuple[str, ...] = ()


def changes(root: Path, earlier: Path) -> Changes:
    """Compare a folder of boards with an earlier state of it, such as the branch that a pull request is for.

    Args:
        root: The folder of boards.
        earlier: Its earlier state, or a checkout that has it.

    Raises:
        DataError: The earlier state is not a folder.
    """
    if not earlier.is_dir():
        raise DataError("is not a folder", where=str(earlier), fix="name the folder of boards of the earlier state")
    if not _has_board(earlier) and _has_board(earlier / root.name):
        earlier = earlier / root.name
    notes: tuple[str, ...] = () if _has_board(earlier) else (f"{earlier} has no board: everything is new",)
    before, now = _digests(earlier), _digests(root)
    changed = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    revisions = sorted({_revision(name) for name in changed} - {""})
    findings: list[BoardFinding] = [linked(root.name)] if root.is_symlink() else []
    known = {_revision(name) for name in before}
    boards = sorted(name.split("/")[0] for name in before if _is_of_board(name) and name.endswith(f"/{BOARD_FILE}"))
    for board in boards:
        step = season_step(board, root, earlier, changed)
        changed -= step.files
        notes += step.notes
        findings += step.findings
        new = [each for each in revisions if each.split("/")[0] == board and each not in known]
        findings += late_revisions(board, earlier, new)
    for revision in sorted({_revision(name) for name in changed} & known - {""}):
        findings += _revision_changes(revision, before, now, changed)
    files = sorted(name for name in changed if _is_of_board(name) and name.split("/")[0] in boards)
    if files and any(_revision(name) for name in changed):
        what = f"{count(len(files), 'file')} of the board changed together with submissions: {named(files)}"
        findings.append(error("unchanged", root.name, what, "change a board in a pull request of its own"))
    elif files:
        what = f"{count(len(files), 'file')} of the board changed: {named(files)}"
        findings.append(warning("unchanged", root.name, what, "all submissions of the board are judged by them"))
    if boards:
        findings += _new_boards(before, now)
    return Changes(tuple(revisions), tuple(findings), notes)


def _new_boards(before: dict[str, str], now: dict[str, str]) -> Iterator[BoardFinding]:
    for name in sorted(now.keys() - before.keys()):
        if _is_of_board(name) and name.endswith(f"/{BOARD_FILE}"):
            fix = "its own files say by which rules its submissions are checked: read them"
            yield warning("unchanged", one_line(name), "is a new board", fix)


def _has_board(root: Path) -> bool:
    return any(root.glob(f"*/{BOARD_FILE}"))


def _revision_changes(
    revision: str, before: dict[str, str], now: dict[str, str], changed: set[str]
) -> Iterator[BoardFinding]:
    names = sorted(name for name in changed if _revision(name) == revision)
    if not any(_revision(name) == revision for name in now):
        yield error("unchanged", revision, "the revision was deleted", "restore it, and withdraw it instead")
        return
    for name in names:
        where = one_line(name)
        if name not in now:
            yield error("unchanged", where, "was deleted", _RESTORE)
        elif name not in before and name != f"{revision}/{WITHDRAWN_FILE}":
            yield error("unchanged", where, "was added to a revision that is on the board", _RESTORE)
        elif name in before:
            yield error("unchanged", where, "was changed", _RESTORE)


def _revision(name: str) -> str:
    """Return `board/system/revision` of a file; empty where it is in none."""
    parts = name.split("/")
    return "/".join(parts[:3]) if len(parts) > 3 else ""


def _is_of_board(name: str) -> bool:
    return name.count("/") == 1


def _digests(root: Path) -> dict[str, str]:
    """Return the digest of every file below a folder, by its path; a link is its own target, and not followed."""
    found = {}
    for folder, folders, names in os.walk(root):
        for name in (*names, *(each for each in folders if Path(folder, each).is_symlink())):
            path = Path(folder, name)
            found[path.relative_to(root).as_posix()] = _digest(path)
    return found


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if not path.is_file():
        return "no regular file"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
