"""Score many episodes outside a run: bounded concurrency, retries, results in order, a reason for each failure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from knowgen.core.errors import (
    AccountError,
    BudgetReachedError,
    ConfigError,
    MissingDependencyError,
    TransientError,
    UsageError,
)
from knowgen.core.records import Attempt, Item, Score
from knowgen.core.retry import exponential, retry
from knowgen.core.text import error_message
from knowgen.scorers.contract import AsyncScorer, BatchScorer, scorer_capabilities, with_earlier
from knowgen.scorers.short_form import compute_items, score_item

STOPPERS = (BudgetReachedError, ConfigError, UsageError, MissingDependencyError)
"""Errors that would affect every episode: they are raised."""

MAX_ACCOUNT_ERRORS = 3
"""Calls in a row that a service rejects for the account before its error is raised; fewer mask their episodes."""

LONGEST_WAIT = 60.0
"""Maximum seconds between two attempts."""


@dataclass(frozen=True)
class ScoredEpisode:
    """Result of scoring one episode.

    Attributes:
        score: The score, possibly with status failed; None if there is none.
        reason: Why the score is None; else empty.
    """

    score: Score | None = None
    reason: str = ""


class EpisodeScoring:
    """Scores many episodes with one scorer.

    Args:
        scorer: An async or batch scorer. A batch scorer runs in a thread, one batch at a time.
        concurrency: Maximum concurrent calls of an async scorer.
        tries: Maximum attempts at one call that meets transient errors.

    Raises:
        UsageError: `scorer` has no scoring method, or a number is below 1.
    """

    def __init__(self, scorer: AsyncScorer | BatchScorer, concurrency: int, tries: int) -> None:
        for name, value in (("concurrency", concurrency), ("tries", tries)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} must be a whole number >= 1, got {value}", where="dual reward")
        self._scorer: Any = scorer
        self._capabilities = scorer_capabilities(scorer)
        self._concurrency, self._tries = concurrency, tries
        self._gate: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None
        self._rejected = 0
        """Number of calls in a row that were rejected for the account."""

    async def scores(self, items: Sequence[Item]) -> list[ScoredEpisode]:
        """Return the result of each item, in order.

        Raises:
            AccountError: The service rejected several calls in a row.
            BudgetReachedError, ConfigError, UsageError, MissingDependencyError: See `STOPPERS`.
        """
        if self._capabilities.shape == "score_batch":
            return await self._batches(items)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._guarded(item)) for item in items]
        results = [task.result() for task in tasks]
        for result in results:
            if isinstance(result, Exception):
                raise result
        return [result for result in results if isinstance(result, ScoredEpisode)]

    async def _guarded(self, item: Item) -> ScoredEpisode | Exception:
        """Score one item. An error that affects every item is returned, so that the other tasks end normally."""
        async with self._limit(self._concurrency):
            try:
                scored = await self._one(item)
            except STOPPERS as error:
                return error
            except AccountError as error:
                self._rejected += 1
                reason = f"{self._name()}: {error_message(error, 300)}"
                return error if self._rejected >= MAX_ACCOUNT_ERRORS else ScoredEpisode(reason=reason)
            except Exception as error:  # noqa: BLE001 - a scorer may raise anything; only its own episode fails
                return ScoredEpisode(reason=f"{self._name()}: {error_message(error, 300)}")
            self._rejected = 0
            return scored

    def _limit(self, value: int) -> asyncio.Semaphore:
        """Return the semaphore of the running event loop, with `value` places."""
        loop = asyncio.get_running_loop()
        if self._gate is None or self._gate[0] is not loop:
            self._gate = (loop, asyncio.Semaphore(value))
        return self._gate[1]

    async def _one(self, item: Item) -> ScoredEpisode:
        """Score one item, with retries; calls of earlier attempts are added to the score."""
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
        return self._checked(with_earlier(self._capabilities, score, item[0], earlier), item)

    def _checked(self, score: Any, item: Item) -> ScoredEpisode:
        sample, _, generation = item
        if not isinstance(score, Score) or (score.sample_id, score.repeat) != (sample.id, generation.repeat):
            return ScoredEpisode(reason=f"{self._name()}: returned no score for this sample")
        return ScoredEpisode(score)

    async def _batches(self, items: Sequence[Item]) -> list[ScoredEpisode]:
        results: list[ScoredEpisode] = []
        size = max(1, self._capabilities.concurrency)
        async with self._limit(1):
            for start in range(0, len(items), size):
                results += await asyncio.to_thread(self._batch, items[start : start + size])
        return results

    def _batch(self, items: Sequence[Item]) -> list[ScoredEpisode]:
        """Score a batch; if an item makes it fail, score the remaining items one by one."""
        # several episodes may be of one sample, so `repeat` is replaced by the position in the batch
        numbered = [
            (sample, truth, generation.model_copy(update={"repeat": place}))
            for place, (sample, truth, generation) in enumerate(items)
        ]
        scores: dict[int, Score] = {}
        reason = "returned no score for this sample"
        try:
            for score in compute_items(self._scorer, numbered):
                if isinstance(score, Score) and score.repeat in range(len(items)):
                    scores[score.repeat] = score
        except STOPPERS:
            raise
        except Exception as error:  # noqa: BLE001 - a scorer may raise anything; scores it yielded before remain valid
            reason = error_message(error, 300)
            if len(items) > 1:
                missing = [place for place in range(len(items)) if place not in scores]
                alone = {place: self._batch([items[place]])[0] for place in missing}
                return [alone.get(place) or self._restored(scores[place], items[place]) for place in range(len(items))]
        return [
            self._restored(scores[place], item)
            if place in scores
            else ScoredEpisode(reason=f"{self._name()}: {reason}")
            for place, item in enumerate(items)
        ]

    def _restored(self, score: Score, item: Item) -> ScoredEpisode:
        """Return the result with the episode's own `repeat`."""
        return self._checked(score.model_copy(update={"repeat": item[2].repeat}), item)

    def _name(self) -> str:
        return str(getattr(self._scorer, "label", "") or type(self._scorer).__name__)

    async def close(self) -> None:
        """Close the scorer, if it has a `close` method."""
        close = getattr(self._scorer, "close", None)
        if callable(close):
            outcome = close()
            if asyncio.iscoroutine(outcome):
                await outcome
