"""A stage: tasks wait in line, slots take them to the plugin, each ends in an answer or a fault, in time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from knowgen.core.errors import BudgetReachedError
from knowgen.engine.executors.concurrency import CapacityLimiter, Invocation, InvocationEvent, LoopBridge
from knowgen.engine.executors.in_process import Executor
from knowgen.engine.retry import (
    STOPPERS,
    CallTimeoutError,
    ContractError,
    DeviceDisabledError,
    EventLoopBlockedError,
    PluginDisabledError,
    PluginError,
    StoppedError,
    WorkerDiedError,
    describe,
    is_passing,
)
from knowgen.engine.run_state import RunState

T = TypeVar("T")

MAX_ABANDONED = 3
MAX_DEATHS = 10
LINGER_SECONDS = 0.02


@dataclass(slots=True)
class QueuedRequest:
    """Something a plugin is asked.

    Attributes:
        id: By which its answer is known; unique within a batch.
        payload: What the plugin is given.
        future: Gets the answer and the seconds it took.
        alone: Is it to be given on its own, because it was in a batch that broke?
        on_repeat: Called when a second answer comes; that one is dropped.
        started: When the plugin was given it, by the monotonic clock.
        admitted: Does it take up room?
    """

    id: str
    payload: Any
    future: asyncio.Future[tuple[Any, float]]
    alone: bool = False
    on_repeat: Callable[[], None] | None = None
    started: float = 0.0
    admitted: bool = False

    def answer(self, value: Any) -> None:
        """Ends the task with an answer."""
        if not self.future.done():
            self.future.set_result((value, time.monotonic() - self.started))

    def fail(self, error: BaseException) -> None:
        """Ends the task with a fault; one that would end a loop, such as SystemExit, becomes a plain one."""
        if self.future.done():
            return
        if not isinstance(error, Exception) or isinstance(error, StopIteration):
            error = PluginError(describe(error))
        self.future.set_exception(error)


class Dispatcher:
    """Feeds one plugin with bounded concurrency.

    Args:
        mailbox: Of the engine's loop.
        control: Says whether work is still taken.
        hosts: Where the plugin runs.
        slots: Calls at once.
        batch_size: Tasks a call takes.
        timeout: Seconds a task may take.
        noun: What it gives, for reasons: `drawing` or `score`.
        where: Names the plugin.
        fill: Waits a moment for a full batch, because a full one costs little more than a single task.
        drain: Goes on while the run comes to its end in order, for what was drawn already.
        room: Bounds the answers that are held in memory until they are dealt with.
    """

    def __init__(
        self,
        mailbox: LoopBridge,
        control: RunState,
        hosts: Executor,
        *,
        slots: int,
        batch_size: int,
        timeout: float,
        noun: str,
        where: str,
        fill: bool = False,
        drain: bool = False,
        room: CapacityLimiter | None = None,
    ) -> None:
        self.slots, self.batch_size = slots, batch_size
        self._mailbox, self._control, self._hosts = mailbox, control, hosts
        self._timeout, self._noun, self._where, self._fill, self._room = timeout, noun, where, fill, room
        self._drain = drain
        self._line: deque[QueuedRequest] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._runners: list[asyncio.Task[None]] = []
        self._abandoned = 0
        self._deaths = 0
        self._retired = 0
        self._broken = ""

    async def do(
        self,
        id: str,
        payload: Any,
        then: Callable[[Any, float], Awaitable[T]],
        *,
        alone: bool = False,
        on_repeat: Callable[[], None] | None = None,
    ) -> T:
        """Has the plugin do something, and deals with the answer.

        Args:
            id: By which the answer is known.
            payload: What the plugin is given.
            then: Takes the answer and the seconds it took; the answer counts as held until this is done.
            alone: Not in a batch with others.
            on_repeat: Called when a second answer comes.

        Returns:
            What `then` returns.

        Raises:
            StoppedError: The run takes no new work.
            CallTimeoutError: No answer came in time.
            PluginDisabledError: The plugin hung or died too often before.
            ContractError: The plugin ended its call without an answer.
            BaseException: Whatever the plugin raised.
        """
        self._control.check(drain=self._drain)
        if self._broken:
            raise PluginDisabledError(self._broken)
        task = QueuedRequest(id, payload, self._mailbox.loop.create_future(), alone, on_repeat)
        self._line.append(task)
        self._wake()
        try:
            value, seconds = await task.future
            return await then(value, seconds)
        finally:
            if task.admitted and self._room is not None:
                self._room.leave()

    def _wake(self) -> None:
        if self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
        elif len(self._runners) < self.slots:
            slot = len(self._runners)
            self._runners.append(self._mailbox.loop.create_task(self._run(slot)))

    def stop(self) -> None:
        """Lets go of what waits in line; what is under way goes on."""
        while self._line:
            self._line.popleft().fail(StoppedError(self._control.stopped))

    async def close(self) -> None:
        """Ends the slots and closes the plugin."""
        for runner in self._runners:
            runner.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)
        self._runners.clear()
        self._idle.clear()
        await self._hosts.close()

    def kill(self) -> None:
        """Ends what can be ended, without waiting."""
        for runner in self._runners:
            runner.cancel()
        self._hosts.kill()

    async def _run(self, slot: int) -> None:
        try:
            while True:
                batch = await self._next_batch()
                try:
                    await self._serve(slot, batch)
                except DeviceDisabledError as error:
                    self._retire(batch, str(error))
                    return
        except Exception as error:  # noqa: BLE001 - a fault of the engine itself: the run must not hang on it
            self._control.fail(error)
            self.stop()

    async def _next_batch(self) -> list[QueuedRequest]:
        while True:
            while not self._line:
                waiter = self._mailbox.loop.create_future()
                self._idle.append(waiter)
                await waiter
            if self._fill and len(self._line) < self.batch_size:
                await asyncio.sleep(LINGER_SECONDS)
            if self._room is not None:
                await self._room.wait()
            if batch := self._take():
                return batch

    def _take(self) -> list[QueuedRequest]:
        """Takes a batch out of the line: a share of what waits, and no two tasks of one name."""
        idle = 1 if self._fill else 1 + min(len(self._idle), max(0, len(self._line) - 1))
        size = min(self.batch_size, -(-len(self._line) // idle)) if self._line else 0
        batch: list[QueuedRequest] = []
        names: set[str] = set()
        while len(batch) < size and self._line:
            task = self._line[0]
            if task.future.done():  # its walk was cancelled
                self._line.popleft()
                continue
            if task.id in names or (task.alone and batch):
                break
            batch.append(self._line.popleft())
            names.add(task.id)
            if task.alone:
                break
        if self._room is not None:
            for task in batch:
                if not task.admitted:
                    task.admitted = True
                    self._room.enter(1)
        return batch

    async def _serve(self, slot: int, batch: list[QueuedRequest]) -> None:
        """Gives a batch to the plugin and sees that every task of it ends."""
        try:
            if self._broken:
                raise PluginDisabledError(self._broken)
            host = await self._hosts.host(slot)
        except DeviceDisabledError:
            raise
        except Exception as error:  # noqa: BLE001 - it cannot be built: nobody will get an answer
            if not isinstance(error, PluginDisabledError):
                self._control.fail(error)
            for task in batch:
                task.fail(error if isinstance(error, PluginDisabledError) else StoppedError(str(error)))
            return
        call: Invocation[Any] = Invocation(self._mailbox, [task.payload for task in batch])
        now = time.monotonic()
        for task in batch:
            task.started = now
        host.start(call)
        await self._listen(slot, call, {task.id: task for task in batch})

    def _retire(self, batch: list[QueuedRequest], reason: str) -> None:
        """Gives what a slot held to the others; gives up where none is left."""
        self._retired += 1
        logging.getLogger("knowgen.engine").warning("%s: %s", self._where, reason)
        self._line.extendleft(reversed(batch))
        if self._retired >= self.slots:
            self._give_up(f"{self._where}: no device is left; the last: {reason}")
            return
        for _ in batch:
            self._wake()

    async def _listen(self, slot: int, call: Invocation[Any], tasks: dict[str, QueuedRequest]) -> None:
        waiting = dict(tasks)
        strays: list[str] = []
        while True:
            try:
                event = await self._next_event(call, len(waiting))
            except TimeoutError:
                await self._hung(slot, call, waiting)
                return
            if event.kind == "end":
                break
            if event.kind == "fault":
                self._fault(event, waiting)
            else:
                self._answer(event, tasks, waiting, strays)
        if call.finished is not None:
            call.finished(call)
        for task in waiting.values():
            task.fail(ContractError(self._missing(strays)))

    async def _next_event(self, call: Invocation[Any], waiting: int) -> InvocationEvent:
        if (event := call.ready()) is not None:
            return event
        async with asyncio.timeout(self._timeout * max(1, waiting)):
            return await call.next()

    def _answer(
        self,
        event: InvocationEvent,
        tasks: dict[str, QueuedRequest],
        waiting: dict[str, QueuedRequest],
        strays: list[str],
    ) -> None:
        name = event.id
        if not name and len(tasks) == 1:
            name = next(iter(tasks))
        task = waiting.pop(name, None)
        if task is not None:
            self._deaths = 0
            task.answer(event.value)
        elif name in tasks:
            if (told := tasks[name].on_repeat) is not None:
                told()
        else:
            strays.append(name)

    def _fault(self, event: InvocationEvent, waiting: dict[str, QueuedRequest]) -> None:
        hit = [waiting.pop(event.id)] if event.id in waiting else list(waiting.values())
        error = event.value
        if not event.id:
            waiting.clear()
        if isinstance(error, WorkerDiedError):
            self._deaths += 1
            if self._deaths >= MAX_DEATHS:
                error = PluginDisabledError(f"{self._where} died {self._deaths} times in a row; the last time {error}")
                self._give_up(str(error))
        of_all = is_passing(error) or isinstance(error, (BudgetReachedError, PluginDisabledError, *STOPPERS))
        for task in hit:
            if len(hit) > 1 and not of_all:  # one of them broke the batch; alone, the others come through
                task.alone = True
                self._line.append(task)
                self._wake()
            else:
                task.fail(error)

    def _missing(self, strays: list[str]) -> str:
        reason = f"the {'generator' if self._noun == 'drawing' else 'scorer'} gave no {self._noun} for this request"
        return f"{reason}; it gave one for an unknown request {strays[0][:60]!r}" if strays else reason

    async def _hung(self, slot: int, call: Invocation[Any], waiting: dict[str, QueuedRequest]) -> None:
        reason = f"no {self._noun} within {self._timeout:g} s"
        if len(waiting) > 1:
            reason += f" each, in a batch of which {len(waiting)} were open"
        verdict = await self._hosts.give_up(slot, call)
        blocked = EventLoopBlockedError(f"another call blocked the event loop of {self._where}")
        for task in waiting.values():
            task.fail(blocked if verdict.innocent else CallTimeoutError(reason))
        self._abandoned += verdict.left_behind
        self._deaths += not verdict.innocent
        if self._abandoned >= MAX_ABANDONED:
            self._give_up(f"{self._where} hung {self._abandoned} times and is not called again in this run")
        elif self._deaths >= MAX_DEATHS:
            self._give_up(
                f"{self._where} hung or died {self._deaths} times in a row and is not called again in this run"
            )

    def _give_up(self, reason: str) -> None:
        self._broken = reason
        while self._line:
            self._line.popleft().fail(PluginDisabledError(reason))
