"""Adaptive concurrency against simulated endpoints, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from knowgen.clients.rate_control import EARLY_STEP, INITIAL_CONCURRENCY, LoadSignal, RateControl, RateLimits
from knowgen.core.errors import UsageError
from tests.helpers.virtual_time import run


@dataclass
class SimulatedEndpoint:
    """An endpoint with a capacity, a rate limit and an outage.

    Attributes:
        latency: Processing time of a call, in seconds.
        capacity: Number of calls it processes at a time; further ones wait.
        rejects_above: Number of calls in flight above which it answers 429; None for never.
        retry_after: Seconds that a 429 response asks to wait, None where it names none.
        failing: Start and end time of the outage, during which it answers 500.
        spread: Maximum relative increase of the latency, sampled for each call.
        in_flight: Number of calls in flight.
        max_in_flight: Maximum number of calls in flight so far.
        rejected: Number of 429 responses.
        succeeded: Number of successful responses.
        errors: Number of 500 responses.
        sent: Times at which calls arrived.
        rejected_at: Times of 429 responses.
    """

    latency: float = 0.2
    capacity: int = 1000
    rejects_above: int | None = None
    retry_after: float | None = None
    failing: tuple[float, float] = (0.0, 0.0)
    spread: float = 0.0
    in_flight: int = 0
    max_in_flight: int = 0
    rejected: int = 0
    succeeded: int = 0
    errors: int = 0
    sent: list[float] = field(default_factory=list)
    rejected_at: list[float] = field(default_factory=list)

    async def call(self, rng: random.Random) -> tuple[LoadSignal, float | None]:
        now = asyncio.get_running_loop().time()
        self.sent.append(now)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            if self.rejects_above is not None and self.in_flight > self.rejects_above:
                await asyncio.sleep(0.01)
                self.rejected += 1
                self.rejected_at.append(asyncio.get_running_loop().time())
                return LoadSignal.RATE_LIMITED, self.retry_after
            if self.failing[0] <= now < self.failing[1]:
                await asyncio.sleep(0.01)
                self.errors += 1
                return LoadSignal.UNAVAILABLE, None
            async with self._free:
                await asyncio.sleep(self.latency * (1 + self.spread * rng.random()))
            self.succeeded += 1
            return LoadSignal.SUCCESS, None
        finally:
            self.in_flight -= 1

    def __post_init__(self) -> None:
        self._free = asyncio.Semaphore(self.capacity)


def drive(
    endpoint: SimulatedEndpoint, calls: int, callers: int = 200, **limits: Any
) -> tuple[float, list[dict[str, Any]]]:
    """Make calls, each repeated until it succeeds; return the virtual seconds it took and the history of changes."""
    history: list[dict[str, Any]] = []

    async def scenario() -> float:
        rate_control = RateControl(RateLimits(**limits), history.append)
        left = iter(range(calls))
        rng = random.Random(7)
        started = asyncio.get_running_loop().time()

        async def caller() -> None:
            for _ in left:
                signal = LoadSignal.NONE
                while signal is not LoadSignal.SUCCESS:
                    async with rate_control.slot(100) as slot:
                        signal, wait = await endpoint.call(rng)
                        slot.signal, slot.retry_after, slot.tokens = signal, wait, 100

        await asyncio.gather(*(caller() for _ in range(callers)))
        return asyncio.get_running_loop().time() - started

    return run(scenario()), history


def test_the_concurrency_starts_low_and_doubles_while_the_throughput_rises() -> None:
    seconds, history = drive(SimulatedEndpoint(spread=1.0), 4000, callers=300, concurrency=128)
    assert [event["at_once"] for event in history[:4]] == [16, 32, 64, 128]
    assert seconds < 1.25 * 4000 / 128 * 0.3


def test_the_first_step_is_larger_where_no_call_had_to_queue() -> None:
    seconds, history = drive(SimulatedEndpoint(spread=0.2), 4000, callers=300, concurrency=128)
    assert [event["at_once"] for event in history[:3]] == [16, 64, 128]
    assert seconds < 1.1 * 4000 / 128 * 0.22
    queueing = drive(SimulatedEndpoint(capacity=5), 400, callers=300)[1]
    assert [event["at_once"] for event in queueing[:2]] == [16, 32]


def test_a_short_pass_gets_nearly_what_latency_and_capacity_allow() -> None:
    """Also where the capacity lies between two steps: the throughput shows how many calls are in work."""
    for capacity in (20, 64):
        seconds, history = drive(SimulatedEndpoint(capacity=capacity, spread=0.2), 1000, callers=600)
        assert seconds < 1.09 * 1000 / capacity * 0.22
        assert max(event["at_once"] for event in history) <= 4 * capacity


def test_the_first_step_over_a_rate_limit_is_rejected_once() -> None:
    endpoint = SimulatedEndpoint(rejects_above=24, retry_after=0.5)
    _, history = drive(endpoint, 300)
    assert endpoint.max_in_flight == 4 * INITIAL_CONCURRENCY
    assert endpoint.rejected <= 4 * INITIAL_CONCURRENCY - 24 + 2
    assert [event["at_once"] for event in history[:3]] == [16, 64, 16]


@pytest.mark.parametrize("spread", [0.2, 1.0])
def test_an_endpoint_known_to_answer_many_calls_gets_them_before_the_first_answers(spread: float) -> None:
    """What the first 16 answers show is what they would have shown without the early step."""
    known, history = drive(SimulatedEndpoint(capacity=64, spread=spread), 1000, callers=600, many_at_once=True)
    assert history[1] == {"seconds": EARLY_STEP, "at_once": 64, "why": "nothing was refused"}
    assert [event["at_once"] for event in history[2:3]] == [128]
    assert known < drive(SimulatedEndpoint(capacity=64, spread=spread), 1000, callers=600)[0] - 0.04
    settled = drive(SimulatedEndpoint(capacity=20, spread=spread), 2000, callers=600, many_at_once=True)[1]
    assert [event["at_once"] for event in settled[:2]] == [16, 64] and settled[-1]["at_once"] <= 4 * 20


def test_no_early_step_is_made_after_a_refusal_or_an_answer_or_where_no_call_waits() -> None:
    refusing = SimulatedEndpoint(rejects_above=8, retry_after=0.5)
    assert "nothing was refused" not in {event["why"] for event in drive(refusing, 100, many_at_once=True)[1]}
    for endpoint, callers in ((SimulatedEndpoint(latency=0.05), 200), (SimulatedEndpoint(), 16)):
        history = drive(endpoint, 100, callers=callers, many_at_once=True)[1]
        assert "nothing was refused" not in {event["why"] for event in history}


def test_an_early_step_over_a_rate_limit_is_rejected_once() -> None:
    endpoint = SimulatedEndpoint(rejects_above=24, retry_after=0.5)
    _, history = drive(endpoint, 300, many_at_once=True)
    assert endpoint.rejected <= 4 * INITIAL_CONCURRENCY - 24 + 2
    assert [event["at_once"] for event in history[:3]] == [16, 64, 16]


@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("capacity", [5, 20, 64])
def test_the_concurrency_stops_rising_at_the_capacity(capacity: int, spread: float) -> None:
    endpoint = SimulatedEndpoint(capacity=capacity, spread=spread)
    seconds, history = drive(endpoint, 6000, callers=600)
    ideal = 6000 / capacity * 0.2 * (1 + spread / 2)
    assert seconds < 1.12 * ideal
    settled = [event["at_once"] for event in history if event["seconds"] > 5]
    assert max(settled, default=0) <= max(2.5 * INITIAL_CONCURRENCY, 2.6 * capacity)
    assert any("gained too little" in event["why"] for event in history)


def test_the_concurrency_settles_near_the_rate_limit() -> None:
    endpoint = SimulatedEndpoint(rejects_above=24, retry_after=0.5)
    seconds, history = drive(endpoint, 5000)
    assert endpoint.succeeded == 5000 and endpoint.rejected < 400
    assert seconds < 2.0 * 5000 / 24 * 0.2
    late = [event["at_once"] for event in history if event["seconds"] > 20]
    assert late and min(late) >= 12 and max(late) <= 40


def test_no_call_is_sent_during_the_pause_the_endpoint_asks_for() -> None:
    endpoint = SimulatedEndpoint(rejects_above=10, retry_after=30.0)
    drive(endpoint, 400)
    assert endpoint.rejected_at
    first = endpoint.rejected_at[0]
    in_transit = 0.02  # calls sent before the first rejection arrived
    assert not [at for at in endpoint.sent if first + in_transit < at < first + 30.0]


def test_consecutive_server_errors_pause_calls_for_longer_and_longer() -> None:
    endpoint = SimulatedEndpoint(failing=(1001.0, 1021.0))
    seconds, history = drive(endpoint, 2000, concurrency=64)
    assert endpoint.succeeded == 2000
    during = sorted(at for at in endpoint.sent if 1001.0 <= at < 1021.0)
    assert len(during) < 250  # thousands without pauses
    gaps = [after - before for before, after in itertools.pairwise(during)]
    assert max(gaps) > 2.0
    assert seconds < 20 + 25 + 3 * 2000 / 64 * 0.2
    assert any("faults in a row" in event["why"] for event in history)


def test_a_single_server_error_hardly_slows_down() -> None:
    endpoint = SimulatedEndpoint(failing=(1003.0, 1003.02))
    seconds, history = drive(endpoint, 4000, concurrency=64)
    assert endpoint.errors and seconds < 1.2 * 4000 / 64 * 0.2
    assert not [event for event in history if "faults" in event["why"]] or endpoint.errors >= 3


def test_requests_per_minute_stay_below_the_limit_in_every_minute() -> None:
    endpoint = SimulatedEndpoint(latency=0.01)
    seconds, _ = drive(endpoint, 600, rpm=300)
    assert 600 / 5 * 0.95 <= seconds <= 600 / 5 * 1.1
    for start in range(0, 100, 5):
        within = [at for at in endpoint.sent if 1000 + start <= at < 1000 + start + 60]
        assert len(within) <= 300 + 12


def test_tokens_per_minute_stay_below_the_limit() -> None:
    seconds, _ = drive(SimulatedEndpoint(latency=0.01), 300, tpm=6000)  # 100 tokens per call: one call per second
    assert 285 <= seconds <= 330


def test_the_maximum_concurrency_is_never_exceeded() -> None:
    endpoint = SimulatedEndpoint()
    drive(endpoint, 500, concurrency=3)
    assert endpoint.max_in_flight == 3 < INITIAL_CONCURRENCY


def test_a_cancelled_caller_gives_its_slot_to_another() -> None:
    async def scenario() -> int:
        rate_control = RateControl(RateLimits(concurrency=1))
        done = 0

        async def one(seconds: float) -> None:
            nonlocal done
            async with rate_control.slot(1) as slot:
                await asyncio.sleep(seconds)
                slot.signal = LoadSignal.SUCCESS
                done += 1

        first = asyncio.create_task(one(1.0))
        await asyncio.sleep(0.1)
        waiting = [asyncio.create_task(one(0.1)) for _ in range(4)]
        await asyncio.sleep(0.1)
        waiting[0].cancel()
        waiting[2].cancel()
        await asyncio.gather(first, *waiting, return_exceptions=True)
        return done

    assert run(scenario()) == 3


@pytest.mark.parametrize("limits", [{"rpm": -1}, {"tpm": float("nan")}, {"rpm": "5"}, {"tpm": True}])
def test_invalid_limits_are_rejected(limits: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be a number >= 0"):
        RateLimits(**limits)
