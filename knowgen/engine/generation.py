"""The generation step of a run: make an image for a work item and store it as a `Generation`.

A `GenerationStep` is either a `GeneratorStep`, which sends requests to a generator through a `Dispatcher`, or a
`SourceStep`, which reads images that exist already. Both end in a `GenerationWriter`. Whatever a generator does, the
result is a stored generation: ok, failed or refused, with the reason.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Protocol

from knowgen.core.errors import BudgetReachedError, KnowgenError, RefusalError
from knowgen.core.records import FailureCause, Generation, GenerationRequest, GenerationStatus, request_id
from knowgen.core.spec import RunSpec
from knowgen.engine.attempts import Attempts, check_service, with_retries
from knowgen.engine.dispatcher import Dispatcher
from knowgen.engine.executors.concurrency import WorkerThreads
from knowgen.engine.imaging import encode
from knowgen.engine.options import EngineOptions
from knowgen.engine.retry import (
    FATAL_ERRORS,
    ContractError,
    LeftOutError,
    NotGeneratedError,
    StoppedError,
    StoreError,
    cause_of,
    describe,
)
from knowgen.engine.services import Service
from knowgen.engine.work_plan import WorkItem
from knowgen.generators.contract import GeneratedImage, GenerationSource
from knowgen.store.run import RunStore

REPEATED = "the generator returned this image more than once; the first is used"


class GenerationStep(Protocol):
    """Generates and stores the image of a work item."""

    async def generate(self, item: WorkItem) -> Generation:
        """Return the stored generation, whatever its status.

        Raises:
            StoppedError, BudgetReachedError: It was not generated because the run ends.
            LeftOutError: The service rejects it alone because of the account.
            NotGeneratedError: Its source has no image for it yet.
            StoreError: The store cannot be written.
        """
        ...

    async def check(self) -> None:
        """Check that the generator's service would take calls.

        Raises:
            StoppedError: It is unavailable, and the run waits no longer.
            Exception: What the check raised.
        """
        ...

    def stop(self) -> None:
        """Drop requests that are queued; those in progress continue."""
        ...

    async def close(self) -> None:
        """Close the generator."""
        ...

    def kill(self) -> None:
        """Abort everything in progress that can be aborted, without waiting."""
        ...

    def join(self, seconds: float) -> None:
        """Wait until what `kill` aborted has closed its connections, at most for some seconds."""
        ...


class GenerationWriter:
    """Encodes, checks and stores generated images. Its methods may be called from any thread.

    Args:
        spec: The run.
        store: Where generations are written.
    """

    def __init__(self, spec: RunSpec, store: RunStore) -> None:
        self._spec, self._store = spec, store

    def write(self, item: WorkItem, value: Any, seconds: float, attempts: int, notes: list[str]) -> Generation:
        """Store what a generator returned. A value that breaks the contract becomes a failed generation.

        Args:
            item: The work item.
            value: A `GeneratedImage`, or an image alone.
            seconds: Time the generator took.
            attempts: Attempts so far, those of earlier runs included.
            notes: Notes for the generation's settings.

        Raises:
            StoreError: The store cannot be written.
        """
        result = value if isinstance(value, GeneratedImage) else GeneratedImage(image=value)
        try:
            generation = self._generation(item, result, seconds, attempts, notes)
        except (ContractError, ValueError, TypeError) as error:
            return self.write_failure(item, describe(error), attempts, seconds=seconds)
        return self._put(item, generation)

    def write_failure(
        self,
        item: WorkItem,
        reason: str,
        attempts: int,
        *,
        status: GenerationStatus = GenerationStatus.FAILED,
        cause: FailureCause = FailureCause.SYSTEM,
        seconds: float = 0.0,
    ) -> Generation:
        """Store a failed or refused generation with its reason.

        Args:
            item: The work item.
            reason: Why it failed or was refused.
            attempts: Attempts so far, those of earlier runs included.
            status: Failed or refused.
            cause: What caused a failure.
            seconds: Time the attempts took.

        Raises:
            StoreError: The store cannot be written.
        """
        generation = Generation(
            sample_id=item.sample.id,
            repeat=item.repeat,
            status=status,
            reason=reason,
            seed=self._spec.seed + item.repeat,
            seconds=seconds,
            attempts=attempts,
            cause=cause if status is GenerationStatus.FAILED else None,
            ending=item.answer.ending,
            fallback=item.fallback,
        )
        return self._put(item, generation)

    def add_note(self, item: WorkItem, text: str) -> None:
        """Add a note to a stored generation that has none yet."""
        known = self._store.generation(item.key)
        if known is not None and not known.settings.get("note"):
            self._put(item, known.model_copy(update={"settings": {**known.settings, "note": text}}))

    def _generation(
        self, item: WorkItem, result: GeneratedImage, seconds: float, attempts: int, notes: list[str]
    ) -> Generation:
        image, shown, status, reason = None, dict[str, Any](), GenerationStatus(result.status), result.reason
        if status is GenerationStatus.OK:
            encoded = encode(result.image)
            shown = {"image_notes": tuple(encoded.notes), "one_colour": encoded.one_colour}
            try:
                image = self._store.put_image(
                    encoded.data, width=encoded.width, height=encoded.height, format=encoded.format
                )
            except KnowgenError as error:
                raise StoreError(error) from error
        elif status is GenerationStatus.NOT_RUN:
            status = GenerationStatus.FAILED
        if image is None and not reason:
            reason = "the generator gave no reason"
        answer = item.answer
        if answer.reason and not item.answer_key:  # of a file, which is not stored in this run
            notes = [*notes, answer.reason]
        left_out = len(answer.references) - len(item.references) if item.references else 0
        settings = {"references_left_out": left_out, **result.settings} if left_out else result.settings
        # the trajectory of an agent of this run is in the record of its answer
        trajectory = () if item.answer_key else answer.trajectory
        metadata = {
            "references": _reference_records(item) if result.references == () else result.references,
            "evidence": answer.evidence if result.evidence == () else result.evidence,
            "trajectory": trajectory if result.trajectory == () else result.trajectory,
            "settings": {**settings, "note": "; ".join(notes)} if notes else settings,
        }
        if any(metadata.values()):
            metadata = _as_plain_data(metadata)
        return Generation(
            sample_id=item.sample.id,
            repeat=item.repeat,
            status=status,
            reason="" if image is not None else reason,
            image=image,
            **shown,
            used_prompt=result.used_prompt or ("" if item.fallback else answer.prompt),
            seed=self._spec.seed + item.repeat,
            seconds=seconds,
            usage=result.usage,
            attempts=attempts,
            cause=FailureCause.SYSTEM if status is GenerationStatus.FAILED else None,
            ending=answer.ending,
            fallback=item.fallback,
            **metadata,
        )

    def _put(self, item: WorkItem, generation: Generation) -> Generation:
        try:
            self._store.put_generation(item.key, generation)
            if not item.answer_key:
                return generation
            # scorers open the references of an agent, whose paths the store adds
            return self._store.generation(item.key) or generation
        except KnowgenError as error:
            raise StoreError(error) from error


def _reference_records(item: WorkItem) -> tuple[dict[str, Any], ...]:
    """Return what is recorded of the references that an image was generated from, with the agent's notes on each.

    Images of an agent of this run are stored in it: they are named by content, and have their path when they are read.
    """
    notes = item.answer.reference_notes
    if not item.answer_key:
        return tuple(notes[: len(item.references)])
    records = [image.model_dump(mode="json") for image in item.references]
    return tuple({**(notes[place] if place < len(notes) else {}), **record} for place, record in enumerate(records))


def _as_plain_data(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata as JSON values, tuples as lists.

    Raises:
        ContractError: It cannot be written as JSON.
    """
    try:
        text = json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ContractError(f"the metadata of the image is not plain data: {error}") from error
    return dict(json.loads(text))


class GeneratorStep:
    """Generates images with a generator.

    Args:
        spec: The run.
        options: Limits of attempts.
        dispatcher: Sends requests to the generator.
        service: The service behind the generator, if it calls one.
        writer: Stores the results.
        threads: Threads in which the writer works.
        privileged: Whether requests carry the ground truth.
        checks_service: Whether the generator has `check_service`.
    """

    def __init__(
        self,
        spec: RunSpec,
        options: EngineOptions,
        dispatcher: Dispatcher,
        service: Service,
        writer: GenerationWriter,
        threads: WorkerThreads,
        *,
        privileged: bool,
        checks_service: bool = False,
    ) -> None:
        self._spec, self._options, self._dispatcher, self._service = spec, options, dispatcher, service
        service.on_close = dispatcher.stop
        self._writer, self._threads, self._privileged = writer, threads, privileged
        self._checks_service = checks_service

    async def generate(self, item: WorkItem) -> Generation:
        """Return the stored generation, whatever its status; see `GenerationStep`."""
        before = item.earlier.attempts if item.earlier is not None else 0
        if item.no_image is not None:
            reason, cause = item.no_image
            return self._writer.write_failure(item, reason, before + 1, cause=cause)
        limit = max(1, min(self._options.tries, self._options.max_attempts - before))
        tries = Attempts(self._service, limit)
        request = self._request(item)
        notes: list[str] = []
        status, cause = GenerationStatus.FAILED, FailureCause.SYSTEM

        async def attempt(number: int) -> Generation:
            on_repeat = self._on_repeat(item, notes)
            return await self._dispatcher.submit(request.id, request, write, alone=number > 1, on_repeat=on_repeat)

        async def write(value: Any, seconds: float) -> Generation:
            self._service.answered()
            attempts = before + tries.number
            generation = await self._threads.run(self._writer.write, item, value, seconds, attempts, notes)
            if notes and "note" not in generation.settings:  # a second image arrived while this one was being stored
                await self._threads.run(self._writer.add_note, item, REPEATED)
            return generation

        started = time.monotonic()
        try:
            generation = await with_retries(attempt, tries, self._service)
        except (StoppedError, LeftOutError, BudgetReachedError, StoreError, *FATAL_ERRORS):
            raise
        except RefusalError as error:
            self._service.answered()
            status, reason = GenerationStatus.REFUSED, describe(error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a generator may raise anything
            reason, cause = describe(error), cause_of(error)
        else:
            self._note_result(generation)
            return generation
        generation = self._writer.write_failure(
            item, reason, before + tries.failed, status=status, cause=cause, seconds=time.monotonic() - started
        )
        self._note_result(generation)
        return generation

    def _note_result(self, generation: Generation) -> None:
        """Report a result to the service, which is paused when all fail in the same way. Refusals say nothing."""
        if generation.status is GenerationStatus.OK:
            self._service.succeeded()
        elif generation.cause is FailureCause.SYSTEM:
            self._service.failed(generation.reason, generation.sample_id)

    async def check(self) -> None:
        """Check that the generator's service would take calls; see `attempts.check_service`."""
        if self._checks_service:
            await check_service(self._dispatcher.check, self._service)

    def _on_repeat(self, item: WorkItem, notes: list[str]) -> Callable[[], None]:
        def note_once() -> None:
            if not notes:
                notes.append(REPEATED)
                self._threads.run(self._writer.add_note, item, REPEATED)

        return note_once

    def _request(self, item: WorkItem) -> GenerationRequest:
        return GenerationRequest(
            id=request_id(item.sample.id, item.repeat),
            prompt=item.prompt,
            repeat=item.repeat,
            seed=self._spec.seed + item.repeat,
            references=item.references,
            truth=item.truth if self._privileged else None,
        )

    def stop(self) -> None:
        """Drop requests that are queued; those in progress continue."""
        self._dispatcher.stop()

    async def close(self) -> None:
        """Close the generator."""
        await self._dispatcher.close()

    def kill(self) -> None:
        """Abort everything in progress that can be aborted, without waiting."""
        self._dispatcher.kill()

    def join(self, seconds: float) -> None:
        """Wait until what `kill` aborted has closed its connections, at most for some seconds."""
        self._dispatcher.join(seconds)


class SourceStep:
    """Takes generations that exist already, such as a folder of images.

    Args:
        source: Where they are read from.
        writer: Stores the results.
        threads: Threads in which they are read, checked and stored.
    """

    def __init__(self, source: GenerationSource, writer: GenerationWriter, threads: WorkerThreads) -> None:
        self._source, self._writer, self._threads = source, writer, threads

    async def generate(self, item: WorkItem) -> Generation:
        """Return the stored generation, whatever its status; see `GenerationStep`."""
        return await self._threads.run(self._read, item)

    def _read(self, item: WorkItem) -> Generation:
        attempts = 1 + (item.earlier.attempts if item.earlier is not None else 0)
        if item.no_image is not None:
            reason, cause = item.no_image
            return self._writer.write_failure(item, reason, attempts, cause=cause)
        try:
            result = self._source.generation(item.sample.id, item.repeat)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a source may raise anything
            return self._writer.write_failure(item, describe(error), attempts)
        if result.status is GenerationStatus.NOT_RUN:
            raise NotGeneratedError(result.reason)
        return self._writer.write(item, result, 0.0, attempts, [])

    async def check(self) -> None:
        """Do nothing: a source calls no service."""

    def stop(self) -> None:
        """Do nothing: no request is queued for long."""

    async def close(self) -> None:
        """Do nothing: a source has nothing to close."""

    def kill(self) -> None:
        """Do nothing: a source has nothing to end."""

    def join(self, seconds: float) -> None:
        """Do nothing: a source has nothing to end."""
