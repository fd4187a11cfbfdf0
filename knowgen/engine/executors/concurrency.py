"""Building blocks between threads and an event loop: `LoopBridge`, `WorkerThreads`, `CapacityLimiter`, `Invocation`.

All threads are daemons, so one that hangs never keeps the process from ending.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context
from queue import SimpleQueue
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from knowgen.core.waiting import WaitReporter

T = TypeVar("T")


class LoopBridge:
    """Calls functions in an event loop from other threads, many of them with one wake-up.

    Args:
        loop: The event loop.
        context: Context variables of what is called; those of the thread that posts it when None.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context | None = None) -> None:
        self.loop = loop
        self._context = context
        self._posted: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._awake = False

    def post(self, function: Callable[..., None], *args: Any) -> None:
        """Call `function(*args)` in the loop, soon. May be used from any thread; has no effect on a closed loop."""
        self._posted.append((function, args))
        if self._awake:
            return
        self._awake = True
        try:
            self.loop.call_soon_threadsafe(self._run_posted, context=self._context)
        except RuntimeError:  # the loop is closed: the run is over and nothing waits for this call
            self._posted.clear()

    def _run_posted(self) -> None:
        self._awake = False  # before reading: what is posted from now on wakes the loop again
        for _ in range(len(self._posted)):  # not what is posted meanwhile, or a thread could keep the loop here
            function, args = self._posted.popleft()
            function(*args)


class WorkerThreads:
    """Daemon threads that run functions and return the results to an event loop.

    Args:
        bridge: Bridge into the loop.
        threads: Number of threads; each starts when it is first needed.
        name: Name of the threads, for listings.
    """

    def __init__(self, bridge: LoopBridge, threads: int, name: str) -> None:
        self._bridge = bridge
        self._threads = threads
        self._name = name
        self._started = 0
        self._work: SimpleQueue[tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()

    def run(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Run `function(*args)` in a thread and return a future of its result. Used in the loop only."""
        future: asyncio.Future[T] = self._bridge.loop.create_future()
        self._work.put((future, function, args))
        if self._started < self._threads:
            self._started += 1
            threading.Thread(target=self._main, name=f"knowgen {self._name} {self._started}", daemon=True).start()
        return future

    def close(self) -> None:
        """End the threads after the functions submitted so far."""
        for _ in range(self._started):
            self._work.put(None)

    def _main(self) -> None:
        while (entry := self._work.get()) is not None:
            future, function, args = entry
            try:
                result = function(*args)
            except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
                self._bridge.post(_reject, future, error)
            else:
                self._bridge.post(_resolve, future, result)
            del entry, future, function, args


def _resolve(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _reject(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


class CapacityLimiter:
    """Bounds how many units are taken at once. Used in one event loop only.

    Args:
        limit: Maximum number of units. A batch is taken whole, so one batch may exceed it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait_until_free(self) -> None:
        """Wait until a unit is free. `take` must follow before anything else is awaited."""
        while self._taken >= self._limit:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def take(self, count: int) -> None:
        """Take some units."""
        self._taken += count

    def release(self) -> None:
        """Give back one unit."""
        self._taken -= 1
        while self._waiting and self._taken < self._limit:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class InvocationEvent(NamedTuple):
    """Something that happened during an invocation.

    Attributes:
        kind: `result` of a request; `error` of a request, or of the whole invocation if `id` is empty; `waiting` when
            the call begins or ceases to wait for its turn; `dropped` when it was dropped while it waited; or `end`.
        id: Id of the request.
        value: The result, the exception, or whether the call waits.
    """

    kind: Literal["result", "error", "waiting", "dropped", "end"]
    id: str = ""
    value: Any = None


END = InvocationEvent("end")
DROPPED = InvocationEvent("dropped")


class Invocation(Generic[T]):
    """A call of a plugin in progress, as the event loop sees it.

    Args:
        bridge: Bridge into the loop, for its events.
        batch: The payloads given to the plugin.

    Attributes:
        closed: Whether the call was abandoned; later events are dropped.
        task: For use by the executor slot: the asyncio task that carries it out.
        slot: For use by the executor: the slot that carries it out.
        reporter: For use by the executor: where the call reports that it waits; None before it begins.
        on_finished: For use by the executor: called in the loop when the call has ended.
    """

    __slots__ = ("_bridge", "_events", "_waiter", "batch", "closed", "on_finished", "reporter", "slot", "task")

    def __init__(self, bridge: LoopBridge, batch: list[T]) -> None:
        self.batch = batch
        self.closed = False
        self.task: Any = None
        self.slot: Any = None
        self.reporter: WaitReporter | None = None
        self.on_finished: Callable[[Invocation[T]], None] | None = None
        self._bridge = bridge
        self._events: deque[InvocationEvent] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def emit(self, event: InvocationEvent) -> None:
        """Report an event. May be used from any thread; ignored after the call was abandoned."""
        if not self.closed:
            self._bridge.post(self.deliver, event)

    def deliver(self, event: InvocationEvent) -> None:
        """Add an event. Used in the loop only."""
        self._events.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def next_ready(self) -> InvocationEvent | None:
        """Return the next event if there is one."""
        return self._events.popleft() if self._events else None

    async def next(self) -> InvocationEvent:
        """Wait for the next event."""
        while not self._events:
            self._waiter = self._bridge.loop.create_future()
            await self._waiter
        return self._events.popleft()
