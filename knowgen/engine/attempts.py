"""Repeat a call of a plugin after transient errors: what counts as an attempt, and how long to wait before the next.

Waiting for a service is not an attempt. A failure that the request itself may have caused, such as a 500, is one if the
service answered another call meanwhile, and otherwise only from time to time, so that a request that breaks its server
ends even where it is the last one.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from knowgen.core.errors import AccountError, ConfigError, KnowgenError, ServiceUnavailableError
from knowgen.core.retry import exponential
from knowgen.engine.retry import (
    LeftOutError,
    StoppedError,
    WorkerDiedError,
    WorkerLostError,
    describe,
    is_transient,
    service_failure,
)
from knowgen.engine.services import Service

T = TypeVar("T")

FIRST_WAIT_SECONDS = 0.5
"""Wait before the first retry; doubled before each further one."""

LONGEST_WAIT_SECONDS = 60.0
"""Longest wait before a retry where the service asks for none."""

MAX_WORKER_DEATHS = 3
"""Worker deaths after which a request is not retried."""

LEAST_ANNOUNCED_SECONDS = 1.0
"""Waits that a service asks for are at least as long as the first usual waits, up to this number of seconds."""

_JITTER = 1 / 3
"""Largest part that is added to a wait at random, so that calls that failed together are not repeated together."""


class Attempts:
    """The attempts at one request.

    Args:
        service: The service behind the plugin.
        limit: Maximum number of attempts; None for a check of the service, which goes on while the service is
            unavailable and ends with the first rejection.
        each_counts: Whether every failure of the service is an attempt, so that a request ends while it is unavailable.

    Attributes:
        failed: Number of failed attempts so far.
    """

    def __init__(self, service: Service, limit: int | None, *, each_counts: bool = False) -> None:
        self.failed = 0
        self._service, self._limit, self._each_counts = service, limit, each_counts
        self._answers, self._counted_at = service.answers, service.clock()
        self._lone_seconds = service.lone_attempt_seconds
        self._deaths = self._rejections = self._retries = 0

    @property
    def number(self) -> int:
        """Number of the next attempt, from 1."""
        return self.failed + 1

    def add(self, error: Exception) -> float:
        """Record an error and return the seconds to wait before the next call.

        Raises:
            Exception: The error itself, where no further call is made.
            LeftOutError: The service rejects this request alone because of the account.
            StoppedError: The run waits no longer for the service.
        """
        self._retries += 1
        if isinstance(error, AccountError) and self._limit is not None:
            return self._add_rejection(error, self._limit)
        unavailable = service_failure(error)
        if unavailable is not None:
            if any(attempt.reply and not attempt.cached for attempt in unavailable.attempts):
                self._service.answered()  # an earlier part of the same call
            self._service.unavailable(error, unavailable.retry_after or None)
            return self._add_unavailable(error, unavailable)
        self._deaths += isinstance(error, WorkerDiedError)
        if not is_transient(error) or self._deaths >= MAX_WORKER_DEATHS:
            self.failed += 1
            raise error
        if not isinstance(error, WorkerLostError):
            self._count(error)
        return self._wait()

    def _add_rejection(self, error: AccountError, limit: int) -> float:
        self._service.account_rejected(error)
        self._rejections += 1
        if self._rejections >= limit:
            self._service.leave_out(error)
            raise LeftOutError(str(error)) from error
        return self._wait()

    def _add_unavailable(self, error: Exception, unavailable: ServiceUnavailableError) -> float:
        if self._each_counts or (not unavailable.busy and self._is_attempt()):
            self._count(error)
        if unavailable.retry_after:
            return max(unavailable.retry_after, min(self._wait(), LEAST_ANNOUNCED_SECONDS))
        return min(self._wait(), max(FIRST_WAIT_SECONDS, self._service.patience_left))

    def _is_attempt(self) -> bool:
        """Return whether a failure that the request may have caused counts."""
        now = self._service.clock()
        if self._service.answers == self._answers:
            if now - self._counted_at < self._lone_seconds:
                return False
            self._lone_seconds *= 2
        self._answers, self._counted_at = self._service.answers, now
        return True

    def _count(self, error: Exception) -> None:
        self.failed += 1
        if self._limit is not None and self.failed >= self._limit:
            raise error

    def _wait(self) -> float:
        longest = LONGEST_WAIT_SECONDS / (1 + _JITTER)
        return exponential(self._retries, FIRST_WAIT_SECONDS, longest) * random.uniform(1, 1 + _JITTER)


async def with_retries(
    call: Callable[[int], Awaitable[T]],
    attempts: Attempts,
    service: Service,
    on_error: Callable[[Exception], None] | None = None,
) -> T:
    """Call until it succeeds, fails for good, or the run stops.

    Args:
        call: Takes the number of the attempt, from 1.
        attempts: The attempts at this request.
        service: The service behind the plugin.
        on_error: Called with every error after which the call is repeated, or was to be repeated when the run stopped.

    Raises:
        StoppedError: The run stopped, or the plugin is called no more.
        LeftOutError: The service rejects this request alone because of the account.
        Exception: The error of the last attempt.
    """
    while True:
        service.raise_if_closed()
        try:
            return await call(attempts.number)
        except Exception as error:  # noqa: BLE001 - what may not be repeated is raised again by `add`
            try:
                seconds = attempts.add(error)
            except Exception as final:
                if final is not error and on_error is not None:
                    on_error(error)
                raise
            if on_error is not None:
                on_error(error)
        await service.sleep(seconds)


async def check_service(check: Callable[[], Awaitable[None]], service: Service) -> None:
    """Check that a service would take calls; wait for it while it is unavailable.

    Args:
        check: Checks it once.
        service: The service.

    Raises:
        StoppedError: It is unavailable, and the run waits no longer.
        KnowgenError: It takes no calls, or the check itself failed.
    """
    try:
        await with_retries(lambda number: check(), Attempts(service, None), service)
    except (KnowgenError, StoppedError):
        raise
    except Exception as error:
        raise ConfigError(f"check_service failed: {describe(error)}", where=service.name) from error
    service.answered()
