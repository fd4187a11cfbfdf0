"""Where a served generator runs: the engine's own hosts, watched, so that batches and what is under way are known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from knowgen.engine.components import GeneratorHandle
from knowgen.engine.devices import own_device
from knowgen.engine.executors.concurrency import Invocation, LoopBridge
from knowgen.engine.executors.in_process import (
    Executor,
    ExecutorSlot,
    LazyPlugin,
    LoopExecutor,
    ThreadExecutor,
    TimeoutOutcome,
)
from knowgen.engine.executors.invoke import generate
from knowgen.engine.executors.subprocess import SubprocessExecutor, WorkerLaunch
from knowgen.engine.options import EngineOptions
from knowgen.engine.placement import generator_slots, in_workers


class UnmeteredCalls:
    """The books of a server, which keeps none: whoever serves a paid generator pays what it costs."""

    async def reserve(self, worst_case: float | None, who: str) -> int:
        """Admits every call."""
        return -1

    async def settle(self, number: int, cost: float | None) -> None:
        """Has nothing to settle."""


def generator_hosts(handle: GeneratorHandle, options: EngineOptions, mailbox: LoopBridge, folder: Path) -> Executor:
    """Makes the hosts of a generator as a run would have them; nothing is built yet.

    Args:
        handle: The generator.
        options: Worker processes and concurrency.
        mailbox: Of the server's loop.
        folder: For logs and pictures on their way.
    """
    where = f"generator {handle.spec.name!r}"
    meter = UnmeteredCalls()
    if handle.remake is not None and in_workers(handle, options):
        slots, _ = generator_slots(handle, options)
        recipe = WorkerLaunch(handle.remake, handle.traits.shape, where, folder, slots, accelerated=True)
        return SubprocessExecutor(recipe, mailbox, meter)
    built = LazyPlugin(mailbox, handle.build, own_device, where)
    if handle.traits.shape == "generate":
        return LoopExecutor(mailbox, built, generate, meter, where)
    return ThreadExecutor(mailbox, built, handle.traits.shape, meter, where)


class ObservedExecutor:
    """Hosts that tell what they are given.

    Args:
        inner: The hosts.
        slots: How many there are.
        given: Told the requests of every call when it begins.
    """

    def __init__(self, inner: Executor, slots: int, given: Callable[[list[Any]], None]) -> None:
        self._inner, self._slots, self._given = inner, slots, given

    async def build(self) -> None:
        """Builds the generator in every slot, before anybody asks for a picture.

        Raises:
            KnowgenError: It cannot be built.
        """
        await asyncio.gather(*(self._inner.host(slot) for slot in range(self._slots)))

    async def host(self, slot: int) -> ExecutorSlot:
        """Returns the host of a slot."""
        return _ObservedSlot(await self._inner.host(slot), self._given)

    async def give_up(self, slot: int, call: Invocation[Any]) -> TimeoutOutcome:
        """Ends a call that has run out of time."""
        return await self._inner.give_up(slot, call)

    async def close(self) -> None:
        """Closes the generator."""
        await self._inner.close()

    def kill(self) -> None:
        """Ends what can be ended."""
        self._inner.kill()


class _ObservedSlot:
    def __init__(self, inner: ExecutorSlot, given: Callable[[list[Any]], None]) -> None:
        self._inner, self._given = inner, given

    def start(self, call: Invocation[Any]) -> None:
        self._given(call.batch)
        self._inner.start(call)
