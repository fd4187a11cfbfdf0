"""Retry calls after transient errors, with waits between the attempts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")


def _never(result: object) -> bool:
    return False


async def retry(
    call: Callable[[int], Awaitable[T]],
    *,
    attempts: int,
    retryable: Callable[[BaseException], bool],
    wait: Callable[[int, BaseException | None], float],
    unfinished: Callable[[T], bool] = _never,
    on_retry: Callable[[BaseException], None] | None = None,
    sleep: Callable[[float], Awaitable[None]] | None = None,
) -> T:
    """Call a function until it succeeds, raises a permanent error, or has used up its attempts.

    Args:
        call: Function to call; takes the number of the attempt, from 1.
        attempts: Maximum number of calls.
        retryable: Returns whether to retry after an error.
        wait: Returns the seconds to wait after an attempt, from its number and its error (None for a result).
        unfinished: Returns whether a result counts as a failed attempt. The result of the last attempt is returned
            in any case.
        on_retry: Called with every error that is followed by another attempt.
        sleep: Function that waits; `asyncio.sleep` when None.

    Raises:
        Exception: The error of the last attempt.
    """
    error: Exception | None = None
    try:  # the first call mostly succeeds and needs no tenacity, which is slow to import
        first = await call(1)
    except Exception as raised:
        if attempts <= 1 or not retryable(raised):
            raise
        error = raised
    else:
        if attempts <= 1 or not unfinished(first):
            return first
    from tenacity import AsyncRetrying, retry_if_exception, retry_if_result, stop_after_attempt

    async def attempt() -> T:
        number = int(retrying.statistics["attempt_number"])
        if number > 1:
            return await call(number)
        if error is not None:  # tenacity counts the first attempt and waits after it
            raise error
        return first

    def note(state: RetryCallState) -> None:
        if on_retry is not None and (raised := _error_of(state)) is not None:
            on_retry(raised)

    retrying = AsyncRetrying(
        retry=retry_if_exception(retryable) | retry_if_result(unfinished),
        stop=stop_after_attempt(attempts),
        wait=lambda state: wait(state.attempt_number, _error_of(state)),
        before_sleep=note,
        sleep=sleep or asyncio.sleep,
        retry_error_callback=_last,
    )
    result: T = await retrying(attempt)
    return result


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None


def _last(state: RetryCallState) -> object:
    """Return the last result, or raise the last error."""
    assert state.outcome is not None, "an attempt was made"
    return state.outcome.result()


def exponential(attempt: int, first: float, longest: float = math.inf) -> float:
    """Return the seconds to wait after an attempt: `first`, doubled after every further one, at most `longest`.

    Example:
        >>> [exponential(attempt, first=0.5, longest=3.0) for attempt in (1, 2, 3, 4)]
        [0.5, 1.0, 2.0, 3.0]
    """
    return min(first * 2.0 ** min(attempt - 1, 100), longest)
