"""The answer step of a run: have an agent search for a work item, and store its `AgentAnswer`.

Requests go to the agent through a `Dispatcher`. Whatever the agent does, the result is a stored answer: ok, none or
failed, with the reason. The images that it saw are stored by content, like those that are generated.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

from knowgen.core.errors import BudgetReachedError, KnowgenError, RefusalError
from knowgen.core.images import UnreadableImageError, read_image_file
from knowgen.core.records import (
    AgentAnswer,
    AnswerStatus,
    FailureCause,
    GenerationRequest,
    ImageRef,
    request_id,
)
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
    StoppedError,
    StoreError,
    cause_of,
    describe,
)
from knowgen.engine.services import Service
from knowgen.engine.work_plan import WorkItem
from knowgen.store.run import RunStore

REFUSED = "refused"
"""Ending of an agent that raised `RefusalError`."""


class AnswerWriter:
    """Checks and stores answers with their images. Its methods may be called from any thread.

    Args:
        store: Where answers are written.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store

    def write(self, item: WorkItem, answer: AgentAnswer, seconds: float, attempts: int) -> AgentAnswer:
        """Store what an agent returned, and return it as stored.

        An image that cannot be read is left out, with the reason in the answer.

        Args:
            item: The work item.
            answer: The answer.
            seconds: Time the agent took, where the answer does not say.
            attempts: Attempts so far, those of earlier runs included.

        Raises:
            ContractError: The answer contradicts itself.
            StoreError: The store cannot be written.
        """
        if answer.status is AnswerStatus.NOT_RUN:
            raise ContractError("the agent returned an answer with the status not_run")
        problems: list[str] = []
        images, _ = self._stored(answer.images, [])
        references, kept = self._stored(answer.references, problems)
        notes = [dict(answer.reference_notes[place]) for place in kept if place < len(answer.reference_notes)]
        reason = "; ".join(filter(None, (answer.reason, *(f"reference left out: {problem}" for problem in problems))))
        return self._put(
            item,
            answer.model_copy(
                update={
                    "sample_id": item.sample.id,
                    "repeat": item.repeat,
                    "reason": reason,
                    "references": references,
                    "reference_notes": tuple(notes) if len(notes) == len(references) else (),
                    "images": images,
                    "seconds": answer.seconds or seconds,
                    "attempts": attempts,
                    "cause": self._cause(answer),
                }
            ),
        )

    def write_failure(
        self, item: WorkItem, reason: str, attempts: int, cause: FailureCause, seconds: float
    ) -> AgentAnswer:
        """Store an answer that failed.

        Args:
            item: The work item.
            reason: Why it failed.
            attempts: Attempts so far, those of earlier runs included.
            cause: What caused the failure.
            seconds: Time the attempts took.

        Raises:
            StoreError: The store cannot be written.
        """
        return self._put(item, self._without_answer(item, reason, attempts, seconds, AnswerStatus.FAILED, cause))

    def write_refusal(self, item: WorkItem, reason: str, attempts: int, seconds: float) -> AgentAnswer:
        """Store that the agent declined the prompt, which is a result; arguments as for `write_failure`."""
        return self._put(item, self._without_answer(item, reason, attempts, seconds, AnswerStatus.NONE, None))

    @staticmethod
    def _without_answer(
        item: WorkItem, reason: str, attempts: int, seconds: float, status: AnswerStatus, cause: FailureCause | None
    ) -> AgentAnswer:
        return AgentAnswer(
            sample_id=item.sample.id,
            repeat=item.repeat,
            status=status,
            reason=reason,
            cause=cause,
            ending=REFUSED if status is AnswerStatus.NONE else "",
            seconds=seconds,
            attempts=attempts,
        )

    @staticmethod
    def _cause(answer: AgentAnswer) -> FailureCause | None:
        if answer.status is not AnswerStatus.FAILED:
            return None
        return answer.cause or FailureCause.SYSTEM

    def _stored(self, images: Sequence[ImageRef], problems: list[str]) -> tuple[tuple[ImageRef, ...], list[int]]:
        """Store some images; return those that could be, and their places. Append to `problems` why others were not."""
        stored: list[ImageRef] = []
        kept: list[int] = []
        for place, image in enumerate(images):
            try:
                stored.append(self._store_image(image))
            except (ContractError, UnreadableImageError) as error:
                problems.append(f"{image.sha256[:12]}: {describe(error)}")
            else:
                kept.append(place)
        return tuple(stored), kept

    def _store_image(self, image: ImageRef) -> ImageRef:
        if image.path is None:
            raise ContractError("the agent named no file of the image")
        data = read_image_file(image.path)
        if hashlib.sha256(data).hexdigest() != image.sha256:
            raise ContractError("the file has another content than the agent said")
        encoded = encode(data)
        try:
            return self._store.put_image(
                encoded.data, width=encoded.width, height=encoded.height, format=encoded.format
            )
        except KnowgenError as error:
            raise StoreError(error) from error

    def _put(self, item: WorkItem, answer: AgentAnswer) -> AgentAnswer:
        try:
            self._store.put_answer(item.answer_key, answer)
        except KnowgenError as error:
            raise StoreError(error) from error
        return answer


class AnswerStep:
    """Has an agent answer, and stores the answers.

    Args:
        spec: The run.
        options: Limits of attempts.
        dispatcher: Sends requests to the agent.
        service: The services behind the agent.
        writer: Stores the results.
        threads: Threads in which the writer works.
        privileged: Whether requests carry the ground truth.
        checks_service: Whether the agent has `check_service`.
    """

    def __init__(
        self,
        spec: RunSpec,
        options: EngineOptions,
        dispatcher: Dispatcher,
        service: Service,
        writer: AnswerWriter,
        threads: WorkerThreads,
        *,
        privileged: bool,
        checks_service: bool = False,
    ) -> None:
        self._spec, self._options, self._dispatcher, self._service = spec, options, dispatcher, service
        service.on_close = dispatcher.stop
        self._writer, self._threads, self._privileged = writer, threads, privileged
        self._checks_service = checks_service

    async def answer(self, item: WorkItem) -> AgentAnswer:
        """Return the stored answer, whatever its status.

        Raises:
            StoppedError, BudgetReachedError: There is none because the run ends, or the agent is paused.
            LeftOutError: A service rejects the sample alone because of the account.
            StoreError: The store cannot be written.
        """
        before = item.earlier_answer.attempts if item.earlier_answer is not None else 0
        tries = Attempts(self._service, max(1, min(self._options.tries, self._options.max_attempts - before)))
        request = self._request(item)

        async def attempt(number: int) -> AgentAnswer:
            return await self._dispatcher.submit(request.id, request, write, alone=number > 1)

        async def write(value: AgentAnswer, seconds: float) -> AgentAnswer:
            self._service.answered()
            return await self._threads.run(self._writer.write, item, value, seconds, before + tries.number)

        started = time.monotonic()
        try:
            answer = await with_retries(attempt, tries, self._service)
        except (StoppedError, LeftOutError, BudgetReachedError, StoreError, *FATAL_ERRORS):
            raise
        except RefusalError as error:
            self._service.answered()
            seconds = time.monotonic() - started
            return self._writer.write_refusal(item, describe(error), before + tries.number, seconds)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an agent may raise anything
            answer = self._writer.write_failure(
                item, describe(error), before + tries.failed, cause_of(error), time.monotonic() - started
            )
        self._note_result(answer)
        return answer

    def _note_result(self, answer: AgentAnswer) -> None:
        """Report a result to the service, which is paused when all fail in the same way."""
        if answer.status is not AnswerStatus.FAILED:
            self._service.succeeded()
        elif answer.cause is FailureCause.SYSTEM:
            self._service.failed(answer.reason, answer.sample_id)

    def _request(self, item: WorkItem) -> GenerationRequest:
        return GenerationRequest(
            id=request_id(item.sample.id, item.repeat),
            prompt=item.sample.prompt,
            repeat=item.repeat,
            seed=self._spec.seed + item.repeat,
            truth=item.truth if self._privileged else None,
        )

    async def check(self) -> None:
        """Check that the agent's services would take calls; see `attempts.check_service`."""
        if self._checks_service:
            await check_service(self._dispatcher.check, self._service)

    def stop(self) -> None:
        """Drop requests that are queued; those in progress continue."""
        self._dispatcher.stop()

    async def close(self) -> None:
        """Close the agent, which frees its policy. A second call does nothing."""
        await self._dispatcher.close()

    def kill(self) -> None:
        """Abort everything in progress that can be aborted, without waiting."""
        self._dispatcher.kill()

    def join(self, seconds: float) -> None:
        """Wait until what `kill` aborted has closed its connections, at most for some seconds."""
        self._dispatcher.join(seconds)


__all__ = ["REFUSED", "AnswerStep", "AnswerWriter"]
