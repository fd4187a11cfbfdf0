"""How many calls are let go at once, against simulated endpoints in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from knowgen.clients.rate_control import START, LoadSignal, RateControl, RateLimits
from knowgen.core.errors import UsageError
from tests.helpers.virtual_time import run


@dataclass
class Far:
    """An endpoint as the pace sees it.

    Attributes:
        latency: Seconds a call takes that is worked on.
        places: Calls it works on at once; further ones wait in line.
        refuses_above: Calls under way from which on it answers 429 at once; None for never.
        retry_after: What it then asks for.
        broken: From when to when it answers 500.
        spread: Latencies differ by so much.
    """

    latency: float = 0.2
    places: int = 1000
    refuses_above: int | None = None
    retry_after: float | None = None
    broken: tuple[float, float] = (0.0, 0.0)
    spread: float = 0.0
    under_way: int = 0
    most: int = 0
    busy: int = 0
    good: int = 0
    faults: int = 0
    sent: list[float] = field(default_factory=list)
    busy_at: list[float] = field(default_factory=list)

    async def call(self, dice: random.Random) -> tuple[LoadSignal, float | None]:
        now = asyncio.get_running_loop().time()
        self.sent.append(now)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.refuses_above is not None and self.under_way > self.refuses_above:
                await asyncio.sleep(0.01)
                self.busy += 1
                self.busy_at.append(asyncio.get_running_loop().time())
                return LoadSignal.BUSY, self.retry_after
            if self.broken[0] <= now < self.broken[1]:
                await asyncio.sleep(0.01)
                self.faults += 1
                return LoadSignal.BROKEN, None
            async with self.free:
                await asyncio.sleep(self.latency * (1 + self.spread * dice.random()))
            self.good += 1
            return LoadSignal.GOOD, None
        finally:
            self.under_way -= 1

    def __post_init__(self) -> None:
        self.free = asyncio.Semaphore(self.places)


def drive(far: Far, calls: int, callers: int = 200, **limits: Any) -> tuple[float, list[dict[str, Any]]]:
    """Has callers make calls until all came back good; returns virtual seconds and the pace's history."""
    history: list[dict[str, Any]] = []

    async def go() -> float:
        pace = RateControl(RateLimits(**limits), history.append)
        left = iter(range(calls))
        dice = random.Random(7)
        began = asyncio.get_running_loop().time()

        async def caller() -> None:
            for _ in left:
                said = LoadSignal.NOTHING
                while said is not LoadSignal.GOOD:
                    async with pace.place(100) as place:
                        said, wait = await far.call(dice)
                        place.said, place.wait, place.tokens = said, wait, 100

        await asyncio.gather(*(caller() for _ in range(callers)))
        return asyncio.get_running_loop().time() - began

    return run(go()), history


def test_it_starts_low_and_doubles_while_that_pays() -> None:
    seconds, history = drive(Far(), 4000, callers=300, most=128)
    assert [event["at_once"] for event in history[:4]] == [16, 32, 64, 128]
    assert seconds < 1.25 * 4000 / 128 * 0.2


@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("places", [5, 20, 64])
def test_it_stops_where_more_calls_only_wait_in_line(places: int, spread: float) -> None:
    far = Far(places=places, spread=spread)
    seconds, history = drive(far, 6000, callers=600)
    ideal = 6000 / places * 0.2 * (1 + spread / 2)
    assert seconds < 1.12 * ideal
    settled = [event["at_once"] for event in history if event["seconds"] > 5]
    assert max(settled, default=0) <= max(2.5 * START, 2.6 * places)
    assert any("did not pay" in event["why"] for event in history)


def test_it_finds_what_an_endpoint_admits_and_stays_close_to_it() -> None:
    far = Far(refuses_above=24, retry_after=0.5)
    seconds, history = drive(far, 5000)
    assert far.good == 5000 and far.busy < 400
    assert seconds < 2.0 * 5000 / 24 * 0.2
    late = [event["at_once"] for event in history if event["seconds"] > 20]
    assert late and min(late) >= 12 and max(late) <= 40


def test_nothing_is_sent_while_the_endpoint_asks_to_wait() -> None:
    far = Far(refuses_above=10, retry_after=30.0)
    drive(far, 400)
    assert far.busy_at
    first = far.busy_at[0]
    flying = 0.02  # calls that were sent before the answer came
    assert not [at for at in far.sent if first + flying < at < first + 30.0]


def test_server_errors_hold_the_calls_for_longer_and_longer_and_then_it_goes_on() -> None:
    far = Far(broken=(1001.0, 1021.0))
    seconds, history = drive(far, 2000, most=64)
    assert far.good == 2000
    during = sorted(at for at in far.sent if 1001.0 <= at < 1021.0)
    assert len(during) < 250  # without pauses it would be thousands
    gaps = [after - before for before, after in itertools.pairwise(during)]
    assert max(gaps) > 2.0
    assert seconds < 20 + 25 + 3 * 2000 / 64 * 0.2
    assert any("faults in a row" in event["why"] for event in history)


def test_one_server_error_among_many_answers_costs_next_to_nothing() -> None:
    far = Far(broken=(1003.0, 1003.02))
    seconds, history = drive(far, 4000, most=64)
    assert far.faults and seconds < 1.2 * 4000 / 64 * 0.2
    assert not [event for event in history if "faults" in event["why"]] or far.faults >= 3


def test_a_limit_of_requests_a_minute_holds_in_every_span() -> None:
    far = Far(latency=0.01)
    seconds, _ = drive(far, 600, rpm=300)
    assert 600 / 5 * 0.95 <= seconds <= 600 / 5 * 1.1
    for start in range(0, 100, 5):
        within = [at for at in far.sent if 1000 + start <= at < 1000 + start + 60]
        assert len(within) <= 300 + 12


def test_a_limit_of_tokens_a_minute_holds() -> None:
    seconds, _ = drive(Far(latency=0.01), 300, tpm=6000)  # 100 tokens a call: one a second
    assert 285 <= seconds <= 330


def test_never_more_than_there_may_be() -> None:
    far = Far()
    drive(far, 500, most=3)
    assert far.most == 3 < START


def test_a_caller_that_gives_up_leaves_its_turn_to_another() -> None:
    async def go() -> int:
        pace = RateControl(RateLimits(most=1))
        done = 0

        async def one(seconds: float) -> None:
            nonlocal done
            async with pace.place(1) as place:
                await asyncio.sleep(seconds)
                place.said = LoadSignal.GOOD
                done += 1

        first = asyncio.create_task(one(1.0))
        await asyncio.sleep(0.1)
        waiting = [asyncio.create_task(one(0.1)) for _ in range(4)]
        await asyncio.sleep(0.1)
        waiting[0].cancel()
        waiting[2].cancel()
        await asyncio.gather(first, *waiting, return_exceptions=True)
        return done

    assert run(go()) == 3


@pytest.mark.parametrize("limits", [{"rpm": -1}, {"tpm": float("nan")}, {"rpm": "5"}, {"tpm": True}])
def test_limits_that_are_none(limits: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        RateLimits(**limits)
