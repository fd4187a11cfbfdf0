"""Build a prepared data set in a draft folder: unpack, locate and decode every image, write the rows."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.images import inspect_images
from knowgen.core.records import ImageRef
from knowgen.core.steps import counted
from knowgen.core.version import __version__
from knowgen.tasks.catalog import DataSetKind, PublishedDataSet
from knowgen.tasks.data_home import INDEX_FILE, INDEX_FORMAT, write_json
from knowgen.tasks.prepare.archives import ArchiveLimits, UnpackedTotals, stem, unpack
from knowgen.tasks.prepare.locate import FileIndex, MissingImageError
from knowgen.tasks.prepare.published import read_rows
from knowgen.tasks.prepare.rows import PreparedRow, check_rows, write_rows
from knowgen.tasks.prepare.sources import SourceFiles

IMAGE_FOLDER = "pictures"
_UNPACKED = "unpacked"


def build(
    draft: Path,
    data: PublishedDataSet,
    source: SourceFiles,
    on_progress: Callable[[str], None],
    limits: ArchiveLimits,
) -> dict[str, Any]:
    """Fill a draft folder with a prepared data set and its index.

    Args:
        draft: An empty folder.
        data: Data set to prepare.
        source: Its published files.
        on_progress: Called with a line of text at each step.
        limits: Limits for the archives.

    Returns:
        The index, as written to `index.json`.

    Raises:
        DataError: A row, an archive or an image cannot be used.
    """
    rows = read_rows(source.files[source.file], source.file)
    entries, left_out = check_rows(data.kind, rows)
    files = dict(source.loose)
    for place, path in _unpack(draft / _UNPACKED, source.archives, on_progress, limits).items():
        # an image that is both in an archive and beside it is two files, which must have the same content
        files[f"{_UNPACKED}/{place}" if place in files else place] = path
    on_progress(f"locating the images of {len(entries)} rows among {len(files)} files")
    entries = _locate(data.kind, entries, FileIndex(files), left_out)
    if not entries:
        raise DataError("no usable row", where=source.file, fix="; ".join(left_out[:2]))
    named = {place: entry.row.where for entry in reversed(entries) for place in entry.places}
    placed = {place: _put(files[place], draft, place) for place in counted(sorted(named), "placing images")}
    on_progress(f"decoding {len(placed)} images")
    refs = {name: ImageRef(**asdict(facts)) for name, facts in inspect_images(placed, named).items()}
    shutil.rmtree(draft / _UNPACKED, ignore_errors=True)
    written = write_rows(draft, data, source, entries, refs, IMAGE_FOLDER)
    index = {
        "format": INDEX_FORMAT,
        "name": data.name,
        "kind": data.kind.value,
        "repo": data.repo,
        "revision": source.revision,
        "commit": source.commit or f"local-{_content(draft, written)}",
        "source": source.folder,
        "file": source.file,
        "file_sha256": hashlib.sha256(source.files[source.file].read_bytes()).hexdigest(),
        "archives": {name: path.stat().st_size for name, path in source.archives.items()},
        "rows": len(entries),
        "left_out": left_out,
        "pictures": len(placed),
        "bytes": sum(path.stat().st_size for path in placed.values()),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "knowgen": __version__,
    }
    write_json(draft / INDEX_FILE, index)
    return index


def _unpack(
    folder: Path, archives: Mapping[str, Path], on_progress: Callable[[str], None], limits: ArchiveLimits
) -> dict[str, Path]:
    """Unpack each archive into a folder of its own; return the path of each member by its path in `folder`."""
    so_far = UnpackedTotals()
    for name, archive in archives.items():
        on_progress(f"unpacking {name} ({archive.stat().st_size / 1e6:.1f} MB)")
        # two archives such as a.zip and a.tar have the same stem and must not share a folder
        into = folder / Path(name).parent / stem(name)
        into = into if not into.exists() else into.with_name(Path(name).name)
        unpack(archive, into, so_far, limits, name)
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _locate(
    kind: DataSetKind, entries: Sequence[PreparedRow], index: FileIndex, left_out: list[str]
) -> list[PreparedRow]:
    """Locate the images of each row. An RL row without its image is left out and recorded in `left_out`."""
    located = []
    for entry in counted(entries, "locating images"):
        try:
            places = tuple(index.find(name, entry.row.where) for name in entry.named)
        except MissingImageError as error:
            if kind is not DataSetKind.RL:
                raise
            left_out.append(f"{entry.row.where}: {error.what}")
            continue
        located.append(entry.at(places))
    return located


def _put(file: Path, draft: Path, place: str) -> Path:
    """Put an image into the draft: moved if it was unpacked there, else a hard link, else a copy."""
    target = draft / IMAGE_FOLDER / place
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if file.is_relative_to(draft):
            return file.rename(target)
        try:
            os.link(file.resolve(), target)
        except OSError:  # another disk, or a file system without hard links
            shutil.copyfile(file, target)
    except OSError as error:
        raise DataError(
            f"cannot be copied: {error.strerror}", where=place, fix="check the disk's free space and permissions"
        ) from error
    return target


def _content(draft: Path, names: Sequence[str]) -> str:
    """Return 16 hex digits that identify the content, images included, because the rows contain their digests."""
    digest = hashlib.sha256()
    for name in names:
        digest.update((draft / name).read_bytes())
    return digest.hexdigest()[:16]
