"""Queue requests, batch them to a plugin, and enforce timeouts.

A `Dispatcher` serves one generator or scorer. It has a fixed number of slots; each takes a batch from the queue, hands
it to the `Executor` in which the plugin runs (threads, an event loop, or worker processes), and waits for one result
per request. A request always ends in a result or an error, whatever the plugin does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from knowgen.core.errors import BudgetReachedError
from knowgen.engine.deadline import Deadline
from knowgen.engine.executors.concurrency import CapacityLimiter, Invocation, InvocationEvent, LoopBridge
from knowgen.engine.executors.in_process import Executor
from knowgen.engine.executors.invoke import ServiceCheck
from knowgen.engine.failure_log import FailureLog
from knowgen.engine.queued_requests import QueuedRequest, QueuedRequests
from knowgen.engine.retry import (
    FATAL_ERRORS,
    CallTimeoutError,
    ContractError,
    DeviceDisabledError,
    EventLoopBlockedError,
    PluginDisabledError,
    StoppedError,
    WorkerDiedError,
    WorkerLostError,
    is_transient,
)
from knowgen.engine.run_state import RunState

T = TypeVar("T")

MAX_ABANDONED = 3
"""Hanging threads that may be left behind before the plugin is disabled."""

MAX_UNASKED = 64
"""Results that were not asked for, in one call, after which the call is abandoned."""

MAX_DEATHS = 10
"""Calls in a row that may hang or die before the plugin is disabled."""

LINGER_SECONDS = 0.02
"""Time a batch generator waits for further requests before it takes a batch that is not full."""

MAX_LINGERS = 5
"""Times that it waits again while further requests arrive."""

LEAST_SHARE = 4
"""A slot that leaves work for others still takes this part of a full batch: small batches take longer for each image.
Simulated for four and eight slots of equal and unequal speed, runs of 20 to 630 images take 4 % less time on average
where the time of a batch grows with its size, and 3 to 7 % more where most of it does not.
"""


class Dispatcher:
    """Sends requests to one plugin with bounded concurrency.

    Args:
        bridge: Bridge into the engine's event loop.
        state: Whether the run goes on.
        executor: Where the plugin runs.
        slots: Calls of the plugin at once.
        batch_size: Requests per call.
        timeout: Time limit in seconds for each further result of a call. The time that the call waits for its turn does
            not count.
        result_name: What the plugin returns, for messages: `image` or `score`.
        where: Name of the plugin, for messages.
        fill: Wait a moment for a full batch, because a full batch costs little more than a single request.
        length: Returns the length of a payload, where requests of like length are to share a batch; None to batch them
            in the order of arrival.
        drain: Accept requests after a stop that is not an interruption, to score images that exist.
        limiter: Bounds the results that are held in memory until they are handled.
        failures: Log of the errors that the plugin raises.
    """

    def __init__(
        self,
        bridge: LoopBridge,
        state: RunState,
        executor: Executor,
        *,
        slots: int,
        batch_size: int,
        timeout: float,
        result_name: str,
        where: str,
        fill: bool = False,
        length: Callable[[Any], int] | None = None,
        drain: bool = False,
        limiter: CapacityLimiter | None = None,
        failures: FailureLog | None = None,
    ) -> None:
        self.slots, self.batch_size = slots, batch_size
        self._bridge, self._state, self._executor = bridge, state, executor
        self._timeout, self._result_name, self._where = timeout, result_name, where
        self._fill, self._drain, self._limiter, self._failures = fill, drain, limiter, failures
        self._queue = QueuedRequests(by_length=length is not None)
        self._length = length
        self._idle: deque[asyncio.Future[None]] = deque()
        self._slot_tasks: list[asyncio.Task[None]] = []
        self._running: dict[Invocation[Any], tuple[int, Deadline]] = {}
        self._abandoned = 0
        self._deaths = 0
        self._last_death: WorkerDiedError | None = None
        self._disabled_slots = 0
        self._busy: dict[int, float] = {}
        self._disabled = ""
        self._reported: set[str] = set()
        self._machine_failed = False
        self._stopped = False

    async def submit(
        self,
        id: str,
        payload: Any,
        handle: Callable[[Any, float], Awaitable[T]],
        *,
        alone: bool = False,
        on_repeat: Callable[[], None] | None = None,
    ) -> T:
        """Queue a request, wait for its result, and handle it.

        Args:
            id: Id of the request.
            payload: What the plugin is given.
            handle: Takes the result and the seconds it took. The result counts towards the capacity limit until this
                has returned.
            alone: Do not batch it with other requests.
            on_repeat: Called when a second result arrives.

        Returns:
            What `handle` returned.

        Raises:
            StoppedError: The run takes no new work.
            CallTimeoutError: No result within the time limit.
            PluginDisabledError: The plugin hung or died too often.
            ContractError: The plugin ended its call without a result for this request.
            Exception: What the plugin raised.
        """
        self._state.raise_if_stopped(drain=self._drain)
        if self._disabled:
            raise self._disabled_error()
        length = 0 if self._length is None or alone else self._length(payload)
        request = QueuedRequest(id, payload, self._bridge.loop.create_future(), alone, on_repeat, length=length)
        self._queue.put(request)
        self._wake_slot()
        try:
            value, seconds = await request.future
            return await handle(value, seconds)
        finally:
            if request.admitted and self._limiter is not None:
                self._limiter.release()

    async def check(self) -> None:
        """Check that the plugin's service would take calls.

        Raises:
            Exception: What the plugin raised.
        """

        async def ignore(value: Any, seconds: float) -> None:
            """Do nothing: the check has passed."""

        payload = ServiceCheck()
        await self.submit(payload.id, payload, ignore, alone=True)

    def stop(self) -> None:
        """Drop requests that are queued or wait for their turn inside a call; those in progress continue."""
        self._queue.fail(lambda: StoppedError(self._state.stop_reason))
        self._stopped = True
        for invocation, (slot, deadline) in self._running.items():
            self._drop_if_waiting(slot, invocation, deadline)

    def _drop_if_waiting(self, slot: int, invocation: Invocation[Any], deadline: Deadline) -> None:
        """Have a call dropped that waits for its turn, unless it has gone on since it reported that."""
        if deadline.waiting and len(invocation.batch) == 1 and not invocation.closed:
            self._executor.drop(slot, invocation)

    async def close(self) -> None:
        """End the slots and close the plugin."""
        for task in self._slot_tasks:
            task.cancel()
        await asyncio.gather(*self._slot_tasks, return_exceptions=True)
        self._slot_tasks.clear()
        self._idle.clear()
        await self._executor.close()

    def kill(self) -> None:
        """Abort everything in progress that can be aborted, without waiting."""
        for task in self._slot_tasks:
            task.cancel()
        self._executor.kill()

    def join(self, seconds: float) -> None:
        """Wait until what `kill` aborted has closed its connections, at most for some seconds."""
        self._executor.join(seconds)

    # -- slots: from the queue to the plugin -----------------------------------------------------------------------

    def _wake_slot(self) -> None:
        """Wake an idle slot, or start another one."""
        if self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
        elif len(self._slot_tasks) < self.slots:
            slot = len(self._slot_tasks)
            self._slot_tasks.append(self._bridge.loop.create_task(self._run_slot(slot)))

    async def _run_slot(self, slot: int) -> None:
        try:
            while True:
                batch = await self._next_batch()
                self._busy[slot] = self._bridge.loop.time()
                try:
                    await self._process(slot, batch)
                except DeviceDisabledError as error:
                    disabled = str(error)
                else:
                    disabled = ""
                finally:
                    del self._busy[slot]
                if disabled:
                    self._disable_slot(batch, disabled)
                    await self._executor.room_again(slot)
                    self._disabled_slots -= 1
        except Exception as error:  # noqa: BLE001 - a bug of the engine itself: the run must not hang on it
            self._state.fail(error)
            self.stop()

    async def _next_batch(self) -> list[QueuedRequest]:
        while True:
            while not self._queue:
                waiter = self._bridge.loop.create_future()
                self._idle.append(waiter)
                await waiter
            if self._fill:
                await self._linger()
            if self._limiter is not None:
                await self._limiter.wait_until_free()
            if batch := self._take_batch():
                return batch

    async def _linger(self) -> None:
        """Wait for further requests while they arrive and the free slots have no full batch each."""
        for _ in range(MAX_LINGERS):
            before = len(self._queue)
            if before >= self.batch_size * self._free_slots:
                return
            await asyncio.sleep(LINGER_SECONDS)
            if len(self._queue) <= before:
                return

    @property
    def _free_slots(self) -> int:
        """Number of slots that have no batch, those that have not been started included; at least 1."""
        return max(1, self.slots - self._disabled_slots - len(self._busy))

    def _take_batch(self) -> list[QueuedRequest]:
        """Take a batch from the queue.

        Slots that become free together share the queue among them. One that becomes free alone leaves a share for those
        that have been working for a while, so that at the end of a run no device works alone on a large batch.
        """
        now, queued = self._bridge.loop.time(), len(self._queue)
        served = sum(now - since < MAX_LINGERS * LINGER_SECONDS for since in self._busy.values())
        share = -(-queued // max(1, self.slots - self._disabled_slots - served))
        least = min(-(-queued // self._free_slots), -(-self.batch_size // LEAST_SHARE))
        batch = self._queue.take(min(self.batch_size, max(share, least)))
        if self._limiter is not None:
            for request in batch:
                if not request.admitted:
                    request.admitted = True
                    self._limiter.take(1)
        return batch

    async def _process(self, slot: int, batch: list[QueuedRequest]) -> None:
        """Give a batch to the plugin and see that each of its requests ends.

        Raises:
            DeviceDisabledError: The device of this slot failed too often.
        """
        try:
            if self._disabled:
                raise self._disabled_error()
            executor_slot = await self._executor.ready_slot(slot, [request.payload for request in batch])
        except DeviceDisabledError:
            raise
        except Exception as error:  # noqa: BLE001 - the plugin cannot be built, so no request can be served
            if not isinstance(error, PluginDisabledError):
                self._state.fail(error)
            for request in batch:
                request.fail(error if isinstance(error, PluginDisabledError) else StoppedError(str(error)))
            return
        invocation: Invocation[Any] = Invocation(self._bridge, [request.payload for request in batch])
        now = time.monotonic()
        for request in batch:
            request.started = now
        deadline = Deadline(self._timeout, self._bridge.loop.time)
        self._running[invocation] = (slot, deadline)
        try:
            executor_slot.start(invocation)
            await self._collect(slot, invocation, {request.id: request for request in batch}, deadline)
        finally:
            del self._running[invocation]

    # -- events: from the plugin to the requests -------------------------------------------------------------------

    async def _collect(
        self, slot: int, invocation: Invocation[Any], requests: dict[str, QueuedRequest], deadline: Deadline
    ) -> None:
        """Resolve the requests of an invocation from its events, until it ends or times out."""
        waiting = dict(requests)
        unasked: list[str] = []
        while True:
            try:
                event = await self._next_event(invocation, deadline)
            except TimeoutError:
                await self._timed_out(slot, invocation, waiting)
                return
            if event.kind == "end":
                break
            before = len(waiting)
            if event.kind == "waiting":
                deadline.wait(bool(event.value))
                if self._stopped:  # it was started just before the stop
                    self._drop_if_waiting(slot, invocation, deadline)
            elif event.kind == "dropped":
                for request in waiting.values():
                    request.fail(StoppedError(self._state.stop_reason))
                waiting.clear()
            elif event.kind == "error":
                self._on_error(event, waiting)
            else:
                self._on_result(event, requests, waiting, unasked)
            if len(waiting) < before:
                deadline.restart()
            elif event.kind == "result" and (len(unasked) > MAX_UNASKED or deadline.left <= 0):
                await self._timed_out(slot, invocation, waiting, self._unasked_results(unasked))
                return
        if invocation.on_finished is not None:
            invocation.on_finished(invocation)
        unknown_ids = [id for id in unasked if id not in requests]
        for request in waiting.values():
            request.fail(ContractError(self._missing_result(unknown_ids)))

    async def _next_event(self, invocation: Invocation[Any], deadline: Deadline) -> InvocationEvent:
        """Return the next event.

        Raises:
            TimeoutError: The call has run out of time.
        """
        if (event := invocation.next_ready()) is not None:
            return event
        async with asyncio.timeout(max(0.0, deadline.left)):
            return await invocation.next()

    def _on_result(
        self,
        event: InvocationEvent,
        requests: dict[str, QueuedRequest],
        waiting: dict[str, QueuedRequest],
        unasked: list[str],
    ) -> None:
        id = event.id
        if not id and len(requests) == 1:
            id = next(iter(requests))
        request = waiting.pop(id, None)
        if request is not None:
            self._deaths = 0
            request.resolve(event.value)
            return
        unasked.append(id)
        if id in requests and (on_repeat := requests[id].on_repeat) is not None:
            on_repeat()

    def _on_error(self, event: InvocationEvent, waiting: dict[str, QueuedRequest]) -> None:
        """Fail the request that an error belongs to. After an error of a whole batch, each request is run alone."""
        affected = [waiting.pop(event.id)] if event.id in waiting else list(waiting.values())
        error = event.value if self._failures is None else self._failures.record(event.value)
        if not event.id:
            waiting.clear()
        if isinstance(error, WorkerDiedError):
            self._deaths += not _same_death(error, self._last_death)
            self._last_death = error
            if self._deaths >= MAX_DEATHS:
                error = PluginDisabledError(f"{self._where} died {self._deaths} times in a row; the last time {error}")
                self._disable(str(error))
        concerns_all = is_transient(error) or isinstance(
            error, (BudgetReachedError, PluginDisabledError, *FATAL_ERRORS)
        )
        for request in affected:
            if len(affected) > 1 and not concerns_all:  # one request broke the batch; alone, the others succeed
                self._repeat_alone(request)
            else:
                request.fail(error)

    def _repeat_alone(self, request: QueuedRequest) -> None:
        """Queue a request again, which then shares no batch."""
        request.alone = True
        self._queue.put(request)
        self._wake_slot()

    def _missing_result(self, unknown_ids: list[str]) -> str:
        plugin = "generator" if self._result_name == "image" else "scorer"
        reason = f"the {plugin} returned no {self._result_name} for this request"
        return f"{reason}; it returned one for an unknown request {unknown_ids[0][:60]!r}" if unknown_ids else reason

    def _unasked_results(self, unasked: list[str]) -> str:
        plugin = "generator" if self._result_name == "image" else "scorer"
        return f"the {plugin} goes on returning {self._result_name}s that were not asked for ({len(unasked)} so far)"

    async def _timed_out(
        self, slot: int, invocation: Invocation[Any], waiting: dict[str, QueuedRequest], reason: str = ""
    ) -> None:
        """Abandon an invocation that has run out of time; disable a plugin that hangs again and again.

        Args:
            slot: Its slot.
            invocation: The invocation.
            waiting: Requests that have no result yet.
            reason: Why it is abandoned; that it gave no result in time when empty.
        """
        unasked = bool(reason)
        if not reason:
            missing = f" after the last one, with {len(waiting)} missing in its batch" if len(waiting) > 1 else ""
            reason = f"no {self._result_name} within {self._timeout:g} s{missing}"
        outcome = await self._executor.abandon(slot, invocation)
        blocked = EventLoopBlockedError(f"another call blocked the event loop of {self._where}")
        for request in waiting.values():
            if unasked and len(waiting) > 1:
                self._repeat_alone(request)
            else:
                request.fail(blocked if outcome.blocked_by_other else CallTimeoutError(reason))
        self._abandoned += outcome.left_behind
        self._deaths += not outcome.blocked_by_other
        if self._abandoned >= MAX_ABANDONED:
            self._disable(f"{self._where} hung {self._abandoned} times and is not called again in this run")
        elif self._deaths >= MAX_DEATHS:
            self._disable(
                f"{self._where} hung or died {self._deaths} times in a row and is not called again in this run"
            )

    def _disable(self, reason: str, *, machine: bool = False) -> None:
        """Disable the plugin for the rest of the run, and fail the queued requests."""
        self._disabled, self._machine_failed = reason, machine
        self._queue.fail(self._disabled_error)

    def _disabled_error(self) -> PluginDisabledError:
        return PluginDisabledError(self._disabled, machine=self._machine_failed)

    def _disable_slot(self, batch: list[QueuedRequest], reason: str) -> None:
        """Give a slot's batch to the other slots; disable the plugin if none is left."""
        self._disabled_slots += 1
        if reason not in self._reported:  # once for all slots of a worker
            self._reported.add(reason)
            logging.getLogger("knowgen.engine").warning("%s: %s", self._where, reason)
        self._queue.put_back(batch)
        if self._disabled_slots >= self.slots:
            self._disable(f"{self._where}: no device is left; the last error: {reason}", machine=True)
            return
        for _ in batch:
            self._wake_slot()


def _same_death(error: WorkerDiedError, last: WorkerDiedError | None) -> bool:
    """Return whether two errors are of one death.

    All calls of a process get the same error, and all processes of a lost machine are one loss.
    """
    if isinstance(error, WorkerLostError) and isinstance(last, WorkerLostError):
        return error.machine_name == last.machine_name
    return error is last
