"""A dispatcher spreads requests over the slots of its executor, and fills batches where there are enough."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.setting import noise_image
from knowgen.core.records import GenerationRequest
from knowgen.engine.components import GeneratorHandle
from knowgen.engine.deadline import Deadline
from knowgen.engine.dispatcher import Dispatcher
from knowgen.engine.executors.concurrency import END, Invocation, InvocationEvent, LoopBridge
from knowgen.engine.executors.in_process import ExecutorSlot, TimeoutOutcome
from knowgen.engine.options import EngineOptions
from knowgen.engine.placement import generator_dispatcher, max_items_in_flight
from knowgen.engine.queued_requests import LOOK_AHEAD, QueuedRequest, QueuedRequests
from knowgen.engine.run_state import RunState
from knowgen.generators.contract import GeneratedImage
from tests.helpers.engine import Bench, generator_handle
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


# --- requests of like length -----------------------------------------------------------------------------------------


def queued(loop: asyncio.AbstractEventLoop, lengths: Sequence[int], *, start: int = 0) -> list[QueuedRequest]:
    return [
        QueuedRequest(f"r{number}", None, loop.create_future(), length=length)
        for number, length in enumerate(lengths, start)
    ]


def batches_of(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Return the lengths of the batches that are taken from a queue until it is empty."""

    async def taken() -> list[list[int]]:
        queue = QueuedRequests(by_length=True)
        for request in queued(asyncio.get_running_loop(), lengths):
            queue.put(request)
        batches = []
        while queue:
            batches.append([request.length for request in queue.take(size)])
        return batches

    return run(taken())


def padding(batches: Sequence[Sequence[int]]) -> int:
    return sum(max(batch) * len(batch) - sum(batch) for batch in batches)


def test_requests_of_like_length_share_a_batch() -> None:
    assert batches_of([10, 90, 11, 91, 12, 92], 3) == [[10, 11, 12], [90, 91, 92]]
    assert batches_of([50, 10, 51, 12, 11], 2) == [[50, 51], [10, 11], [12]]


def test_most_of_the_padding_is_saved() -> None:
    lengths = random.Random(1).choices(range(30, 110), k=320)
    in_order = [lengths[start : start + 16] for start in range(0, 320, 16)]
    batches = batches_of(lengths, 16)
    assert sorted(map(len, batches)) == [16] * 20
    assert sorted(length for batch in batches for length in batch) == sorted(lengths)
    assert padding(batches) < padding(in_order) / 5


def test_each_batch_has_the_request_that_has_waited_for_longest() -> None:
    """A request that is unlike all others is taken when those before it have been, whatever arrives after it."""

    async def takes_until_odd() -> int:
        queue, loop = QueuedRequests(by_length=True), asyncio.get_running_loop()
        for request in queued(loop, [10, 10, 10, 500, *[10] * 20]):
            queue.put(request)
        for number in range(1, 100):
            batch = queue.take(4)
            if 500 in [request.length for request in batch]:
                return number
            for request in queued(loop, [10] * 4, start=100 * number):
                queue.put(request)
        raise AssertionError("it was never taken")

    assert run(takes_until_odd()) <= 4


def test_only_requests_that_arrived_lately_are_looked_at() -> None:
    far = LOOK_AHEAD * 2
    assert batches_of([10, *[90] * (far - 1), 10], 2)[0] == [10, 90]
    assert batches_of([10, *[90] * (far - 2), 10], 2)[0] == [10, 10]


def test_requests_that_are_alone_cancelled_or_have_the_same_id_share_no_batch() -> None:
    async def taken() -> list[list[str]]:
        queue = QueuedRequests(by_length=True)
        first, alone, cancelled, same, last = queued(asyncio.get_running_loop(), [10] * 5)
        alone.alone, same.id = True, first.id
        cancelled.future.cancel()
        for request in (first, alone, cancelled, same, last):
            queue.put(request)
        return [[request.id for request in queue.take(4)] for _ in range(4)]

    assert run(taken()) == [["r0", "r4"], ["r1"], ["r0"], []]


class Prompts:
    """A generator that records the prompts of its calls, and draws the same image in every batch."""

    batch_size = 4
    revision = "1"

    def __init__(self, *, groups_by_length: bool) -> None:
        self.groups_by_length = groups_by_length
        self.calls: list[list[str]] = []

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        self.calls.append([request.prompt for request in requests])
        for request in requests:
            yield GeneratedImage(noise_image(f"{request.prompt} {request.seed}"), request_id=request.id)


def test_a_generator_says_whether_its_calls_have_prompts_of_like_length() -> None:
    async def lengths(groups: bool) -> int | None:
        state, bridge = RunState(), LoopBridge(asyncio.get_running_loop())
        handle: GeneratorHandle = generator_handle(Prompts(groups_by_length=groups))
        dispatcher = generator_dispatcher(handle, EngineOptions(), bridge, state, None, Path())  # type: ignore[arg-type]
        await dispatcher.close()
        length = dispatcher._length
        return None if length is None else length(GenerationRequest(id="r", prompt="dé", seed=0))

    assert [run(lengths(groups)) for groups in (True, False)] == [3, None]
    grouped, plain = (generator_handle(Prompts(groups_by_length=groups)) for groups in (True, False))
    assert max_items_in_flight(grouped, [], EngineOptions()) >= 4 + LOOK_AHEAD * 4
    assert max_items_in_flight(plain, [], EngineOptions()) < 4 + LOOK_AHEAD * 4


def test_a_run_in_batches_of_like_length_is_resumed_and_has_the_same_images(tmp_path: Path) -> None:
    """Which images share a batch depends on what waits, so that a resumed run has other batches."""
    grouped, bench = Prompts(groups_by_length=True), Bench(tmp_path / "grouped")
    assert bench.run(9, grouped).generated == 9
    assert bench.run(24, grouped, repeats=2).generated == 48 - 9
    assert sum(map(len, grouped.calls)) == 48, "no image was generated twice"
    in_order = Bench(tmp_path / "in_order")
    in_order.run(24, Prompts(groups_by_length=False), repeats=2)
    first, second = bench.generations(), in_order.generations()
    assert {key: one.image.sha256 for key, one in first.items() if one.image} == {
        key: one.image.sha256 for key, one in second.items() if one.image
    }
