"""From the paths that a data set's rows name to the files that lie here.

Rows name pictures as they lay on their makers' machines: `images/x.png`, `KnowGen-Bench/images/x.png`, or an absolute
path. Of all files whose path ends in the same name, the one that agrees in most folders from the end is meant.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from knowgen.core.errors import DataError


class MissingImageError(DataError):
    """No file has the name that a row names."""


class Rebase:
    """Finds files by the longest suffix of the path that a row names.

    Args:
        files: Where each file lies, by the path it has among the data set's files (an archive's members lie in a
            folder of the archive's name). Hidden files and those that packers leave behind are passed over.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._by_name: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        for place in files:
            parts = _parts(place)
            if not any(part.startswith(".") or part == "__MACOSX" for part in parts):
                self._by_name[parts[-1]].append((parts, place))

    def find(self, named: str, where: str) -> str:
        """Returns the path, among the data set's files, of the file that a row means.

        Files that are equal byte for byte count as one.

        Args:
            named: The path as the row names it.
            where: The row, for errors.

        Raises:
            MissingImageError: There is no file of that name.
            DataError: Several different files fit equally well.
        """
        wanted = _parts(named)
        found = self._by_name.get(wanted[-1] if wanted else "", [])
        if not found:
            raise MissingImageError(
                f"the picture {named[:200]!r} is nowhere among the data set's files",
                where=where,
                fix="fetch the data set again, or complete it and name it with --data-dir",
            )
        agreed = [_agreement(wanted, parts) for parts, _ in found]
        best = sorted(place for count, (_, place) in zip(agreed, found, strict=True) if count == max(agreed))
        if len(best) > 1 and len({_digest(self._files[place]) for place in best}) > 1:
            raise DataError(
                f"the picture {named[:200]!r} may be {best[0]} or {best[1]}, which differ",
                where=where,
                fix="leave one of them in a local copy, and name that with --data-dir",
            )
        return best[0]


def _parts(path: str) -> tuple[str, ...]:
    """Splits a path of any system into its parts, in one spelling."""
    plain = unicodedata.normalize("NFC", path.strip().replace("\\", "/"))
    return tuple(part for part in PurePosixPath(plain).parts if part not in ("/", ".", ".."))


def _agreement(wanted: tuple[str, ...], parts: tuple[str, ...]) -> int:
    """Counts the parts that agree, from the end."""
    count = 0
    for mine, theirs in zip(reversed(wanted), reversed(parts), strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
