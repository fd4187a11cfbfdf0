"""Retries: the calls, the waits between them, and the result of the last one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from knowgen.core.retry import exponential, retry


class Calls:
    """Plays a list of results and errors, and records numbers of attempts, waits and errors that were retried."""

    def __init__(self, *outcomes: int | Exception) -> None:
        self.outcomes = outcomes
        self.numbers: list[int] = []
        self.waits: list[float] = []
        self.retried: list[BaseException] = []

    async def call(self, number: int) -> int:
        self.numbers.append(number)
        outcome = self.outcomes[len(self.numbers) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def run(self, attempts: int = 5, **options: Any) -> Any:
        return asyncio.run(
            retry(
                self.call,
                attempts=attempts,
                retryable=lambda error: isinstance(error, ConnectionError),
                wait=lambda number, error: 10.0 * number + isinstance(error, ConnectionError),
                on_retry=self.retried.append,
                sleep=self.sleep,
                **options,
            )
        )


def negative(result: int) -> bool:
    return result < 0


def test_a_successful_call_is_made_once() -> None:
    calls = Calls(7)
    assert calls.run() == 7
    assert (calls.numbers, calls.waits, calls.retried) == ([1], [], [])


def test_transient_errors_are_retried_after_waits_by_number_and_error() -> None:
    errors = [ConnectionError("one"), ConnectionError("two")]
    calls = Calls(*errors, 7)
    assert calls.run() == 7
    assert (calls.numbers, calls.waits, calls.retried) == ([1, 2, 3], [11.0, 21.0], errors)


@pytest.mark.parametrize("before", [0, 1, 2])
def test_an_error_that_is_not_transient_ends_the_retries(before: int) -> None:
    calls = Calls(*[ConnectionError()] * before, ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        calls.run()
    assert calls.numbers == list(range(1, before + 2)) and len(calls.waits) == before


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_the_last_error_is_raised_without_a_wait_after_it(attempts: int) -> None:
    calls = Calls(*[ConnectionError(str(number)) for number in range(1, 9)])
    with pytest.raises(ConnectionError, match=f"^{attempts}$"):
        calls.run(attempts)
    assert len(calls.numbers) == attempts and len(calls.waits) == len(calls.retried) == attempts - 1


def test_an_unfinished_result_is_tried_again_and_the_last_one_returned() -> None:
    calls = Calls(-1, -2, 3)
    assert calls.run(unfinished=negative) == 3
    assert (calls.numbers, calls.waits, calls.retried) == ([1, 2, 3], [10.0, 20.0], [])
    assert Calls(-1, -2, -3).run(3, unfinished=negative) == -3
    assert Calls(-1).run(1, unfinished=negative) == -1


def test_errors_and_unfinished_results_count_together() -> None:
    calls = Calls(-1, ConnectionError(), 5)
    assert calls.run(unfinished=negative) == 5
    assert calls.waits == [10.0, 21.0]


def test_a_cancelled_call_is_not_made_again() -> None:
    numbers: list[int] = []

    async def call(number: int) -> None:
        numbers.append(number)
        if number == 1:
            raise ConnectionError
        await asyncio.sleep(60)

    async def main() -> None:
        task = asyncio.ensure_future(
            retry(call, attempts=9, retryable=lambda error: isinstance(error, ConnectionError), wait=lambda *_: 0.0)
        )
        while len(numbers) < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert numbers == [1, 2]


def test_waits_double_up_to_the_longest() -> None:
    assert [exponential(number, 0.5, 3.0) for number in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert exponential(4, 1.0) == 8.0
