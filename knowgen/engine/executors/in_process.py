"""Run plugins inside this process: in threads, or in an event loop of their own. Defines the `Executor` protocol.

A plugin never runs in the engine's event loop, so one that blocks delays only itself. A thread that hangs cannot be
killed: it is left behind, and the plugin is built again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

from knowgen.core.errors import KnowgenError
from knowgen.core.guarded_import import NOTICE_SECONDS
from knowgen.core.metering import Meter, current_meter, reuse_replies
from knowgen.core.text import duration_text
from knowgen.engine.executors.concurrency import DROPPED, END, Invocation, InvocationEvent, LoopBridge, WorkerThreads
from knowgen.engine.executors.invoke import ServiceCheck, build_plugin, check_service, invoke, report_waiting
from knowgen.engine.retry import BUILD_SECONDS, EventLoopBlockedError, slow_build

CLOSE_SECONDS = 10.0
"""Time limit for closing a plugin."""

ABORT_SECONDS = 0.5
"""Time limit for closing a plugin when the run is aborted."""

_PING_SECONDS = 1.0

_log = logging.getLogger("knowgen.engine")


class TimeoutOutcome(NamedTuple):
    """How an invocation that ran out of time was ended.

    Attributes:
        left_behind: Whether a hanging thread had to be left behind.
        blocked_by_other: Whether another invocation blocked the event loop, so that this one is not at fault.
    """

    left_behind: bool
    blocked_by_other: bool = False


class ExecutorSlot(Protocol):
    """Carries out one invocation at a time, or several in an event loop."""

    def start(self, invocation: Invocation[Any]) -> None:
        """Start an invocation; its events are delivered to it."""
        ...


class Executor(Protocol):
    """Where one plugin runs: a number of slots, each started when it is first needed."""

    async def ready_slot(self, slot: int, batch: Sequence[Any] = ()) -> ExecutorSlot:
        """Return slot number `slot`, with the plugin built, for a call with a batch.

        Raises:
            KnowgenError: The plugin cannot be built.
            DeviceDisabledError: The slot's device failed too often.
        """
        ...

    async def room_again(self, slot: int) -> None:
        """Wait until a slot whose device was disabled has a place again; for ever where that cannot be."""
        ...

    async def abandon(self, slot: int, invocation: Invocation[Any]) -> TimeoutOutcome:
        """End an invocation that has run out of time."""
        ...

    def drop(self, slot: int, invocation: Invocation[Any]) -> None:
        """Drop an invocation if it waits for its turn, and has sent nothing; it then reports that it was dropped.

        Whether it still waits is decided where it waits: one that has gone on meanwhile is not dropped.
        """
        ...

    async def close(self) -> None:
        """Close the plugin, if it was built."""
        ...

    def kill(self) -> None:
        """Abort everything in progress that can be aborted, without waiting."""
        ...

    def join(self, seconds: float) -> None:
        """Wait until what `kill` aborted has closed its connections, at most for some seconds."""
        ...


class LazyPlugin:
    """A plugin that is built when first needed, in a thread, because building it may load a model.

    Args:
        bridge: Bridge into the engine's event loop.
        build: Builds the object.
        device: Returns the device it is set up on.
        where: Name of the plugin, for messages and thread names.
        timeout: Time limit for that in seconds.
    """

    def __init__(
        self,
        bridge: LoopBridge,
        build: Callable[[], Any],
        device: Callable[[], str],
        where: str,
        timeout: float = BUILD_SECONDS,
    ) -> None:
        self._bridge = bridge
        self._timeout = timeout
        self._build = build
        self._device = device
        self._where = where
        self._lock = asyncio.Lock()
        self._plugin: Any = None

    async def get(self) -> Any:
        """Return the plugin; build it if there is none.

        Raises:
            KnowgenError: It cannot be built, or not in time. A thread that hangs is left behind.
        """
        if self._plugin is None:
            async with self._lock:
                if self._plugin is None:
                    self._plugin = await self._built()
        return self._plugin

    async def _built(self) -> Any:
        threads = WorkerThreads(self._bridge, 1, f"build {self._where}")
        building = threads.run(build_plugin, self._build, self._device, self._where)
        threads.close()
        notice = self._bridge.loop.call_later(NOTICE_SECONDS, self._report_slow)
        try:
            await asyncio.wait([building], timeout=self._timeout)
        finally:
            notice.cancel()
        if not building.done():
            building.cancel()  # its result, if there will be one, is dropped
            raise slow_build(self._where, self._timeout, "find out what it waits for")
        return building.result()

    def _report_slow(self) -> None:
        _log.warning("%s has not been built after %s; it goes on", self._where, duration_text(NOTICE_SECONDS))

    def pop(self) -> Any:
        """Forget the plugin, so that the next `get` builds another, and return it; None if there was none."""
        plugin, self._plugin = self._plugin, None
        return plugin


# -- in threads: draw, generate_batch, score_batch ---------------------------------------------------------------------


class _ThreadSlot:
    """A daemon thread that carries out one invocation after the other."""

    def __init__(self, plugin: Any, shape: str, meter: Meter, name: str, *, reuse: bool) -> None:
        self._invocations: SimpleQueue[Invocation[Any] | None] = SimpleQueue()
        self._plugin, self._shape, self._meter, self._reuse = plugin, shape, meter, reuse
        main = partial(copy_context().run, self._main)  # with the leak guard of the run
        threading.Thread(target=main, name=f"knowgen {name}", daemon=True).start()

    def start(self, invocation: Invocation[Any]) -> None:
        """Start an invocation."""
        self._invocations.put(invocation)

    def end(self) -> None:
        """Let the thread end after its current invocation."""
        self._invocations.put(None)

    def _main(self) -> None:
        current_meter.set(self._meter)
        reuse_replies.set(self._reuse)
        while (invocation := self._invocations.get()) is not None:
            on_start = partial(setattr, invocation, "reporter")
            invoke(self._shape, self._plugin, invocation.batch, invocation.emit, on_start)
            del invocation, on_start


class ThreadExecutor:
    """Runs `draw`, `generate_batch` or `score_batch` of a plugin in this process, one thread per slot.

    Args:
        bridge: Bridge into the engine's event loop.
        plugin: The plugin.
        shape: Name of its method.
        meter: Meter of paid calls.
        where: Name of the plugin, for messages.
        reuse: Whether a cached reply may answer a judge's request.
    """

    def __init__(
        self, bridge: LoopBridge, plugin: LazyPlugin, shape: str, meter: Meter, where: str, *, reuse: bool = True
    ) -> None:
        self._bridge, self._plugin, self._shape, self._meter, self._where = bridge, plugin, shape, meter, where
        self._reuse = reuse
        self._slots: dict[int, tuple[Any, _ThreadSlot]] = {}

    async def ready_slot(self, slot: int, batch: Sequence[Any] = ()) -> ExecutorSlot:
        """Return the slot's thread; a new one if the plugin was built again since."""
        plugin = await self._plugin.get()
        known = self._slots.get(slot)
        if known is None or known[0] is not plugin:
            if known is not None:
                known[1].end()
            thread = _ThreadSlot(plugin, self._shape, self._meter, f"{self._where} {slot}", reuse=self._reuse)
            known = self._slots[slot] = (plugin, thread)
        return known[1]

    async def room_again(self, slot: int) -> None:
        """Wait for ever: the device of this process is never disabled."""
        await asyncio.Event().wait()

    async def abandon(self, slot: int, invocation: Invocation[Any]) -> TimeoutOutcome:
        """Leave the thread behind and have the plugin built again."""
        self._leave_behind(slot, invocation)
        return TimeoutOutcome(left_behind=True)

    def drop(self, slot: int, invocation: Invocation[Any]) -> None:
        """Drop an invocation that waits; its thread is left behind and sends nothing when it has waited."""
        if invocation.reporter is not None and invocation.reporter.drop():
            invocation.emit(DROPPED)  # after the events that its thread has reported
            invocation.emit(END)
            self._leave_behind(slot, invocation)

    def _leave_behind(self, slot: int, invocation: Invocation[Any]) -> None:
        invocation.closed = True
        known = self._slots.pop(slot, None)
        if known is not None:
            known[1].end()
        self._plugin.pop()

    def kill(self) -> None:
        """Let the threads end; one that hangs is left behind."""
        for _, thread in self._slots.values():
            thread.end()
        self._slots.clear()

    def join(self, seconds: float) -> None:
        """Do nothing: a thread that computes holds no connections."""

    async def close(self) -> None:
        """End the threads and close the plugin."""
        self.kill()
        if (plugin := self._plugin.pop()) is not None:
            await self._close_plugin(plugin)

    async def _close_plugin(self, plugin: Any) -> None:
        """Call the plugin's `close`, if it has one; one that hangs is left behind."""
        close = getattr(plugin, "close", None)
        if not callable(close) or asyncio.iscoroutinefunction(close):
            return
        threads = WorkerThreads(self._bridge, 1, f"close {self._where}")
        try:
            await asyncio.wait_for(threads.run(close), CLOSE_SECONDS)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - results are saved; ignore errors in close()
            _log.warning("%s: close() failed: %s: %s", self._where, type(error).__name__, error)
        threads.close()


# -- in an event loop: generate, score ---------------------------------------------------------------------------------


class _LoopSlot:
    """A daemon thread with an event loop, in which coroutines of one plugin run."""

    def __init__(
        self, plugin: Any, function: Callable[[Any, Any], Awaitable[Any]], meter: Meter, name: str, *, reuse: bool
    ) -> None:
        self.plugin = plugin
        self.loop = asyncio.new_event_loop()
        self.invocations: set[Invocation[Any]] = set()
        self._function, self._meter, self._reuse = function, meter, reuse
        self._waiting: deque[Invocation[Any]] = deque()
        self._awake = False
        self._aborted = False
        self.thread = threading.Thread(target=self._main, name=f"knowgen {name}", daemon=True)
        self.thread.start()

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            # cancelled tasks close their connections; one that does not end holds only this daemon thread
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            if self._aborted:
                self.loop.run_until_complete(self._close_aborted())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()

    async def _close_aborted(self) -> None:
        """Close the plugin of an aborted run, so that no connection is left open; errors do not matter any more."""
        with contextlib.suppress(Exception, SystemExit):
            async with asyncio.timeout(ABORT_SECONDS):
                await _call_close(self.plugin)

    def start(self, invocation: Invocation[Any]) -> None:
        """Start an invocation. Used in the engine's loop."""
        self.invocations.add(invocation)
        self._waiting.append(invocation)
        if not self._awake:
            self._awake = True
            self.loop.call_soon_threadsafe(self._start_waiting)

    def _start_waiting(self) -> None:
        self._awake = False
        while self._waiting:
            invocation = self._waiting.popleft()
            invocation.task = self.loop.create_task(self._invoke(invocation))

    async def _invoke(self, invocation: Invocation[Any]) -> None:
        payload = invocation.batch[0]
        current_meter.set(self._meter)  # in the context of this asyncio task only
        reuse_replies.set(self._reuse)
        reporter = invocation.reporter = report_waiting(invocation.emit)
        try:
            check = isinstance(payload, ServiceCheck)
            value = await (check_service(self.plugin) if check else self._function(self.plugin, payload))
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, sys.exit included
            invocation.emit(DROPPED if reporter.dropped else InvocationEvent("error", "", error))
        else:
            invocation.emit(InvocationEvent("result", "", value))
        invocation.emit(END)

    def cancel(self, invocation: Invocation[Any]) -> None:
        """Cancel the task of an invocation. Used in the slot's own loop."""
        if invocation.task is not None:
            invocation.task.cancel()

    def drop(self, invocation: Invocation[Any]) -> None:
        """Cancel the task of an invocation that waits for its turn. Used in the slot's own loop."""
        if invocation.reporter is not None and invocation.reporter.drop():
            invocation.task.cancel()

    def end(self, *, abort: bool = False) -> None:
        """Stop the loop and cancel the calls in progress.

        Args:
            abort: Close the plugin as well.
        """
        self._aborted = abort
        self.loop.call_soon_threadsafe(self.loop.stop)


class _TrackedSlot:
    """A loop slot for one invocation: the invocation is forgotten when it has ended."""

    def __init__(self, slot: _LoopSlot) -> None:
        self._slot = slot

    def start(self, invocation: Invocation[Any]) -> None:
        """Start an invocation."""
        invocation.slot = self._slot
        self._slot.start(invocation)
        invocation.on_finished = self._slot.invocations.discard


class LoopExecutor:
    """Runs coroutines of a plugin, `generate` or `score`, in one event loop of its own for all slots.

    Args:
        bridge: Bridge into the engine's event loop.
        plugin: The plugin.
        function: Calls the plugin's coroutine with a payload.
        meter: Meter of paid calls.
        where: Name of the plugin, for messages.
        reuse: Whether a cached reply may answer a judge's request.
    """

    def __init__(
        self,
        bridge: LoopBridge,
        plugin: LazyPlugin,
        function: Callable[[Any, Any], Awaitable[Any]],
        meter: Meter,
        where: str,
        *,
        reuse: bool = True,
    ) -> None:
        self._bridge, self._plugin, self._function, self._meter, self._where = bridge, plugin, function, meter, where
        self._reuse = reuse
        self._slot: _LoopSlot | None = None
        self._killed: threading.Thread | None = None

    async def ready_slot(self, slot: int, batch: Sequence[Any] = ()) -> ExecutorSlot:
        """Return the event loop as a slot."""
        if self._slot is None:
            plugin = await self._plugin.get()
            if self._slot is None:  # another slot may have been quicker
                self._slot = _LoopSlot(plugin, self._function, self._meter, self._where, reuse=self._reuse)
        return _TrackedSlot(self._slot)

    async def room_again(self, slot: int) -> None:
        """Wait for ever: the device of this process is never disabled."""
        await asyncio.Event().wait()

    async def abandon(self, slot: int, invocation: Invocation[Any]) -> TimeoutOutcome:
        """Cancel the invocation. If the plugin's loop does not react, leave it behind with all its invocations."""
        invocation.closed = True
        loop_slot: _LoopSlot = invocation.slot
        loop_slot.invocations.discard(invocation)
        if await self._cancelled(loop_slot, invocation):
            return TimeoutOutcome(left_behind=False)
        blocking = asyncio.current_task(loop_slot.loop)
        is_first = self._slot is loop_slot
        if is_first:
            self._leave_behind(loop_slot)
        return TimeoutOutcome(
            left_behind=is_first, blocked_by_other=blocking is not None and blocking is not invocation.task
        )

    def drop(self, slot: int, invocation: Invocation[Any]) -> None:
        """Drop an invocation that waits, in the plugin's loop, where it does not go on meanwhile."""
        loop_slot: _LoopSlot = invocation.slot
        with contextlib.suppress(RuntimeError):  # the loop is closed, and its invocations are cancelled
            loop_slot.loop.call_soon_threadsafe(loop_slot.drop, invocation)

    async def _cancelled(self, slot: _LoopSlot, invocation: Invocation[Any]) -> bool:
        """Cancel an invocation in the plugin's loop; return whether that loop reacted."""
        pong: asyncio.Future[None] = self._bridge.loop.create_future()

        def cancel() -> None:
            slot.cancel(invocation)
            self._bridge.post(_resolve, pong)

        slot.loop.call_soon_threadsafe(cancel)
        try:
            await asyncio.wait_for(pong, _PING_SECONDS)
        except TimeoutError:
            return False
        return True

    def _leave_behind(self, slot: _LoopSlot) -> None:
        """Leave a blocked loop behind; its other invocations fail with an error that is retried."""
        self._slot = None
        self._plugin.pop()
        for other in slot.invocations:
            error = EventLoopBlockedError(f"{self._where} blocked its event loop")
            other.deliver(InvocationEvent("error", "", error))
            other.deliver(END)
            other.closed = True
        slot.end(abort=True)

    def kill(self) -> None:
        """Stop the loop, cancel the calls in progress, and close the plugin."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._plugin.pop()
            slot.end(abort=True)
            self._killed = slot.thread

    def join(self, seconds: float) -> None:
        """Wait until the plugin of the loop is closed, at most for some seconds."""
        if self._killed is not None:
            self._killed.join(seconds)

    async def close(self) -> None:
        """Close the plugin in its own loop, to which its connections belong, and end the loop."""
        slot, self._slot = self._slot, None
        plugin = self._plugin.pop()
        if slot is None:
            return
        try:
            closing = asyncio.run_coroutine_threadsafe(_call_close(plugin), slot.loop)
            await asyncio.wait_for(asyncio.wrap_future(closing), CLOSE_SECONDS)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - results are saved; ignore errors in close()
            _log.warning("%s: close() failed: %s: %s", self._where, type(error).__name__, error)
        slot.end()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _call_close(plugin: Any) -> None:
    """Call `close` or `aclose` of a plugin that has one."""
    close = getattr(plugin, "close", None) or getattr(plugin, "aclose", None)
    if callable(close):
        try:
            result = close()
            if asyncio.iscoroutine(result):
                await result
        except SystemExit as error:
            raise KnowgenError("called sys.exit in close()") from error
