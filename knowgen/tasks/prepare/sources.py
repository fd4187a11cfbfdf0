"""The published files of a data set: those of a commit on the hub, or of a local folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from knowgen.core.errors import DataError
from knowgen.tasks.catalog import PublishedDataSet
from knowgen.tasks.prepare.archives import is_archive
from knowgen.tasks.prepare.hub import Commit, download

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


@dataclass(frozen=True)
class SourceFiles:
    """The files a data set is prepared from.

    Attributes:
        file: Path of the rows' file in the data set.
        files: Local path of each file, by its path in the data set: the rows, archives and unpacked images.
        revision: Requested revision; empty for a local folder.
        commit: Commit hash, 40 hex digits; empty for a local folder.
        folder: Local folder; empty for the hub.
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
        """The unpacked images: all files but the rows and the archives."""
        return {name: path for name, path in self.files.items() if name != self.file and not is_archive(name)}


def from_hub(data: PublishedDataSet, commit: Commit, revision: str, on_progress: Callable[[str], None]) -> SourceFiles:
    """Download the files of a commit that are needed: the rows' file, archives and images.

    Raises:
        DataError: The rows' file does not exist, or a file cannot be fetched.
    """
    where = f"{commit.repo} at {commit.sha[:12]}"
    file = _rows_file(data, commit.files, where)
    needed = [name for name in commit.files if _is_needed(name)]
    return SourceFiles(file, download(commit, [file, *needed], on_progress), revision=revision, commit=commit.sha)


def from_folder(data: PublishedDataSet, folder: Path) -> SourceFiles:
    """Return the files of a local folder with the rows' file and archives or unpacked images.

    Raises:
        DataError: The folder or the rows' file does not exist.
    """
    if not folder.is_dir():
        raise DataError("not a folder", where=str(folder), fix=f"give the folder that contains {data.file}")
    files = {name: path for path in sorted(folder.rglob("*")) if (name := _visible(path, folder)) and path.is_file()}
    file = _rows_file(data, tuple(files), str(folder))
    needed = {name: path for name, path in files.items() if name == file or _is_needed(name)}
    return SourceFiles(file, needed, folder=str(folder.resolve()))


def _is_needed(name: str) -> bool:
    return is_archive(name) or name.lower().endswith(IMAGE_ENDINGS)


def _visible(path: Path, folder: Path) -> str:
    """Return a file's path relative to a folder; empty if it or one of its parent folders is hidden."""
    relative = path.relative_to(folder)
    return "" if any(part.startswith(".") for part in relative.parts) else relative.as_posix()


def _rows_file(data: PublishedDataSet, files: tuple[str, ...], where: str) -> str:
    """Return the path of the rows' file. It may be in a subfolder if no other file has its name."""
    if data.file in files:
        return data.file
    matches = [name for name in files if PurePosixPath(name).name == data.file]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise DataError(f"contains {data.file} more than once: {', '.join(matches[:4])}", where=where)
    tables = [name for name in files if name.lower().endswith((".json", ".jsonl", ".parquet"))]
    there = f"; it contains {', '.join(tables[:6])}" if tables else ""
    raise DataError(f"does not contain {data.file}{there}", where=where, fix="give another --revision or --data-dir")
