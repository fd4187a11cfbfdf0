"""Locate the files that the rows of a data set refer to.

Rows contain image paths as recorded on the publisher's machine: `images/x.png`, `KnowGen-Bench/images/x.png`, or an
absolute path. `FileIndex.find` returns the file that shares the longest suffix of the recorded path.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from knowgen.core.errors import DataError


class MissingImageError(DataError):
    """No file has the file name of a recorded path."""


class FileIndex:
    """Find files by the longest suffix of a recorded path.

    Args:
        files: Local path of each file, by its path in the data set. Members of an archive are in a folder named after
            the archive. Hidden files and `__MACOSX` folders are ignored.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._by_name: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        for place in files:
            parts = _parts(place)
            if not any(part.startswith(".") or part == "__MACOSX" for part in parts):
                self._by_name[parts[-1]].append((parts, place))

    def find(self, named: str, where: str) -> str:
        """Return the path, within the data set, of the file that a row refers to.

        Files with identical content count as one.

        Args:
            named: Path as recorded in the row.
            where: The row, for error messages.

        Raises:
            MissingImageError: No file has this name.
            DataError: Several different files match equally well.
        """
        recorded = _parts(named)
        candidates = self._by_name.get(recorded[-1] if recorded else "", [])
        if not candidates:
            raise MissingImageError(
                f"the image {named[:200]!r} is not among the data set's files",
                where=where,
                fix="fetch the data set again, or give a complete copy with --data-dir",
            )
        lengths = [_common_suffix(recorded, parts) for parts, _ in candidates]
        best = sorted(place for n, (_, place) in zip(lengths, candidates, strict=True) if n == max(lengths))
        if len(best) > 1 and len({_digest(self._files[place]) for place in best}) > 1:
            raise DataError(
                f"the image {named[:200]!r} may be {best[0]} or {best[1]}, which differ",
                where=where,
                fix="remove one of them from a local copy, and give that with --data-dir",
            )
        return best[0]


def _parts(path: str) -> tuple[str, ...]:
    """Split a path of any operating system into its parts, Unicode-normalized (NFC)."""
    plain = unicodedata.normalize("NFC", path.strip().replace("\\", "/"))
    return tuple(part for part in PurePosixPath(plain).parts if part not in ("/", ".", ".."))


def _common_suffix(recorded: tuple[str, ...], parts: tuple[str, ...]) -> int:
    """Return the number of equal trailing parts."""
    count = 0
    for mine, theirs in zip(reversed(recorded), reversed(parts), strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
