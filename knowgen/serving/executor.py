"""The engine's executors as a server uses them: observed, so that metrics know batches and requests in progress."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from knowgen.engine.executors.concurrency import Invocation
from knowgen.engine.executors.in_process import Executor, ExecutorSlot, TimeoutOutcome


class UnmeteredCalls:
    """A meter without a budget: the operator of a server with a paid generator pays what it costs."""

    async def reserve(self, worst_case: float | None, caller: str) -> int:
        """Admit every call."""
        return -1

    async def settle(self, number: int, cost: float | None) -> None:
        """Do nothing: nothing was reserved."""


class ObservedExecutor:
    """An executor that reports the requests it is given.

    Args:
        inner: The executor.
        slots: Number of its slots.
        on_start: Called with the requests of every invocation when it starts.
    """

    def __init__(self, inner: Executor, slots: int, on_start: Callable[[list[Any]], None]) -> None:
        self._inner, self._slots, self._on_start = inner, slots, on_start

    async def build(self) -> None:
        """Build the generator in every slot, before the first request.

        Raises:
            KnowgenError: It cannot be built.
        """
        await asyncio.gather(*(self._inner.ready_slot(slot) for slot in range(self._slots)))

    async def ready_slot(self, slot: int, batch: Sequence[Any] = ()) -> ExecutorSlot:
        """Return slot number `slot`, with the generator built."""
        return _ObservedSlot(await self._inner.ready_slot(slot, batch), self._on_start)

    async def room_again(self, slot: int) -> None:
        """Wait until a slot whose device was disabled has a place again."""
        await self._inner.room_again(slot)

    async def abandon(self, slot: int, invocation: Invocation[Any]) -> TimeoutOutcome:
        """End an invocation that has run out of time."""
        return await self._inner.abandon(slot, invocation)

    def drop(self, slot: int, invocation: Invocation[Any]) -> None:
        """Drop an invocation if it waits for its turn, and has sent nothing."""
        self._inner.drop(slot, invocation)

    async def close(self) -> None:
        """Close the generator."""
        await self._inner.close()

    def kill(self) -> None:
        """Abort everything in progress that can be aborted, without waiting."""
        self._inner.kill()

    def join(self, seconds: float) -> None:
        """Wait until what `kill` aborted has closed its connections, at most for some seconds."""
        self._inner.join(seconds)


class _ObservedSlot:
    def __init__(self, inner: ExecutorSlot, on_start: Callable[[list[Any]], None]) -> None:
        self._inner, self._on_start = inner, on_start

    def start(self, invocation: Invocation[Any]) -> None:
        self._on_start(invocation.batch)
        self._inner.start(invocation)
