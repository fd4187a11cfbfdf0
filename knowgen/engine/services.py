"""The health of the services behind the plugins of a run: whether they answer, and when the run stops waiting for them.

`Services` has one `Service` per generator and scorer. Steps report what happens to their calls; a service that gives no
answer for too long, or rejects the account, stops the run. One that fails in the same way every time is paused.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

from knowgen.core.errors import AccountError
from knowgen.core.text import count, duration_text, one_line
from knowgen.engine.retry import ServicePausedError, StoppedError, describe
from knowgen.engine.run_state import RunState

MAX_ACCOUNT_ERRORS = 3
"""Calls in a row that a service rejects because of the account before the run stops."""

MAX_EQUAL_FAILURES = 10
"""Results in a row that fail for the same reason before a plugin that calls a service is paused."""

LONE_ATTEMPT_SECONDS = 60.0
"""Shortest time between two attempts that are counted while the service answers no other call."""

_LONE_ATTEMPT_SHARE = 30
"""Divides the patience for the same purpose, so that a server that restarts is not taken for a broken request."""

ADVICE = "the rest is not run: run the same command again later, or raise --patience"

_REASON_LENGTH = 200


class Service:
    """The service behind one plugin of a run. Used in the engine's event loop; `waiting_line` in any thread.

    Args:
        name: Name of the plugin.
        state: Whether the run goes on.
        patience: Seconds without any answer, while the service is unavailable, after which the run stops.
        pausing: Whether the plugin is paused when it fails in the same way every time.
        drain: Whether calls go on after a stop that is not an interruption, to score images that exist.
        clock: Current time in seconds.
        advice: What follows for the user when it gave no answer for too long.

    Attributes:
        answers: Number of calls that the service answered.
        notice: Why the plugin is called no more in this run; empty while it is.
        on_close: Called when the plugin is called no more.
    """

    def __init__(
        self,
        name: str,
        state: RunState,
        patience: float,
        *,
        pausing: bool = False,
        drain: bool = False,
        clock: Callable[[], float] = time.monotonic,
        advice: str = ADVICE,
    ) -> None:
        self.name, self.patience, self.clock, self._advice = name, patience, clock, advice
        self.answers = 0
        self.notice = ""
        self.on_close: Callable[[], None] = lambda: None
        self._state, self._pausing, self._drain = state, pausing, drain
        self._waiting_since: float | None = None
        self._shown_name = name
        self._account_errors = 0
        self._last_reason = ""
        self._equal_failures = 0
        self._pause_notice = ""
        self._left_out = 0
        self._left_out_reason = ""

    # -- what happened to a call -----------------------------------------------------------------------------------

    def answered(self) -> None:
        """Record that the service answered a call, whatever the answer."""
        self.answers += 1
        self._waiting_since = None
        self._account_errors = 0

    def unavailable(self, error: BaseException, wait: float | None) -> None:
        """Record that the service could not answer a call.

        Args:
            error: What happened.
            wait: Seconds to wait that the service asked for, None where it did not.

        Raises:
            StoppedError: The run waits no longer.
        """
        now = self.clock()
        if self._waiting_since is None:
            self._waiting_since = now
        self._shown_name = getattr(error, "service", "") or self.name
        waited = now - self._waiting_since
        if wait is not None and waited + wait > self.patience:
            what = (
                f"{self._shown_name} asks to wait {duration_text(wait)} ({one_line(describe(error), _REASON_LENGTH)})"
            )
        elif waited >= self.patience:
            what = f"{self._shown_name} gave no answer for {duration_text(waited)}; the last error: {describe(error)}"
        else:
            return
        self._close(f"{what}; {self._advice}")
        self._state.stop("unavailable", self.notice)
        raise StoppedError(self.notice)

    def account_rejected(self, error: AccountError) -> None:
        """Record that the service rejected a call because of the account or configuration.

        Raises:
            StoppedError: It rejected too many in a row, which ends the run with the error.
        """
        self._account_errors += 1
        if self._account_errors < MAX_ACCOUNT_ERRORS:
            return
        self._close(str(error))
        fix = error.fix or "correct the key, the address or the model, and run the same command again"
        self._state.end_with(AccountError(error.what, where=error.where or self.name, fix=fix))
        raise StoppedError(self.notice)

    def succeeded(self) -> None:
        """Record a usable result."""
        self._equal_failures, self._last_reason = 0, ""

    def failed(self, reason: str, sample_id: str) -> None:
        """Record a result that failed, not because of the service. Pause the plugin after too many equal ones.

        Args:
            reason: Why it failed.
            sample_id: Id of the sample, which does not make reasons differ.
        """
        normalised = re.sub(r"\d+", "#", reason.replace(sample_id, "…").casefold())
        self._equal_failures = self._equal_failures + 1 if normalised == self._last_reason else 1
        self._last_reason = normalised
        if self._pausing and self._equal_failures >= MAX_EQUAL_FAILURES and not self.notice:
            self._pause_notice = (
                f"{self.name} is paused: {self._equal_failures} results in a row failed for the same reason: "
                f"{one_line(reason, _REASON_LENGTH)}"
            )
            self._close(self._pause_notice)

    # -- what follows for the next call ----------------------------------------------------------------------------

    def raise_if_closed(self) -> None:
        """Check that the plugin may be called.

        Raises:
            StoppedError: The run stopped, or the plugin is called no more.
        """
        self._state.raise_if_stopped(drain=self._drain)
        if self.notice:
            raise ServicePausedError(self.notice)

    async def sleep(self, seconds: float) -> None:
        """Wait before a call is repeated.

        Args:
            seconds: Seconds to wait.

        Raises:
            StoppedError: The run stopped meanwhile, or the plugin is called no more.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while True:
            self.raise_if_closed()
            left = until - loop.time()
            if left <= 0:
                return
            await self._state.wait_for_stop(left)

    @property
    def patience_left(self) -> float:
        """Seconds that the run will wait for the next answer."""
        waited = 0.0 if self._waiting_since is None else self.clock() - self._waiting_since
        return max(0.0, self.patience - waited)

    @property
    def lone_attempt_seconds(self) -> float:
        """Seconds before a failure is counted while the service answers no other call; doubled after each."""
        return max(LONE_ATTEMPT_SECONDS, self.patience / _LONE_ATTEMPT_SHARE)

    def waiting_line(self) -> str:
        """Return a few words while the run waits for the service, such as `waiting for vlm:gpt-4.1, 42 s`."""
        since = self._waiting_since
        if self.notice or since is None:
            return ""
        return f"waiting for {self._shown_name}, {duration_text(self.clock() - since)}"

    def leave_out(self, error: BaseException) -> None:
        """Record that a sample remains not run, because the service rejected it alone for the account."""
        self._left_out += 1
        self._left_out_reason = describe(error)

    @property
    def notices(self) -> list[str]:
        """Return a line for the user on each reason why samples remain not run, although the run goes on."""
        lines = [self._pause_notice] if self._pause_notice else []
        if self._left_out:
            lines.append(f"{self.name}: {count(self._left_out, 'result')} not made: {self._left_out_reason}")
        return lines

    def _close(self, notice: str) -> None:
        self.notice = notice
        self._state.wake()
        self.on_close()
