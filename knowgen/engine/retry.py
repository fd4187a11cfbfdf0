"""The errors of the engine, their one-line descriptions, and retries of transient errors with backoff."""

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

FATAL_ERRORS = (ConfigError, UsageError, MissingDependencyError)
"""Errors that would hit every sample alike: they end the run."""

MAX_WAIT_SECONDS = 600.0
"""Longest wait before a retry, even if the service asks for more."""
MAX_WORKER_DEATHS = 3
"""Worker deaths after which a request is not retried."""


class StoppedError(Exception):
    """The run takes no new work; the request stays not run."""


class NotGeneratedError(Exception):
    """The source has no image of this sample and never attempted one; the sample stays not run."""


class CallTimeoutError(Exception):
    """A call gave no result within its time limit."""


class PluginDisabledError(Exception):
    """The plugin hung or died too often and is not called again in this run."""


class ContractError(Exception):
    """A plugin returned something that its contract does not allow."""


class PluginError(Exception):
    """An error that a plugin raised, in one line.

    Args:
        what: Type and message of the error.
        place: File and line in the plugin's code, such as `duck.py:12`; empty when unknown.
        traceback: Its traceback as text; empty when it is in the log already.
    """

    def __init__(self, what: str, *, place: str = "", traceback: str = "") -> None:
        super().__init__(what)
        self.place, self.traceback = place, traceback


class StoreError(Exception):
    """The store cannot be written, which ends the run.

    Args:
        error: The error of the store.
    """

    def __init__(self, error: KnowgenError) -> None:
        super().__init__(str(error))
        self.error = error


class WorkerDiedError(TransientError):
    """A worker process died during a request, which is retried in another one."""


class DeviceDisabledError(Exception):
    """The device of a slot failed too often. The slot takes no more work; its requests go to other slots."""


class EventLoopBlockedError(TransientError):
    """Another call blocked the event loop in which a call ran."""


def is_transient(error: BaseException) -> bool:
    """Return whether an error may not happen again: `TransientError`, a lost connection or a network timeout."""
    if isinstance(error, (TransientError, ConnectionError, TimeoutError)):
        return True
    return any(
        name in sys.modules and isinstance(error, getattr(sys.modules[name], kind))
        for name, kind in (("httpx", "TransportError"), ("aiohttp", "ClientConnectionError"))
    )


def is_decline(error: BaseException) -> bool:
    """Return whether an error means that a generator refuses a prompt, or cannot serve it now."""
    return isinstance(error, RefusalError) or is_transient(error)


def describe(error: BaseException) -> str:
    """Return an error as one line: the project's own messages as they are, others with their type."""
    text = one_line(error, 500)
    if isinstance(error, SystemExit):
        return f"the plugin called sys.exit({text})"
    if isinstance(
        error, (KnowgenError, StoppedError, CallTimeoutError, PluginDisabledError, ContractError, PluginError)
    ):
        return text or type(error).__name__
    return error_summary(error, 500)


async def with_retries(
    call: Callable[[int], Awaitable[T]],
    tries: int,
    on_error: Callable[[BaseException], None] | None = None,
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Call until it succeeds, the error is not transient, or the attempts are used up.

    Waits grow exponentially from half a second, with jitter, and are at least as long as the service asked for.

    Args:
        call: Takes the number of the attempt, from 1.
        tries: Maximum number of attempts.
        on_error: Called with every error that is retried.
        wait: Waits for a number of seconds.

    Raises:
        Exception: The error of the last attempt.
    """
    errors: list[BaseException] = []

    def on_retry(error: BaseException) -> None:
        errors.append(error)
        if on_error is not None:
            on_error(error)

    def retryable(error: BaseException) -> bool:
        deaths = sum(isinstance(earlier, WorkerDiedError) for earlier in [*errors, error])
        return is_transient(error) and deaths < MAX_WORKER_DEATHS

    def seconds(number: int, error: BaseException | None) -> float:
        requested = getattr(error, "retry_after", None) or 0.0
        return min(max(exponential(number, 0.5, 30.0) + random.uniform(0.0, 0.5), requested), MAX_WAIT_SECONDS)

    return await retry(call, attempts=tries, retryable=retryable, wait=seconds, on_retry=on_retry, sleep=wait)
