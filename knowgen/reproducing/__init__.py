"""Draws pictures of a run again from its record, and says how far what comes out is what is stored."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from knowgen import assemble
from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import Generation, GroundTruth, Sample
from knowgen.core.spec import RunSpec, select
from knowgen.engine.components import GeneratorHandle
from knowgen.engine.options import EngineOptions
from knowgen.generators.contract import AnswerSource
from knowgen.reproducing.generator import changes_since, recorded_handle, recorded_requests
from knowgen.reproducing.looking import difference, look
from knowgen.reproducing.result import NOT_COMPARED, TOLERANCE, RegeneratedImage, Reproduction
from knowgen.store.run import RunStore

__all__ = ["NOT_COMPARED", "RegeneratedImage", "Reproduction", "difference", "reproduce"]

_ELSEWHERE = ("pictures ", "results ")
"""How the revision of drawings that were taken from a folder or a results file begins."""


class _Recorded:
    """The samples of a run as it recorded them; their truths for a generator that is shown them."""

    default_scorers: tuple[str, ...] = ()
    search = search_version = ""

    def __init__(self, store: RunStore, samples: Sequence[Sample], *, truths: bool) -> None:
        self.name, self.version = store.spec.task, store.spec.task_version
        self._samples = samples
        self._truths = {sample.id: store.truth(sample.id) for sample in samples} if truths else {}

    def __len__(self) -> int:
        return len(self._samples)

    def samples(self) -> Iterator[Sample]:
        """Yields the samples."""
        yield from self._samples

    def truth(self, sample_id: str) -> GroundTruth:
        """Returns the recorded truth, or an empty one that no plain generator sees anyway."""
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
    timeout: float = 600.0,
    progress: bool = False,
) -> Reproduction:
    """Draws pictures of a run again, through the engine as any run, and compares them with the stored ones.

    Args:
        run: The run directory; nothing in it is changed.
        ids: Only these samples.
        limit: Only the first so many.
        device: Where the generator computes, such as cuda:1; chosen when None.
        task: Name or folder of the run's task, for a generator that looks things up in it; found by the recorded name
            when None.
        requests: The agent's answers the run was drawn from, for a run that was drawn from any.
        generator_args: Arguments that a run does not record, such as addresses.
        tolerance: Levels of 255 by which each value may be off, 0 to 255.
        budget: US dollars that drawing again may cost; None for no limit.
        timeout: Seconds a drawing may take.
        progress: Show progress on stderr.

    Raises:
        UsageError: The pictures were not drawn by a generator, it cannot be named any more, or an argument is wrong.
        DataError: It is no run directory, it is damaged, or it holds no picture.
    """
    if not 0 <= tolerance <= 255:
        raise UsageError(f"a tolerance of {tolerance} is not possible", fix="give levels, 0 to 255")
    with RunStore.read(Path(run)) as store:
        spec = store.spec
        if spec.generator.revision.startswith(_ELSEWHERE):
            raise UsageError(
                f"its pictures were not drawn here but taken from {spec.generator.name!r}",
                where=str(run),
                fix="name a run that a generator drew",
            )
        handle = recorded_handle(spec, task, generator_args or {}, device)
        source = recorded_requests(spec, requests)
        chosen, _ = assemble.choose(_Recorded(store, list(store.samples()), truths=False), limit=limit, ids=ids)
        then = {place: store.drawn(*place) for place in _places(spec, chosen)}
        wanted = [sample for sample in chosen if any(_has_picture(then[place]) for place in _places(spec, [sample]))]
        if not wanted:
            raise DataError("holds no picture that could be drawn again", where=str(run))
        again = spec.model_copy(
            update={
                "selection": select([sample.id for sample in wanted], "ids"),
                "generator": handle.spec,
                "scorers": (),
                "shard": None,
            }
        )
        options = EngineOptions(budget=budget, timeout=timeout, progress=progress)
        recorded = _Recorded(store, wanted, truths=handle.traits.privileged)
        with tempfile.TemporaryDirectory(prefix="knowgen-reproduce-", ignore_cleanup_errors=True) as folder:
            stopped = _draw(Path(folder) / "run", again, recorded, handle, options, source)
            with RunStore.read(Path(folder) / "run") as drawn:
                pictures = tuple(
                    look(store, place, before, drawn.drawn(*place), tolerance) for place, before in then.items()
                )
        return Reproduction(Path(run), spec.generator, tolerance, pictures, changes_since(store, handle), stopped)


def _places(spec: RunSpec, samples: Sequence[Sample]) -> list[tuple[str, int]]:
    return [(sample.id, repeat) for sample in samples for repeat in range(spec.repeats)]


def _has_picture(generation: Generation | None) -> bool:
    return generation is not None and generation.image is not None


def _draw(
    path: Path,
    spec: RunSpec,
    task: _Recorded,
    handle: GeneratorHandle,
    options: EngineOptions,
    source: AnswerSource | None,
) -> str:
    """Draws into a directory of its own; returns why it stopped, empty when all was drawn."""
    from knowgen.engine import run as run_engine

    with RunStore.open(path, spec) as store:
        return run_engine(spec, task, handle, (), store, options, source).stopped
