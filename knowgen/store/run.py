"""A run directory and its rows: samples, answers, generations, scores, costs. A kill at any moment harms none."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pydantic_core import PydanticSerializationError

from knowgen.core.errors import ConfigError, DataError, KnowgenError
from knowgen.core.records import AgentAnswer, Generation, GroundTruth, ImageRef, Row, Sample, Score
from knowgen.core.scratch import ScratchFolder
from knowgen.core.secrets import mask_secrets, refuse_secrets
from knowgen.core.spec import RunSpec, ScorerSpec
from knowgen.core.steps import counted
from knowgen.store.audit import RowFault, row_faults
from knowgen.store.current_view import CurrentView, ExpectedGeneration
from knowgen.store.database import Database, has_table
from knowgen.store.folder import DATABASE_FILE, IMAGE_FOLDER, make_folder, remove_results, remove_unused
from knowgen.store.images import ImageFolder
from knowgen.store.ledger import Ledger, Sessions, seconds_of
from knowgen.store.lock import RunLock
from knowgen.store.manifest import Manifest, read_manifest, refuse_spec_secrets, spec_difference, write_manifest
from knowgen.store.rows import answer_row, from_json, generation_row, sample_row, score_row
from knowgen.store.schema import open_reader, open_writer

UNPRICED_NOTE = "unpriced"
"""Kind of the note that a component made a call whose cost is not known."""


class RunStore:
    """A run directory, opened by `open` for writing (one process at a time) or by `read`; a context manager.

    All methods are thread-safe. A written record is visible to this store at once, and committed within 0.2 s or by
    `commit`.

    Attributes:
        path: The run directory.
        spec: Specification of the run.
        manifest: Content of run.json.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        connection: sqlite3.Connection,
        lock: RunLock | None,
        copy: ScratchFolder | None = None,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.spec: RunSpec = manifest.spec
        self._lock = lock
        self._is_new = False
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
        """Open a directory for writing; create it if it does not exist.

        Args:
            path: The run directory.
            spec: Specification of the run. Selection, repeats and scorers may differ from earlier runs in it.
            fresh: Remove earlier results first.

        Raises:
            ConfigError: Another process holds it; it belongs to another task, generator or seed; it cannot be written;
                it has files but no run; an argument looks like a secret.
            DataError: run.json or run.sqlite is damaged or written by a newer version; the disk is full.
        """
        refuse_spec_secrets(spec)
        refuse_secrets({"out": path})
        is_new = not path.exists()
        make_folder(path)
        lock = RunLock(path)
        try:
            if fresh:
                remove_results(path)
            earlier = read_manifest(path)
            if earlier is None and (path / DATABASE_FILE).exists():
                raise DataError("run.json is missing", where=str(path), fix="restore it or start again with --fresh")
            if earlier is not None and (differs := spec_difference(earlier.spec, spec)):
                raise ConfigError(
                    f"holds another run: {differs}",
                    where=str(path),
                    fix="choose another --out or --name, or delete it with --fresh",
                )
            store = cls(path, *_write_both(path, spec, earlier), lock)
        except BaseException:
            lock.release()
            raise
        store._is_new = is_new
        store._images.sweep()
        return store

    @classmethod
    def read(cls, path: Path) -> RunStore:
        """Open a directory for reading, without a lock and without changing it.

        Raises:
            DataError: It is not a run directory, or damaged, or written by a newer version.
        """
        manifest = read_manifest(path)
        if manifest is None:
            raise DataError("not a run directory (run.json is missing)", where=str(path))
        connection, copy = open_reader(path / DATABASE_FILE)
        return cls(path, manifest, connection, None, copy)

    def close(self) -> None:
        """Commit and close; a second call does nothing.

        Raises:
            DataError, ConfigError: The last records could not be committed.
        """
        try:
            self._database.close()
        finally:
            if self._lock is not None:
                self._lock.release()
            if self._copy is not None:
                self._copy.close()

    def __enter__(self) -> RunStore:
        """Return the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store. A directory that is new is removed if an error ends the block before there is any result."""
        unused = self._is_new and isinstance(error, KnowgenError) and not any(self.last_numbers()) and not self.spent()
        self.close()
        if unused:
            remove_unused(self.path)

    def commit(self) -> None:
        """Commit all written records.

        Raises:
            DataError, ConfigError: The disk is full or cannot be written; earlier commits are preserved.
        """
        self._database.commit()

    # -- samples ---------------------------------------------------------------------------------------------------

    def put_samples(self, items: Iterable[tuple[Sample, GroundTruth]]) -> None:
        """Replace the selection of this run, in order, in one transaction.

        Raises:
            DataError: An id is a duplicate, or a record is not valid UTF-8 JSON.
        """
        with self._database.transaction() as connection:
            connection.execute("delete from samples")
            for place, (sample, truth) in enumerate(items):
                where = f"task {self.spec.task}, sample number {place + 1} of the selection"
                try:
                    connection.execute(*sample_row(place, sample, truth))
                except sqlite3.IntegrityError as error:
                    fix = "make ids unique"
                    raise DataError(f"duplicate sample id {sample.id!r}", where=where, fix=fix) from error
                except (PydanticSerializationError, UnicodeEncodeError) as error:
                    fix = "write the task as UTF-8 JSON"
                    raise DataError("contains text or values that cannot be stored", where=where, fix=fix) from error

    def samples(self) -> Iterator[Sample]:
        """Yield the selected samples in order."""
        samples = (sample for page in self._current.pages() for sample in page)
        return counted(samples, "reading samples", self.spec.selection.n)

    def truth(self, sample_id: str) -> GroundTruth:
        """Return the ground truth of a selected sample, with the path of its image in the task.

        Raises:
            DataError: The sample is not part of the run.
        """
        rows = self._database.read("select truth, truth_file from samples where sample_id = ?", (sample_id,))
        if not rows:
            raise DataError(f"sample {sample_id!r} is not part of the run", where=str(self.path))
        truth = from_json(GroundTruth, rows[0][0])
        if truth.image is None or not rows[0][1]:
            return truth
        image = truth.image.model_copy(update={"path": Path(rows[0][1])})
        return truth.model_copy(update={"image": image})

    # -- images --------------------------------------------------------------------------------------------------

    def put_image(self, data: bytes, *, width: int, height: int, format: str) -> ImageRef:
        """Store an image by content; its file is complete when this returns.

        Args:
            data: Content of a PNG, JPEG or WebP file.
            width: Width in pixels.
            height: Height in pixels.
            format: PNG, JPEG or WEBP.

        Raises:
            DataError: The disk is full, or the format is unknown.
            ConfigError: The folder cannot be written.
        """
        return self._images.put(data, width=width, height=height, format=format)

    def take_image(self, ref: ImageRef, path: Path) -> ImageRef | None:
        """Store an image of another run by its file; see `ImageFolder.take`."""
        return self._images.take(ref, path)

    def image_path(self, ref: ImageRef) -> Path:
        """Return the path of an image of this run, whether or not the file exists.

        Raises:
            DataError: The record has an invalid digest or an unknown format.
        """
        return self._images.path(ref)

    def image_ok(self, ref: ImageRef) -> bool:
        """Return whether an image exists and its bytes match its digest."""
        return self._images.ok(ref)

    # -- answers of an agent -----------------------------------------------------------------------------------------

    def answer(self, key: str) -> AgentAnswer | None:
        """Return the answer of a key, with the paths of its images; None if there is none."""
        if not has_table(self._database, "answers"):
            return None  # written by a version without answers
        rows = self._database.read("select record from answers where key = ?", (key,))
        return self._current.read_answer(rows[0][0]) if rows else None

    def put_answer(self, key: str, answer: AgentAnswer) -> None:
        """Write an answer; it becomes the current one of its sample and repeat. Its images must already be stored.

        Raises:
            DataError, ConfigError: The disk is full or cannot be written.
        """
        self._database.write(*answer_row(key, answer))

    def latest_answer(self, sample_id: str, repeat: int) -> AgentAnswer | None:
        """Return the latest answer of a sample and repeat, whether or not it is selected; None if there is none."""
        if not has_table(self._database, "answers"):
            return None  # written by a version without answers
        sql = "select record from answers where sample_id = ? and repeat = ? order by number desc limit 1"
        rows = self._database.read(sql, (sample_id, repeat))
        return self._current.read_answer(rows[0][0]) if rows else None

    def answers(self) -> Iterator[tuple[str, AgentAnswer]]:
        """Yield key and current answer of every selected sample and repeat that has one."""
        return counted(self._current.answers(), "reading answers")

    # -- generations -----------------------------------------------------------------------------------------------

    def generation(self, key: str) -> Generation | None:
        """Return the generation of a key, with the path of its image; None if there is none."""
        rows = self._database.read("select record from generations where key = ?", (key,))
        return self._current.read_generation(rows[0][0]) if rows else None

    def put_generation(self, key: str, generation: Generation) -> None:
        """Write a generation; it becomes the current one of its sample and repeat. Its image must already be stored.

        Raises:
            DataError, ConfigError: The disk is full or cannot be written.
        """
        self._database.write(*generation_row(key, generation))

    def latest_generation(self, sample_id: str, repeat: int) -> Generation | None:
        """Return the latest generation of a sample and repeat, whether or not it is selected; None if there is none."""
        sql = "select record from generations where sample_id = ? and repeat = ? order by number desc limit 1"
        rows = self._database.read(sql, (sample_id, repeat))
        return self._current.read_generation(rows[0][0]) if rows else None

    def generations(self, *, paths: bool = True) -> Iterator[tuple[str, Generation]]:
        """Yield key and current generation of every selected sample and repeat that has one.

        Args:
            paths: As in `expected_generations`.
        """
        return counted(self._current.generations(paths=paths), "reading generations")

    # -- scores ----------------------------------------------------------------------------------------------------

    def score(self, key: str) -> Score | None:
        """Return the score of a key; None if there is none."""
        rows = self._database.read("select record from scores where key = ?", (key,))
        return from_json(Score, rows[0][0]) if rows else None

    def put_score(self, key: str, score: Score, scorer: ScorerSpec) -> None:
        """Write a score. It is current while `score.image` is the digest of its sample's current image.

        Args:
            key: Result of `knowgen.core.spec.score_key`.
            score: The score, with the digest of its image; `image` is empty only if the generation has no image.
            scorer: Its scorer. The score is current while the run's scorer of that name has the same specification.

        Raises:
            ValueError: A strict value is not a finite number.
            DataError, ConfigError: The disk is full or cannot be written.
        """
        self._database.write(*score_row(key, score, self._current.scorer_hash(scorer)))

    def scores(self, scorer: str | None = None) -> Iterator[tuple[str, Score]]:
        """Yield key and score of the current scores, those that `rows` uses.

        Args:
            scorer: Name of a scorer; all scorers of the run if None.

        Raises:
            UsageError: The run has no such scorer.
        """
        specs = self.spec.scorers if scorer is None else (self._current.scorer(scorer),)
        return counted(self._current.scores(specs), "reading scores")

    def expected_generations(self, scorer: str, *, paths: bool = True) -> Iterator[ExpectedGeneration]:
        """Yield every selected sample and repeat exactly once, in order, with its generation and scores so far.

        Args:
            scorer: Name of the scorer.
            paths: Whether generations name the files of their images, which takes longer than to read the rest.

        Raises:
            UsageError: The run has no such scorer.
        """
        expected = self._current.expected_generations(self._current.scorer(scorer), paths=paths)
        return counted(expected, f"reading results of {scorer}", self.spec.selection.n * self.spec.repeats)

    def rows(self, scorer: str) -> Iterator[Row]:
        """Yield every selected sample x repeat x judge repeat exactly once, in order.

        A score is used if it is of the run's current scorer of that name and of the current image; otherwise the row's
        status is not_run.

        Raises:
            UsageError: The run has no such scorer.
        """
        return (row for expected in self.expected_generations(scorer, paths=False) for row in expected.rows())

    # -- money and time --------------------------------------------------------------------------------------------

    def reserve(self, amount: float, caller: str) -> int:
        """Reserve the worst-case cost of a call in US dollars, committed before this returns.

        Args:
            amount: US dollars.
            caller: Name of the component that makes the call.

        Returns:
            Number of the reservation, for `settle`.

        Raises:
            ValueError: The amount is negative, too large or NaN.
            DataError, ConfigError: The reservation cannot be written, so the call must not be made.
        """
        return self._ledger.reserve(amount, caller)

    def settle(self, number: int, amount: float | None) -> None:
        """Replace a reservation by the actual cost in US dollars; None keeps the reserved amount.

        Raises:
            ValueError: The number is not that of an open reservation.
        """
        self._ledger.settle(number, amount)

    def spent(self) -> float:
        """Return the US dollars spent in this directory over all runs; open reservations count in full."""
        return self._ledger.spent()

    def put_note(self, caller: str, kind: str, data: Mapping[str, Any]) -> None:
        """Record how something was done, such as changes of an endpoint's concurrency.

        Args:
            caller: Component that the note is about, such as the name of a scorer.
            kind: Kind of the note.
            data: JSON-serializable data.

        Raises:
            DataError, ConfigError: The disk is full or cannot be written.
        """
        sql = "insert into notes (at, who, what, record) values (?, ?, ?, ?)"
        self._database.write(sql, (time.time(), caller, kind, mask_secrets(json.dumps(data, ensure_ascii=False))))

    def notes(self, kind: str) -> Iterator[tuple[str, float, dict[str, Any]]]:
        """Yield component, time (seconds since the epoch) and data of every note of a kind, oldest first."""
        if not self._database.read("select 1 from sqlite_master where name = 'notes'"):
            return  # written by a version without notes
        sql = "select who, at, record from notes where what = ? order by number"
        for caller, at, record in self._database.read(sql, (kind,)):
            yield caller, at, json.loads(record)

    def note_session(self, event: Literal["start", "end"], outcome: str = "") -> None:
        """Record that an invocation starts or ends. The time of a killed one is counted up to its last commit.

        Args:
            event: start or end.
            outcome: How it ended, such as `done`, `budget` or `interrupted`.
        """
        if event == "start":
            self._sessions.start(self._database)
        else:
            self._sessions.end(self._database, outcome)

    def row_faults(self) -> Iterator[RowFault]:
        """Yield every row whose columns disagree with its record, or whose record cannot be read."""
        return row_faults(self._database)

    def last_numbers(self) -> list[int]:
        """Return the row numbers of the latest generation and score, and in a run with an agent of the latest answer.

        Each number increases with every new row.
        """
        tables = ("generations", "scores", *(("answers",) if self.spec.agent is not None else ()))
        return [int(self._database.read(f"select coalesce(max(number), 0) from {table}")[0][0]) for table in tables]

    def seconds(self) -> float:
        """Return the total wall time of all invocations, in seconds."""
        return seconds_of(self._database)


def _write_both(path: Path, spec: RunSpec, earlier: Manifest | None) -> tuple[Manifest, sqlite3.Connection]:
    """Open run.sqlite and write run.json, in an order that changes neither if one of them cannot be used.

    In a new directory run.json is written first, so that a killed process leaves no database without it.
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
