"""Existing images as input of the engine: a run directory, an official results file, or a folder of images."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import GroundTruth, Sample
from knowgen.core.spec import AgentSpec, GeneratorSpec, RunSpec, ScorerSpec, Selection
from knowgen.core.text import clean_text, count, one_line
from knowgen.core.text_files import read_bytes
from knowgen.generators.contract import GeneratedImage
from knowgen.interchange.image_sources import FolderSource, RunSource, SourceImage
from knowgen.interchange.name_pattern import NamePattern, suggest
from knowgen.interchange.official import OfficialResults, OfficialRow, read_results
from knowgen.interchange.official_export import remember_source
from knowgen.interchange.recorded_images import listed
from knowgen.store.folder import is_run_directory
from knowgen.store.run import RunStore
from knowgen.tasks.contract import Task
from knowgen.tasks.private import is_private

Duplicates = Literal["error", "last"]

SOURCES = "give a run directory, a results file (a JSON array) or a folder of images"
"""Fix for an unusable source, for error messages."""


HEAD_BYTES = 4096
"""Number of bytes in which the start of a results file must be."""

_BEFORE_TEXT = b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"
"""Byte-order marks, the zero bytes of UTF-16 and white space."""

SOURCE_NOTE = "source"
"""Kind of the note in a run on what its source lacks."""


@dataclass(frozen=True)
class SourceNotes:
    """What a source lacks for the samples of a run.

    Attributes:
        name: Name of the source.
        texts: One text for each thing to say.
        without_image: Ids of samples without an image.
    """

    name: str = ""
    texts: tuple[str, ...] = ()
    without_image: tuple[str, ...] = ()

    def print(self) -> None:
        """Print each text on a line of stderr."""
        for text in self.texts:
            click.echo(f"knowgen: {one_line(text)}", err=True)

    def record(self, store: RunStore) -> None:
        """Record the notes in a run."""
        if self.texts:
            texts = [one_line(clean_text(text)) for text in self.texts]
            ids = [clean_text(each) for each in self.without_image]
            store.put_note(clean_text(self.name), SOURCE_NOTE, {"notes": texts, "without_image": ids})


def _nothing(_: Collection[str]) -> SourceNotes:
    return SourceNotes()


@dataclass(frozen=True)
class OpenedSource:
    """A source of images, with what is known about them.

    Attributes:
        task: Task that the images belong to.
        generations: The images.
        generator: Specification of their generator, as recorded.
        scorers: Scorers with earlier scores, which are preserved if a run is scored in place.
        seed: Seed of the run.
        repeats: Images per sample.
        in_place: Whether the source is a run directory, which may itself be the output directory.
        part_of: Selection of samples in that run; None if the samples are those of `task`.
        requests: Identity of the agent answers that the images were generated from; empty if none.
        agent: The agent of that run; None without one.
        name: Name of the system of that run; empty when it has none of its own.
        remember: Records in the new run what an export needs from the source.
        notes: Returns what the source lacks for samples, which are given by their ids.
    """

    task: Task
    generations: StoredGenerations
    generator: GeneratorSpec
    scorers: tuple[ScorerSpec, ...] = ()
    seed: int = 0
    repeats: int = 1
    in_place: bool = False
    part_of: Selection | None = None
    requests: str = ""
    agent: AgentSpec | None = None
    name: str = ""
    remember: Callable[[RunStore], None] | None = None
    notes: Callable[[Collection[str]], SourceNotes] = _nothing


class StoredGenerations:
    """Adapts a source to the engine's `GenerationSource`.

    Args:
        name: Name of the source.
        revision: Hash of its content.
        look_up: Returns the image of a sample and repeat.
        close: Closes what was opened.
    """

    def __init__(
        self,
        name: str,
        revision: str,
        look_up: Callable[[str, int], SourceImage],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.revision, self._look_up, self.close = name, revision, look_up, close

    def generation(self, sample_id: str, repeat: int) -> GeneratedImage:
        """Return the image of a sample and repeat; a failed one with its reason if there is none."""
        entry = self._look_up(sample_id, repeat)
        generation = entry.generation
        if generation is None:
            return GeneratedImage(image=entry.path, status=entry.status, reason=entry.reason)
        return GeneratedImage(
            image=entry.path,
            status=entry.status,
            reason=entry.reason,
            used_prompt=generation.used_prompt,
            references=generation.references,
            evidence=generation.evidence,
            trajectory=generation.trajectory,
            settings=generation.settings,
            usage=generation.usage,
        )


class RecordedTask:
    """The task of a run, as recorded in the run, so that it can be scored without the task itself.

    Args:
        path: The run directory.
        spec: Its specification.
    """

    def __init__(self, path: Path, spec: RunSpec) -> None:
        self._path = path
        self.name = spec.task
        self.version = spec.task_version
        self.default_scorers = tuple(scorer.name for scorer in spec.scorers)
        self.search = ""
        self.search_version = ""
        self.limit = "first" if spec.selection.kind == "limit" else "stratified"
        with RunStore.read(path) as store:
            self._pairs = {sample.id: (sample, store.truth(sample.id)) for sample in store.samples()}
        self.private_truths = any(is_private(truth) for _, truth in self._pairs.values())

    def __len__(self) -> int:
        return len(self._pairs)

    def samples(self) -> Iterator[Sample]:
        """Yield the samples of the run, in order."""
        for sample, _ in self._pairs.values():
            yield sample

    def truth(self, sample_id: str) -> GroundTruth:
        """Return the recorded ground truth of a sample.

        Raises:
            DataError: The sample is not part of the run, or its ground-truth image no longer exists.
        """
        if sample_id not in self._pairs:
            raise DataError(f"sample {sample_id!r} is not part of the run", where=str(self._path))
        truth = self._pairs[sample_id][1]
        if truth.image is not None and (truth.image.path is None or not truth.image.path.is_file()):
            raise DataError(
                f"the ground-truth image {truth.image.path} is missing",
                where=str(self._path),
                fix="give the task again with --task",
            )
        return truth


def open_source(
    path: Path,
    task: Task | None,
    duplicates: Duplicates = "error",
    *,
    images: Path | None = None,
    pattern: str | None = None,
) -> OpenedSource:
    """Detect the type of a source and open it.

    Args:
        path: A run directory, an official results file, or a folder of images.
        task: Task of a folder of images; for a run, a task to use instead of the recorded one.
        duplicates: How to treat rows of a results file with the same id: `error`, or `last`, with which the last of
            them counts, as in the official evaluator.
        images: Folder of the images of a results file.
        pattern: Pattern of the file names in a folder of images.

    Raises:
        UsageError: A folder of images is given without a task, or a results file with one; or an option does not apply
            to the source.
        DataError: The path does not exist, is none of these, or is damaged; or it has no image of a sample.
    """
    folder = path.is_dir() and not is_run_directory(path)
    if pattern is not None and not folder:
        raise UsageError("--pattern is for a folder of images", where=str(path), fix="leave it out")
    if images is not None and path.is_dir():
        raise UsageError("--images is for a results file", where=str(path), fix="leave it out")
    if is_run_directory(path):
        return _run(path, task)
    if folder:
        if task is None:
            raise UsageError(f"{path} is a folder of images", fix="give its task with --task")
        return _folder(path, task, pattern)
    if not path.exists():
        raise DataError("is missing", where=str(path), fix=SOURCES)
    if path.is_file() and not _starts_with_array(path):  # a pipe can be read only once
        raise DataError("not a source of images", where=str(path), fix=SOURCES)
    if task is not None:
        raise UsageError("a results file has its own prompts and truths", where=str(path), fix="leave out --task")
    return _results(path, duplicates, images)


def _starts_with_array(path: Path) -> bool:
    """Return whether a file starts with a JSON array, in any encoding; the rest is checked when it is read."""
    return read_bytes(path)[:HEAD_BYTES].lstrip(_BEFORE_TEXT).startswith(b"[")


def _run(path: Path, task: Task | None) -> OpenedSource:
    source = RunSource(path)
    spec = source.store.spec
    if task is not None and task.version != spec.task_version:
        raise UsageError(
            f"the run is of {spec.task} {spec.task_version}, not of {task.name} {task.version}",
            where=str(path),
            fix="give the task of the run",
        )
    return OpenedSource(
        task=task or RecordedTask(path, spec),
        generations=StoredGenerations(source.name, source.revision, source.generation, source.close),
        generator=spec.generator,
        scorers=spec.scorers,
        seed=spec.seed,
        repeats=spec.repeats,
        in_place=True,
        requests=spec.requests,
        agent=spec.agent,
        name=spec.name,
        part_of=spec.selection if task is None else None,
    )


def _folder(path: Path, task: Task, pattern: str | None) -> OpenedSource:
    names = NamePattern(pattern) if pattern is not None else None
    source = FolderSource(path, (sample.id for sample in task.samples()), names)
    if not source.count:
        raise _no_image(source, task, names)
    return OpenedSource(
        task=task,
        generations=StoredGenerations(source.name, source.revision, source.generation),
        generator=GeneratorSpec(name=source.name, revision=f"pictures {source.revision}"),
        repeats=source.repeats,
        notes=lambda ids: _folder_notes(source, task.name, ids),
    )


def _folder_notes(source: FolderSource, task: str, ids: Collection[str]) -> SourceNotes:
    missing, passed_over = [each for each in source.missing if each in ids], source.passed_over()
    if not missing and not passed_over:
        return SourceNotes()
    samples = count(len(ids), "sample" if len(ids) == len(source.ids) else "selected sample")
    lacking = f"; none for {listed(missing)}" if missing else ""
    also = f"; passed over: {passed_over}" if passed_over else ""
    text = f"{source.path}: images for {len(ids) - len(missing)} of {samples} of {task}{lacking}{also}"
    return SourceNotes(source.name, (text,), tuple(missing))


def _no_image(source: FolderSource, task: Task, pattern: NamePattern | None) -> DataError:
    """Return the error of a folder without any image of a sample: what was looked for, and what is there."""
    wanted = f"fits the pattern {pattern.text!r}" if pattern else f"is named after a sample of {task.name}"
    there = source.passed_over() or "no file"
    fix = "name the images ID.png"
    if better := suggest(source.unknown[:100], source.ids):
        fix = f"try --pattern {shlex.quote(better)}"
    elif source.links and not source.unknown:
        fix = "give the folder that a link leads to"
    elif source.unknown:
        fix += ", or describe their names with --pattern, such as '{id}_seed*.png'"
    ids = listed(source.ids.values())
    return DataError(f"no image {wanted}; ids are {ids}; there: {there}", where=str(source.path), fix=fix)


def _results(path: Path, duplicates: Duplicates, folder: Path | None) -> OpenedSource:
    results = read_results(path, folder)
    task, images = results.task(duplicates=duplicates), results.images(duplicates)
    _require_files(results, list(images.chosen.values()))
    return OpenedSource(
        task=task,
        generations=StoredGenerations(images.name, images.revision, images.generation),
        generator=GeneratorSpec(name=images.name, revision=f"results {images.revision}"),
        remember=lambda store: remember_source(store, results),
        notes=lambda ids: _results_notes(
            results,
            images.name,
            {name: row for name, row in images.chosen.items() if name in ids},
            [reason for name, reason in task.skips.items() if name in ids],
        ),
    )


def _results_notes(
    results: OfficialResults, name: str, rows: Mapping[str, OfficialRow], skips: Sequence[str]
) -> SourceNotes:
    """Return what a results file lacks for the rows of a run.

    Args:
        results: The file.
        name: Name of the source.
        rows: The rows by sample id.
        skips: For each row that the official evaluator leaves out, its reason.
    """
    notes = [
        f"{results.path}: {len(each.missing)} of {count(each.wanted, each.what)} missing; {each.looked}"
        for each in _lacking(results, list(rows.values()))
    ]
    if without := sum(row.id is None for row in results.rows):
        notes.append(f"{results.path}: {count(without, 'row')} without an id left out")
    if skips:
        number = count(len(skips), "row")
        notes.append(f"{results.path}: {number} counted under strict and left out under official: {skips[0]}")
    missing = [each for each, row in rows.items() if row.success and row.output and not row.has_output]
    return SourceNotes(name, tuple(notes), tuple(missing))


@dataclass(frozen=True)
class _Lacking:
    """Files of one kind that rows name and that were not found: `what` they are, how many are `wanted`."""

    what: str
    wanted: int
    missing: tuple[str, ...]
    looked: str


def _lacking(results: OfficialResults, rows: Sequence[OfficialRow]) -> list[_Lacking]:
    """Return the images and the ground truths that rows name and that were not found."""
    if results.files is None:
        return []
    found = []
    made = [(row.recorded(row.output_name), row.has_output) for row in rows if row.success and row.output is not None]
    compared = [(row.recorded(row.truth_name), row.has_truth) for row in rows if row.truth is not None]
    for what, files in (("image", made), ("ground truth", compared)):
        missing = tuple(name or "" for name, there in files if not there)
        doubtful = sum(name in results.files.ambiguous for name in missing)
        unsure = f" ({doubtful} not used: several rows lead to one file)" if doubtful else ""
        if missing:
            looked = f"looked for {listed(missing)} in {results.files.where()}{unsure}"
            found.append(_Lacking(what, len(files), missing, looked))
    return found


def _require_files(results: OfficialResults, rows: Sequence[OfficialRow]) -> None:
    """Raise `DataError` if no generated image of any row was found, or no ground truth."""
    for each in _lacking(results, rows):
        if len(each.missing) == each.wanted and results.files is not None:
            raise DataError(
                f"none of its {count(each.wanted, each.what)} was found; {each.looked}; there: {results.files.there()}",
                where=str(results.path),
                fix="give the folder that has them with --images DIR",
            )
