"""Waiting inside a call of a plugin, which the time limit of the call does not count.

A generator or scorer that queues for its own turn, such as behind a rate limit, says so:

    with waiting():
        await limiter.acquire()

`knowgen.clients.rate_control` and `paid_call` do this already. Outside a run the block has no effect.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class WaitReporter:
    """Reports when a call begins to wait and when it goes on. May be used from any thread.

    Parts of a call may wait at the same time: the call waits from the first begin to the last end.

    Args:
        report: Takes True when the call begins to wait, and False when it goes on.
    """

    def __init__(self, report: Callable[[bool], None]) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._count = 0

    def begin(self) -> None:
        """Report that a part of the call waits."""
        with self._lock:
            self._count += 1
            if self._count == 1:
                self._report(True)

    def end(self) -> None:
        """Report that a part of the call waits no longer."""
        with self._lock:
            self._count -= 1
            if self._count == 0:
                self._report(False)


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
