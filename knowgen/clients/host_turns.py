"""Limits on the requests to each host: how many at once, and how far apart they start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from knowgen.core.waiting import waiting


@dataclass
class _Host:
    """The requests of one host that run or wait."""

    free: asyncio.Semaphore
    order: asyncio.Lock = field(default_factory=asyncio.Lock)
    next_start: float = 0.0
    users: int = 0


class HostTurns:
    """Turns of requests, by host. Used within one event loop.

    Args:
        at_once: Maximum number of requests to one host at a time.
        total: Maximum number of requests to all hosts at a time.
    """

    def __init__(self, at_once: int, total: int) -> None:
        self._at_once = at_once
        self._total = asyncio.Semaphore(total)
        self._hosts: dict[str, _Host] = {}

    @property
    def known(self) -> int:
        """Number of hosts that are remembered."""
        return len(self._hosts)

    @asynccontextmanager
    async def turn(self, host: str, delay: float = 0.0) -> AsyncIterator[None]:
        """Wait for a turn, and hold it during the `with` block.

        Args:
            host: The host.
            delay: Seconds between the starts of two requests to it.
        """
        state = self._hosts.setdefault(host, _Host(asyncio.Semaphore(self._at_once)))
        state.users += 1
        try:
            await _acquire(state.free)
            try:
                await self._wait_for_start(state, delay)
                await _acquire(self._total)
                try:
                    yield
                finally:
                    self._total.release()
            finally:
                state.free.release()
        finally:
            state.users -= 1
            self._forget_idle()

    async def _wait_for_start(self, state: _Host, delay: float) -> None:
        clock = asyncio.get_running_loop().time
        if not delay and state.next_start <= clock():
            return
        with waiting():
            async with state.order:
                if (left := state.next_start - clock()) > 0:
                    await asyncio.sleep(left)
                state.next_start = clock() + delay

    def _forget_idle(self) -> None:
        """Drop hosts without requests, so that a long run does not keep every host that it has seen."""
        if len(self._hosts) < 1024:
            return
        now = asyncio.get_running_loop().time()
        self._hosts = {name: state for name, state in self._hosts.items() if state.users or state.next_start > now}


async def _acquire(semaphore: asyncio.Semaphore) -> None:
    if not semaphore.locked():
        await semaphore.acquire()
        return
    with waiting():
        await semaphore.acquire()
