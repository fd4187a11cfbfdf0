"""Whether a run goes on. One object that every part of the engine looks at."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from knowgen.engine.retry import StoppedError


class RunState:
    """Says whether new work is taken; used in the engine's loop only.

    Attributes:
        stopped: Why no new work is taken, empty while it is.
        error: The error the run ends with, None when there is none.
    """

    def __init__(self) -> None:
        self.stopped = ""
        self.error: BaseException | None = None
        self.changed = asyncio.Event()

    def stop(self, reason: str) -> None:
        """Takes no new work from now on; the first reason stays, but an interruption overrules a budget."""
        if not self.stopped or reason == "interrupted":
            self.stopped = reason
        self.changed.set()

    def fail(self, error: BaseException) -> None:
        """Ends the run with an error."""
        if self.error is None:
            self.error = error
        self.stop(str(error))

    def check(self, *, drain: bool = False) -> None:
        """Raises `StoppedError` when no new work is taken.

        Args:
            drain: Only when what is under way should end as well.
        """
        if self.at_once or (self.stopped and not drain):
            raise StoppedError(self.stopped)

    @property
    def at_once(self) -> bool:
        """Tells whether what is under way should end as well, instead of being waited for."""
        return self.error is not None or self.stopped == "interrupted"


_CAUGHT = (signal.SIGINT, signal.SIGTERM)
EXIT_INTERRUPTED = 130


class SignalHandler:
    """Catches SIGINT and SIGTERM inside a `with` block; outside the main thread it does nothing.

    Args:
        interrupt: Called in the main thread at the first signal.

    Attributes:
        since: When the first signal came, by the monotonic clock; None while none has.
    """

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self.since: float | None = None
        self._interrupt = interrupt
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SignalHandler:
        """Puts the handlers in place."""
        if threading.current_thread() is threading.main_thread():
            for number in _CAUGHT:
                self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restores the earlier handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.since is not None:
            os._exit(EXIT_INTERRUPTED)
        self.since = time.monotonic()
        self._interrupt()
