"""Threads that work for an event loop. They are daemons: one that hangs never keeps the process from ending."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class LoopBridge:
    """Carries results from threads into an event loop, many of them with one wake-up.

    Args:
        loop: The loop in which letters are delivered.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._letters: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._awake = False

    def post(self, deliver: Callable[..., None], *args: Any) -> None:
        """Has `deliver(*args)` called in the loop, soon; from any thread. Nothing happens once the loop is closed."""
        self._letters.append((deliver, args))
        if self._awake:
            return
        self._awake = True
        try:
            self.loop.call_soon_threadsafe(self._drain)
        except RuntimeError:  # the loop is closed: the run is over and nobody waits for this letter
            self._letters.clear()

    def _drain(self) -> None:
        self._awake = False  # before reading: a letter posted from now on wakes the loop again
        while self._letters:
            deliver, args = self._letters.popleft()
            deliver(*args)


class WorkerThreads:
    """Daemon threads that call functions and hand the results to a loop.

    Args:
        mailbox: Where results go.
        threads: How many work at once; they start with the first call.
        name: For thread listings.
    """

    def __init__(self, mailbox: LoopBridge, threads: int, name: str) -> None:
        self._mailbox = mailbox
        self._threads = threads
        self._name = name
        self._started = 0
        self._work: SimpleQueue[tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()

    def call(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Calls `function(*args)` in a thread; from the loop only."""
        future: asyncio.Future[T] = self._mailbox.loop.create_future()
        self._work.put((future, function, args))
        if self._started < self._threads:
            self._started += 1
            threading.Thread(target=self._serve, name=f"knowgen {self._name} {self._started}", daemon=True).start()
        return future

    def close(self) -> None:
        """Lets the threads end after the calls that were already given."""
        for _ in range(self._started):
            self._work.put(None)

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            future, function, args = item
            try:
                result = function(*args)
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the result
                self._mailbox.post(_reject, future, error)
            else:
                self._mailbox.post(_resolve, future, result)
            del item, future, function, args


def _resolve(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _reject(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


class CapacityLimiter:
    """Bounds how much is held at once; used in one loop only.

    Args:
        limit: How much there is room for. A batch enters whole, so it may be exceeded by one batch.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Waits until there is room; `enter` must follow before anything else is awaited."""
        while self._held >= self._limit:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def enter(self, count: int) -> None:
        """Takes up room."""
        self._held += count

    def leave(self) -> None:
        """Gives back the room of one."""
        self._held -= 1
        while self._waiting and self._held < self._limit:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class InvocationEvent(NamedTuple):
    """Something a plugin's call brought: an `answer`, a `fault` (of one task, or of the call when `id` is empty),
    or the `end`."""

    kind: str
    id: str = ""
    value: Any = None


END = InvocationEvent("end")


class Invocation(Generic[T]):
    """One call of a plugin that is under way, as the loop sees it.

    Args:
        mailbox: Brings events into the loop.
        batch: What was given to the plugin.

    Attributes:
        closed: Was it given up? Events that still come are dropped.
        handle: For the host's own use.
        owner: The host that carries it out, where several could.
        finished: Told by the loop when the call has ended; for the host's own use.
    """

    __slots__ = ("_events", "_mailbox", "_waiter", "batch", "closed", "finished", "handle", "owner")

    def __init__(self, mailbox: LoopBridge, batch: list[T]) -> None:
        self.batch = batch
        self.closed = False
        self.handle: Any = None
        self.owner: Any = None
        self.finished: Callable[[Invocation[T]], None] | None = None
        self._mailbox = mailbox
        self._events: deque[InvocationEvent] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def emit(self, event: InvocationEvent) -> None:
        """Reports an event, from any thread; ignored once the call was given up."""
        if not self.closed:
            self._mailbox.post(self.arrive, event)

    def arrive(self, event: InvocationEvent) -> None:
        """Takes an event in, in the loop."""
        self._events.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def ready(self) -> InvocationEvent | None:
        """Returns the next event if it is there already."""
        return self._events.popleft() if self._events else None

    async def next(self) -> InvocationEvent:
        """Waits for the next event."""
        while not self._events:
            self._waiter = self._mailbox.loop.create_future()
            await self._waiter
        return self._events.popleft()
