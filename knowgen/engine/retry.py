"""What kinds of trouble there are, how each is told, and how faults that may pass are tried again."""

from __future__ import annotations

import asyncio
import random
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
from knowgen.core.retry import exponential, retry
from knowgen.core.text import error_summary, one_line

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
    text = one_line(error, 500)
    if isinstance(error, SystemExit):
        return f"the plugin called sys.exit({text})"
    if isinstance(
        error, (KnowgenError, StoppedError, CallTimeoutError, PluginDisabledError, ContractError, PluginError)
    ):
        return text or type(error).__name__
    return error_summary(error, 500)


async def with_tries(
    call: Callable[[int], Awaitable[T]],
    tries: int,
    failed: Callable[[BaseException], None] | None = None,
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Calls until it works, the fault is one that stays, or the tries are used up.

    Waits between tries grow exponentially from half a second, with jitter, and are at least what the far side asked.

    Args:
        call: Takes the number of the try, from 1.
        tries: At most so many calls.
        failed: Told of every fault that is tried again.
        wait: Wait so many seconds between two tries.

    Raises:
        Exception: What the last try raised.
    """
    faults: list[BaseException] = []

    def note(error: BaseException) -> None:
        faults.append(error)
        if failed is not None:
            failed(error)

    def again(error: BaseException) -> bool:
        lost = sum(isinstance(fault, WorkerDiedError) for fault in [*faults, error])
        return is_passing(error) and lost < LOST_WORKERS

    def seconds(number: int, error: BaseException | None) -> float:
        asked = getattr(error, "retry_after", None) or 0.0
        return min(max(exponential(number, 0.5, 30.0) + random.uniform(0.0, 0.5), asked), LONGEST_WAIT)

    return await retry(call, attempts=tries, retryable=again, wait=seconds, on_retry=note, sleep=wait)
