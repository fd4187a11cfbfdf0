"""Every waiting call gets its slot after rate limits, errors and cancellations, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowgen.clients.rate_control import LONGEST_HELD_PAUSE, LoadSignal, RateControl, RateLimits
from knowgen.core.errors import ServiceUnavailableError
from tests.helpers.virtual_time import run

MAX_DEFAULT_PAUSE = 64.0
"""Upper bound in seconds of a pause after a response that names none."""


@dataclass(frozen=True)
class Reply:
    """One reply of a simulated endpoint.

    Attributes:
        signal: What it says about the load.
        wait: Seconds it asks to wait, None where it does not.
        seconds: Time from the request to the reply, in seconds.
    """

    signal: LoadSignal
    wait: float | None = None
    seconds: float = 0.5

    @property
    def pause(self) -> float:
        """Maximum duration of the pause this reply may cause, in seconds."""
        if self.signal not in (LoadSignal.RATE_LIMITED, LoadSignal.UNAVAILABLE):
            return 0.0
        return MAX_DEFAULT_PAUSE if self.wait is None else self.wait


@dataclass(frozen=True)
class Caller:
    """A caller that makes some calls one after another.

    Attributes:
        replies: Replies to its calls.
        start: Start time in seconds.
        cancel: Time in seconds at which it is cancelled, None for never.
    """

    replies: tuple[Reply, ...]
    start: float = 0.0
    cancel: float | None = None


@dataclass
class Log:
    """Record of a simulation.

    Attributes:
        sent: Times at which calls were sent, in order.
        ended: Times at which calls ended, in order.
        refused: Times at which calls were refused in a pause that is too long to wait for its end.
        pauses: Start and end of each pause that a reply requested.
        in_flight: Number of calls in flight.
        max_in_flight: Maximum number of calls in flight so far.
    """

    sent: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    pauses: list[tuple[float, float]] = field(default_factory=list)
    in_flight: int = 0
    max_in_flight: int = 0


async def simulate(callers: list[Caller], limits: RateLimits, timeout: float) -> tuple[Log, set[asyncio.Task[None]]]:
    """Run callers against an endpoint; return what happened and the callers that had not ended after `timeout`."""
    loop = asyncio.get_running_loop()
    rate_control = RateControl(limits)
    log = Log()
    epoch = loop.time()

    async def call(reply: Reply) -> None:
        async with rate_control.slot(100) as slot:
            log.sent.append(loop.time() - epoch)
            log.in_flight += 1
            log.max_in_flight = max(log.max_in_flight, log.in_flight)
            try:
                await asyncio.sleep(reply.seconds)
                slot.signal, slot.retry_after, slot.tokens = reply.signal, reply.wait, 100
                now = loop.time() - epoch
                if reply.signal in (LoadSignal.RATE_LIMITED, LoadSignal.UNAVAILABLE) and reply.wait:
                    log.pauses.append((now, now + reply.wait))
            finally:
                log.in_flight -= 1
                log.ended.append(loop.time() - epoch)

    async def work(caller: Caller) -> None:
        await asyncio.sleep(caller.start)
        for reply in caller.replies:
            try:
                await call(reply)
            except ServiceUnavailableError as error:
                assert error.busy and error.retry_after is not None and error.retry_after > LONGEST_HELD_PAUSE
                log.refused.append(loop.time() - epoch)

    tasks = [asyncio.create_task(work(caller)) for caller in callers]
    for caller, task in zip(callers, tasks, strict=True):
        if caller.cancel is not None:
            loop.call_later(caller.cancel, task.cancel)
    done, pending = await asyncio.wait(tasks, timeout=timeout)
    for task in pending:
        task.cancel()
    errors = [error for task in done if not task.cancelled() and (error := task.exception())]
    assert not errors
    return log, pending


def test_a_rejection_of_the_last_call_in_flight_wakes_the_waiting_calls() -> None:
    """Two calls are in flight and a third waits. Both end with 429: at 1 s with a wait of 5 s, at 2 s with 10 s."""
    callers = [
        Caller((Reply(LoadSignal.RATE_LIMITED, 5.0, 1.0),)),
        Caller((Reply(LoadSignal.RATE_LIMITED, 10.0, 2.0),)),
        Caller((Reply(LoadSignal.SUCCESS),)),
    ]
    log, pending = run(simulate(callers, RateLimits(concurrency=2), 3600.0))
    assert not pending
    assert log.sent == pytest.approx([0.0, 0.0, 12.0], abs=1e-3)


def test_a_longer_pause_delays_the_wake_up_and_a_shorter_one_does_not() -> None:
    callers = [
        Caller((Reply(LoadSignal.RATE_LIMITED, 30.0, 1.0),)),
        Caller((Reply(LoadSignal.RATE_LIMITED, 2.0, 3.0),)),
        Caller((Reply(LoadSignal.UNAVAILABLE, 40.0, 4.0),)),
        Caller((Reply(LoadSignal.SUCCESS),)),
        Caller((Reply(LoadSignal.SUCCESS),)),
    ]
    log, pending = run(simulate(callers, RateLimits(concurrency=3), 3600.0))
    assert not pending
    assert log.sent[3:] == pytest.approx([44.0, 44.0], abs=1e-3)


def test_a_call_waiting_for_the_rate_limit_is_not_sent_during_a_pause() -> None:
    """At 30 per minute a call is sent every two seconds; the first is rejected at 1 s with a wait of 20 s."""
    callers = [
        Caller((Reply(LoadSignal.RATE_LIMITED, 20.0, 1.0),)),
        *[Caller((Reply(LoadSignal.SUCCESS),)) for _ in range(3)],
    ]
    log, pending = run(simulate(callers, RateLimits(rpm=30), 3600.0))
    assert not pending
    assert log.sent == pytest.approx([0.0, 21.0, 23.0, 25.0], abs=1e-3)


def test_the_slot_of_a_cancelled_call_goes_to_the_next_one() -> None:
    async def scenario() -> list[str]:
        rate_control = RateControl(RateLimits(concurrency=1))
        order: list[str] = []

        async def call(name: str, seconds: float) -> None:
            async with rate_control.slot(1) as slot:
                await asyncio.sleep(seconds)
                slot.signal = LoadSignal.SUCCESS
            order.append(name)
            if name == "first":  # its end gave the slot to the second, which has not resumed yet
                second.cancel()

        first = asyncio.create_task(call("first", 1.0))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(call("second", 1.0))
        third = asyncio.create_task(call("third", 1.0))
        _, pending = await asyncio.wait([first, second, third], timeout=3600.0)
        assert not pending and second.cancelled()
        return order

    assert run(scenario()) == ["first", "third"]


def test_an_error_in_on_change_keeps_no_call_waiting() -> None:
    async def scenario() -> int:
        def on_change(change: dict[str, Any]) -> None:
            if change["why"] != "start":
                raise OSError("the disk is full")

        rate_control = RateControl(RateLimits(concurrency=2), on_change)

        async def call(signal: LoadSignal) -> None:
            async with rate_control.slot(1) as slot:
                await asyncio.sleep(1.0)
                slot.signal = signal

        calls = [
            asyncio.create_task(call(signal))
            for signal in (LoadSignal.RATE_LIMITED, LoadSignal.NONE, LoadSignal.SUCCESS, LoadSignal.SUCCESS)
        ]
        done, pending = await asyncio.wait(calls, timeout=3600.0)
        assert not pending
        return sum(isinstance(task.exception(), OSError) for task in done)

    assert run(scenario()) == 1


def test_calls_are_not_held_in_a_pause_of_a_day() -> None:
    callers = [
        Caller((Reply(LoadSignal.RATE_LIMITED, 86400.0, 1.0),)),
        *[Caller((Reply(LoadSignal.SUCCESS),), start=start) for start in (0.0, 0.0, 2.0)],
    ]
    log, pending = run(simulate(callers, RateLimits(concurrency=1), 3600.0))
    assert not pending
    assert log.sent == pytest.approx([0.0], abs=1e-3)
    assert log.refused == pytest.approx([1.0, 1.0, 2.0], abs=1e-3)


def test_a_pause_of_half_an_hour_is_waited_for_in_full() -> None:
    callers = [Caller((Reply(LoadSignal.RATE_LIMITED, 1800.0, 1.0),)), Caller((Reply(LoadSignal.SUCCESS),))]
    log, pending = run(simulate(callers, RateLimits(concurrency=1), 7200.0))
    assert not pending
    assert log.sent == pytest.approx([0.0, 1801.0], abs=1e-3)


REPLIES = st.builds(
    Reply,
    signal=st.sampled_from(
        [LoadSignal.SUCCESS, LoadSignal.RATE_LIMITED, LoadSignal.RATE_LIMITED, LoadSignal.UNAVAILABLE, LoadSignal.NONE]
    ),
    wait=st.one_of(st.none(), st.sampled_from([0.0, 0.3, 1.0, 5.0, 30.0, 3600.0])),
    seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 7.0]),
)
CALLERS = st.builds(
    Caller,
    replies=st.lists(REPLIES, min_size=1, max_size=3).map(tuple),
    start=st.sampled_from([0.0, 0.0, 0.0, 0.4, 1.0, 20.0]),
    cancel=st.one_of(st.none(), st.none(), st.sampled_from([0.0, 0.1, 0.5, 1.0, 1.5, 6.0, 60.0])),
)


@settings(max_examples=400, deadline=None)
@given(
    callers=st.lists(CALLERS, min_size=1, max_size=24),
    max_concurrency=st.sampled_from([1, 2, 3, 5, 16, 256]),
    rpm=st.sampled_from([0.0, 0.0, 6.0, 60.0, 600.0]),
    tpm=st.sampled_from([0.0, 0.0, 3000.0]),
)
def test_every_call_ends_and_none_is_sent_during_a_pause(
    callers: list[Caller], max_concurrency: int, rpm: float, tpm: float
) -> None:
    replies = [reply for caller in callers for reply in caller.replies]
    each = (60.0 / rpm if rpm else 0.0) + (60.0 * 100 / tpm if tpm else 0.0)
    # upper bound: calls are sent one by one, and each pause makes every call wait for the rate limit once more
    timeout = 60.0 + sum(reply.seconds + reply.pause for reply in replies) + each * (len(replies) + 1) ** 2
    log, pending = run(simulate(callers, RateLimits(max_concurrency, rpm, tpm), timeout))
    assert not pending
    assert log.max_in_flight <= max_concurrency
    if not any(caller.cancel is not None for caller in callers):
        assert len(log.ended) + len(log.refused) == len(replies)
    for started, ended in log.pauses:
        assert not [at for at in log.sent if started + 1e-6 < at < ended - 1e-6]
