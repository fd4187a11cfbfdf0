"""The time limit of a trajectory, which does not count the time that it waits for its turn at a service."""

from __future__ import annotations

import asyncio
from contextvars import Token
from types import TracebackType

from knowgen.core.waiting import WaitReporter, current_reporter


class TimeLimit:
    """Ends a block that takes too long. `core.waiting.waiting()` inside it stops the clock.

    Args:
        seconds: The limit; 0 for none.

    Attributes:
        reached: Whether the limit ended the block, which then raises `TimeoutError`.

    Example:
        async with TimeLimit(60.0) as limit:
            await work()
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)
        self._left = seconds
        self._token: Token[WaitReporter | None] | None = None

    @property
    def reached(self) -> bool:
        """Whether the limit ended the block."""
        return self._timeout.expired()

    async def __aenter__(self) -> TimeLimit:
        """Start the clock."""
        self._loop = asyncio.get_running_loop()
        await self._timeout.__aenter__()
        if self._seconds:
            self._token = current_reporter.set(WaitReporter(self._report, outer=current_reporter.get()))
            self._go_on()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the clock; a block that the limit cancelled raises `TimeoutError`."""
        if self._token is not None:
            current_reporter.reset(self._token)
        await self._timeout.__aexit__(kind, error, trace)

    def _report(self, waits: bool) -> None:
        """Stop or start the clock. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._pause if waits else self._go_on)

    def _go_on(self) -> None:
        if not self.reached:
            self._timeout.reschedule(self._loop.time() + self._left)

    def _pause(self) -> None:
        when = self._timeout.when()
        if when is not None and not self.reached:
            self._left = max(0.0, when - self._loop.time())
            self._timeout.reschedule(None)
