"""Adaptive concurrency for calls to one endpoint, with limits on requests and tokens per minute.

The number of concurrent calls starts at `INITIAL_CONCURRENCY` and doubles while doubling raises the throughput (slow
start). The first step is a larger one where the first calls took equally long, so that none of them had to queue; at an
endpoint that is known to answer many calls at once it is made before the first calls are answered, where none of them
was refused. Where a step gained too little, the number becomes what the throughput and the latency of the first calls
show to be in use. After that it is raised by a small step from time to time, and lowered again where the step did not
raise the throughput (probing). A 429 response lowers it and pauses all calls for as long as the endpoint asks. A server
error pauses all calls for a time that doubles with consecutive errors. The limits per minute apply in addition.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from aiolimiter import AsyncLimiter

from knowgen.core.errors import ServiceUnavailableError, UsageError
from knowgen.core.text import duration_text
from knowgen.core.waiting import waiting

INITIAL_CONCURRENCY = 16
"""Number of concurrent calls at the start."""

FIRST_FACTOR = 4
"""Factor of the first step of slow start, where the first calls took equally long."""

EARLY_STEP = 0.1
"""Seconds after the first call at which an early first step is made, where nothing was answered until then: an endpoint
has no work with a refusal, which therefore comes sooner than an answer."""

EQUALLY_LONG = 1.5
"""Ratio of the longest to the shortest latency up to which calls took equally long; where they queue it is larger."""

HEADROOM = 1.25
"""Concurrency in relation to the number of calls that the endpoint has in work, after a step that gained too little."""

MIN_DOUBLING_GAIN = 1.2
"""Factor by which doubling the concurrency must raise the throughput for slow start to go on; squared for 4 times."""

PROBE_FACTOR = 1.25
"""Factor by which a probe raises the concurrency."""

MIN_PROBE_GAIN = 1.08
"""Factor by which a probe must raise the throughput for the higher concurrency to stay."""

BACKOFF_FACTOR = 0.8
"""Factor applied to the concurrency after a 429 response."""

NEAR_LIMIT = 0.9
"""Fraction of the concurrency at the last 429 response; above it probes are rare and add one call at a time."""

MIN_WINDOW = 48
"""Minimum number of responses over which a probe measures the throughput; fewer are too noisy."""

LONGEST_HELD_PAUSE = 1800.0
"""Longest pause, in seconds, during which calls are held. In a longer one they fail, so that the caller decides."""

_MAX_ERROR_PAUSE = 60.0
"""Maximum duration of a pause after a server error that names none, in seconds."""

_DEFAULT_PAUSE = 1.0
"""Duration of a pause after a 429 response that names none, in seconds."""

_ERRORS_TO_SHRINK = 3
"""Number of consecutive server errors that halves the concurrency."""

_FIRST_PROBE_GAP, _MAX_PROBE_GAP = 8, 64
"""Number of windows between two probes: at first, and at most."""

_PAUSE_CHECK = 60.0
"""Seconds after which a call that waits for the end of a pause checks whether the pause was prolonged."""

_BURST_SECONDS = 2.0
"""Span in seconds over which a limit per minute is enforced, so that a minute's calls are not sent at once."""

_TOKENS_SMOOTHING = 0.1
"""Weight of the newest call in the moving average of tokens per call."""


class LoadSignal(StrEnum):
    """The load of the endpoint, as a response shows it."""

    SUCCESS = "success"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    NONE = "none"


@dataclass
class CallSlot:
    """One call in flight. The caller sets all but `started` before it leaves the block.

    Attributes:
        started: Time at which the call was admitted, by the event loop's clock.
        signal: What the response says about the load of the endpoint.
        retry_after: Seconds the endpoint asked to wait, None where it did not.
        tokens: Tokens the call used, 0 where unknown.
    """

    started: float
    signal: LoadSignal = LoadSignal.NONE
    retry_after: float | None = None
    tokens: int = 0


@dataclass(frozen=True)
class RateLimits:
    """Limits of an endpoint.

    Attributes:
        concurrency: Maximum number of concurrent calls.
        rpm: Maximum number of requests per minute, 0 for no limit.
        tpm: Maximum number of tokens per minute, 0 for no limit.
        many_at_once: Whether it is known that the endpoint answers many calls at once; else it may be a server that
            queues them, where calls sent too early would exceed their time limit.
    """

    concurrency: int = 256
    rpm: float = 0
    tpm: float = 0
    many_at_once: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: `rpm` or `tpm` is negative or not a finite number.
        """
        for name, value in (("rpm", self.rpm), ("tpm", self.tpm)):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 <= value < math.inf:
                raise UsageError(f"{name} must be a number >= 0, got {value!r}", fix="give 0 for no limit")


def _ignore(change: dict[str, Any]) -> None:
    """Discard a change of the concurrency."""


class RateControl:
    """Admits calls to one endpoint. Create and use it in one event loop.

    Args:
        limits: Limits of the endpoint.
        on_change: Called with every change of the concurrency, as plain data: seconds since the start, the new number
            and the reason.

    Attributes:
        concurrency: Number of concurrent calls that are admitted now.
    """

    def __init__(self, limits: RateLimits, on_change: Callable[[dict[str, Any]], None] = _ignore) -> None:
        self.concurrency = min(INITIAL_CONCURRENCY, limits.concurrency)
        self._max_concurrency, self._on_change = limits.concurrency, on_change
        self._requests = _limiter(limits.rpm)
        self._tokens = _limiter(limits.tpm)
        self._mean_tokens = 0.0
        self._loop = asyncio.get_running_loop()
        self._created = self._loop.time()
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._paused_until = 0.0
        self._pause_end: asyncio.TimerHandle | None = None
        self._shrunk_at = 0.0
        self._errors = 0
        self._error_at = 0.0
        self._window = _Window(self._created)
        self._growth: _Growth = _SlowStart()
        self._early_step_due = limits.many_at_once
        self._answered = False
        on_change({"seconds": 0.0, "at_once": self.concurrency, "why": "start"})

    @asynccontextmanager
    async def slot(self, tokens: int) -> AsyncIterator[CallSlot]:
        """Wait until a call is admitted, and adapt to its outcome when the block ends.

        The time limit of the plugin's call does not count the waiting, see `knowgen.core.waiting`.

        Args:
            tokens: Estimated number of tokens of the call.

        Raises:
            ServiceUnavailableError: The endpoint asked for a pause longer than `LONGEST_HELD_PAUSE`.
        """
        await self._enter()
        slot = CallSlot(self._loop.time())
        try:
            await self._wait_for_rates(tokens)
            slot.started = self._loop.time()
            yield slot
        finally:
            self._leave(slot)

    async def _enter(self) -> None:
        """Take a slot, after the calls that wait already."""
        self._refuse_in_long_pause()
        if not self._waiting and not self._paused and self._in_flight < self.concurrency:
            self._in_flight += 1
            if self._early_step_due:
                self._early_step_due = False
                self._loop.call_later(EARLY_STEP, self._step_early)
            return
        self._window.crowded = True
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            with waiting():
                await waiter
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not waiter.cancelled() and waiter.exception() is None:  # `_wake` gave it a slot just before
                self._in_flight -= 1
            self._wake()
            raise

    async def _wait_for_rates(self, tokens: int) -> None:
        """Wait for the limits per minute, and for the end of a pause that begins meanwhile; then for both again."""
        while True:
            if self._requests is not None:
                await _acquire(self._requests, 1.0)
            if self._tokens is not None:
                expected = self._mean_tokens or tokens
                await _acquire(self._tokens, min(max(1.0, expected), self._tokens.max_rate))
            if not self._paused:
                return
            with waiting():
                while self._paused:
                    self._refuse_in_long_pause()
                    await asyncio.sleep(min(_PAUSE_CHECK, max(0.0, self._paused_until - self._loop.time())))

    def _leave(self, slot: CallSlot) -> None:
        """Free the slot of a call and admit others, even when adapting to the call's outcome fails."""
        self._in_flight -= 1
        self._answered = self._answered or slot.signal is not LoadSignal.NONE
        try:
            self._adapt(slot, self._loop.time())
        finally:
            self._wake()

    def _adapt(self, slot: CallSlot, now: float) -> None:
        if slot.tokens:
            self._mean_tokens += (slot.tokens - self._mean_tokens) * (_TOKENS_SMOOTHING if self._mean_tokens else 1.0)
        if slot.signal is LoadSignal.SUCCESS:
            self._errors = 0
            self._on_success(now, now - slot.started)
        elif slot.signal is LoadSignal.RATE_LIMITED:
            self._on_rate_limited(slot, now)
        elif slot.signal is LoadSignal.UNAVAILABLE:
            self._on_unavailable(slot, now)

    def _wake(self) -> None:
        """Give free slots to the calls that have waited longest."""
        while self._waiting and not self._paused and self._in_flight < self.concurrency:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._in_flight += 1
                waiter.set_result(None)

    def _step_early(self) -> None:
        """Make the first step before the first calls are answered; the throughput decides whether it stays."""
        if not self._answered and self._waiting:
            concurrency = self._growth.first_step(self.concurrency, self._max_concurrency)
            self._set(concurrency, "nothing was refused", self._loop.time())
            self._wake()

    def _on_success(self, now: float, latency: float) -> None:
        window = self._window
        window.add(latency)
        if window.responses < self._growth.window(self.concurrency) or now <= window.started:
            return
        if window.crowded or self._waiting:
            concurrency, why = self._growth.next(self.concurrency, window.measured(now), self._max_concurrency)
            self._growth = self._growth.successor
            self._set(concurrency, why, now)
        self._window = _Window(now)

    def _on_rate_limited(self, slot: CallSlot, now: float) -> None:
        pause = _DEFAULT_PAUSE if slot.retry_after is None else slot.retry_after
        self._pause(now + pause)
        if slot.started > self._shrunk_at:  # shrink once for all calls sent before the last shrinking
            reduced = int(max(1, min(self.concurrency * BACKOFF_FACTOR, self._growth.proven)))
            self._growth = _Probing(self.concurrency)
            self._shrink(reduced, f"busy, waits {pause:g} s", now)

    def _on_unavailable(self, slot: CallSlot, now: float) -> None:
        if slot.started > self._error_at:  # errors of calls sent before the last error count as one with it
            self._errors += 1
            self._error_at = now
        pause = slot.retry_after
        if pause is None:
            pause = min(0.25 * 2.0 ** min(self._errors, 8), _MAX_ERROR_PAUSE)
        self._pause(now + pause)
        if self._errors >= _ERRORS_TO_SHRINK and slot.started > self._shrunk_at:
            self._growth = _SlowStart()  # once it works again, the endpoint may handle as many calls as before
            self._shrink(max(1, self.concurrency // 2), f"{self._errors} faults in a row, waits {pause:g} s", now)

    @property
    def _paused(self) -> bool:
        return self._pause_end is not None

    def _pause(self, until: float) -> None:
        """Admit no call before a time. A timer ends the pause, because no call in flight may be left to end it."""
        if until <= max(self._paused_until, self._loop.time()):
            return
        if self._pause_end is not None:
            self._pause_end.cancel()
        self._paused_until = until
        self._pause_end = self._loop.call_at(until, self._resume)
        while self._waiting and (error := self._long_pause()) is not None:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)

    def _long_pause(self) -> ServiceUnavailableError | None:
        """Return the error of calls in a pause that is too long to hold them, None in any other."""
        left = self._paused_until - self._loop.time()
        if not self._paused or left <= LONGEST_HELD_PAUSE:
            return None
        what = f"the endpoint asked for a pause that lasts another {duration_text(left)}"
        return ServiceUnavailableError(what, busy=True, retry_after=left)

    def _refuse_in_long_pause(self) -> None:
        """Raise the error of a call in a pause that is too long to hold it.

        Raises:
            ServiceUnavailableError: There is such a pause.
        """
        if (error := self._long_pause()) is not None:
            raise error

    def _resume(self) -> None:
        self._pause_end = None
        self._wake()

    def _shrink(self, concurrency: int, why: str, now: float) -> None:
        self._shrunk_at = now
        self._window = _Window(now)
        self._set(concurrency, why, now)

    def _set(self, concurrency: int, why: str, now: float) -> None:
        if concurrency != self.concurrency:
            self.concurrency = concurrency
            self._on_change({"seconds": round(now - self._created, 3), "at_once": concurrency, "why": why})


@dataclass
class _Window:
    """A span of responses over which the throughput is measured.

    Attributes:
        started: Start time.
        responses: Number of successful responses so far.
        crowded: Whether a call had to wait, without which the throughput says nothing about the concurrency.
        total: Sum of the latencies in seconds.
        shortest: Shortest latency.
        longest: Longest latency.
    """

    started: float
    responses: int = 0
    crowded: bool = False
    total: float = 0.0
    shortest: float = math.inf
    longest: float = 0.0

    def add(self, latency: float) -> None:
        """Count a successful response."""
        self.responses += 1
        self.total += latency
        self.shortest, self.longest = min(self.shortest, latency), max(self.longest, latency)

    def measured(self, now: float) -> _Measured:
        """Return what the window shows at its end."""
        alike = self.longest <= EQUALLY_LONG * self.shortest
        return _Measured(self.responses / (now - self.started), self.total / self.responses, alike)


@dataclass(frozen=True)
class _Measured:
    """What a window shows.

    Attributes:
        rate: Successful responses per second.
        latency: Mean latency in seconds.
        alike: Whether the calls took equally long.
    """

    rate: float
    latency: float
    alike: bool


class _Growth(ABC):
    """Decides after each window how many concurrent calls to admit next.

    Attributes:
        successor: Who decides after the next window.
        proven: Concurrency to go back to after a 429 response, if that is less than a usual shrinking: a step of
            `FIRST_FACTOR` would take many of these, each with rejected calls.
    """

    successor: _Growth
    proven: float = math.inf

    def window(self, concurrency: int) -> int:
        """Return the number of responses in the next window."""
        return concurrency

    def first_step(self, concurrency: int, max_concurrency: int) -> int:
        """Return the concurrency of a first step before the first window has ended; the same where none is due."""
        return concurrency

    @abstractmethod
    def next(self, concurrency: int, window: _Measured, max_concurrency: int) -> tuple[int, str]:
        """Return the new concurrency and the reason, which is empty where nothing changes.

        Args:
            concurrency: Concurrency during the window.
            window: What was measured.
            max_concurrency: Maximum concurrency.
        """


class _SlowStart(_Growth):
    """Doubles the concurrency while that raises the throughput."""

    def __init__(self) -> None:
        self._previous: tuple[int, float] | None = None
        self._latency = 0.0
        self._needed = MIN_DOUBLING_GAIN
        self._stepped_from = 0
        self.successor = self

    def window(self, concurrency: int) -> int:
        return self._stepped_from or concurrency

    def first_step(self, concurrency: int, max_concurrency: int) -> int:
        self._stepped_from = self.proven = concurrency
        return min(max_concurrency, concurrency * FIRST_FACTOR)

    def next(self, concurrency: int, window: _Measured, max_concurrency: int) -> tuple[int, str]:
        stepped = self._stepped_from > 0
        concurrency, self._stepped_from = self._stepped_from or concurrency, 0
        if self._previous is not None and window.rate < self._previous[1] * self._needed:
            self.successor = _Probing()
            in_work = math.ceil(window.rate * self._latency * HEADROOM)
            return min(concurrency, max(self._previous[0], in_work)), "the step gained too little"
        if concurrency >= max_concurrency:
            self.successor = _Probing()
            return concurrency, "at the maximum"
        is_first = self._previous is None
        if is_first:
            self._latency = window.latency
        factor = FIRST_FACTOR if is_first and (window.alike or stepped) else 2
        self._needed = MIN_DOUBLING_GAIN ** math.log2(factor)
        self._previous = (concurrency, window.rate)
        self.proven = concurrency if factor > 2 else math.inf
        return min(max_concurrency, concurrency * factor), "doubled" if factor == 2 else "quadrupled"


class _Probing(_Growth):
    """Raises the concurrency from time to time and keeps it where the throughput rises.

    Args:
        rejected: Concurrency at the last 429 response, 0 where there was none.
    """

    def __init__(self, rejected: int = 0) -> None:
        self.successor = self
        self._near_limit = rejected * NEAR_LIMIT
        self._gap = self._windows_left = _FIRST_PROBE_GAP
        self._rates: deque[float] = deque(maxlen=4)
        self._probe: tuple[int, float] | None = None

    def window(self, concurrency: int) -> int:
        return concurrency if concurrency < self._near_limit else max(MIN_WINDOW, 2 * concurrency)

    def next(self, concurrency: int, window: _Measured, max_concurrency: int) -> tuple[int, str]:
        if concurrency + 1 < self._near_limit and self._probe is None:
            return min(max_concurrency, concurrency + max(1, concurrency // 20)), "approaching the last limit"
        if self._probe is not None:
            return self._probe_result(concurrency, window.rate)
        self._rates.append(window.rate)
        self._windows_left -= 1
        if self._windows_left > 0 or concurrency >= max_concurrency:
            return concurrency, ""
        self._probe = (concurrency, sum(self._rates) / len(self._rates))
        self._windows_left = 1
        raised = concurrency + 1 if self._near_limit else max(concurrency + 1, int(concurrency * PROBE_FACTOR))
        return min(max_concurrency, raised), "probing"

    def _probe_result(self, concurrency: int, rate: float) -> tuple[int, str]:
        """Return the concurrency after a probe: the raised one where the throughput rose, else the one before."""
        assert self._probe is not None
        if self._windows_left > 0:  # the first window after a change still contains calls from before it
            self._windows_left -= 1
            return concurrency, ""
        (previous, usual_rate), self._probe = self._probe, None
        # near the last limit one call more hardly shows in the throughput: it is enough that it was admitted
        gained = rate >= usual_rate * (1.0 if self._near_limit else MIN_PROBE_GAIN)
        self._gap = _FIRST_PROBE_GAP if gained and not self._near_limit else min(_MAX_PROBE_GAP, self._gap * 2)
        self._windows_left = self._gap if not gained or self._near_limit else 2
        self._rates.clear()
        return (concurrency, "") if gained else (previous, "probe gained too little")


def _limiter(per_minute: float) -> AsyncLimiter | None:
    if not per_minute:
        return None
    burst = max(1.0, per_minute / 60 * _BURST_SECONDS)
    return AsyncLimiter(burst, burst / per_minute * 60)


async def _acquire(limiter: AsyncLimiter, amount: float) -> None:
    """Take an amount of a limit per minute."""
    if limiter.has_capacity(amount):
        await limiter.acquire(amount)
        return
    with waiting():
        await limiter.acquire(amount)
