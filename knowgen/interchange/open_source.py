"""Existing images as input of the engine: a run directory, an official results file, or a folder of images."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import click

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import GroundTruth, Sample
from knowgen.core.spec import GeneratorSpec, RunSpec, ScorerSpec, Selection
from knowgen.generators.contract import GeneratedImage
from knowgen.interchange.image_sources import FolderSource, RunSource, SourceImage
from knowgen.interchange.official import read_results
from knowgen.interchange.official_export import remember_source
from knowgen.store.folder import is_run_directory
from knowgen.store.run import RunStore
from knowgen.tasks.contract import Task

Duplicates = Literal["error", "last"]

SOURCES = "give a run directory, a results file (a JSON array in UTF-8) or a folder of images"
"""Fix for an unusable source, for error messages."""

HEAD_BYTES = 4096
"""Number of bytes read to detect the type of a file."""


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
        name: Name of the system of that run; empty when it has none of its own.
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
    name: str = ""
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
        self.limit = "first" if spec.selection.kind == "limit" else "stratified"
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


def open_source(path: Path, task: Task | None, duplicates: Duplicates = "error") -> OpenedSource:
    """Detect the type of a source and open it.

    Args:
        path: A run directory, an official results file, or a folder of images.
        task: Task of a folder of images; for a run, a task to use instead of the recorded one.
        duplicates: How to treat rows of a results file with the same id: `error`, or `last`, with which the last of
            them counts, as in the official evaluator.

    Raises:
        UsageError: A folder of images is given without a task, or a results file with one.
        DataError: The path does not exist, is none of these, or is damaged.
    """
    if is_run_directory(path):
        return _run(path, task)
    if path.is_dir():
        if task is None:
            raise UsageError(f"{path} is a folder of images", fix="give its task with --task")
        return _folder(path, task)
    if not path.exists():
        raise DataError("is missing", where=str(path), fix=SOURCES)
    if not _starts_with_array(path):
        raise DataError("not a source of images", where=str(path), fix=SOURCES)
    if task is not None:
        raise UsageError("a results file has its own prompts and truths", where=str(path), fix="leave out --task")
    return _results(path, duplicates)


def _starts_with_array(path: Path) -> bool:
    """Return whether a file starts with a JSON array; the rest is checked when it is read.

    Raises:
        DataError: The file cannot be read.
    """
    if not path.is_file():  # a pipe can be read only once, so its content is not checked here
        return True
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path)) from error
    return head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


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
        name=spec.name,
        part_of=spec.selection if task is None else None,
    )


def _folder(path: Path, task: Task) -> OpenedSource:
    source = FolderSource(path, (sample.id for sample in task.samples()))
    if not source.count:
        raise DataError(
            f"no image is named after a sample of {task.name}", where=str(path), fix="name the images ID.png"
        )
    if source.unknown:
        more = f" and {len(source.unknown) - 1} more" if len(source.unknown) > 1 else ""
        click.echo(f"knowgen: {path}: {source.unknown[0]}{more} match no sample of {task.name}; ignored", err=True)
    return OpenedSource(
        task=task,
        generations=StoredGenerations(source.name, source.revision, source.generation),
        generator=GeneratorSpec(name=source.name, revision=f"pictures {source.revision}"),
        repeats=source.repeats,
    )


def _results(path: Path, duplicates: Duplicates) -> OpenedSource:
    results = read_results(path)
    images = results.images(duplicates)
    return OpenedSource(
        task=results.task(duplicates=duplicates),
        generations=StoredGenerations(images.name, images.revision, images.generation),
        generator=GeneratorSpec(name=images.name, revision=f"results {images.revision}"),
        remember=partial(remember_source, results=results),
    )
