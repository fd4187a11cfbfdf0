"""Asks a scorer about many episodes outside a run: bounded, tried again, in order, and never without a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from knowgen.core.errors import BudgetReachedError, ConfigError, MissingDependencyError, TransientError, UsageError
from knowgen.core.records import Attempt, Item, Score
from knowgen.core.retry import exponential, retry
from knowgen.core.text import error_message
from knowgen.scorers.contract import AsyncScorer, BatchScorer, scorer_capabilities, with_earlier
from knowgen.scorers.short_form import compute_items, score_item

STOPPERS = (BudgetReachedError, ConfigError, UsageError, MissingDependencyError)
"""Errors that would hit every episode alike: they are raised."""

LONGEST_WAIT = 60.0
"""Seconds between two tries at most."""


@dataclass(frozen=True)
class ScoredEpisode:
    """What asking about one episode gave.

    Attributes:
        score: The judgement, be it a failed one; None where there is none.
        reason: Why there is none, else empty.
    """

    score: Score | None = None
    reason: str = ""


class EpisodeScoring:
    """One scorer, asked about many episodes.

    Args:
        scorer: With either method of the contract. A batch form computes in a thread, one batch after the other.
        concurrency: Judgements at once, of a scorer that waits.
        tries: Tries of a judgement where faults may pass.

    Raises:
        UsageError: It is no scorer, or a number is below 1.
    """

    def __init__(self, scorer: AsyncScorer | BatchScorer, concurrency: int, tries: int) -> None:
        for name, value in (("concurrency", concurrency), ("tries", tries)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name}={value} is not a whole number of 1 or more", where="dual reward")
        self._scorer: Any = scorer
        self._traits = scorer_capabilities(scorer)
        self._concurrency, self._tries = concurrency, tries
        self._gate: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    async def scores(self, items: Sequence[Item]) -> list[ScoredEpisode]:
        """Returns what each item was given, in order.

        Raises:
            BudgetReachedError, ConfigError, UsageError, MissingDependencyError: See `STOPPERS`.
        """
        if self._traits.shape == "score_batch":
            return await self._batches(items)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._guarded(item)) for item in items]
        found = [task.result() for task in tasks]
        for one in found:
            if isinstance(one, Exception):
                raise one
        return [one for one in found if isinstance(one, ScoredEpisode)]

    async def _guarded(self, item: Item) -> ScoredEpisode | Exception:
        """Asks about one item; an error for all is handed back, so that the others end in order."""
        async with self._here():
            try:
                return await self._one(item)
            except STOPPERS as error:
                return error
            except Exception as error:  # noqa: BLE001 - a scorer may raise anything; it costs its own episode alone
                return ScoredEpisode(reason=f"{self._name()}: {error_message(error, 300)}")

    def _here(self) -> asyncio.Semaphore:
        """Returns what bounds the judgements of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._gate is None or self._gate[0] is not loop:
            self._gate = (loop, asyncio.Semaphore(self._concurrency))
        return self._gate[1]

    async def _one(self, item: Item) -> ScoredEpisode:
        """Asks about one item, and again where a fault may pass; calls of earlier tries are kept in the score."""
        earlier: list[Attempt] = []

        async def ask(number: int) -> Any:
            try:
                return await score_item(self._scorer, item)
            except TransientError as error:
                earlier.extend(error.attempts)
                raise

        def wait(number: int, error: BaseException | None) -> float:
            return min(LONGEST_WAIT, getattr(error, "retry_after", None) or exponential(number, 0.5))

        score = await retry(
            ask, attempts=self._tries, retryable=lambda error: isinstance(error, TransientError), wait=wait
        )
        return self._checked(with_earlier(self._traits, score, item[0], earlier), item)

    def _checked(self, score: Any, item: Item) -> ScoredEpisode:
        sample, _, generation = item
        if not isinstance(score, Score) or (score.sample_id, score.repeat) != (sample.id, generation.repeat):
            return ScoredEpisode(reason=f"{self._name()}: it gave no score of this sample")
        return ScoredEpisode(score)

    async def _batches(self, items: Sequence[Item]) -> list[ScoredEpisode]:
        found: list[ScoredEpisode] = []
        async with self._turn():
            for start in range(0, len(items), max(1, self._traits.concurrency)):
                batch = items[start : start + max(1, self._traits.concurrency)]
                found += await asyncio.to_thread(self._batch, batch)
        return found

    def _turn(self) -> asyncio.Semaphore:
        """Returns what lets one batch at a time at the model."""
        loop = asyncio.get_running_loop()
        if self._gate is None or self._gate[0] is not loop:
            self._gate = (loop, asyncio.Semaphore(1))
        return self._gate[1]

    def _batch(self, items: Sequence[Item]) -> list[ScoredEpisode]:
        """Asks about a batch; where one breaks it, each is asked about alone."""
        # several episodes may be of one sample, so their places tell them apart
        numbered = [
            (sample, truth, generation.model_copy(update={"repeat": place}))
            for place, (sample, truth, generation) in enumerate(items)
        ]
        found: dict[int, Score] = {}
        reason = "it gave no score of this sample"
        try:
            for score in compute_items(self._scorer, numbered):
                if isinstance(score, Score) and score.repeat in range(len(items)):
                    found[score.repeat] = score
        except STOPPERS:
            raise
        except Exception as error:  # noqa: BLE001 - a scorer may raise anything; what it gave before stands
            reason = error_message(error, 300)
            if len(items) > 1:
                left = [place for place in range(len(items)) if place not in found]
                alone = {place: self._batch([items[place]])[0] for place in left}
                return [alone.get(place) or self._put_back(found[place], items[place]) for place in range(len(items))]
        return [
            self._put_back(found[place], item) if place in found else ScoredEpisode(reason=f"{self._name()}: {reason}")
            for place, item in enumerate(items)
        ]

    def _put_back(self, score: Score, item: Item) -> ScoredEpisode:
        """Gives a score the repeat of its own episode again."""
        return self._checked(score.model_copy(update={"repeat": item[2].repeat}), item)

    def _name(self) -> str:
        return str(getattr(self._scorer, "label", "") or type(self._scorer).__name__)

    async def close(self) -> None:
        """Closes the scorer, if it has something to close."""
        close = getattr(self._scorer, "close", None)
        if callable(close):
            outcome = close()
            if asyncio.iscoroutine(outcome):
                await outcome
