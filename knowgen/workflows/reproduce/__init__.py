"""Generate images of a run again from its record, and compare them with the stored ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import Generation, GroundTruth, Sample
from knowgen.core.run_config import GENERATION_TIMEOUT
from knowgen.core.scratch import ScratchFolder
from knowgen.core.spec import RunSpec, select
from knowgen.engine.components import GeneratorHandle
from knowgen.engine.options import EngineOptions
from knowgen.generators.contract import AnswerSource
from knowgen.store.run import RunStore
from knowgen.workflows.reproduce.comparison import compare_image, pixel_difference
from knowgen.workflows.reproduce.generator import changes_since, recorded_handle, recorded_requests
from knowgen.workflows.reproduce.result import NOT_COMPARED, TOLERANCE, ImageComparison, Reproduction
from knowgen.workflows.selection import select_samples

__all__ = ["NOT_COMPARED", "ImageComparison", "Reproduction", "pixel_difference", "reproduce"]

_NOT_GENERATED = ("pictures ", "results ")
"""Prefixes of the revision of images that were read from a folder or a results file."""


class _RecordedTask:
    """The samples of a run as recorded, with their ground truths for a privileged generator."""

    default_scorers: tuple[str, ...] = ()
    search = search_version = ""

    def __init__(self, store: RunStore, samples: Sequence[Sample], *, truths: bool) -> None:
        self.name, self.version = store.spec.task, store.spec.task_version
        self._samples = samples
        self._truths = {sample.id: store.truth(sample.id) for sample in samples} if truths else {}

    def __len__(self) -> int:
        return len(self._samples)

    def samples(self) -> Iterator[Sample]:
        """Yield the samples."""
        yield from self._samples

    def truth(self, sample_id: str) -> GroundTruth:
        """Return the recorded ground truth, or an empty one for a generator that does not see it."""
        return self._truths.get(sample_id, GroundTruth(sample_id=sample_id))


def reproduce(
    run: Path | str,
    *,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
    device: str | None = None,
    task: str | None = None,
    requests: Path | str | None = None,
    generator_args: Mapping[str, Any] | None = None,
    tolerance: int = TOLERANCE,
    budget: float | None = None,
    timeout: float = GENERATION_TIMEOUT,
    progress: bool = False,
) -> Reproduction:
    """Generate images of a run again, with the engine like any run, and compare them with the stored ones.

    Args:
        run: The run directory; nothing in it is changed.
        ids: Only these samples.
        limit: Maximum number of samples, from the first on.
        device: Device of the generator, such as cuda:1; chosen automatically when None.
        task: Name or folder of the run's task, for a generator that uses its search; the recorded name when None.
        requests: The agent's answers that the run was generated from, if any.
        generator_args: Arguments that a run does not record, such as addresses.
        tolerance: Allowed per-channel pixel difference, 0 to 255.
        budget: Maximum cost in USD; None for no limit.
        timeout: Time limit of one generation in seconds.
        progress: Show progress on stderr.

    Raises:
        UsageError: The images are not from a generator, the generator is not installed, or an argument is wrong.
        DataError: The path is not a run directory, or the run is damaged or has no image.
    """
    if not 0 <= tolerance <= 255:
        raise UsageError(f"tolerance must be a whole number from 0 to 255, got {tolerance}")
    with RunStore.read(Path(run)) as store:
        spec = store.spec
        if spec.generator.revision.startswith(_NOT_GENERATED):
            raise UsageError(
                f"its images were taken from {spec.generator.name!r} and not generated here",
                where=str(run),
                fix="name a run of a generator",
            )
        handle = recorded_handle(spec, task, generator_args or {}, device)
        source = recorded_requests(Path(run), spec, requests)
        chosen, _ = select_samples(_RecordedTask(store, list(store.samples()), truths=False), limit=limit, ids=ids)
        then = {place: store.latest_generation(*place) for place in _places(spec, chosen)}
        with_image = [sample for sample in chosen if any(_has_image(then[place]) for place in _places(spec, [sample]))]
        if not with_image:
            raise DataError("no image to generate again", where=str(run), fix="select samples that have an image")
        again = spec.model_copy(
            update={
                "selection": select([sample.id for sample in with_image], "ids"),
                "generator": handle.spec,
                "agent": None,  # its answers are taken as they are stored
                "scorers": (),
                "shard": None,
            }
        )
        options = EngineOptions(budget=budget, timeout=timeout, progress=progress)
        recorded = _RecordedTask(store, with_image, truths=handle.capabilities.privileged)
        with ScratchFolder("knowgen.reproduce.") as folder:
            stopped = _generate(folder / "run", again, recorded, handle, options, source)
            with RunStore.read(folder / "run") as repeated:
                images = tuple(
                    compare_image(store, place, before, repeated.latest_generation(*place), tolerance)
                    for place, before in then.items()
                )
        return Reproduction(Path(run), spec.generator, tolerance, images, changes_since(store, handle), stopped)


def _places(spec: RunSpec, samples: Sequence[Sample]) -> list[tuple[str, int]]:
    return [(sample.id, repeat) for sample in samples for repeat in range(spec.repeats)]


def _has_image(generation: Generation | None) -> bool:
    return generation is not None and generation.image is not None


def _generate(
    path: Path,
    spec: RunSpec,
    task: _RecordedTask,
    handle: GeneratorHandle,
    options: EngineOptions,
    source: AnswerSource | None,
) -> str:
    """Generate into a new run directory; return the reason for stopping early, empty when all was generated."""
    from knowgen.engine import run as run_engine

    with RunStore.open(path, spec) as store:
        outcome = run_engine(spec, task, handle, (), store, options, source)
    return outcome.stop_reason if outcome.stopped == "unavailable" else outcome.stopped
