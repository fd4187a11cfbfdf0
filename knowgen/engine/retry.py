"""What kinds of trouble there are, how each is told, and how faults that may pass are tried again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from knowgen.core.errors import (
    ConfigError,
    KnowgenError,
    MissingDependencyError,
    RefusalError,
    TransientError,
    UsageError,
)

T = TypeVar("T")

STOPPERS = (ConfigError, UsageError, MissingDependencyError)
"""Errors that would hit every sample alike: they end the run with their one line."""

LONGEST_WAIT = 600.0
LOST_WORKERS = 3


class StoppedError(Exception):
    """The run takes no new work; what was asked for is left not run."""


class NotGeneratedError(Exception):
    """Where a drawing should come from nobody was asked for it yet; the sample is left not run."""


class CallTimeoutError(Exception):
    """A call gave nothing within its time."""


class PluginDisabledError(Exception):
    """The plugin hung or died too often; it is not called again in this run."""


class ContractError(Exception):
    """A plugin gave back something it must not."""


class PluginError(Exception):
    """What a plugin raised in a worker process, told in one line."""


class StoreError(Exception):
    """The store cannot be written; the run ends with the clear error inside.

    Args:
        error: What the store said.
    """

    def __init__(self, error: KnowgenError) -> None:
        super().__init__(str(error))
        self.error = error


class WorkerDiedError(TransientError):
    """A worker process died under a request, which is then tried in another."""


class DeviceDisabledError(Exception):
    """The device of a slot failed again and again; the slot takes no more work, and what it held goes elsewhere."""


class EventLoopBlockedError(TransientError):
    """Another call blocked the event loop a call was made in."""


def is_passing(error: BaseException) -> bool:
    """Tells whether a fault may pass: `TransientError`, a lost connection or a network time-out."""
    if isinstance(error, (TransientError, ConnectionError, TimeoutError)):
        return True
    return any(
        name in sys.modules and isinstance(error, getattr(sys.modules[name], kind))
        for name, kind in (("httpx", "TransportError"), ("aiohttp", "ClientConnectionError"))
    )


def is_decline(error: BaseException) -> bool:
    """Tells whether a generator's error says that a prompt is not drawn, or not now, which keeps the contract."""
    return isinstance(error, RefusalError) or is_passing(error)


def describe(error: BaseException) -> str:
    """Returns one line about an error: the project's own words as they are, anything else with its type."""
    text = " ".join(str(error).split())[:500]
    if isinstance(error, SystemExit):
        return f"the plugin called sys.exit({text})"
    if isinstance(
        error, (KnowgenError, StoppedError, CallTimeoutError, PluginDisabledError, ContractError, PluginError)
    ):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


async def with_tries(
    call: Callable[[int], Awaitable[T]], tries: int, failed: Callable[[BaseException], None] | None = None
) -> T:
    """Calls until it works, the fault is one that stays, or the tries are used up.

    Waits between tries grow exponentially from half a second, with jitter, and are at least what the far side asked.

    Args:
        call: Takes the number of the try, from 1.
        tries: At most so many calls.
        failed: Told of every fault that is tried again.

    Raises:
        Exception: What the last try raised.
    """
    try:
        return await call(1)
    except Exception as error:
        if tries <= 1 or not is_passing(error):
            raise
        first = error
    from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
    from tenacity.wait import wait_exponential, wait_random

    backoff = wait_exponential(multiplier=0.5, max=30.0) + wait_random(0.0, 0.5)
    faults: list[BaseException] = []

    def note(error: BaseException) -> None:
        faults.append(error)
        if failed is not None:
            failed(error)

    def again(error: BaseException) -> bool:
        lost = sum(isinstance(fault, WorkerDiedError) for fault in [*faults, error])
        return is_passing(error) and lost < LOST_WORKERS

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked = getattr(error, "retry_after", None) or 0.0
        return min(max(backoff(state), asked), LONGEST_WAIT)

    async def attempt() -> T:
        nonlocal first
        if first is not None:  # the first try is over; tenacity counts it and waits after it
            error, first = first, None  # type: ignore[assignment]
            raise error
        return await call(retrying.statistics["attempt_number"])

    retrying = AsyncRetrying(
        retry=retry_if_exception(again),
        stop=stop_after_attempt(tries),
        wait=wait,
        before_sleep=lambda state: note(state.outcome.exception()),  # type: ignore[union-attr,arg-type]
        sleep=pause,
        reraise=True,
    )
    return await retrying(attempt)


async def pause(seconds: float) -> None:
    """Waits between two tries."""
    await asyncio.sleep(seconds)
