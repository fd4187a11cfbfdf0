"""Every call that waits for its turn gets it: after refusals, errors and cancellations, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowgen.clients.rate_control import LONGEST_PAUSE, LoadSignal, RateControl, RateLimits
from tests.helpers.virtual_time import run

WITHOUT_WAIT = 64.0
"""Seconds that a fault without a stated wait pauses the calls at most, with some to spare."""


@dataclass(frozen=True)
class Reply:
    """One reply of a simulated endpoint.

    Attributes:
        said: What it says about the load.
        wait: Seconds it asks to wait, None when it does not.
        seconds: From sending to the reply.
    """

    said: LoadSignal
    wait: float | None = None
    seconds: float = 0.5

    @property
    def pause(self) -> float:
        """Most seconds this reply may pause all calls."""
        if self.said not in (LoadSignal.BUSY, LoadSignal.BROKEN):
            return 0.0
        return WITHOUT_WAIT if self.wait is None else min(self.wait, LONGEST_PAUSE)


@dataclass(frozen=True)
class Caller:
    """A caller that makes some calls one after another.

    Attributes:
        replies: What its calls come to.
        start: Seconds before the first.
        cancel: Seconds after which it is cancelled, None for never.
    """

    replies: tuple[Reply, ...]
    start: float = 0.0
    cancel: float | None = None


@dataclass
class Log:
    """What happened.

    Attributes:
        sent: When each call was sent, in order.
        ended: When each call ended, in order.
        pauses: When each stated wait began and ended.
        under_way: Calls under way.
        most: Most calls under way at the same time.
    """

    sent: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    pauses: list[tuple[float, float]] = field(default_factory=list)
    under_way: int = 0
    most: int = 0


async def simulate(callers: list[Caller], limits: RateLimits, patience: float) -> tuple[Log, set[asyncio.Task[None]]]:
    """Run callers against an endpoint; return what happened and the callers that had not ended after `patience`."""
    loop = asyncio.get_running_loop()
    pace = RateControl(limits)
    log = Log()
    epoch = loop.time()

    async def call(reply: Reply) -> None:
        async with pace.place(100) as place:
            log.sent.append(loop.time() - epoch)
            log.under_way += 1
            log.most = max(log.most, log.under_way)
            try:
                await asyncio.sleep(reply.seconds)
                place.said, place.wait, place.tokens = reply.said, reply.wait, 100
                now = loop.time() - epoch
                if reply.said in (LoadSignal.BUSY, LoadSignal.BROKEN) and reply.wait:
                    log.pauses.append((now, now + min(reply.wait, LONGEST_PAUSE)))
            finally:
                log.under_way -= 1
                log.ended.append(loop.time() - epoch)

    async def work(caller: Caller) -> None:
        await asyncio.sleep(caller.start)
        for reply in caller.replies:
            await call(reply)

    tasks = [asyncio.create_task(work(caller)) for caller in callers]
    for caller, task in zip(callers, tasks, strict=True):
        if caller.cancel is not None:
            loop.call_later(caller.cancel, task.cancel)
    done, pending = await asyncio.wait(tasks, timeout=patience)
    for task in pending:
        task.cancel()
    errors = [error for task in done if not task.cancelled() and (error := task.exception())]
    assert not errors
    return log, pending


def test_a_refusal_of_the_last_call_under_way_wakes_the_calls_in_line() -> None:
    """Two calls may go at once, and a third waits. Both end with 429: at 1 s with a wait of 5 s, at 2 s with 10 s."""
    callers = [
        Caller((Reply(LoadSignal.BUSY, 5.0, 1.0),)),
        Caller((Reply(LoadSignal.BUSY, 10.0, 2.0),)),
        Caller((Reply(LoadSignal.GOOD),)),
    ]
    log, pending = run(simulate(callers, RateLimits(most=2), 3600.0))
    assert not pending
    assert log.sent == pytest.approx([0.0, 0.0, 12.0], abs=1e-3)


def test_a_longer_pause_moves_the_wake_up_and_a_shorter_one_does_not() -> None:
    callers = [
        Caller((Reply(LoadSignal.BUSY, 30.0, 1.0),)),
        Caller((Reply(LoadSignal.BUSY, 2.0, 3.0),)),
        Caller((Reply(LoadSignal.BROKEN, 40.0, 4.0),)),
        Caller((Reply(LoadSignal.GOOD),)),
        Caller((Reply(LoadSignal.GOOD),)),
    ]
    log, pending = run(simulate(callers, RateLimits(most=3), 3600.0))
    assert not pending
    assert log.sent[3:] == pytest.approx([44.0, 44.0], abs=1e-3)


def test_a_call_that_waits_for_the_rate_is_not_sent_during_a_pause() -> None:
    """At 30 a minute one call goes every two seconds; the first is refused at 1 s with a wait of 20 s."""
    callers = [Caller((Reply(LoadSignal.BUSY, 20.0, 1.0),)), *[Caller((Reply(LoadSignal.GOOD),)) for _ in range(3)]]
    log, pending = run(simulate(callers, RateLimits(rpm=30), 3600.0))
    assert not pending
    assert log.sent == pytest.approx([0.0, 21.0, 23.0, 25.0], abs=1e-3)


def test_a_slot_given_to_a_call_that_is_cancelled_at_that_moment_goes_to_the_next() -> None:
    async def go() -> list[str]:
        pace = RateControl(RateLimits(most=1))
        order: list[str] = []

        async def call(name: str, seconds: float) -> None:
            async with pace.place(1) as place:
                await asyncio.sleep(seconds)
                place.said = LoadSignal.GOOD
            order.append(name)
            if name == "first":  # its end gave the slot to the second, which does not know it yet
                second.cancel()

        first = asyncio.create_task(call("first", 1.0))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(call("second", 1.0))
        third = asyncio.create_task(call("third", 1.0))
        _, pending = await asyncio.wait([first, second, third], timeout=3600.0)
        assert not pending and second.cancelled()
        return order

    assert run(go()) == ["first", "third"]


def test_a_listener_that_raises_keeps_no_call_waiting() -> None:
    async def go() -> int:
        def hear(change: dict[str, Any]) -> None:
            if change["why"] != "begins":
                raise OSError("the disk is full")

        pace = RateControl(RateLimits(most=2), hear)

        async def call(said: LoadSignal) -> None:
            async with pace.place(1) as place:
                await asyncio.sleep(1.0)
                place.said = said

        calls = [
            asyncio.create_task(call(said))
            for said in (LoadSignal.BUSY, LoadSignal.NOTHING, LoadSignal.GOOD, LoadSignal.GOOD)
        ]
        done, pending = await asyncio.wait(calls, timeout=3600.0)
        assert not pending
        return sum(isinstance(task.exception(), OSError) for task in done)

    assert run(go()) == 1


REPLIES = st.builds(
    Reply,
    said=st.sampled_from([LoadSignal.GOOD, LoadSignal.BUSY, LoadSignal.BUSY, LoadSignal.BROKEN, LoadSignal.NOTHING]),
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
    most=st.sampled_from([1, 2, 3, 5, 16, 256]),
    rpm=st.sampled_from([0.0, 0.0, 6.0, 60.0, 600.0]),
    tpm=st.sampled_from([0.0, 0.0, 3000.0]),
)
def test_every_call_ends_and_none_is_sent_during_a_pause(
    callers: list[Caller], most: int, rpm: float, tpm: float
) -> None:
    replies = [reply for caller in callers for reply in caller.replies]
    each = (60.0 / rpm if rpm else 0.0) + (60.0 * 100 / tpm if tpm else 0.0)
    # as if all were sent one by one, and each pause made every call wait for the rate once more
    patience = 60.0 + sum(reply.seconds + reply.pause for reply in replies) + each * (len(replies) + 1) ** 2
    log, pending = run(simulate(callers, RateLimits(most, rpm, tpm), patience))
    assert not pending
    assert log.most <= most
    if not any(caller.cancel is not None for caller in callers):
        assert len(log.ended) == len(replies)
    for began, ended in log.pauses:
        assert not [at for at in log.sent if began + 1e-6 < at < ended - 1e-6]
