"""A run directory: samples, drawings, judgements and money, safe against a kill at any moment."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from knowgen.errors import ConfigError, DataError, UsageError
from knowgen.records import (
    Generation,
    GenerationStatus,
    GroundTruth,
    ImageRef,
    Reading,
    Row,
    Sample,
    Score,
    ScoreStatus,
)
from knowgen.spec import RunSpec, ScorerSpec, fingerprint
from knowgen.store.database import Database
from knowgen.store.images import ImageFolder, explain_os_error
from knowgen.store.ledger import Ledger
from knowgen.store.lock import RunLock
from knowgen.store.manifest import MANIFEST_FILE, Manifest, difference, read_manifest, refuse_secrets, write_manifest
from knowgen.store.schema import open_reader, open_writer

DATABASE_FILE = "run.sqlite"
IMAGE_FOLDER = "images"

_RESULTS = ("images", "tables", "report", "summary.json")
_DATABASE_FILES = (DATABASE_FILE, f"{DATABASE_FILE}-wal", f"{DATABASE_FILE}-shm", f"{DATABASE_FILE}-journal")
_PAGE = 256
"""Samples that are held at once when going through a run."""

_NOT_JUDGED = Reading(status=ScoreStatus.NOT_RUN)


@dataclass(frozen=True)
class Cell:
    """One expected drawing with its judgements by one scorer, present or not.

    Attributes:
        sample: The sample.
        repeat: Of the drawing.
        generation: The drawing, None when there is none yet.
        scores: One entry a judge repeat, None where there is no current judgement.
    """

    sample: Sample
    repeat: int
    generation: Generation | None
    scores: tuple[Score | None, ...]


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
        self._session = 0
        self._database = Database(
            connection, path / DATABASE_FILE, writable=lock is not None, before_commit=self._note_seen
        )
        self._ledger = Ledger(self._database)
        self._hashes: dict[int, tuple[ScorerSpec, str]] = {}

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
        _make_folder(path, fresh=fresh)
        lock = RunLock(path)
        try:
            if fresh:
                _remove_results(path)
            earlier = read_manifest(path)
            if earlier is None and (path / DATABASE_FILE).exists():
                raise DataError("run.json is missing", where=str(path), fix="restore it or start again with --fresh")
            if earlier is not None and (differs := difference(earlier.spec, spec)):
                raise ConfigError(
                    f"holds another run: {differs}", where=str(path), fix="choose another --out, or start with --fresh"
                )
            manifest = write_manifest(path, spec, earlier)
            store = cls(path, manifest, open_writer(path / DATABASE_FILE), lock)
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
            DataError: An id occurs twice.
        """
        sql = "insert into samples values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        with self._database.transaction() as connection:
            connection.execute("delete from samples")
            for place, (sample, truth) in enumerate(items):
                try:
                    connection.execute(sql, _sample_row(place, sample, truth))
                except sqlite3.IntegrityError as error:
                    raise DataError(
                        f"sample id {sample.id!r} occurs twice",
                        where=f"task {self.spec.task}, sample number {place + 1} of the selection",
                        fix="give each sample its own id",
                    ) from error

    def samples(self) -> Iterator[Sample]:
        """Yields the selected samples in order."""
        for page in self._pages():
            yield from page

    def truth(self, sample_id: str) -> GroundTruth:
        """Returns the ground truth of a selected sample, its picture where the task had it.

        Raises:
            DataError: The sample is not part of the run.
        """
        found = self._database.read("select truth, truth_file from samples where sample_id = ?", (sample_id,))
        if not found:
            raise DataError(f"sample {sample_id!r} is not part of the run", where=str(self.path))
        truth = GroundTruth.model_validate_json(found[0][0])
        if truth.image is None or not found[0][1]:
            return truth
        image = truth.image.model_copy(update={"path": Path(found[0][1])})
        return truth.model_copy(update={"image": image})

    def _pages(self) -> Iterator[list[Sample]]:
        after = -1
        while True:
            sql = "select place, sample from samples where place > ? order by place limit ?"
            found = self._database.read(sql, (after, _PAGE))
            if not found:
                return
            after = found[-1][0]
            yield [Sample.model_validate_json(row[1]) for row in found]

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
        return self._read_generation(found[0][0]) if found else None

    def put_generation(self, key: str, generation: Generation) -> None:
        """Writes a drawing; it becomes the current one of its sample and repeat. Its picture must be stored before."""
        self._database.write(
            "insert or replace into generations (key, sample_id, repeat, status, reason, image, seconds, cost,"
            " attempts, record) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                generation.sample_id,
                generation.repeat,
                generation.status.value,
                generation.reason,
                generation.image.sha256 if generation.image else "",
                generation.seconds,
                generation.usage.cost,
                generation.attempts,
                generation.model_dump_json(),
            ),
        )

    def generations(self) -> Iterator[tuple[str, Generation]]:
        """Yields the current drawing of every selected sample and repeat that has one, with its key."""
        for page in self._pages():
            yield from self._page_generations(page).values()

    def _page_generations(self, page: list[Sample]) -> dict[tuple[str, int], tuple[str, Generation]]:
        marks = ",".join("?" * len(page))
        found = self._database.read(
            f"select sample_id, repeat, key, record from generations where sample_id in ({marks}) and repeat < ?"
            " order by number",
            (*(sample.id for sample in page), self.spec.repeats),
        )
        latest = {(row[0], row[1]): (row[2], row[3]) for row in found}
        wanted = ((sample.id, repeat) for sample in page for repeat in range(self.spec.repeats))
        return {
            place: (latest[place][0], self._read_generation(latest[place][1])) for place in wanted if place in latest
        }

    def _read_generation(self, record: str) -> Generation:
        generation = Generation.model_validate_json(record)
        if generation.image is None:
            return generation
        image = generation.image.model_copy(update={"path": self._images.path(generation.image)})
        return generation.model_copy(update={"image": image})

    # -- judgements ------------------------------------------------------------------------------------------------

    def score(self, key: str) -> Score | None:
        """Returns the judgement of a key; None when there is none."""
        found = self._database.read("select record from scores where key = ?", (key,))
        return Score.model_validate_json(found[0][0]) if found else None

    def put_score(self, key: str, score: Score, scorer: ScorerSpec) -> None:
        """Writes a judgement. It counts while `score.image` is the digest of its sample's current picture.

        Args:
            key: From `knowgen.spec.score_key`.
            score: The judgement; its `image` must be filled in, empty only where the drawing has no picture.
            scorer: Who judged; a judgement counts while the run's scorer of that name is this one.
        """
        self._database.write(
            "insert or replace into scores (key, sample_id, repeat, scorer, scorer_hash, judge_repeat, image, status,"
            " reason, strict_values, seconds, cost, tries, record) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                score.sample_id,
                score.repeat,
                score.scorer,
                self._scorer_hash(scorer),
                score.judge_repeat,
                score.image,
                score.status.value,
                score.strict.reason,
                json.dumps(score.strict.values),
                score.seconds,
                score.usage.cost,
                score.tries,
                score.model_dump_json(),
            ),
        )

    def scores(self, scorer: str | None = None) -> Iterator[tuple[str, Score]]:
        """Yields the current judgements with their keys, as `rows` would use them.

        Args:
            scorer: Label of a scorer; all of the run's when None.

        Raises:
            UsageError: The run has no such scorer.
        """
        for spec in self.spec.scorers if scorer is None else (self._scorer(scorer),):
            for page in self._pages():
                yield from self._page_scores(page, spec, self._page_generations(page)).values()

    def cells(self, scorer: str) -> Iterator[Cell]:
        """Yields every selected sample and repeat exactly once, in order, with what is there of it.

        Raises:
            UsageError: The run has no such scorer.
        """
        spec = self._scorer(scorer)
        for page in self._pages():
            generations = self._page_generations(page)
            scores = self._page_scores(page, spec, generations)
            for sample in page:
                for repeat in range(self.spec.repeats):
                    drawn = generations.get((sample.id, repeat))
                    judged = [scores.get((sample.id, repeat, number)) for number in range(self.spec.judge_repeats)]
                    yield Cell(
                        sample=sample,
                        repeat=repeat,
                        generation=drawn[1] if drawn else None,
                        scores=tuple(found[1] if found else None for found in judged),
                    )

    def rows(self, scorer: str) -> Iterator[Row]:
        """Yields every selected sample x repeat x judge repeat exactly once, in order.

        A judgement counts when it is of the run's current scorer of that name and of the current picture; where none
        does, the row's reading is not_run.

        Raises:
            UsageError: The run has no such scorer.
        """
        for cell in self.cells(scorer):
            for judge_repeat, score in enumerate(cell.scores):
                yield _row(cell, judge_repeat, score)

    def _page_scores(
        self, page: list[Sample], scorer: ScorerSpec, generations: dict[tuple[str, int], tuple[str, Generation]]
    ) -> dict[tuple[str, int, int], tuple[str, Score]]:
        marks = ",".join("?" * len(page))
        found = self._database.read(
            f"select sample_id, repeat, judge_repeat, image, key, record from scores where sample_id in ({marks})"
            " and scorer = ? and scorer_hash = ? and repeat < ? and judge_repeat < ? order by number",
            (
                *(sample.id for sample in page),
                scorer.name,
                self._scorer_hash(scorer),
                self.spec.repeats,
                self.spec.judge_repeats,
            ),
        )
        latest: dict[tuple[str, int, int], tuple[str, str]] = {}
        for sample_id, repeat, judge_repeat, image, key, record in found:
            drawn = generations.get((sample_id, repeat))
            current = drawn[1].image.sha256 if drawn and drawn[1].image else ""
            if drawn is not None and image == current:
                latest[sample_id, repeat, judge_repeat] = (key, record)
        return {
            place: (latest[place][0], Score.model_validate_json(latest[place][1]))
            for sample in page
            for repeat in range(self.spec.repeats)
            for number in range(self.spec.judge_repeats)
            if (place := (sample.id, repeat, number)) in latest
        }

    def _scorer(self, name: str) -> ScorerSpec:
        for spec in self.spec.scorers:
            if spec.name == name:
                return spec
        known = ", ".join(spec.name for spec in self.spec.scorers) or "none"
        raise UsageError(f"the run has no scorer {name!r}", where=str(self.path), fix=f"it has {known}")

    def _scorer_hash(self, scorer: ScorerSpec) -> str:
        known = self._hashes.get(id(scorer))
        if known is None or known[0] is not scorer:
            value = fingerprint({"name": scorer.name, "args": scorer.args, "version": scorer.version})
            known = self._hashes[id(scorer)] = (scorer, value)
        return known[1]

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

    def note_session(self, event: Literal["start", "end"], outcome: str = "") -> None:
        """Notes that an invocation begins or ends. One that is killed counts up to its last commit.

        Args:
            event: start or end.
            outcome: How it ended, such as `done`, `budget` or `interrupted`.
        """
        now = time.time()
        if event == "start":
            sql = "insert into sessions (started, seen, outcome) values (?, ?, '')"
            self._session = self._database.write(sql, (now, now)).lastrowid or 0
        elif self._session:
            sql = "update sessions set seen = ?, outcome = ? where number = ?"
            self._database.write(sql, (now, outcome, self._session))
            self._session = 0
        self._database.commit()

    def seconds(self) -> float:
        """Returns the wall time of all invocations, in seconds."""
        return float(self._database.read("select coalesce(sum(seen - started), 0.0) from sessions")[0][0])

    def _note_seen(self, connection: sqlite3.Connection) -> None:
        if self._session:
            connection.execute("update sessions set seen = ? where number = ?", (time.time(), self._session))


def _sample_row(place: int, sample: Sample, truth: GroundTruth) -> tuple[object, ...]:
    file = truth.image.path if truth.image else None
    return (
        place,
        sample.id,
        sample.category,
        sample.group,
        sample.difficulty,
        sample.text_required,
        sample.model_dump_json(),
        truth.model_dump_json(),
        str(file.absolute()) if file else "",
    )


def _row(cell: Cell, judge_repeat: int, score: Score | None) -> Row:
    sample, drawn = cell.sample, cell.generation
    return Row(
        sample_id=sample.id,
        category=sample.category,
        group=sample.group,
        difficulty=sample.difficulty,
        text_required=sample.text_required,
        repeat=cell.repeat,
        judge_repeat=judge_repeat,
        generation=drawn.status if drawn else GenerationStatus.NOT_RUN,
        generation_reason=drawn.reason if drawn else "",
        strict=score.strict if score else _NOT_JUDGED,
        lenient=score.lenient if score else None,
        judge_returned=score.judge_returned if score else "",
    )


def is_run_directory(path: Path) -> bool:
    """Tells whether a folder holds a run: run.json or run.sqlite."""
    return (path / MANIFEST_FILE).is_file() or (path / DATABASE_FILE).is_file()


def _make_folder(path: Path, *, fresh: bool) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        if fresh and any(path.iterdir()) and not is_run_directory(path):
            raise ConfigError("is not empty and no run directory", where=str(path), fix="choose another --out")
    except FileExistsError as error:
        raise ConfigError("is a file", where=str(path), fix="choose another --out") from error
    except OSError as error:
        raise explain_os_error(error, path) from error


def _remove_results(path: Path) -> None:
    """Removes what runs write; run.json goes last, so that a kill on the way leaves a run directory."""
    try:
        for name in (*_DATABASE_FILES, *_RESULTS, MANIFEST_FILE):
            target = path / name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
    except OSError as error:
        raise explain_os_error(error, path) from error
