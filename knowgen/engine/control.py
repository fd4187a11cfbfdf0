"""Whether a run goes on. One object that every part of the engine looks at."""

from __future__ import annotations

import asyncio

from knowgen.engine.faults import StoppedError


class Control:
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
