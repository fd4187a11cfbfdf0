"""Where plugins run inside this process: in threads of their own, or in an event loop of their own.

A plugin never runs in the engine's loop, so one that blocks holds up nobody but itself. A thread that hangs is left
behind, and the plugin is built anew.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

from knowgen.core.errors import KnowgenError
from knowgen.core.metering import Meter, current_meter
from knowgen.engine.executors.concurrency import END, Invocation, InvocationEvent, LoopBridge, WorkerThreads
from knowgen.engine.executors.invoke import make, serve
from knowgen.engine.retry import EventLoopBlockedError

CLOSE_SECONDS = 10.0
_PING_SECONDS = 1.0


class TimeoutOutcome(NamedTuple):
    """How a call that ran out of time was ended.

    Attributes:
        left_behind: Did something that hangs have to be left behind?
        innocent: Was the call itself not to blame, because another one blocked it?
    """

    left_behind: bool
    innocent: bool = False


class ExecutorSlot(Protocol):
    """Something that can carry out calls."""

    def start(self, call: Invocation[Any]) -> None:
        """Begins a call; its events arrive there."""
        ...


class Executor(Protocol):
    """The hosts of one plugin, made as they are needed."""

    async def host(self, slot: int) -> ExecutorSlot:
        """Returns the host of a slot, built and ready.

        Raises:
            KnowgenError: The plugin cannot be built.
        """
        ...

    async def give_up(self, slot: int, call: Invocation[Any]) -> TimeoutOutcome:
        """Ends a call that has run out of time."""
        ...

    async def close(self) -> None:
        """Closes the plugin, if it was built."""
        ...

    def kill(self) -> None:
        """Ends what can be ended, without waiting for anything."""
        ...


class LazyPlugin:
    """A plugin that is built when it is first needed, in a thread, because building may load a model.

    Args:
        mailbox: Of the engine's loop.
        build: Makes the object.
        device: Where it should compute.
        where: Names it in errors and threads.
    """

    def __init__(self, mailbox: LoopBridge, build: Callable[[], Any], device: Callable[[], str], where: str) -> None:
        self._mailbox = mailbox
        self._build = build
        self._device = device
        self._where = where
        self._lock = asyncio.Lock()
        self._plugin: Any = None

    async def get(self) -> Any:
        """Returns the plugin; builds it when there is none."""
        if self._plugin is None:
            async with self._lock:
                if self._plugin is None:
                    lane = WorkerThreads(self._mailbox, 1, f"build {self._where}")
                    self._plugin = await lane.call(make, self._build, self._device, self._where)
                    lane.close()
        return self._plugin

    def drop(self) -> None:
        """Forgets the plugin, so that the next `get` builds another."""
        self._plugin = None

    def take(self) -> Any:
        """Returns the plugin, or None when there is none, and forgets it."""
        plugin, self._plugin = self._plugin, None
        return plugin


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _close_in_thread(mailbox: LoopBridge, plugin: Any, where: str) -> None:
    """Calls a plugin's `close`, if it has one; one that hangs is left behind."""
    close = getattr(plugin, "close", None)
    if not callable(close) or asyncio.iscoroutinefunction(close):
        return
    lane = WorkerThreads(mailbox, 1, f"close {where}")
    try:
        await asyncio.wait_for(lane.call(close), CLOSE_SECONDS)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the results are there; a bad farewell spoils nothing
        _log().warning("%s: close() failed: %s: %s", where, type(error).__name__, error)
    lane.close()


def _log() -> Any:
    import logging

    return logging.getLogger("knowgen.engine")


class _ThreadSlot:
    """One daemon thread that serves one call after the other."""

    def __init__(self, plugin: Any, shape: str, meter: Meter, name: str) -> None:
        self._calls: SimpleQueue[Invocation[Any] | None] = SimpleQueue()
        self._plugin, self._shape, self._meter = plugin, shape, meter
        threading.Thread(target=self._run, name=f"knowgen {name}", daemon=True).start()

    def start(self, call: Invocation[Any]) -> None:
        """Begins a call."""
        self._calls.put(call)

    def end(self) -> None:
        """Lets the thread end after its present call."""
        self._calls.put(None)

    def _run(self) -> None:
        current_meter.set(self._meter)
        while (call := self._calls.get()) is not None:
            serve(self._shape, self._plugin, call.batch, call.emit)
            del call


class ThreadExecutor:
    """Runs `draw`, `generate_batch` and `score_batch` of an object in this process, one thread a slot.

    Args:
        mailbox: Of the engine's loop.
        built: The plugin.
        shape: Which method it has.
        meter: For paid calls.
        where: Names the plugin.
    """

    def __init__(self, mailbox: LoopBridge, built: LazyPlugin, shape: str, meter: Meter, where: str) -> None:
        self._mailbox, self._built, self._shape, self._meter, self._where = mailbox, built, shape, meter, where
        self._threads: dict[int, tuple[Any, _ThreadSlot]] = {}

    async def host(self, slot: int) -> ExecutorSlot:
        """Returns the slot's thread; a new one when the plugin was built anew."""
        plugin = await self._built.get()
        known = self._threads.get(slot)
        if known is None or known[0] is not plugin:
            if known is not None:
                known[1].end()
            known = (plugin, _ThreadSlot(plugin, self._shape, self._meter, f"{self._where} {slot}"))
            self._threads[slot] = known
        return known[1]

    async def give_up(self, slot: int, call: Invocation[Any]) -> TimeoutOutcome:
        """Leaves the thread behind and has the plugin built anew."""
        call.closed = True
        known = self._threads.pop(slot, None)
        if known is not None:
            known[1].end()
        self._built.drop()
        return TimeoutOutcome(left_behind=True)

    def kill(self) -> None:
        """Lets the threads end; one that hangs is left behind."""
        for _, thread in self._threads.values():
            thread.end()
        self._threads.clear()

    async def close(self) -> None:
        """Ends the threads and closes the plugin."""
        self.kill()
        if (plugin := self._built.take()) is not None:
            await _close_in_thread(self._mailbox, plugin, self._where)


class _LoopSlot:
    """A daemon thread with an event loop, in which coroutines of one plugin run."""

    def __init__(self, plugin: Any, invoke: Callable[[Any, Any], Awaitable[Any]], meter: Meter, name: str) -> None:
        self.plugin = plugin
        self.loop = asyncio.new_event_loop()
        self.calls: set[Invocation[Any]] = set()
        self._invoke, self._meter = invoke, meter
        self._waiting: deque[Invocation[Any]] = deque()
        self._awake = False
        threading.Thread(target=self._run, name=f"knowgen {name}", daemon=True).start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            # what was cut off lets go of its connections; one that will not end holds only this daemon thread
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        finally:
            self.loop.close()

    def start(self, call: Invocation[Any]) -> None:
        """Begins a call; from the engine's loop."""
        self.calls.add(call)
        self._waiting.append(call)
        if not self._awake:
            self._awake = True
            self.loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._awake = False
        while self._waiting:
            call = self._waiting.popleft()
            call.handle = self.loop.create_task(self._serve(call))

    async def _serve(self, call: Invocation[Any]) -> None:
        payload = call.batch[0]
        current_meter.set(self._meter)  # of this task alone
        try:
            value = await self._invoke(self.plugin, payload)
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, sys.exit included
            call.emit(InvocationEvent("fault", "", error))
        else:
            call.emit(InvocationEvent("answer", "", value))
        call.emit(END)

    def cancel(self, call: Invocation[Any]) -> None:
        """Cancels a call's task; in the host's loop."""
        if call.handle is not None:
            call.handle.cancel()

    def end(self) -> None:
        """Stops the loop; what is still under way is left."""
        self.loop.call_soon_threadsafe(self.loop.stop)


class LoopExecutor:
    """Runs coroutines of a plugin, `generate` or `score`, in one loop of their own for all slots.

    Args:
        mailbox: Of the engine's loop.
        built: The plugin.
        invoke: Calls the plugin's coroutine with a payload.
        meter: For paid calls.
        where: Names the plugin.
    """

    def __init__(
        self,
        mailbox: LoopBridge,
        built: LazyPlugin,
        invoke: Callable[[Any, Any], Awaitable[Any]],
        meter: Meter,
        where: str,
    ) -> None:
        self._mailbox, self._built, self._invoke, self._meter, self._where = mailbox, built, invoke, meter, where
        self._host: _LoopSlot | None = None

    async def host(self, slot: int) -> ExecutorSlot:
        """Returns the loop's host."""
        if self._host is None:
            plugin = await self._built.get()
            if self._host is None:  # another slot may have been quicker
                self._host = _LoopSlot(plugin, self._invoke, self._meter, self._where)
        return _TrackedSlot(self._host)

    async def give_up(self, slot: int, call: Invocation[Any]) -> TimeoutOutcome:
        """Cancels the call; when the plugin's loop does not react at all, leaves it behind with all its calls."""
        call.closed = True
        host: _LoopSlot = call.owner
        host.calls.discard(call)
        if await self._reacts(host, call):
            return TimeoutOutcome(left_behind=False)
        guilty = asyncio.current_task(host.loop)
        first = self._host is host
        if first:
            self._leave(host)
        return TimeoutOutcome(left_behind=first, innocent=guilty is not None and guilty is not call.handle)

    async def _reacts(self, host: _LoopSlot, call: Invocation[Any]) -> bool:
        """Cancels a call in the plugin's loop, and tells whether that loop did it."""
        pong: asyncio.Future[None] = self._mailbox.loop.create_future()

        def answer() -> None:
            host.cancel(call)
            self._mailbox.post(_settle, pong)

        host.loop.call_soon_threadsafe(answer)
        try:
            await asyncio.wait_for(pong, _PING_SECONDS)
        except TimeoutError:
            return False
        return True

    def _leave(self, host: _LoopSlot) -> None:
        """Leaves a blocked loop behind; its other calls are lost and may be made again."""
        self._host = None
        self._built.drop()
        for other in host.calls:
            other.arrive(InvocationEvent("fault", "", EventLoopBlockedError(f"{self._where} blocked its event loop")))
            other.arrive(END)
            other.closed = True
        host.end()

    def kill(self) -> None:
        """Ends the loop; what is still under way in it is left."""
        host, self._host = self._host, None
        if host is not None:
            host.end()

    async def close(self) -> None:
        """Closes the plugin in its own loop, where its connections live, and ends the loop."""
        host, self._host = self._host, None
        plugin = self._built.take()
        if host is None:
            return
        try:
            done = asyncio.run_coroutine_threadsafe(_farewell(plugin), host.loop)
            await asyncio.wait_for(asyncio.wrap_future(done), CLOSE_SECONDS)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the results are there; a bad farewell spoils nothing
            _log().warning("%s: close() failed: %s: %s", self._where, type(error).__name__, error)
        host.end()


async def _farewell(plugin: Any) -> None:
    """Calls `close`, or `aclose`, of a plugin that has one."""
    close = getattr(plugin, "close", None) or getattr(plugin, "aclose", None)
    if callable(close):
        try:
            result = close()
            if asyncio.iscoroutine(result):
                await result
        except SystemExit as error:
            raise KnowgenError("called sys.exit in close()") from error


class _TrackedSlot:
    """A loop host for one call: forgets the call when it has ended."""

    def __init__(self, host: _LoopSlot) -> None:
        self._host = host

    def start(self, call: Invocation[Any]) -> None:
        """Begins a call."""
        call.owner = self._host
        self._host.start(call)
        call.finished = self._host.calls.discard
