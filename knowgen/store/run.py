"""A run directory: samples, drawings, judgements and money, safe against a kill at any moment."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pydantic_core import PydanticSerializationError

from knowgen.core import secrets
from knowgen.core.errors import ConfigError, DataError
from knowgen.core.records import Generation, GroundTruth, ImageRef, Row, Sample, Score
from knowgen.core.secrets import mask_secrets
from knowgen.core.spec import RunSpec, ScorerSpec
from knowgen.store.current_view import CurrentView, ExpectedGeneration
from knowgen.store.database import Database
from knowgen.store.folder import DATABASE_FILE, IMAGE_FOLDER, make_folder, remove_results
from knowgen.store.images import ImageFolder
from knowgen.store.ledger import Ledger, Sessions, seconds_of
from knowgen.store.lock import RunLock
from knowgen.store.manifest import Manifest, difference, read_manifest, refuse_secrets, write_manifest
from knowgen.store.rows import from_json, generation_row, sample_row, score_row
from knowgen.store.schema import open_reader, open_writer


class RunStore:
    """The only writer of a run directory, or a reader of one. Made by `open` and `read`; a context manager.

    All methods may be called from any thread. What is put is seen by this store at once, and committed within 0.2 s
    or by `commit`.

    Attributes:
        path: The run directory.
        spec: What is run.
        manifest: What run.json says.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        connection: sqlite3.Connection,
        lock: RunLock | None,
        copy: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.spec: RunSpec = manifest.spec
        self._lock = lock
        self._copy = copy
        self._images = ImageFolder(path.absolute() / IMAGE_FOLDER)
        self._sessions = Sessions()
        self._database = Database(
            connection, path / DATABASE_FILE, writable=lock is not None, before_commit=self._sessions.seen
        )
        self._ledger = Ledger(self._database)
        self._current = CurrentView(self._database, self._images, self.spec, path)

    @classmethod
    def open(cls, path: Path, spec: RunSpec, *, fresh: bool = False) -> RunStore:
        """Opens a directory for writing, and makes it where there is none.

        Args:
            path: The run directory.
            spec: What will be run. Selection, repeats and scorers may differ from what the directory has seen.
            fresh: Removes earlier results first.

        Raises:
            ConfigError: Another process holds it; it belongs to another task, generator or seed; it cannot be
                written; `fresh` of a directory that is no run; an argument looks like a secret.
            DataError: run.json or run.sqlite is damaged or from a newer version; the disk is full.
        """
        refuse_secrets(spec)
        secrets.refuse_secrets({"out": path})
        make_folder(path, fresh=fresh)
        lock = RunLock(path)
        try:
            if fresh:
                remove_results(path)
            earlier = read_manifest(path)
            if earlier is None and (path / DATABASE_FILE).exists():
                raise DataError("run.json is missing", where=str(path), fix="restore it or start again with --fresh")
            if earlier is not None and (differs := difference(earlier.spec, spec)):
                raise ConfigError(
                    f"holds another run: {differs}", where=str(path), fix="choose another --out, or start with --fresh"
                )
            store = cls(path, *_write_both(path, spec, earlier), lock)
        except BaseException:
            lock.release()
            raise
        store._images.sweep()
        return store

    @classmethod
    def read(cls, path: Path) -> RunStore:
        """Opens a directory for reading; takes no lock and changes nothing.

        Raises:
            DataError: It is no run directory, or damaged, or from a newer version.
        """
        manifest = read_manifest(path)
        if manifest is None:
            raise DataError("is no run directory: run.json is missing", where=str(path))
        connection, copy = open_reader(path / DATABASE_FILE)
        return cls(path, manifest, connection, None, copy)

    def close(self) -> None:
        """Commits and closes; a second call does nothing.

        Raises:
            DataError, ConfigError: What was put last could not be committed.
        """
        try:
            self._database.close()
        finally:
            if self._lock is not None:
                self._lock.release()
            if self._copy is not None:
                self._copy.cleanup()

    def __enter__(self) -> RunStore:
        """Returns the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the store."""
        self.close()

    def commit(self) -> None:
        """Commits what was put.

        Raises:
            DataError, ConfigError: The disk is full or cannot be written; what was committed before is kept.
        """
        self._database.commit()

    # -- samples ---------------------------------------------------------------------------------------------------

    def put_samples(self, items: Iterable[tuple[Sample, GroundTruth]]) -> None:
        """Writes the selection of this run, in order, in place of an earlier one; committed as a whole.

        Raises:
            DataError: An id occurs twice, or a record cannot be written as UTF-8 JSON.
        """
        with self._database.transaction() as connection:
            connection.execute("delete from samples")
            for place, (sample, truth) in enumerate(items):
                where = f"task {self.spec.task}, sample number {place + 1} of the selection"
                try:
                    connection.execute(*sample_row(place, sample, truth))
                except sqlite3.IntegrityError as error:
                    fix = "give each sample its own id"
                    raise DataError(f"sample id {sample.id!r} occurs twice", where=where, fix=fix) from error
                except (PydanticSerializationError, UnicodeEncodeError) as error:
                    fix = "write the task as UTF-8 JSON"
                    raise DataError("has text or values that cannot be stored", where=where, fix=fix) from error

    def samples(self) -> Iterator[Sample]:
        """Yields the selected samples in order."""
        for page in self._current.pages():
            yield from page

    def truth(self, sample_id: str) -> GroundTruth:
        """Returns the ground truth of a selected sample, its picture where the task had it.

        Raises:
            DataError: The sample is not part of the run.
        """
        found = self._database.read("select truth, truth_file from samples where sample_id = ?", (sample_id,))
        if not found:
            raise DataError(f"sample {sample_id!r} is not part of the run", where=str(self.path))
        truth = from_json(GroundTruth, found[0][0])
        if truth.image is None or not found[0][1]:
            return truth
        image = truth.image.model_copy(update={"path": Path(found[0][1])})
        return truth.model_copy(update={"image": image})

    # -- pictures --------------------------------------------------------------------------------------------------

    def put_image(self, data: bytes, *, width: int, height: int, format: str) -> ImageRef:
        """Stores a picture under its content; it lies complete under its name when this returns.

        Args:
            data: The bytes of a PNG, JPEG or WebP file.
            width: Pixels.
            height: Pixels.
            format: PNG, JPEG or WEBP.

        Raises:
            DataError: The disk is full, or the format is another.
            ConfigError: The folder cannot be written.
        """
        return self._images.put(data, width=width, height=height, format=format)

    def image_path(self, ref: ImageRef) -> Path:
        """Returns where a picture of this run lies, whether or not it is there.

        Raises:
            DataError: The record names no digest or an unknown format.
        """
        return self._images.path(ref)

    def image_ok(self, ref: ImageRef) -> bool:
        """Tells whether a picture is there and its bytes hash to its name."""
        return self._images.ok(ref)

    # -- drawings --------------------------------------------------------------------------------------------------

    def generation(self, key: str) -> Generation | None:
        """Returns the drawing of a key, with the path of its picture; None when there is none."""
        found = self._database.read("select record from generations where key = ?", (key,))
        return self._current.read_generation(found[0][0]) if found else None

    def put_generation(self, key: str, generation: Generation) -> None:
        """Writes a drawing; it becomes the current one of its sample and repeat. Its picture must be stored before.

        Raises:
            DataError, ConfigError: The disk is full or cannot be written.
        """
        self._database.write(*generation_row(key, generation))

    def drawn(self, sample_id: str, repeat: int) -> Generation | None:
        """Returns the latest drawing of a sample and repeat, whether or not it is selected; None when there is none."""
        sql = "select record from generations where sample_id = ? and repeat = ? order by number desc limit 1"
        found = self._database.read(sql, (sample_id, repeat))
        return self._current.read_generation(found[0][0]) if found else None

    def generations(self) -> Iterator[tuple[str, Generation]]:
        """Yields the current drawing of every selected sample and repeat that has one, with its key."""
        return self._current.generations()

    # -- judgements ------------------------------------------------------------------------------------------------

    def score(self, key: str) -> Score | None:
        """Returns the judgement of a key; None when there is none."""
        found = self._database.read("select record from scores where key = ?", (key,))
        return from_json(Score, found[0][0]) if found else None

    def put_score(self, key: str, score: Score, scorer: ScorerSpec) -> None:
        """Writes a judgement. It counts while `score.image` is the digest of its sample's current picture.

        Args:
            key: From `knowgen.core.spec.score_key`.
            score: The judgement; its `image` must be filled in, empty only where the drawing has no picture.
            scorer: Who judged; a judgement counts while the run's scorer of that name is this one.

        Raises:
            ValueError: A value of the strict reading is no finite number.
            DataError, ConfigError: The disk is full or cannot be written.
        """
        self._database.write(*score_row(key, score, self._current.scorer_hash(scorer)))

    def scores(self, scorer: str | None = None) -> Iterator[tuple[str, Score]]:
        """Yields the current judgements with their keys, as `rows` would use them.

        Args:
            scorer: Label of a scorer; all of the run's when None.

        Raises:
            UsageError: The run has no such scorer.
        """
        specs = self.spec.scorers if scorer is None else (self._current.scorer(scorer),)
        return self._current.scores(specs)

    def cells(self, scorer: str) -> Iterator[ExpectedGeneration]:
        """Yields every selected sample and repeat exactly once, in order, with what is there of it.

        Raises:
            UsageError: The run has no such scorer.
        """
        return self._current.cells(self._current.scorer(scorer))

    def rows(self, scorer: str) -> Iterator[Row]:
        """Yields every selected sample x repeat x judge repeat exactly once, in order.

        A judgement counts when it is of the run's current scorer of that name and of the current picture; where none
        does, the row's reading is not_run.

        Raises:
            UsageError: The run has no such scorer.
        """
        return self._current.rows(self._current.scorer(scorer))

    # -- money and time --------------------------------------------------------------------------------------------

    def reserve(self, amount: float, who: str) -> int:
        """Sets aside the worst case of a call in US dollars, committed before this returns; gives its number.

        Raises:
            ValueError: The amount is negative or no number.
            DataError, ConfigError: It cannot be written down, so the call must not be made.
        """
        return self._ledger.reserve(amount, who)

    def settle(self, number: int, amount: float | None) -> None:
        """Replaces a reservation by the true cost in US dollars; None keeps the reserved amount.

        Raises:
            ValueError: There is no such open reservation.
        """
        self._ledger.settle(number, amount)

    def spent(self) -> float:
        """Returns US dollars spent in this directory, over all runs; open reservations count in full."""
        return self._ledger.spent()

    def put_note(self, who: str, what: str, data: Mapping[str, Any]) -> None:
        """Keeps a note on how something was done, such as the calls at once that an endpoint was sent.

        Args:
            who: Whose note, such as the label of a scorer.
            what: Kind of the note.
            data: Plain data.

        Raises:
            DataError, ConfigError: The disk is full or cannot be written.
        """
        sql = "insert into notes (at, who, what, record) values (?, ?, ?, ?)"
        self._database.write(sql, (time.time(), who, what, mask_secrets(json.dumps(data, ensure_ascii=False))))

    def notes(self, what: str) -> Iterator[tuple[str, float, dict[str, Any]]]:
        """Yields who, when (seconds since the epoch) and the data of every note of a kind, oldest first."""
        if not self._database.read("select 1 from sqlite_master where name = 'notes'"):
            return  # written before there were notes
        sql = "select who, at, record from notes where what = ? order by number"
        for who, at, record in self._database.read(sql, (what,)):
            yield who, at, json.loads(record)

    def note_session(self, event: Literal["start", "end"], outcome: str = "") -> None:
        """Notes that an invocation begins or ends. One that is killed counts up to its last commit.

        Args:
            event: start or end.
            outcome: How it ended, such as `done`, `budget` or `interrupted`.
        """
        if event == "start":
            self._sessions.start(self._database)
        else:
            self._sessions.end(self._database, outcome)

    def latest(self) -> list[int]:
        """Returns the numbers of the last drawing and the last judgement that were written; each new one raises one."""
        sql = "select coalesce((select max(number) from generations), 0), coalesce((select max(number) from scores), 0)"
        return list(self._database.read(sql)[0])

    def seconds(self) -> float:
        """Returns the wall time of all invocations, in seconds."""
        return seconds_of(self._database)


def _write_both(path: Path, spec: RunSpec, earlier: Manifest | None) -> tuple[Manifest, sqlite3.Connection]:
    """Opens run.sqlite and writes run.json, in the order that leaves both as they were where one cannot be used.

    In a new directory run.json comes first, so that a kill leaves no database that belongs to nobody.
    """
    database = path / DATABASE_FILE
    if not database.exists():
        return write_manifest(path, spec, earlier), open_writer(database)
    connection = open_writer(database)
    try:
        return write_manifest(path, spec, earlier), connection
    except BaseException:
        connection.close()
        raise
