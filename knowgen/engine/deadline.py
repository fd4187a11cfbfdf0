"""The time limit of a call of a plugin."""

from __future__ import annotations

from collections.abc import Callable

MAX_WAITING_SECONDS = 6 * 3600.0
"""Time that a call may wait for its turn, without the time that its limit counts."""


class Deadline:
    """The time limit of a call: so many seconds for each further result, without the time that the call waits.

    Args:
        seconds: The limit.
        clock: Current time in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds, self._clock = seconds, clock
        self._started = clock()
        self._waiting_since: float | None = None
        self._waited = 0.0

    @property
    def waiting(self) -> bool:
        """Whether the call waits for its turn now."""
        return self._waiting_since is not None

    @property
    def left(self) -> float:
        """Seconds until the call has run out of time, if it waits until then or does not wait at all."""
        now = self._clock()
        if self._waiting_since is not None:
            return MAX_WAITING_SECONDS - self._waited - (now - self._waiting_since)
        return self._seconds - (now - self._started)

    def restart(self) -> None:
        """Give the call the whole limit again, because it made progress."""
        self._started = self._clock()

    def wait(self, waiting: bool) -> None:
        """Stop the time when the call begins to wait, and let it go on when the call does."""
        now = self._clock()
        if waiting:
            self._waiting_since = now
        elif self._waiting_since is not None:
            self._waited += now - self._waiting_since
            self._started += now - self._waiting_since
            self._waiting_since = None
