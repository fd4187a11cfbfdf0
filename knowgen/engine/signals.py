"""Ctrl-C and termination: the first ends a run in order, the second ends the process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_CAUGHT = (signal.SIGINT, signal.SIGTERM)
EXIT_INTERRUPTED = 130


class Signals:
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

    def __enter__(self) -> Signals:
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
