"""Builds a prepared data set in a draft folder: unpacks, rebases, looks at every picture, writes the rows."""

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
from knowgen.core.version import __version__
from knowgen.tasks.catalog import DataSetKind, PublishedDataSet
from knowgen.tasks.data_home import INDEX_FILE, INDEX_FORMAT, write_json
from knowgen.tasks.prepare.archives import ArchiveLimits, UnpackedTotals, stem, unpack
from knowgen.tasks.prepare.published import read_rows
from knowgen.tasks.prepare.rebase import MissingImageError, Rebase
from knowgen.tasks.prepare.rows import PreparedRow, entries_of, write_rows
from knowgen.tasks.prepare.sources import SourceFiles

PICTURES = "pictures"
_UNPACKED = "unpacked"


def build(
    draft: Path, data: PublishedDataSet, source: SourceFiles, told: Callable[[str], None], limits: ArchiveLimits
) -> dict[str, Any]:
    """Fills a draft folder with a prepared data set, its index included.

    Args:
        draft: An empty folder.
        data: What is prepared.
        source: Its files.
        told: Told what is being done.
        limits: What may come out of the archives.

    Returns:
        The index.

    Raises:
        DataError: A row, an archive or a picture cannot be used.
    """
    rows = read_rows(source.files[source.file], source.file)
    entries, left_out = entries_of(data.kind, rows)
    files = dict(source.loose)
    for place, path in _unpack(draft / _UNPACKED, source.archives, told, limits).items():
        # a picture that lies both in an archive and beside it is two files, which must agree
        files[f"{_UNPACKED}/{place}" if place in files else place] = path
    told(f"finding the pictures of {len(entries)} rows among {len(files)} files")
    entries = _rebased(data.kind, entries, Rebase(files), left_out)
    if not entries:
        raise DataError("no row can be used", where=source.file, fix="; ".join(left_out[:2]))
    named = {place: entry.row.where for entry in reversed(entries) for place in entry.places}
    placed = {place: _put(files[place], draft, place) for place in sorted(named)}
    told(f"opening {len(placed)} pictures")
    refs = {name: ImageRef(**asdict(facts)) for name, facts in inspect_images(placed, named).items()}
    shutil.rmtree(draft / _UNPACKED, ignore_errors=True)
    written = write_rows(draft, data, source, entries, refs, PICTURES)
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
    folder: Path, archives: Mapping[str, Path], told: Callable[[str], None], limits: ArchiveLimits
) -> dict[str, Path]:
    """Unpacks every archive into a folder of its name; returns where each member lies, by its place."""
    so_far = UnpackedTotals()
    for name, archive in archives.items():
        told(f"unpacking {name} ({archive.stat().st_size / 1e6:.1f} MB)")
        # two archives such as a.zip and a.tar share a folder's name, and must not share the folder
        into = folder / Path(name).parent / stem(name)
        into = into if not into.exists() else into.with_name(Path(name).name)
        unpack(archive, into, so_far, limits, name)
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _rebased(
    kind: DataSetKind, entries: Sequence[PreparedRow], rebase: Rebase, left_out: list[str]
) -> list[PreparedRow]:
    """Finds the pictures of each row; in the RL set a row without its picture is left out, and that is noted."""
    found = []
    for entry in entries:
        try:
            places = tuple(rebase.find(name, entry.row.where) for name in entry.named)
        except MissingImageError as error:
            if kind is not DataSetKind.RL:
                raise
            left_out.append(f"{entry.row.where}: {error.what}")
            continue
        found.append(entry.at(places))
    return found


def _put(file: Path, draft: Path, place: str) -> Path:
    """Puts a picture into the draft: moved out of an archive's folder, else a hard link, else a copy."""
    target = draft / PICTURES / place
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if file.is_relative_to(draft):
            return file.rename(target)
        try:
            os.link(file.resolve(), target)
        except OSError:  # another disk, or one without links
            shutil.copyfile(file, target)
    except OSError as error:
        raise DataError(f"cannot be put into place: {error.strerror}", where=place, fix="look at the disk") from error
    return target


def _content(draft: Path, names: Sequence[str]) -> str:
    """Returns 16 hex digits that name the content, pictures included, for their digests stand in the rows."""
    digest = hashlib.sha256()
    for name in names:
        digest.update((draft / name).read_bytes())
    return digest.hexdigest()[:16]
