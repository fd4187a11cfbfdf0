"""The scoring step of a run: score a stored image with one scorer and store the `Score`.

Requests go to the scorer through a `Dispatcher`. Whatever the scorer does, the result is a stored score: ok, failed or
not applicable, with the reason. Replies that were paid for are stored even if the run stops before a usable one.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from knowgen.core.errors import BudgetReachedError, KnowgenError, UnscorableError
from knowgen.core.records import Attempt, FailureCause, Generation, Score, ScoreStatus, Usage
from knowgen.engine.attempts import Attempts, check_service, with_retries
from knowgen.engine.components import ScorerHandle
from knowgen.engine.dispatcher import Dispatcher
from knowgen.engine.executors.invoke import item_id
from knowgen.engine.options import EngineOptions
from knowgen.engine.retry import (
    FATAL_ERRORS,
    ContractError,
    LeftOutError,
    StoppedError,
    StoreError,
    cause_of,
    describe,
    service_failure,
)
from knowgen.engine.services import Service
from knowgen.engine.work_plan import PendingScore, WorkItem
from knowgen.scorers.contract import (
    failed_score,
    missing_needs,
    not_applicable_score,
    usage_of,
    with_earlier,
)
from knowgen.store.run import RunStore


class ScoringStep:
    """Scores images with one scorer and stores the scores.

    Args:
        handle: The scorer.
        options: Limits of attempts.
        dispatcher: Sends requests to the scorer.
        service: The service behind the scorer, if it calls one.
        store: Where scores are written.
    """

    def __init__(
        self, handle: ScorerHandle, options: EngineOptions, dispatcher: Dispatcher, service: Service, store: RunStore
    ) -> None:
        self._handle, self._options, self._dispatcher, self._store = handle, options, dispatcher, store
        self._service = service
        service.on_close = dispatcher.stop
        self._label = handle.spec.name

    async def score(self, item: WorkItem, generation: Generation, pending: PendingScore) -> Score:
        """Score an image and return the stored score, whatever its status.

        Raises:
            StoppedError, BudgetReachedError: It was not scored because the run ends, or the scorer is paused.
            LeftOutError: The service rejects it alone because of the account.
            StoreError: The store cannot be written.
        """
        capabilities = self._handle.capabilities
        if missing := missing_needs(capabilities.needs, item.truth, generation):
            reason = f"lacks what this scorer needs: {', '.join(missing)}"
            score = not_applicable_score(item.sample.id, item.repeat, self._label, reason)
            return self._put(score, item, generation, pending, tries=1, failed_attempts=[])
        before = pending.earlier.tries if pending.earlier is not None else 0
        tries = Attempts(self._service, max(1, min(self._options.tries, self._options.max_attempts - before)))
        failed_attempts: list[Attempt] = []
        name = item_id(item.sample.id, item.repeat)

        async def attempt(number: int) -> Score:
            inputs = (item.sample, item.truth, generation)
            if capabilities.shape == "score":  # a batch scorer computes, so its judge repeats would be equal
                inputs = (*inputs, pending.judge_repeat)  # type: ignore[assignment]
            return await self._dispatcher.submit(name, inputs, check, alone=number > 1)

        async def check(value: Any, seconds: float) -> Score:
            score = validated_score(value, item)
            if not (score.attempts and all(one.cached for one in score.attempts)):
                self._service.answered()  # a kept reply says nothing about the service
            return score if score.seconds else score.model_copy(update={"seconds": seconds})

        started = time.monotonic()
        try:
            score = await with_retries(
                attempt, tries, self._service, lambda error: failed_attempts.extend(repeated_attempts_of(error))
            )
            made, unscorable = tries.number, False
        except (StoppedError, LeftOutError, BudgetReachedError, asyncio.CancelledError, *FATAL_ERRORS) as error:
            if any(failed.reply for failed in failed_attempts):  # paid for: the next run reads them with its own
                what = "the run stopped" if isinstance(error, StoppedError) else describe(error)
                reason = f"ended before a usable reply: {what}"
                cause = FailureCause.INFRASTRUCTURE
                score = failed_score(item.sample.id, item.repeat, self._label, reason, cause=cause)
                self._put(
                    score, item, generation, pending, tries=before + tries.number, failed_attempts=failed_attempts
                )
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a scorer may raise anything
            seconds = time.monotonic() - started
            failed_attempts.extend(attempts_of(error))
            score = failed_score(
                item.sample.id, item.repeat, self._label, describe(error), seconds=seconds, cause=cause_of(error)
            )
            made, unscorable = tries.failed, isinstance(error, UnscorableError)
        stored = self._put(score, item, generation, pending, tries=before + made, failed_attempts=failed_attempts)
        if not unscorable:
            self._note_result(stored)
        return stored

    def _note_result(self, score: Score) -> None:
        """Report a result to the service, which is paused when all fail in the same way. Refusals say nothing."""
        lenient = score.lenient if self._options.reading == "lenient" else None
        if score.status is ScoreStatus.OK or (lenient is not None and lenient.status is ScoreStatus.OK):
            self._service.succeeded()
        elif score.cause is FailureCause.SYSTEM:
            self._service.failed(score.strict.reason, score.sample_id)

    async def check(self) -> None:
        """Check that the scorer's service would take calls; see `attempts.check_service`."""
        if self._handle.capabilities.checks_service:
            await check_service(self._dispatcher.check, self._service)

    def _put(
        self,
        score: Score,
        item: WorkItem,
        generation: Generation,
        pending: PendingScore,
        *,
        tries: int,
        failed_attempts: list[Attempt],
    ) -> Score:
        """Store a score together with the attempts before it, and return it as stored."""
        earlier = pending.earlier
        usage = add_usage(usage_of(failed_attempts), score.usage) if failed_attempts else score.usage
        attempts = (*(earlier.attempts if earlier else ()), *failed_attempts)
        score = with_earlier(self._handle.capabilities, score, item.sample, attempts)
        updates: dict[str, Any] = {
            "scorer": self._label,
            "judge_repeat": pending.judge_repeat,
            "image": generation.image.sha256 if generation.image is not None else "",
            "tries": tries,
            "usage": add_usage(earlier.usage, usage) if earlier is not None else usage,
        }
        failed = score.status is ScoreStatus.FAILED
        updates["cause"] = (score.cause or cause_of_failed_score(score)) if failed else None
        stored = score.model_copy(update=updates)
        try:
            self._store.put_score(pending.key, stored, self._handle.spec)
        except KnowgenError as error:
            raise StoreError(error) from error
        return stored

    def stop(self) -> None:
        """Drop requests that are queued; those in progress continue."""
        self._dispatcher.stop()

    async def close(self) -> None:
        """Close the scorer."""
        await self._dispatcher.close()

    def kill(self) -> None:
        """Abort everything in progress that can be aborted, without waiting."""
        self._dispatcher.kill()

    def join(self, seconds: float) -> None:
        """Wait until what `kill` aborted has closed its connections, at most for some seconds."""
        self._dispatcher.join(seconds)


def validated_score(value: Any, item: WorkItem) -> Score:
    """Return what a scorer returned if it is a valid score of this item.

    Raises:
        ContractError: It is not a `Score`, belongs to another sample, has a strict value outside [0, 1] or a lenient
            value that is not finite, contradicts itself, or is not plain data.
    """
    if not isinstance(value, Score):
        raise ContractError(f"the scorer returned {type(value).__name__}, not a Score")
    if (value.sample_id, value.repeat) != (item.sample.id, item.repeat):
        raise ContractError(
            f"the scorer returned a score of sample {value.sample_id!r} repeat {value.repeat}, which was not requested"
        )
    if value.status is not value.strict.status or value.status is ScoreStatus.NOT_RUN:
        raise ContractError(f"the status of the score is {value.status}, that of its strict part {value.strict.status}")
    for dimension, number in value.strict.values.items():
        if not 0.0 <= number <= 1.0:  # also false for NaN
            raise ContractError(f"the scorer returned {number!r} for {dimension}; values must be in [0, 1]")
    if value.lenient is not None and not all(map(math.isfinite, value.lenient.values.values())):
        raise ContractError("the scorer returned a value that is not finite")
    if value.details:
        try:
            value.model_dump_json()
        except ValueError as error:
            raise ContractError(f"the details of the score are not plain data: {error}") from error
    return value


def cause_of_failed_score(score: Score) -> FailureCause:
    """Return the cause of a failed score that names none: a refusal if the judge refused, else the scorer itself."""
    refused = any(attempt.refused for attempt in score.attempts)
    return FailureCause.REFUSAL if refused else FailureCause.SYSTEM


def repeated_attempts_of(error: BaseException) -> tuple[Attempt, ...]:
    """Return the attempts to store of an error after which the call is repeated.

    Of a busy service only those that were paid for: waiting is not an attempt.
    """
    unavailable = service_failure(error)
    if unavailable is None or not unavailable.busy:
        return attempts_of(error)
    return tuple(attempt for attempt in unavailable.attempts if attempt.reply or attempt.usage.cost)


def attempts_of(error: BaseException) -> tuple[Attempt, ...]:
    """Return the calls that an error carries with their replies, or the error itself as one attempt."""
    return tuple(getattr(error, "attempts", ())) or (Attempt(error=describe(error)),)


def add_usage(first: Usage, second: Usage) -> Usage:
    """Return the sum of tokens and cost; the cost is None only if both are unknown."""
    costs = [usage.cost for usage in (first, second) if usage.cost is not None]
    return Usage(
        input_tokens=first.input_tokens + second.input_tokens,
        output_tokens=first.output_tokens + second.output_tokens,
        cost=sum(costs) if costs else None,
    )
