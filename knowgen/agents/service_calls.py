"""Calls of services from within a trajectory: repeated for a while, because a trajectory that ends loses its work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from knowgen.core.errors import (
    AccountError,
    BudgetReachedError,
    ConfigError,
    MissingDependencyError,
    NotRecordedError,
    TransientError,
    UsageError,
)
from knowgen.core.metering import SpendingCount, spending
from knowgen.core.retry import exponential, retry
from knowgen.core.waiting import waiting
from knowgen.search.contract import Hit, ImageHit, Page, SearchBackend

T = TypeVar("T")

TRIES = 5
"""Maximum number of calls of a service before its error ends the trajectory, and the engine waits for the service."""

PAGE_TRIES = 2
"""The same for a page: where one site does not answer, the agent reads another."""

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 30.0
"""Waits between the calls; each is twice as long as the one before. A service that asks for more is not waited for."""

FATAL_ERRORS = (
    AccountError,
    BudgetReachedError,
    ConfigError,
    UsageError,
    MissingDependencyError,
    NotRecordedError,
)
"""Errors of an account, of the budget, of how the agent was set up, and of a replay that lacks a call."""

RAISED_ERRORS = (TransientError, *FATAL_ERRORS)
"""Errors that say nothing about what was asked. They end a trajectory and are not a result of the agent."""


async def until_answered(call: Callable[[], Awaitable[T]], tries: int = TRIES) -> T:
    """Return the result of a call, which is repeated while its service is unavailable.

    Args:
        call: The call.
        tries: Maximum number of calls.

    Raises:
        TransientError: The last call failed too, or the service asks for a longer wait.
        Exception: Any other error of the call.
    """

    async def attempt(_: int) -> T:
        return await call()

    return await retry(attempt, attempts=tries, retryable=_is_short, wait=_wait, sleep=_sleep)


def _is_short(error: BaseException) -> bool:
    return isinstance(error, TransientError) and (error.retry_after or 0.0) <= LONGEST_WAIT_SECONDS


def _wait(attempt: int, error: BaseException | None) -> float:
    asked = error.retry_after if isinstance(error, TransientError) else None
    own = exponential(attempt, FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS) * random.uniform(0.75, 1.25)
    return max(asked or 0.0, own)


async def _sleep(seconds: float) -> None:
    with waiting():
        await asyncio.sleep(seconds)


async def all_results(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run calls at once and return their results in order.

    Raises:
        Exception: The first error in order, after all calls have ended.
    """
    results = await asyncio.gather(*calls, return_exceptions=True)
    values: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        values.append(result)
    return values


class TrackedSearch:
    """A search backend as a trajectory uses it: calls are repeated for a while, and counted.

    Args:
        backend: The backend.

    Attributes:
        spent: Paid calls of the backend.
        calls: Number of calls, paid or not.
        seconds: Time of all calls, in seconds; calls may overlap.
    """

    def __init__(self, backend: SearchBackend) -> None:
        self._backend = backend
        self.spent = SpendingCount()
        self.calls = 0
        self.seconds = 0.0

    @property
    def version(self) -> str:
        """Identity of the searched content."""
        return self._backend.version

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Return at most `k` pages; see `SearchBackend`."""
        return await self._tracked(lambda: self._backend.search(query, k), TRIES)

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Return at most `k` images; see `SearchBackend`."""
        return await self._tracked(lambda: self._backend.image_search(query, k), TRIES)

    async def open(self, url: str) -> Page:
        """Return a page; see `SearchBackend`."""
        return await self._tracked(lambda: self._backend.open(url), PAGE_TRIES)

    async def _tracked(self, call: Callable[[], Awaitable[T]], tries: int) -> T:
        loop = asyncio.get_running_loop()
        started = loop.time()
        self.calls += 1
        try:
            with spending() as spent:
                return await until_answered(call, tries)
        finally:
            self.seconds += loop.time() - started
            self.spent.calls += spent.calls
            self.spent.cost = None if spent.cost is None or self.spent.cost is None else self.spent.cost + spent.cost
