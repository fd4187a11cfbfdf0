"""Pictures drawn elsewhere, made ready for the engine: a run, an official results file, a folder of pictures."""

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
from knowgen.interchange.image_sources import FolderSource, ImageSource, RunSource
from knowgen.interchange.official import read_results
from knowgen.interchange.official_export import remember_source
from knowgen.store.folder import is_run_directory
from knowgen.store.run import RunStore
from knowgen.tasks.contract import Task

Duplicates = Literal["error", "last"]

SOURCES = "name a run directory, a results file (a JSON array in UTF-8) or a folder of pictures"
"""What a user is told a source may be."""

HEAD_BYTES = 4096
"""So much of a file is looked at to tell what it is."""


@dataclass(frozen=True)
class OpenedSource:
    """What a source of pictures brings along.

    Attributes:
        task: The samples it answers.
        drawings: The pictures.
        generator: Who drew them, as recorded.
        scorers: Scorers that judged them before; their judgements stay in a run that is scored in place.
        seed: Seed they were drawn with.
        repeats: Pictures a sample.
        in_place: They lie in a run directory, which may itself be the one that is written.
        part_of: Which samples of the task that run took; None when the samples are the task's own.
        requests: Identity of the agent's answers they were drawn from, empty for the prompts.
        remember: Notes in the new run what an export needs of the source.
    """

    task: Task
    drawings: StoredGenerations
    generator: GeneratorSpec
    scorers: tuple[ScorerSpec, ...] = ()
    seed: int = 0
    repeats: int = 1
    in_place: bool = False
    part_of: Selection | None = None
    requests: str = ""
    remember: Callable[[RunStore], None] | None = None


class StoredGenerations:
    """Adapts what the store finds to what the engine takes.

    Args:
        name: Of the source.
        revision: Identity of its content.
        look: Finds the picture of a sample and repeat.
        close: Lets go of what was opened.
    """

    def __init__(
        self,
        name: str,
        revision: str,
        look: Callable[[str, int], ImageSource],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.revision, self._look, self.close = name, revision, look, close

    def generation(self, sample_id: str, repeat: int) -> GeneratedImage:
        """Returns the drawing of a sample and repeat, a failed one with its reason where there is none."""
        found = self._look(sample_id, repeat)
        drawn = found.generation
        if drawn is None:
            return GeneratedImage(image=found.path, status=found.status, reason=found.reason)
        return GeneratedImage(
            image=found.path,
            status=found.status,
            reason=found.reason,
            used_prompt=drawn.used_prompt,
            references=drawn.references,
            evidence=drawn.evidence,
            trajectory=drawn.trajectory,
            settings=drawn.settings,
            usage=drawn.usage,
        )


class RecordedTask:
    """The task of a run, as the run recorded it: scoring anew needs neither the task's name nor its folder.

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
        """Yields the samples of the run."""
        for sample, _ in self._pairs.values():
            yield sample

    def truth(self, sample_id: str) -> GroundTruth:
        """Returns the ground truth a run recorded.

        Raises:
            DataError: The sample is not part of the run, or its ground-truth picture is no longer where it was.
        """
        if sample_id not in self._pairs:
            raise DataError(f"sample {sample_id!r} is not part of the run", where=str(self._path))
        truth = self._pairs[sample_id][1]
        if truth.image is not None and (truth.image.path is None or not truth.image.path.is_file()):
            raise DataError(
                f"the ground-truth picture {truth.image.path} is missing",
                where=str(self._path),
                fix="name the task again with --task",
            )
        return truth


def open_source(path: Path, task: Task | None, duplicates: Duplicates = "error") -> OpenedSource:
    """Finds out what a path holds and makes it ready.

    Args:
        path: A run directory, an official results file, or a folder of pictures.
        task: The task a folder of pictures answers; for a run, where to take samples and truths from instead.
        duplicates: What rows of a results file that share an id are: an error, or, as the official evaluator has it,
            one sample that the last of them stands for.

    Raises:
        UsageError: A folder of pictures without a task, or a results file with one.
        DataError: There is nothing at the path, it is none of these, or it is broken.
    """
    if is_run_directory(path):
        return _run(path, task)
    if path.is_dir():
        if task is None:
            raise UsageError(f"{path} is a folder of pictures", fix="name the task they answer with --task")
        return _folder(path, task)
    if not path.exists():
        raise DataError("is missing", where=str(path), fix=SOURCES)
    if not _holds_array(path):
        raise DataError("is no source of pictures", where=str(path), fix=SOURCES)
    if task is not None:
        raise UsageError("a results file brings its own prompts and truths", where=str(path), fix="leave out --task")
    return _results(path, duplicates)


def _holds_array(path: Path) -> bool:
    """Tells whether a file begins as a JSON array does; the rest of it is looked at when it is read.

    Raises:
        DataError: It cannot be read.
    """
    if not path.is_file():  # a pipe can be read only once
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
            f"the run answers {spec.task} {spec.task_version}, not {task.name} {task.version}",
            where=str(path),
            fix="name the task it was drawn for",
        )
    return OpenedSource(
        task=task or RecordedTask(path, spec),
        drawings=StoredGenerations(source.name, source.revision, source.generation, source.close),
        generator=spec.generator,
        scorers=spec.scorers,
        seed=spec.seed,
        repeats=spec.repeats,
        in_place=True,
        requests=spec.requests,
        part_of=spec.selection if task is None else None,
    )


def _folder(path: Path, task: Task) -> OpenedSource:
    source = FolderSource(path, (sample.id for sample in task.samples()))
    if not source.found:
        raise DataError(
            f"no picture here is named after a sample of {task.name}", where=str(path), fix="name them ID.png"
        )
    if source.unknown:
        more = f" and {len(source.unknown) - 1} more" if len(source.unknown) > 1 else ""
        click.echo(f"knowgen: {path}: {source.unknown[0]}{more} answer no sample of {task.name}; passed over", err=True)
    return OpenedSource(
        task=task,
        drawings=StoredGenerations(source.name, source.revision, source.generation),
        generator=GeneratorSpec(name=source.name, revision=f"pictures {source.revision}"),
        repeats=source.repeats,
    )


def _results(path: Path, duplicates: Duplicates) -> OpenedSource:
    results = read_results(path)
    drawings = results.drawings(duplicates)
    return OpenedSource(
        task=results.task(duplicates=duplicates),
        drawings=StoredGenerations(drawings.name, drawings.revision, drawings.generation),
        generator=GeneratorSpec(name=drawings.name, revision=f"results {drawings.revision}"),
        remember=partial(remember_source, results=results),
    )
