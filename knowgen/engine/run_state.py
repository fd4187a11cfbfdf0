"""Whether a run goes on: one `RunState` that all parts of the engine share, and the signals that change it.

A run stops in one of two ways. After a reached budget, or when a service gives no answer for too long, it takes no new
work and finishes what is in flight. After an interruption or an error (`aborting`) work in flight ends as well.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any
from weakref import WeakSet

from knowgen.engine.retry import StoppedError


class RunState:
    """Whether a run takes new work. Used in the engine's event loop only.

    Attributes:
        stop_reason: Why no new work is taken: `budget`, `unavailable`, `interrupted` or the text of an error. Empty
            while the run goes on.
        stop_line: The reason in one line for the user, where it is more than `stop_reason`.
        error: The error that ends the run, None if there is none.
        final_error: Error to raise once the work in flight has ended, None if there is none.
        changed: Set when the run stops, or stops for a more serious reason.
    """

    def __init__(self) -> None:
        self.stop_reason = ""
        self.stop_line = ""
        self.error: BaseException | None = None
        self.final_error: BaseException | None = None
        self.changed = asyncio.Event()
        self._sleepers: set[asyncio.Future[None]] = set()

    def stop(self, reason: str, line: str = "") -> None:
        """Take no new work. The first reason is kept, except that `interrupted` replaces any other.

        Args:
            reason: Why, as in `stop_reason`.
            line: The reason in one line for the user.
        """
        if not self.stop_reason or reason == "interrupted":
            self.stop_reason, self.stop_line = reason, line
        self.changed.set()
        self.wake()

    def end_with(self, error: BaseException) -> None:
        """Take no new work, and end with an error once the work in flight has ended. The first error is kept."""
        if self.final_error is None:
            self.final_error = error
        self.stop(str(error))

    async def wait_for_stop(self, seconds: float) -> None:
        """Wait until the run stops or `wake` is called, at most for some seconds."""
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.add(sleeper)
        try:
            await asyncio.wait([sleeper], timeout=seconds)
        finally:
            self._sleepers.discard(sleeper)

    def wake(self) -> None:
        """Wake all that wait, because what they wait for may not come any more."""
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    def fail(self, error: BaseException) -> None:
        """End the run with an error. The first error is kept."""
        if self.error is None:
            self.error = error
        self.stop(str(error))

    @property
    def aborting(self) -> bool:
        """Return whether work in flight must end as well, because of an error or an interruption."""
        return self.error is not None or self.stop_reason == "interrupted"

    def raise_if_stopped(self, *, drain: bool = False) -> None:
        """Raise `StoppedError` if no new work is taken.

        Args:
            drain: Raise only if work in flight must end as well.
        """
        if self.aborting or (self.stop_reason and not drain):
            raise StoppedError(self.stop_reason)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)

EXIT_INTERRUPTED = 130
"""Exit code of an interrupted process."""


class SignalHandler:
    """Handles SIGINT and SIGTERM inside a `with` block. Outside the main thread it does nothing.

    The first signal interrupts the run; the second ends the process immediately.

    Args:
        interrupt: Called in the main thread at the first signal.

    Attributes:
        since: Time of the first signal, by the monotonic clock; None if there was none.
    """

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self.since: float | None = None
        self._interrupt = interrupt
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> SignalHandler:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._earlier[number] = signal.signal(number, self._on_signal)
            _installed.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the earlier handlers."""
        _installed.discard(self)
        for number, handler in self._earlier.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def leave(self) -> None:
        """Give a forked process the default handlers, so that a signal ends it."""
        for number in self._earlier:
            signal.signal(number, signal.SIG_DFL)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.since is not None:
            os._exit(EXIT_INTERRUPTED)
        self.since = time.monotonic()
        self._interrupt()


_installed: WeakSet[SignalHandler] = WeakSet()


def _leave_in_child() -> None:
    if threading.current_thread() is threading.main_thread():
        for handler in list(_installed):
            handler.leave()


os.register_at_fork(after_in_child=_leave_in_child)
