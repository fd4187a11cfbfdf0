"""Existing images as input of the engine: a run directory, an official results file, or a folder of images."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import GroundTruth, Sample
from knowgen.core.spec import GeneratorSpec, RunSpec, ScorerSpec, Selection
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
        remember: Records in the new run what an export needs from the source.
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
    remember: Callable[[RunStore], None] | None = None


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
        with RunStore.read(path) as store:
            self._pairs = {sample.id: (sample, store.truth(sample.id)) for sample in store.samples()}

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
        part_of=spec.selection if task is None else None,
    )


def _folder(path: Path, task: Task, pattern: str | None) -> OpenedSource:
    names = NamePattern(pattern) if pattern is not None else None
    source = FolderSource(path, (sample.id for sample in task.samples()), names)
    if not source.count:
        raise _no_image(source, task, names)
    passed_over, notes = source.passed_over(), list[str]()
    if source.missing or passed_over:
        found = len(source.ids) - len(source.missing)
        lacking = f"; none for {listed(source.missing)}" if source.missing else ""
        also = f"; passed over: {passed_over}" if passed_over else ""
        notes.append(f"{path}: images for {found} of {count(len(source.ids), 'sample')} of {task.name}{lacking}{also}")
    return OpenedSource(
        task=task,
        generations=StoredGenerations(source.name, source.revision, source.generation),
        generator=GeneratorSpec(name=source.name, revision=f"pictures {source.revision}"),
        repeats=source.repeats,
        remember=_said(notes, source.name, source.missing),
    )


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
    notes = _missing_images(results, list(images.chosen.values()))
    if without := sum(row.id is None for row in results.rows):
        notes.append(f"{path}: {count(without, 'row')} without an id left out")
    if task.skips:
        number, first = count(len(task.skips), "row"), next(iter(task.skips.values()))
        notes.append(f"{path}: {number} counted under strict and left out under official: {first}")
    missing = [name for name, row in images.chosen.items() if row.success and row.output and not row.has_output]
    tell = _said(notes, images.name, missing)

    def remember(store: RunStore) -> None:
        remember_source(store, results)
        tell(store)

    return OpenedSource(
        task=task,
        generations=StoredGenerations(images.name, images.revision, images.generation),
        generator=GeneratorSpec(name=images.name, revision=f"results {images.revision}"),
        remember=remember,
    )


def _missing_images(results: OfficialResults, rows: list[OfficialRow]) -> list[str]:
    """Return a line on missing images and one on missing ground truths, if there are any.

    Raises:
        DataError: No generated image was found, or no ground truth.
    """
    made = [row for row in rows if row.success and row.output is not None]
    compared = [row for row in rows if row.truth is not None]
    lines: list[str] = []
    lost = [row for row in made if not row.has_output]
    lost_truths = [row for row in compared if not row.has_truth]
    for what, every, missing in (("image", made, lost), ("ground truth", compared, lost_truths)):
        if not missing or results.files is None:
            continue
        is_image = what == "image"
        names = [row.recorded(row.output_name if is_image else row.truth_name) or "" for row in missing]
        doubtful = sum(name in results.files.ambiguous for name in names)
        unsure = f" ({doubtful} not used: several rows lead to one file)" if doubtful else ""
        looked = f"looked for {listed(names)} in {results.files.where()}{unsure}"
        if len(missing) == len(every):
            raise DataError(
                f"none of its {count(len(every), what)} was found; {looked}; there: {results.files.there()}",
                where=str(results.path),
                fix="give the folder that has them with --images DIR",
            )
        lines.append(f"{results.path}: {len(missing)} of {count(len(every), what)} missing; {looked}")
    return lines


def _said(notes: Sequence[str], name: str, missing: Sequence[str]) -> Callable[[RunStore], None]:
    """Print notes on a source; return the function that records them in a run, with the samples without image."""
    for text in notes:
        click.echo(f"knowgen: {one_line(text)}", err=True)

    def remember(store: RunStore) -> None:
        if notes:
            texts, ids = [one_line(clean_text(text)) for text in notes], [clean_text(each) for each in missing]
            store.put_note(clean_text(name), SOURCE_NOTE, {"notes": texts, "without_image": ids})

    return remember
