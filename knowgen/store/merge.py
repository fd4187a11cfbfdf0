"""Combine the results of several run directories in one: rows are copied, images are hard links."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.records import AgentAnswer, Generation, ImageRef
from knowgen.core.spec import RunSpec
from knowgen.core.steps import counted
from knowgen.store.database import Database
from knowgen.store.files import explain_os_error, write_text
from knowgen.store.folder import DATABASE_FILE, IMAGE_FOLDER, SOURCE_FILE
from knowgen.store.images import ImageFolder
from knowgen.store.lock import RunLock
from knowgen.store.manifest import MANIFEST_FILE, Manifest, read_manifest
from knowgen.store.rows import from_json
from knowgen.store.schema import open_reader, open_writer

MERGED = "merged"
"""Kind of the note that lists the directories that were merged."""

_RESULTS = ("answers", "generations", "scores")
_RECORDS = ("reservations", "sessions", "notes")
_STATE = {
    "samples": "sample_id, sample, truth",
    "answers": "key, record",
    "generations": "key, record",
    "scores": "key, record",
    "reservations": "who, reserved, settled",
}
"""Columns that identify results; sessions and notes are excluded, because they only describe how they were made."""

_SELECTED = "where sample_id in (select sample_id from samples)"
_BATCH = 256


class RunPart:
    """A snapshot of a run directory, taken when it is opened; a context manager.

    Args:
        path: The run directory.

    Raises:
        DataError: It is not a run directory, or damaged, or written by a newer version.

    Attributes:
        path: The run directory.
        manifest: Content of run.json.
    """

    def __init__(self, path: Path) -> None:
        manifest = read_manifest(path)
        if manifest is None:
            raise DataError("not a run directory (run.json is missing)", where=str(path))
        self.path, self.manifest = path, manifest
        connection, self._copy = open_reader(path / DATABASE_FILE)
        self._connection = connection
        self._database = Database(connection, path / DATABASE_FILE, writable=False)
        self._images = ImageFolder(path.absolute() / IMAGE_FOLDER)
        self._connection.execute("begin")  # a consistent snapshot, even if its run continues

    def __enter__(self) -> RunPart:
        """Return the part itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the database."""
        self._database.close()
        if self._copy is not None:
            self._copy.close()

    def ids(self) -> list[str]:
        """Return the ids of the selected samples, in order."""
        return [row[0] for row in self._database.read("select sample_id from samples order by place")]

    def state(self) -> str:
        """Return a digest of the specification and of all results of the selected samples."""
        digest = hashlib.sha256(self.manifest.spec.model_dump_json().encode())
        for table, columns in _STATE.items():
            rows = self.rows(table, columns) if self.columns(table) else iter(())
            for row in counted(rows, f"reading {table} of {self.path.name}"):
                digest.update(json.dumps([table, *row]).encode())
        return digest.hexdigest()

    def rows(self, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
        """Yield columns of a table in order; for results, only rows of selected samples.

        Raises:
            DataError: The file is damaged.
        """
        order = "place" if table == "samples" else "number"
        chosen = _SELECTED if table in _RESULTS else ""
        where, last = f"{chosen} {'and' if chosen else 'where'}", -1
        while True:
            sql = f"select {order}, {columns} from {table} {where} {order} > ? order by {order} limit {_BATCH}"
            rows = self._database.read(sql, (last,))
            for row in rows:
                yield row[1:]
            if not rows:
                return
            last = rows[-1][0]

    def columns(self, table: str) -> list[str]:
        """Return a table's column names without its row number; empty if an older version had no such table."""
        columns = self._database.read(f"select name from pragma_table_info('{table}')")
        return [row[0] for row in columns if row[0] not in {"number", "place"}]

    def images(self) -> Iterator[tuple[str, ImageRef, Path]]:
        """Yield sample, image and path of every image of a generation, and of every image that an agent saw."""
        for (record,) in self.rows("generations", "record"):
            generation = from_json(Generation, record)
            if generation.image is not None:
                yield generation.sample_id, generation.image, self._images.path(generation.image)
        seen: set[str] = set()
        for (record,) in self.rows("answers", "record") if self.columns("answers") else ():
            answer = from_json(AgentAnswer, record)
            for image in (*answer.references, *answer.images):
                if image.sha256 not in seen:
                    seen.add(image.sha256)
                    yield answer.sample_id, image, self._images.path(image)


def write_merged(target: Path, spec: RunSpec, parts: Sequence[RunPart], content: str) -> None:
    """Write a run directory with the results of all parts. If a call was killed, a second one continues.

    Args:
        target: Directory to write; must not be used by another run.
        spec: Specification of the merged run.
        parts: Parts by shard number; sample k of part i is sample `i + k * len(parts)` of the merged run.
        content: Digest of the parts, recorded in a note.

    Raises:
        DataError: An image is missing or damaged, or the disk is full.
        ConfigError: The directory cannot be written, or another process is writing it.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, target) from error
    lock = RunLock(target)
    try:
        write_text(target / MANIFEST_FILE, _manifest(spec, parts).model_dump_json(indent=2) + "\n")
        images = ImageFolder(target.absolute() / IMAGE_FOLDER)
        for part in parts:
            for sample_id, image, path in counted(part.images(), f"copying images of {part.path.name}"):
                _copy_image(images, sample_id, image, path, part.path)
            source = part.path / SOURCE_FILE
            if source.is_file():
                write_text(target / SOURCE_FILE, source.read_text(encoding="utf-8"))
        _write_rows(target / DATABASE_FILE, parts, content)
    finally:
        lock.release()


def _copy_image(images: ImageFolder, sample_id: str, image: ImageRef, path: Path, part: Path) -> None:
    """Bring an image into the merged run.

    Raises:
        DataError: It is missing or damaged, or the disk is full.
    """
    if images.take(image, path) is None:
        raise DataError(
            f"the image of sample {sample_id!r} is missing or damaged",
            where=str(part),
            fix="run this shard again to generate it again",
        )


def _write_rows(path: Path, parts: Sequence[RunPart], content: str) -> None:
    """Write all rows in one transaction, so that the file contains all of them or none."""
    database = Database(open_writer(path), path, writable=True)
    try:
        if database.read("select 1 from notes where what = ?", (MERGED,)):
            return  # the earlier call was killed between this commit and the renaming of the directory
        with database.transaction() as connection:
            for number, part in enumerate(parts):
                for table in ("samples", *_RESULTS, *_RECORDS):
                    names = part.columns(table)
                    if not names:
                        continue
                    extra = ", place" if table == "samples" else ""
                    marks = ", ".join("?" * (len(names) + bool(extra)))
                    sql = f"insert into {table} ({', '.join(names)}{extra}) values ({marks})"
                    rows = counted(part.rows(table, ", ".join(names)), f"copying {table} of {part.path.name}")
                    for place, row in enumerate(rows):
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
    """Return the manifest of the merged run: values that all parts share, else each distinct value once."""
    each = [part.manifest for part in parts]
    return Manifest(
        spec=spec,
        versions={name: ", ".join(values) for name, values in _distinct([one.versions for one in each]).items()},
        git=", ".join(dict.fromkeys(one.git for one in each if one.git)),
        machine={
            name: values[0] if len(values) == 1 else values
            for name, values in _distinct([one.machine for one in each]).items()
        },
        started=min(one.started for one in each),
    )


def _distinct(each: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the distinct values by name."""
    values: dict[str, list[Any]] = {}
    for one in each:
        for name, value in one.items():
            if value not in values.setdefault(name, []):
                values[name].append(value)
    return values
