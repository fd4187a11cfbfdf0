"""The judging half of a walk: from a stored picture to a stored score, whatever the scorer does."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from knowgen.core.errors import BudgetReachedError, KnowgenError
from knowgen.core.records import Attempt, Generation, Score, ScoreStatus, Usage
from knowgen.engine.components import ScorerHandle
from knowgen.engine.dispatcher import Dispatcher
from knowgen.engine.executors.invoke import item_id
from knowgen.engine.options import EngineOptions
from knowgen.engine.retry import STOPPERS, ContractError, StoppedError, StoreError, describe, with_tries
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
    """One scorer of a run.

    Args:
        handle: The scorer.
        options: Tries and caps.
        stage: Feeds the scorer.
        store: Where scores go.
    """

    def __init__(self, handle: ScorerHandle, options: EngineOptions, stage: Dispatcher, store: RunStore) -> None:
        self._handle, self._options, self._stage, self._store = handle, options, stage, store
        self._label = handle.spec.name

    async def judge(self, job: WorkItem, generation: Generation, wanted: PendingScore) -> Score:
        """Judges a picture and stores the score, whatever its status.

        Raises:
            StoppedError, BudgetReachedError: It was not judged, because the run ends.
            StoreError: The store cannot be written.
        """
        if missing := missing_needs(self._handle.traits.needs, job.truth, generation):
            reason = f"lacks what this scorer needs: {', '.join(missing)}"
            score = not_applicable_score(job.sample.id, job.repeat, self._label, reason)
            return self._put(score, job, generation, wanted, tries=1, faults=[])
        before = wanted.earlier.tries if wanted.earlier is not None else 0
        tries = max(1, min(self._options.tries, self._options.max_attempts - before))
        faults: list[Attempt] = []
        count = 0
        name = item_id(job.sample.id, job.repeat)

        async def attempt(number: int) -> Score:
            nonlocal count
            count = number
            item = (job.sample, job.truth, generation)
            if self._handle.traits.shape == "score":  # a measure gives the same each time
                item = (*item, wanted.judge_repeat)  # type: ignore[assignment]
            return await self._stage.do(name, item, check, alone=number > 1)

        async def check(value: Any, seconds: float) -> Score:
            score = checked(value, job)
            return score if score.seconds else score.model_copy(update={"seconds": seconds})

        began = time.monotonic()
        try:
            score = await with_tries(attempt, tries, lambda error: faults.extend(attempts_of(error)))
        except (StoppedError, BudgetReachedError, asyncio.CancelledError, *STOPPERS) as error:
            if any(fault.reply for fault in faults):  # paid for, and what comes next time is read together with it
                reason = f"ended before it had a reply to use: {describe(error)}"
                score = failed_score(job.sample.id, job.repeat, self._label, reason)
                self._put(score, job, generation, wanted, tries=before + count, faults=faults)
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a scorer may raise anything
            seconds = time.monotonic() - began
            faults.extend(attempts_of(error))
            score = failed_score(job.sample.id, job.repeat, self._label, describe(error), seconds=seconds)
        return self._put(score, job, generation, wanted, tries=before + count, faults=faults)

    def _put(
        self,
        score: Score,
        job: WorkItem,
        generation: Generation,
        wanted: PendingScore,
        *,
        tries: int,
        faults: list[Attempt],
    ) -> Score:
        earlier = wanted.earlier
        usage = add_usage(usage_of(faults), score.usage) if faults else score.usage
        attempts = (*(earlier.attempts if earlier else ()), *faults)
        score = with_earlier(self._handle.traits, score, job.sample, attempts)
        updates: dict[str, Any] = {
            "scorer": self._label,
            "judge_repeat": wanted.judge_repeat,
            "image": generation.image.sha256 if generation.image is not None else "",
            "tries": tries,
            "usage": add_usage(earlier.usage, usage) if earlier is not None else usage,
        }
        stored = score.model_copy(update=updates)
        try:
            self._store.put_score(wanted.key, stored, self._handle.spec)
        except KnowgenError as error:
            raise StoreError(error) from error
        return stored

    def stop(self) -> None:
        """Lets go of what waits to be judged."""
        self._stage.stop()

    async def close(self) -> None:
        """Closes the scorer."""
        await self._stage.close()

    def kill(self) -> None:
        """Ends what can be ended, without waiting."""
        self._stage.kill()


def checked(value: Any, job: WorkItem) -> Score:
    """Returns a score that keeps the contract.

    Raises:
        ContractError: It is no score, answers another sample, holds a value outside [0, 1] (in the lenient reading:
            one that is no finite number), contradicts itself, or is not plain data.
    """
    if not isinstance(value, Score):
        raise ContractError(f"the scorer gave a {type(value).__name__}, not a Score")
    if (value.sample_id, value.repeat) != (job.sample.id, job.repeat):
        raise ContractError(
            f"the scorer gave a score of sample {value.sample_id!r} repeat {value.repeat}, which it was not asked for"
        )
    if value.status is not value.strict.status or value.status is ScoreStatus.NOT_RUN:
        raise ContractError(f"the score says {value.status}, its strict reading {value.strict.status}")
    for dimension, number in value.strict.values.items():
        if not 0.0 <= number <= 1.0:  # also false for NaN
            raise ContractError(f"the scorer gave {number!r} for {dimension}; values lie in [0, 1]")
    if value.lenient is not None and not all(map(math.isfinite, value.lenient.values.values())):
        raise ContractError("the scorer gave a value that is no finite number")
    if value.details:
        try:
            value.model_dump_json()
        except ValueError as error:
            raise ContractError(f"the score's details are not plain data: {error}") from error
    return value


def attempts_of(error: BaseException) -> tuple[Attempt, ...]:
    """Returns the calls that a fault speaks of: those it carries with their replies, or itself as one."""
    return tuple(getattr(error, "attempts", ())) or (Attempt(error=describe(error)),)


def add_usage(first: Usage, second: Usage) -> Usage:
    """Adds up tokens and cost; the cost is unknown only where both are."""
    costs = [usage.cost for usage in (first, second) if usage.cost is not None]
    return Usage(
        input_tokens=first.input_tokens + second.input_tokens,
        output_tokens=first.output_tokens + second.output_tokens,
        cost=sum(costs) if costs else None,
    )
