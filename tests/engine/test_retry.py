"""Transient errors are retried with growing waits; every error has a one-line description."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from knowgen.core.errors import TransientError
from knowgen.engine.retry import describe, is_transient, with_retries


class TestRetries:
    def tries(self, failures: Sequence[Exception], tries: int = 4) -> tuple[str, list[int]]:
        calls: list[int] = []

        async def call(number: int) -> str:
            calls.append(number)
            if len(calls) <= len(failures):
                raise failures[len(calls) - 1]
            return "done"

        try:
            return asyncio.run(with_retries(call, tries, wait=self.wait)), calls
        except Exception as error:
            return describe(error), calls

    def busy(self) -> TransientError:
        return TransientError("busy", retry_after=0.0)

    @pytest.fixture(autouse=True)
    def _no_waits(self) -> None:
        self.waits: list[float] = []

    async def wait(self, seconds: float) -> None:
        self.waits.append(seconds)

    def test_transient_errors_are_retried(self) -> None:
        assert self.tries([self.busy(), ConnectionResetError(), TimeoutError()]) == ("done", [1, 2, 3, 4])

    def test_other_errors_are_not_retried(self) -> None:
        assert self.tries([ValueError("no")]) == ("ValueError: no", [1])
        assert self.tries([self.busy(), ValueError("no")]) == ("ValueError: no", [1, 2])

    def test_the_last_error_is_raised_when_the_attempts_are_used_up(self) -> None:
        assert self.tries([self.busy()] * 9, tries=3) == ("busy", [1, 2, 3])

    def test_waits_grow_and_are_at_least_as_long_as_the_service_asked_for(self) -> None:
        self.tries([TransientError("busy")] * 3 + [TransientError("busy", retry_after=99.0)], tries=5)
        first, second, third, fourth = self.waits
        assert 0.5 <= first <= 1.0 <= second <= 1.5 and 2.0 <= third <= 2.5
        assert fourth == 99.0


def test_a_lost_connection_of_httpx_is_transient_and_an_invalid_url_is_not() -> None:
    import httpx

    assert is_transient(httpx.ConnectError("refused"))
    assert is_transient(httpx.ReadTimeout("slow"))
    assert not is_transient(httpx.InvalidURL("what"))


def test_a_reason_is_one_line() -> None:
    assert describe(RuntimeError("a\n  b")) == "RuntimeError: a b"
    assert describe(KeyError()) == "KeyError"
    assert len(describe(RuntimeError("x" * 9999))) < 600
