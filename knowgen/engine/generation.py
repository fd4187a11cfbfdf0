"""The drawing half of a walk: from a request to a stored generation, whatever the generator does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Protocol

from knowgen.core.errors import BudgetReachedError, KnowgenError, RefusalError
from knowgen.core.records import Generation, GenerationRequest, GenerationStatus, request_id
from knowgen.core.spec import RunSpec
from knowgen.engine.dispatcher import Dispatcher
from knowgen.engine.executors.concurrency import WorkerThreads
from knowgen.engine.imaging import encode
from knowgen.engine.options import EngineOptions
from knowgen.engine.retry import (
    STOPPERS,
    ContractError,
    NotGeneratedError,
    StoppedError,
    StoreError,
    describe,
    with_tries,
)
from knowgen.engine.work_plan import WorkItem
from knowgen.generators.contract import GeneratedImage, GenerationSource
from knowgen.store.run import RunStore

REPEATED = "the generator gave this drawing more than once; the first counts"


class GenerationStep(Protocol):
    """Makes the generation of a job and stores it."""

    async def draw(self, job: WorkItem) -> Generation:
        """Returns the stored generation, ok or not.

        Raises:
            StoppedError, BudgetReachedError: It was not drawn, because the run ends.
            NotGeneratedError: Its source has not drawn it yet.
            StoreError: The store cannot be written.
        """
        ...

    def stop(self) -> None:
        """Lets go of what waits to be drawn."""
        ...

    async def close(self) -> None:
        """Closes the generator."""
        ...

    def kill(self) -> None:
        """Ends what can be ended, without waiting."""
        ...


class GenerationWriter:
    """Encodes, checks and stores what was drawn; its methods may be called from any thread.

    Args:
        spec: The run.
        store: Where it goes.
    """

    def __init__(self, spec: RunSpec, store: RunStore) -> None:
        self._spec, self._store = spec, store

    def finish(self, job: WorkItem, value: Any, seconds: float, attempts: int, notes: list[str]) -> Generation:
        """Turns what a generator gave into a stored generation.

        Raises:
            StoreError: The store cannot be written.
        """
        drawing = value if isinstance(value, GeneratedImage) else GeneratedImage(image=value)
        try:
            generation = self._generation(job, drawing, seconds, attempts, notes)
        except (ContractError, ValueError, TypeError) as error:
            return self.failed(job, describe(error), attempts, seconds=seconds)
        return self._put(job, generation)

    def _generation(
        self, job: WorkItem, drawing: GeneratedImage, seconds: float, attempts: int, notes: list[str]
    ) -> Generation:
        image, status, reason = None, GenerationStatus(drawing.status), drawing.reason
        if status is GenerationStatus.OK:
            data, width, height, kind = encode(drawing.image)
            try:
                image = self._store.put_image(data, width=width, height=height, format=kind)
            except KnowgenError as error:
                raise StoreError(error) from error
        elif status is GenerationStatus.NOT_RUN:
            status = GenerationStatus.FAILED
        if image is None and not reason:
            reason = "the generator gave no reason"
        asked = job.asked
        if asked.reason:
            notes = [*notes, asked.reason]
        plain = {
            "references": asked.reference_notes if drawing.references == () else drawing.references,
            "evidence": asked.evidence if drawing.evidence == () else drawing.evidence,
            "trajectory": asked.trajectory if drawing.trajectory == () else drawing.trajectory,
            "settings": {**drawing.settings, "note": "; ".join(notes)} if notes else drawing.settings,
        }
        if any(plain.values()):
            plain = _as_json(plain)
        return Generation(
            sample_id=job.sample.id,
            repeat=job.repeat,
            status=status,
            reason="" if image is not None else reason,
            image=image,
            used_prompt=drawing.used_prompt or asked.prompt,
            seed=self._spec.seed + job.repeat,
            seconds=seconds,
            usage=drawing.usage,
            attempts=attempts,
            **plain,
        )

    def failed(
        self,
        job: WorkItem,
        reason: str,
        attempts: int,
        *,
        status: GenerationStatus = GenerationStatus.FAILED,
        seconds: float = 0.0,
    ) -> Generation:
        """Stores a drawing that did not come about, with the reason."""
        generation = Generation(
            sample_id=job.sample.id,
            repeat=job.repeat,
            status=status,
            reason=reason,
            seed=self._spec.seed + job.repeat,
            seconds=seconds,
            attempts=attempts,
        )
        return self._put(job, generation)

    def _put(self, job: WorkItem, generation: Generation) -> Generation:
        try:
            self._store.put_generation(job.key, generation)
        except KnowgenError as error:
            raise StoreError(error) from error
        return generation

    def note(self, job: WorkItem, text: str) -> None:
        """Adds a note to a generation that is stored already; the first note stands."""
        known = self._store.generation(job.key)
        if known is not None and not known.settings.get("note"):
            self._put(job, known.model_copy(update={"settings": {**known.settings, "note": text}}))


def _as_json(plain: dict[str, Any]) -> dict[str, Any]:
    """Returns what a generator noted as plain data.

    Raises:
        ContractError: It is none.
    """
    try:
        text = json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ContractError(f"what the generator noted beside the picture is not plain data: {error}") from error
    return dict(json.loads(text))


class GeneratorStep:
    """Draws with a generator.

    Args:
        spec: The run.
        options: Tries and caps.
        stage: Feeds the generator.
        finisher: Stores what comes.
        lane: Threads for encoding and storing.
        privileged: Is the generator shown the ground truth?
    """

    def __init__(
        self,
        spec: RunSpec,
        options: EngineOptions,
        stage: Dispatcher,
        finisher: GenerationWriter,
        lane: WorkerThreads,
        *,
        privileged: bool,
    ) -> None:
        self._spec, self._options, self._stage = spec, options, stage
        self._finisher, self._lane, self._privileged = finisher, lane, privileged

    async def draw(self, job: WorkItem) -> Generation:
        """Returns the stored generation, ok or not; see `GenerationStep`."""
        before = job.earlier.attempts if job.earlier is not None else 0
        tries = max(1, min(self._options.tries, self._options.max_attempts - before))
        request = self._request(job)
        notes: list[str] = []
        attempts = before
        status = GenerationStatus.FAILED

        async def attempt(number: int) -> Generation:
            nonlocal attempts
            attempts = before + number
            return await self._stage.do(
                request.id, request, then, alone=number > 1, on_repeat=self._repeated(job, notes)
            )

        async def then(value: Any, seconds: float) -> Generation:
            generation = await self._lane.call(self._finisher.finish, job, value, seconds, attempts, notes)
            if notes and "note" not in generation.settings:  # it was given again while this one was being stored
                await self._lane.call(self._finisher.note, job, REPEATED)
            return generation

        began = time.monotonic()
        try:
            return await with_tries(attempt, tries)
        except (StoppedError, BudgetReachedError, StoreError, *STOPPERS):
            raise
        except RefusalError as error:
            status, reason = GenerationStatus.REFUSED, describe(error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a generator may raise anything
            reason = describe(error)
        seconds = time.monotonic() - began
        return self._finisher.failed(job, reason, attempts, status=status, seconds=seconds)

    def _repeated(self, job: WorkItem, notes: list[str]) -> Callable[[], None]:
        def told() -> None:
            if not notes:
                notes.append(REPEATED)
                self._lane.call(self._finisher.note, job, REPEATED)

        return told

    def _request(self, job: WorkItem) -> GenerationRequest:
        return GenerationRequest(
            id=request_id(job.sample.id, job.repeat),
            prompt=job.asked.prompt or job.sample.prompt,
            repeat=job.repeat,
            seed=self._spec.seed + job.repeat,
            references=job.asked.references,
            truth=job.truth if self._privileged else None,
        )

    def stop(self) -> None:
        """Lets go of what waits to be drawn."""
        self._stage.stop()

    async def close(self) -> None:
        """Closes the generator."""
        await self._stage.close()

    def kill(self) -> None:
        """Ends what can be ended, without waiting."""
        self._stage.kill()


class SourceStep:
    """Takes drawings that were made elsewhere.

    Args:
        source: Where they come from.
        finisher: Stores what comes.
        lane: Threads for reading, checking and storing.
    """

    def __init__(self, source: GenerationSource, finisher: GenerationWriter, lane: WorkerThreads) -> None:
        self._source, self._finisher, self._lane = source, finisher, lane

    async def draw(self, job: WorkItem) -> Generation:
        """Returns the stored generation, ok or not; see `GenerationStep`."""
        return await self._lane.call(self._take, job)

    def _take(self, job: WorkItem) -> Generation:
        attempts = 1 + (job.earlier.attempts if job.earlier is not None else 0)
        try:
            drawing = self._source.generation(job.sample.id, job.repeat)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a source may be anybody's code
            return self._finisher.failed(job, describe(error), attempts)
        if drawing.status is GenerationStatus.NOT_RUN:
            raise NotGeneratedError(drawing.reason)
        return self._finisher.finish(job, drawing, 0.0, attempts, [])

    def stop(self) -> None:
        """Has nothing that waits for long."""

    async def close(self) -> None:
        """Has nothing to close."""

    def kill(self) -> None:
        """Has nothing to end."""
