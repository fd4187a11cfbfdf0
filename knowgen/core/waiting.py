"""Waiting inside a call of a plugin, which the time limit of the call does not count and which a stop of the run ends.

A generator or scorer that queues for its own turn, such as behind a rate limit, says so:

    with waiting():
        await limiter.acquire()

`knowgen.clients.rate_control` and `paid_call` do this already. Outside a run the block has no effect.

A run that stops drops the calls that wait. A call which has sent a request, or has an answer already, is never dropped,
because that answer may have been paid for: `paid_call` marks its requests with `sending`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class DroppedError(asyncio.CancelledError):
    """The run has stopped, and has dropped this call while it waited for its turn."""


class WaitReporter:
    """Reports when a call begins to wait and when it goes on, and drops it while it waits. May be used from any thread.

    Parts of a call may wait at the same time: the call waits from the first begin to the last end.

    Args:
        report: Takes True when the call begins to wait, and False when it goes on.
        outer: The reporter of the call of which this one is a part, which has the same waits and requests.
    """

    def __init__(self, report: Callable[[bool], None], outer: WaitReporter | None = None) -> None:
        self._report, self._outer = report, outer
        self._lock = threading.Lock()
        self._waiting = 0
        self._requests = 0
        self._dropped = False

    @property
    def dropped(self) -> bool:
        """Whether the call was dropped."""
        return self._dropped

    def begin(self) -> None:
        """Report that a part of the call waits.

        Raises:
            DroppedError: The call was dropped.
        """
        with self._lock:
            self._raise_if_dropped()
            if self._waiting == 0:
                if self._outer is not None:
                    self._outer.begin()
                self._report(True)
            self._waiting += 1

    def end(self) -> None:
        """Report that a part of the call waits no longer.

        Raises:
            DroppedError: The call was dropped.
        """
        with self._lock:
            self._waiting -= 1
            if self._waiting == 0:
                self._report(False)
                if self._outer is not None:
                    self._outer.end()
            self._raise_if_dropped()

    def begin_request(self) -> None:
        """Report that a part of the call sends a request: from now on the call is not dropped.

        Raises:
            DroppedError: The call was dropped.
        """
        with self._lock:
            self._raise_if_dropped()
            if self._outer is not None:
                self._outer.begin_request()
            self._requests += 1

    def fail_request(self) -> None:
        """Report that a request gave no answer, so that nothing is lost with it."""
        with self._lock:
            if self._outer is not None:
                self._outer.fail_request()
            self._requests -= 1

    def drop(self) -> bool:
        """Drop the call if it waits and has neither a request in progress nor an answer; return whether it did.

        Each part of the call then ends with `DroppedError` instead of going on when it has waited.
        """
        with self._lock:
            if self._dropped or not self._waiting or self._requests:
                return False
            self._dropped = True
            return True

    def _raise_if_dropped(self) -> None:
        if self._dropped:
            raise DroppedError("the run has stopped")


current_reporter: ContextVar[WaitReporter | None] = ContextVar("knowgen_wait_reporter", default=None)
"""The reporter of the current call; None outside a run."""


@contextmanager
def waiting() -> Iterator[None]:
    """Stop the time limit of the current call while the block runs.

    Example:
        >>> with waiting():
        ...     turn = "mine"
    """
    reporter = current_reporter.get()
    if reporter is None:
        yield
        return
    reporter.begin()
    try:
        yield
    finally:
        reporter.end()


@contextmanager
def sending() -> Iterator[None]:
    """Mark a request of the current call: unless the block raises an error, a stop of the run does not drop the call.

    Raises:
        DroppedError: The call was dropped.
    """
    reporter = current_reporter.get()
    if reporter is None:
        yield
        return
    reporter.begin_request()
    try:
        yield
    except BaseException:
        reporter.fail_request()
        raise
