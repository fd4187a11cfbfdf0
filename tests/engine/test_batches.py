"""A dispatcher spreads requests over the slots of its executor, and fills batches where there are enough."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from knowgen.engine.deadline import Deadline
from knowgen.engine.dispatcher import Dispatcher
from knowgen.engine.executors.concurrency import END, Invocation, InvocationEvent, LoopBridge
from knowgen.engine.executors.in_process import ExecutorSlot, TimeoutOutcome
from knowgen.engine.run_state import RunState
from tests.helpers.virtual_time import run


def ten_seconds(slot: int, count: int) -> float:
    return 10.0


class SlowSlots:
    """An executor of slow calls; records the batches of each slot.

    Args:
        loop: The event loop.
        seconds: Returns the time of a call from its slot and the size of its batch.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: Callable[[int, int], float] = ten_seconds) -> None:
        self.loop, self.seconds = loop, seconds
        self.batches: dict[int, list[int]] = {}

    async def ready_slot(self, slot: int, *_: Any) -> ExecutorSlot:
        executor = self

        class Slot:
            def start(self, invocation: Invocation[Any]) -> None:
                executor.batches.setdefault(slot, []).append(len(invocation.batch))
                executor.loop.call_later(executor.seconds(slot, len(invocation.batch)), finish, invocation)

        def finish(invocation: Invocation[Any]) -> None:
            for payload in invocation.batch:
                invocation.deliver(InvocationEvent("result", payload, payload))
            invocation.deliver(END)

        return Slot()

    async def room_again(self, slot: int) -> None:
        raise AssertionError("no device is disabled")

    def drop(self, slot: int, invocation: Invocation[Any]) -> None:
        """Do nothing: no call waits."""

    async def abandon(self, slot: int, invocation: Invocation[Any]) -> TimeoutOutcome:
        return TimeoutOutcome(left_behind=False)

    async def close(self) -> None:
        """Nothing to close."""

    def kill(self) -> None:
        """Nothing to kill."""

    def join(self, seconds: float) -> None:
        """Nothing to wait for."""


async def dispatch(
    count: int, slots: int, batch_size: int, *, fill: bool, seconds: Callable[[int, int], float] = ten_seconds
) -> tuple[dict[int, list[int]], float]:
    """Return the sizes of the batches by slot, and the seconds that all requests took."""
    loop = asyncio.get_running_loop()
    executor, started = SlowSlots(loop, seconds), loop.time()
    dispatcher = Dispatcher(
        LoopBridge(loop),
        RunState(),
        executor,
        slots=slots,
        batch_size=batch_size,
        timeout=3600,
        result_name="image",
        where="generator",
        fill=fill,
    )

    async def keep(value: Any, seconds: float) -> Any:
        return value

    names = [f"r{number}" for number in range(count)]
    assert await asyncio.gather(*(dispatcher.submit(name, name, keep) for name in names)) == names
    await dispatcher.close()
    return executor.batches, loop.time() - started


@pytest.mark.parametrize("fill", [True, False])
def test_ten_requests_on_eight_devices_use_all_eight(fill: bool) -> None:
    batches, seconds = run(dispatch(10, slots=8, batch_size=8, fill=fill))
    assert len(batches) == 8 and sum(map(sum, batches.values())) == 10
    assert seconds < 11


def test_enough_requests_fill_every_batch() -> None:
    batches, _ = run(dispatch(64, slots=4, batch_size=8, fill=True))
    assert batches == {slot: [8, 8] for slot in range(4)}


def test_the_last_requests_are_shared() -> None:
    batches, seconds = run(dispatch(36, slots=4, batch_size=8, fill=True))
    assert {slot: sizes[0] for slot, sizes in batches.items()} == dict.fromkeys(range(4), 8)
    assert [sizes[1:] for sizes in batches.values()] == [[1]] * 4
    assert seconds < 21


def test_a_single_slot_takes_full_batches() -> None:
    batches, _ = run(dispatch(10, slots=1, batch_size=8, fill=True))
    assert batches == {0: [8, 2]}


@pytest.mark.parametrize("count", [20, 31, 44, 60, 100])
def test_devices_of_different_speed_end_at_about_the_same_time(count: int) -> None:
    """The last batches are small enough that none works alone for long."""
    speeds = [1.0, 1.1, 1.3, 1.5]
    _, seconds = run(dispatch(count, slots=4, batch_size=8, fill=True, seconds=lambda slot, n: n * speeds[slot]))
    mean = count / sum(1 / speed for speed in speeds)
    assert seconds < mean + 3


def test_a_deadline_stops_while_the_call_waits_and_starts_again_with_progress() -> None:
    now = [0.0]
    deadline = Deadline(10.0, lambda: now[0])
    now[0] = 4.0
    assert deadline.left == 6.0 and not deadline.waiting
    deadline.wait(True)
    now[0] = 1004.0
    assert deadline.waiting and deadline.left > 10.0
    deadline.wait(False)
    assert deadline.left == 6.0
    now[0] = 1009.0
    assert deadline.left == 1.0
    deadline.restart()
    assert deadline.left == 10.0
    deadline.wait(True)
    now[0] += 6 * 3600
    assert deadline.left < 0, "waiting is bounded as well"
