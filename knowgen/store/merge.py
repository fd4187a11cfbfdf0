"""Puts the results of several run directories together in one: rows as they stand, pictures as hard links."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.records import Generation, ImageRef
from knowgen.core.spec import RunSpec
from knowgen.store.database import Database
from knowgen.store.folder import DATABASE_FILE, IMAGE_FOLDER, SOURCE_FILE
from knowgen.store.images import ImageFolder, explain_os_error
from knowgen.store.lock import RunLock
from knowgen.store.manifest import MANIFEST_FILE, Manifest, read_manifest, write_atomically
from knowgen.store.rows import from_json
from knowgen.store.schema import open_reader, open_writer

MERGED = "merged"
"""Kind of the note that says what a directory was put together from."""

_RESULTS = ("generations", "scores")
_BOOKS = ("reservations", "sessions", "notes")
_STATE = {
    "samples": "sample_id, sample, truth",
    "generations": "key, record",
    "scores": "key, record",
    "reservations": "who, reserved, settled",
}
"""Columns that tell results apart; sessions and notes only say how they came about."""

_SELECTED = "where sample_id in (select sample_id from samples)"
_BATCH = 256


class RunPart:
    """A run directory as it stood when it was opened; a context manager.

    Args:
        path: The run directory.

    Raises:
        DataError: It is no run directory, or damaged, or from a newer version.

    Attributes:
        path: The run directory.
        manifest: What run.json says.
    """

    def __init__(self, path: Path) -> None:
        manifest = read_manifest(path)
        if manifest is None:
            raise DataError("is no run directory: run.json is missing", where=str(path))
        self.path, self.manifest = path, manifest
        connection, self._copy = open_reader(path / DATABASE_FILE)
        self._connection = connection
        self._database = Database(connection, path / DATABASE_FILE, writable=False)
        self._images = ImageFolder(path.absolute() / IMAGE_FOLDER)
        self._connection.execute("begin")  # one view of it, though its run may go on

    def __enter__(self) -> RunPart:
        """Returns the part itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self._database.close()
        if self._copy is not None:
            self._copy.cleanup()

    def ids(self) -> list[str]:
        """Returns the ids of the selected samples, in order."""
        return [row[0] for row in self._database.read("select sample_id from samples order by place")]

    def state(self) -> str:
        """Returns a digest of the specification and of all results that belong to the selected samples."""
        digest = hashlib.sha256(self.manifest.spec.model_dump_json().encode())
        for table, columns in _STATE.items():
            for row in self.rows(table, columns):
                digest.update(json.dumps([table, *row]).encode())
        return digest.hexdigest()

    def rows(self, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
        """Yields columns of a table in order; of results only those of selected samples.

        Raises:
            DataError: The file is damaged.
        """
        order = "place" if table == "samples" else "number"
        chosen = _SELECTED if table in _RESULTS else ""
        where, last = f"{chosen} {'and' if chosen else 'where'}", -1
        while True:
            sql = f"select {order}, {columns} from {table} {where} {order} > ? order by {order} limit {_BATCH}"
            found = self._database.read(sql, (last,))
            for row in found:
                yield row[1:]
            if not found:
                return
            last = found[-1][0]

    def columns(self, table: str) -> list[str]:
        """Returns the names of a table's columns but for its counter; none where an older version had no such table."""
        found = self._database.read(f"select name from pragma_table_info('{table}')")
        return [row[0] for row in found if row[0] not in {"number", "place"}]

    def pictures(self) -> Iterator[tuple[Generation, Path]]:
        """Yields every drawing that has a picture, and where the picture should lie."""
        for (record,) in self.rows("generations", "record"):
            generation = from_json(Generation, record)
            if generation.image is not None:
                yield generation, self._images.path(generation.image)


def write_merged(target: Path, spec: RunSpec, parts: Sequence[RunPart], content: str) -> None:
    """Writes a run directory that holds what the parts hold; a second call after a kill goes on.

    Args:
        target: The directory to write; nobody else's.
        spec: Of the whole.
        parts: In the order of their numbers; sample k of part i is sample `i + k * len(parts)` of the whole.
        content: Names what is put together; kept in a note.

    Raises:
        DataError: A picture is missing or damaged, or the disk is full.
        ConfigError: It cannot be written, or another process is writing it.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, target) from error
    lock = RunLock(target)
    try:
        write_atomically(target / MANIFEST_FILE, _manifest(spec, parts).model_dump_json(indent=2) + "\n")
        images = ImageFolder(target.absolute() / IMAGE_FOLDER)
        for part in parts:
            for generation, path in part.pictures():
                _take_picture(images, generation, path, part.path)
            source = part.path / SOURCE_FILE
            if source.is_file():
                write_atomically(target / SOURCE_FILE, source.read_text(encoding="utf-8"))
        _write_rows(target / DATABASE_FILE, parts, content)
    finally:
        lock.release()


def _take_picture(images: ImageFolder, generation: Generation, path: Path, part: Path) -> None:
    """Brings a picture over: as a hard link where that can be, else as a copy."""
    image = generation.image
    assert image is not None
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise DataError(
            f"the picture of sample {generation.sample_id!r} is missing or damaged",
            where=str(part),
            fix="run this shard again, which draws it anew",
        )
    if not _linked(path, images.path(image)):
        _put(images, data, image)


def _linked(path: Path, target: Path) -> bool:
    """Tells whether a hard link could be made; what lies there already is looked at by whoever copies instead."""
    with contextlib.suppress(OSError):  # another file system, or one without hard links
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
        return True
    return False


def _put(images: ImageFolder, data: bytes, image: ImageRef) -> None:
    images.put(data, width=image.width, height=image.height, format=image.format)


def _write_rows(path: Path, parts: Sequence[RunPart], content: str) -> None:
    """Writes all rows in one transaction, so that a file holds everything or nothing."""
    database = Database(open_writer(path), path, writable=True)
    try:
        if database.read("select 1 from notes where what = ?", (MERGED,)):
            return  # it was killed between the last row and its new name
        with database.transaction() as connection:
            for number, part in enumerate(parts):
                for table in ("samples", *_RESULTS, *_BOOKS):
                    names = part.columns(table)
                    if not names:
                        continue
                    extra = ", place" if table == "samples" else ""
                    marks = ", ".join("?" * (len(names) + bool(extra)))
                    sql = f"insert into {table} ({', '.join(names)}{extra}) values ({marks})"
                    for place, row in enumerate(part.rows(table, ", ".join(names))):
                        connection.execute(sql, (*row, number + place * len(parts)) if extra else row)
            note = {"content": content, "parts": [_origin(part) for part in parts]}
            sql = "insert into notes (at, who, what, record) values (?, ?, ?, ?)"
            connection.execute(sql, (time.time(), "merge", MERGED, json.dumps(note, ensure_ascii=False)))
    finally:
        database.close()


def _origin(part: RunPart) -> dict[str, Any]:
    manifest = part.manifest
    label = manifest.spec.shard.label if manifest.spec.shard is not None else ""
    facts = manifest.model_dump(mode="json", include={"versions", "git", "machine", "started"})
    return {"part": label, "directory": part.path.resolve().name, **facts}


def _manifest(spec: RunSpec, parts: Sequence[RunPart]) -> Manifest:
    """Returns what run.json says of the whole: what the parts agree in, else each of their values once."""
    each = [part.manifest for part in parts]
    return Manifest(
        spec=spec,
        versions={name: ", ".join(values) for name, values in _collected([one.versions for one in each]).items()},
        git=", ".join(dict.fromkeys(one.git for one in each if one.git)),
        machine={
            name: values[0] if len(values) == 1 else values
            for name, values in _collected([one.machine for one in each]).items()
        },
        started=min(one.started for one in each),
    )


def _collected(each: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Returns by name every value that occurs, each once."""
    found: dict[str, list[Any]] = {}
    for one in each:
        for name, value in one.items():
            values = found.setdefault(name, [])
            if value not in values:
                values.append(value)
    return found
