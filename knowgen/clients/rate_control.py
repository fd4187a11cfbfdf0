"""How many calls an endpoint is sent at once: as many as it pays for, and no more than it admits.

The number starts low and doubles while doubling it raises the throughput (slow start). Then it is raised a little from
time to time and kept where that pays. A 429 shrinks it and holds all calls for as long as the endpoint asks; a server
error holds them for a moment that grows while errors follow each other. Limits of requests and tokens a minute hold
besides.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from aiolimiter import AsyncLimiter

from knowgen.core.errors import UsageError

START = 16
"""Calls at once at first."""

PAYS = 1.2
"""Doubling the number must raise the throughput at least so much."""

PROBE = 1.25
"""So much the number is raised when it is tried whether more pays."""

PROBE_PAYS = 1.08
"""Such a trial must raise the throughput at least so much."""

SHRINK = 0.8
"""The number after a 429 is this part of it."""

NEAR = 0.9
"""From this part of the number that was refused on, more is tried seldom and one by one."""

WINDOW = 48
"""Answers that are counted together at least when it is tried whether more pays; fewer say too little."""

LONGEST_PAUSE = 600.0
_FIRST_GAP, _LONGEST_GAP = 8, 64
_BURST_SECONDS = 2.0
"""Limits a minute are kept over spans this long, so that no minute's worth is sent at once."""


class LoadSignal(StrEnum):
    """What an endpoint's answer says about its load."""

    GOOD = "good"
    BUSY = "busy"
    BROKEN = "broken"
    NOTHING = "nothing"


@dataclass
class CallSlot:
    """One call under way.

    Attributes:
        began: When it was let go, by the loop's clock.
        said: What the answer says about the load; to be set before the block is left.
        wait: Seconds the endpoint asked to wait, None when it did not.
        tokens: Tokens the call took, 0 when unknown.
    """

    began: float
    said: LoadSignal = LoadSignal.NOTHING
    wait: float | None = None
    tokens: int = 0


@dataclass(frozen=True)
class RateLimits:
    """What an endpoint admits.

    Attributes:
        most: Calls at once.
        rpm: Requests a minute, 0 for no limit.
        tpm: Tokens a minute, 0 for no limit.
    """

    most: int = 256
    rpm: float = 0
    tpm: float = 0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            UsageError: One is no number or negative.
        """
        for name, value in (("rpm", self.rpm), ("tpm", self.tpm)):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:
                raise UsageError(f"{name}={value} is not possible", fix="give a number a minute, 0 for no limit")


class RateControl:
    """Lets calls go; made and used in one event loop.

    Args:
        limits: What the endpoint admits.
        told: Hears of every change, as plain data.

    Attributes:
        limit: Calls at once, as it stands.
    """

    def __init__(self, limits: RateLimits, told: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
        self.limit = min(START, limits.most)
        self._most, self._told = limits.most, told
        self._requests = _limiter(limits.rpm)
        self._tokens = _limiter(limits.tpm)
        self._mean_tokens = 0.0
        self._loop = asyncio.get_running_loop()
        self._born = self._loop.time()
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._paused_until = 0.0
        self._pause_end: asyncio.TimerHandle | None = None
        self._shrunk_at = 0.0
        self._faults = 0
        self._fault_at = 0.0
        self._window = _Window(self._born)
        self._growth: _Growth = _SlowStart()
        told({"seconds": 0.0, "at_once": self.limit, "why": "begins"})

    @asynccontextmanager
    async def place(self, tokens: int) -> AsyncIterator[CallSlot]:
        """Waits until a call may go, and learns from how it went.

        Args:
            tokens: Estimate of the tokens of the call.
        """
        await self._enter()
        place = CallSlot(self._loop.time())
        try:
            await self._keep_rates(tokens)
            place.began = self._loop.time()
            yield place
        finally:
            self._leave(place)

    async def _enter(self) -> None:
        """Take a slot, after the calls that wait already."""
        if not self._waiting and not self._paused and self._under_way < self.limit:
            self._under_way += 1
            return
        self._window.crowded = True
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # `_wake` gave it a slot before: the slot goes to the next in line
                self._under_way -= 1
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            self._wake()
            raise

    async def _keep_rates(self, tokens: int) -> None:
        """Wait for the limits a minute; a call admitted during a pause waits for its end, then for the limits again."""
        while True:
            if self._requests is not None:
                await self._requests.acquire()
            if self._tokens is not None:
                expected = self._mean_tokens or tokens
                await self._tokens.acquire(min(max(1.0, expected), self._tokens.max_rate))
            if not self._paused:
                return
            while self._paused:
                await asyncio.sleep(max(0.0, self._paused_until - self._loop.time()))

    def _leave(self, place: CallSlot) -> None:
        """Free the slot of a call and let others go, even when learning from the call fails."""
        self._under_way -= 1
        try:
            self._learn(place, self._loop.time())
        finally:
            self._wake()

    def _learn(self, place: CallSlot, now: float) -> None:
        if place.tokens:
            self._mean_tokens += (place.tokens - self._mean_tokens) * (0.1 if self._mean_tokens else 1.0)
        if place.said is LoadSignal.GOOD:
            self._faults = 0
            self._good(now)
        elif place.said is LoadSignal.BUSY:
            self._busy(place, now)
        elif place.said is LoadSignal.BROKEN:
            self._broken(place, now)

    def _wake(self) -> None:
        """Give free slots to the calls that have waited longest."""
        while self._waiting and not self._paused and self._under_way < self.limit:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._under_way += 1
                waiter.set_result(None)

    def _good(self, now: float) -> None:
        window = self._window
        window.done += 1
        if window.done < self._growth.window(self.limit) or now <= window.began:
            return
        if window.crowded or self._waiting:
            to, why = self._growth.next(self.limit, window.done / (now - window.began), self._most)
            self._growth = self._growth.then
            self._set(to, why, now)
        self._window = _Window(now)

    def _busy(self, place: CallSlot, now: float) -> None:
        pause = 1.0 if place.wait is None else min(place.wait, LONGEST_PAUSE)
        self._pause(now + pause)
        if place.began > self._shrunk_at:  # one shrinking for all that were sent before it
            self._growth = _Probing(self.limit)
            self._shrink(max(1, int(self.limit * SHRINK)), f"busy, waits {pause:g} s", now)

    def _broken(self, place: CallSlot, now: float) -> None:
        if place.began > self._fault_at:  # what was sent before the last fault was known is part of that one
            self._faults += 1
            self._fault_at = now
        pause = min(0.25 * 2.0 ** min(self._faults, 8), 60.0) if place.wait is None else place.wait
        self._pause(now + min(pause, LONGEST_PAUSE))
        if self._faults >= 3 and place.began > self._shrunk_at:
            self._growth = _SlowStart()  # once it is mended it may take as much as before
            self._shrink(max(1, self.limit // 2), f"{self._faults} faults in a row, waits {pause:g} s", now)

    @property
    def _paused(self) -> bool:
        return self._pause_end is not None

    def _pause(self, until: float) -> None:
        """Let no call go before `until`. A timer ends the pause: there may be no call under way whose end would."""
        if until <= max(self._paused_until, self._loop.time()):
            return
        if self._pause_end is not None:
            self._pause_end.cancel()
        self._paused_until = until
        self._pause_end = self._loop.call_at(until, self._resume)

    def _resume(self) -> None:
        self._pause_end = None
        self._wake()

    def _shrink(self, to: int, why: str, now: float) -> None:
        self._shrunk_at = now
        self._window = _Window(now)
        self._set(to, why, now)

    def _set(self, limit: int, why: str, now: float) -> None:
        if limit != self.limit:
            self.limit = limit
            self._told({"seconds": round(now - self._born, 3), "at_once": limit, "why": why})


@dataclass
class _Window:
    """Answers that are counted together: as many as there may be calls at once."""

    began: float
    done: int = 0
    crowded: bool = False


class _Growth:
    """Decides after each window how many calls there may be at once."""

    then: _Growth

    def window(self, limit: int) -> int:
        """Returns how many answers are counted together."""
        return limit

    def next(self, limit: int, rate: float, most: int) -> tuple[int, str]:
        """Returns the new number and why; `then` is who decides the next time."""
        raise AssertionError("each way to grow says how")


class _SlowStart(_Growth):
    def __init__(self) -> None:
        self._before: tuple[int, float] | None = None
        self.then = self

    def next(self, limit: int, rate: float, most: int) -> tuple[int, str]:
        if self._before is not None and rate < self._before[1] * PAYS:
            self.then = _Probing()
            return self._before[0], "doubling did not pay"
        if limit >= most:
            self.then = _Probing()
            return limit, "all there may be"
        self._before = (limit, rate)
        return min(most, limit * 2), "doubled"


class _Probing(_Growth):
    """Tries a little more from time to time.

    Args:
        refused: The number at which the endpoint said that it was too many, 0 when it never did.
    """

    def __init__(self, refused: int = 0) -> None:
        self.then = self
        self._near = refused * NEAR
        self._gap = self._left = _FIRST_GAP
        self._rates: deque[float] = deque(maxlen=4)
        self._trial: tuple[int, float] | None = None

    def window(self, limit: int) -> int:
        """Returns how many answers are counted together: enough that chance alone does not look like more."""
        return limit if limit < self._near else max(WINDOW, 2 * limit)

    def next(self, limit: int, rate: float, most: int) -> tuple[int, str]:
        """Climbs to where it was refused, then tries more and keeps it where it pays."""
        if limit + 1 < self._near and self._trial is None:
            return min(most, limit + max(1, limit // 20)), "climbs"
        if self._trial is not None:
            return self._judged(limit, rate)
        self._rates.append(rate)
        self._left -= 1
        if self._left > 0 or limit >= most:
            return limit, ""
        self._trial = (limit, sum(self._rates) / len(self._rates))
        self._left = 1
        return min(most, limit + 1 if self._near else max(limit + 1, int(limit * PROBE))), "tries more"

    def _judged(self, limit: int, rate: float) -> tuple[int, str]:
        assert self._trial is not None
        if self._left > 0:  # the first window after a change still holds calls from before it
            self._left -= 1
            return limit, ""
        (before, usual), self._trial = self._trial, None
        # near a number that was refused, more need not show in the rate: that it is admitted is enough
        pays = rate >= usual * (1.0 if self._near else PROBE_PAYS)
        self._gap = _FIRST_GAP if pays and not self._near else min(_LONGEST_GAP, self._gap * 2)
        self._left = self._gap if not pays or self._near else 2
        self._rates.clear()
        return (limit, "") if pays else (before, "more did not pay")


def _limiter(per_minute: float) -> AsyncLimiter | None:
    if not per_minute:
        return None
    burst = max(1.0, per_minute / 60 * _BURST_SECONDS)
    return AsyncLimiter(burst, burst / per_minute * 60)
