"""The files of a submission: only known ones, no links, nothing that leads out of the folder."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from knowgen.core.text import one_line
from knowgen.leaderboards.checks.findings import BoardFinding, error
from knowgen.leaderboards.folder import IMAGES, REPLIES_FILE, RESULT_FILE, SYSTEM_FILE, WITHDRAWN_FILE, Submission
from knowgen.leaderboards.records import HEX64, SLUG

FILES = (SYSTEM_FILE, RESULT_FILE, REPLIES_FILE, WITHDRAWN_FILE)
"""Files that a revision may have, besides the folder of images."""

IMAGE_NAME = re.compile(rf"({HEX64})\.(jpg|png|webp)")
"""Name of a file in the folder of images: its SHA-256 hex digest and its format."""

MAX_BYTES = {RESULT_FILE: 64 << 20, REPLIES_FILE: 512 << 20, SYSTEM_FILE: 256 << 10, WITHDRAWN_FILE: 64 << 10}
"""Maximum size of a file in bytes."""

_NAME_FIX = "use lower-case letters, digits, `.`, `_` and `-`, and begin with a letter or digit"
_LINK_FIX = "put the file itself there: links are not followed"


@dataclass(frozen=True)
class Folders:
    """The folders of a board: its submissions, and what is wrong with the rest.

    Attributes:
        submissions: Submissions whose folders can be entered, by system and revision.
        findings: What is wrong with other entries of the board, by folder of the system.
    """

    submissions: tuple[Submission, ...]
    findings: tuple[BoardFinding, ...]


def find_submissions(board: Path) -> Folders:
    """Return the submissions of a board's folder. Links are not followed, and nothing is read."""
    submissions: list[Submission] = []
    findings: list[BoardFinding] = []
    for system in sorted(board.iterdir()):
        if system.is_symlink():
            findings.append(linked(system.name))
            continue
        if not system.is_dir():
            continue
        if not re.fullmatch(SLUG, system.name):
            findings.append(_misnamed(system.name, system.name))
            continue
        for revision in sorted(system.iterdir()):
            where = f"{system.name}/{_shown(revision.name)}"
            if revision.is_symlink():
                findings.append(linked(where))
            elif not revision.is_dir():
                findings.append(error("files", where, "is not the folder of a revision", "remove it"))
            elif not re.fullmatch(SLUG, revision.name):
                findings.append(_misnamed(where, revision.name))
            else:
                submissions.append(Submission(revision, board.name, system.name, revision.name))
    return Folders(tuple(submissions), tuple(findings))


def linked(where: str) -> BoardFinding:
    """Return the finding for a link, which is not followed."""
    return error("files", _shown(where), "is a symbolic link", _LINK_FIX)


def _shown(name: str) -> str:
    """Return the name of a file as one line; bytes of it that are no UTF-8 as `\\xff`."""
    return one_line(os.fsencode(name).decode(errors="backslashreplace"), 160)


def _misnamed(where: str, name: str) -> BoardFinding:
    return error("files", _shown(where), f"the name {_shown(name)!r} is not allowed", _NAME_FIX)


def check_files(folder: Path) -> Iterator[BoardFinding]:
    """Yield what is wrong with the entries of a revision's folder."""
    for path in sorted(folder.iterdir()):
        name = _shown(path.name)
        kind = path.lstat().st_mode
        if stat.S_ISLNK(kind):
            yield linked(name)
        elif path.name == IMAGES and stat.S_ISDIR(kind):
            yield from _check_image_names(path)
        elif path.name not in FILES:
            known = ", ".join((*FILES, f"{IMAGES}/"))
            yield error("files", name, "is not a file of a submission", f"remove it; known are {known}")
        elif not stat.S_ISREG(kind):
            yield error("files", name, "is not a regular file", "replace it by a file")
        elif path.stat().st_size > MAX_BYTES[path.name]:
            yield error(
                "files", name, f"has more than {MAX_BYTES[path.name] >> 10} KiB", "write it with `knowgen board add`"
            )


def _check_image_names(folder: Path) -> Iterator[BoardFinding]:
    for path in sorted(folder.iterdir()):
        where = f"{IMAGES}/{_shown(path.name)}"
        kind = path.lstat().st_mode
        if stat.S_ISLNK(kind):
            yield linked(where)
        elif not stat.S_ISREG(kind):
            yield error("files", where, "is not a regular file", "remove it")
        elif not IMAGE_NAME.fullmatch(path.name):
            fix = "name it by the SHA-256 digest of its content, with .jpg, .png or .webp"
            yield error("files", where, "is not named by a digest", fix)


def is_safe(folder: Path, name: str) -> bool:
    """Return whether a file of a folder is a regular file, and not a link."""
    path = folder / name
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
