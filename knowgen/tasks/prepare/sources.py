"""The files of a data set before it is prepared: those of a commit on the hub, or those of a folder on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from knowgen.core.errors import DataError
from knowgen.tasks.catalog import PublishedDataSet
from knowgen.tasks.prepare.archives import is_archive
from knowgen.tasks.prepare.hub import Commit, download

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


@dataclass(frozen=True)
class SourceFiles:
    """The files a data set is prepared from.

    Attributes:
        file: Path of the rows' file among the data set's files.
        files: Where each file lies, by its path among them: the rows, archives, and pictures that lie unpacked.
        revision: As asked for; empty for a folder.
        commit: 40 hex digits; empty for a folder.
        folder: The folder it was read from; empty for the hub.
    """

    file: str
    files: Mapping[str, Path]
    revision: str = ""
    commit: str = ""
    folder: str = ""

    @property
    def archives(self) -> dict[str, Path]:
        """The archives among the files."""
        return {name: path for name, path in self.files.items() if is_archive(name)}

    @property
    def loose(self) -> dict[str, Path]:
        """The files that are neither the rows nor archives."""
        return {name: path for name, path in self.files.items() if name != self.file and not is_archive(name)}


def from_hub(data: PublishedDataSet, commit: Commit, revision: str, told: Callable[[str], None]) -> SourceFiles:
    """Downloads what is needed of a commit: the rows' file, archives and pictures.

    Raises:
        DataError: The rows' file is not there, or something cannot be fetched.
    """
    where = f"{commit.repo} at {commit.sha[:12]}"
    file = _rows_file(data, commit.files, where)
    needed = [name for name in commit.files if _is_needed(name)]
    return SourceFiles(file, download(commit, [file, *needed], told), revision=revision, commit=commit.sha)


def from_folder(data: PublishedDataSet, folder: Path) -> SourceFiles:
    """Looks through a folder that holds the rows' file and archives, or pictures that are unpacked already.

    Raises:
        DataError: There is no such folder, or no rows' file in it.
    """
    if not folder.is_dir():
        raise DataError("is no folder", where=str(folder), fix=f"name the folder that holds {data.file}")
    files = {name: path for path in sorted(folder.rglob("*")) if (name := _visible(path, folder)) and path.is_file()}
    file = _rows_file(data, tuple(files), str(folder))
    wanted = {name: path for name, path in files.items() if name == file or _is_needed(name)}
    return SourceFiles(file, wanted, folder=str(folder.resolve()))


def _is_needed(name: str) -> bool:
    return is_archive(name) or name.lower().endswith(PICTURE_ENDINGS)


def _visible(path: Path, folder: Path) -> str:
    """Returns a file's path in a folder, empty for one that is hidden or lies in a hidden folder."""
    relative = path.relative_to(folder)
    return "" if any(part.startswith(".") for part in relative.parts) else relative.as_posix()


def _rows_file(data: PublishedDataSet, files: tuple[str, ...], where: str) -> str:
    """Returns the path of the rows' file, which may lie in a subfolder if it is the only one of its name."""
    if data.file in files:
        return data.file
    found = [name for name in files if PurePosixPath(name).name == data.file]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"holds {data.file} more than once: {', '.join(found[:4])}", where=where)
    tables = [name for name in files if name.lower().endswith((".json", ".jsonl", ".parquet"))]
    there = f"; there are {', '.join(tables[:6])}" if tables else ""
    raise DataError(f"holds no {data.file}{there}", where=where, fix="name another --revision or --data-dir")
