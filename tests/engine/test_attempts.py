"""Waiting for a service is not an attempt, in virtual time: what counts, how long it is waited for, when runs stop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowgen.clients.rate_control import LoadSignal, RateControl, RateLimits
from knowgen.core.errors import AccountError, ConfigError, ServiceUnavailableError, TransientError
from knowgen.engine.attempts import Attempts, check_service, with_retries
from knowgen.engine.retry import LeftOutError, StoppedError, WorkerDiedError, describe
from knowgen.engine.run_state import RunState
from knowgen.engine.services import MAX_EQUAL_FAILURES, Service
from tests.helpers.virtual_time import run

PATIENCE = 1800.0


def busy(wait: float | None = None) -> ServiceUnavailableError:
    return ServiceUnavailableError("the service answered 429", service="vlm:x", busy=True, retry_after=wait)


def broken() -> ServiceUnavailableError:
    return ServiceUnavailableError("the service answered 500", service="vlm:x")


@dataclass
class Log:
    """Record of one request.

    Attributes:
        calls: Time and number of the attempt of each call.
        outcome: The result, or the name and text of the error.
        failed: Attempts that failed.
    """

    calls: list[tuple[float, int]] = field(default_factory=list)
    outcome: str = ""
    failed: int = 0

    @property
    def times(self) -> list[float]:
        return [when for when, _ in self.calls]

    @property
    def numbers(self) -> list[int]:
        return [number for _, number in self.calls]


class Scene:
    """A run with one service, in virtual time."""

    def __init__(self, patience: float = PATIENCE, *, pausing: bool = False) -> None:
        self.loop = asyncio.get_running_loop()
        self.epoch = self.loop.time()
        self.state = RunState()
        self.service = Service("judge", self.state, patience, pausing=pausing, clock=self.loop.time)

    @property
    def now(self) -> float:
        return self.loop.time() - self.epoch

    async def request(self, answer: Callable[[int], Exception | None], tries: int = 4) -> Log:
        """Make a request whose calls take a second each; `answer` gives the error of each call by its number."""
        log, attempts = Log(), Attempts(self.service, tries)

        async def call(number: int) -> str:
            log.calls.append((self.now, number))
            await asyncio.sleep(1.0)
            error = answer(len(log.calls))
            if error is not None:
                raise error
            self.service.answered()
            return "done"

        try:
            log.outcome = await with_retries(call, attempts, self.service)
        except Exception as error:
            log.outcome = f"{type(error).__name__}: {describe(error)}"
        log.failed = attempts.failed
        return log


def one_request(answers: Sequence[Exception | None], patience: float = PATIENCE, tries: int = 4) -> Log:
    """Return the record of a request whose calls end as given, the last one repeated."""

    async def scenario() -> Log:
        return await Scene(patience).request(lambda call: answers[min(call, len(answers)) - 1], tries)

    return run(scenario())


class TestWhatCounts:
    def test_a_busy_service_is_waited_for_as_often_as_it_takes(self) -> None:
        log = one_request([busy()] * 30 + [None])
        assert log.outcome == "done"
        assert log.numbers == [1] * 31

    def test_a_stated_wait_of_a_plain_transient_error_is_waiting_too(self) -> None:
        log = one_request([TransientError("busy", retry_after=5.0)] * 9 + [None])
        assert (log.outcome, log.numbers) == ("done", [1] * 10)

    def test_other_transient_errors_count(self) -> None:
        log = one_request([ConnectionResetError(), TimeoutError(), TransientError("no"), None])
        assert (log.outcome, log.numbers) == ("done", [1, 2, 3, 4])
        assert one_request([TransientError("no")], tries=3).outcome == "TransientError: no"

    def test_an_error_that_is_not_transient_ends_the_request(self) -> None:
        log = one_request([busy(), ValueError("no")])
        assert (log.outcome, len(log.calls), log.failed) == ("ValueError: ValueError: no", 2, 1)

    def test_three_worker_deaths_end_the_request(self) -> None:
        assert len(one_request([WorkerDiedError("it died")], tries=9).calls) == 3

    def test_a_request_that_breaks_its_server_ends_while_the_others_are_answered(self) -> None:
        async def scenario() -> tuple[Log, list[Log]]:
            scene = Scene()
            bad = asyncio.create_task(scene.request(lambda call: broken()))
            others = []
            for _ in range(20):
                others.append(await scene.request(lambda call: None))
            return await bad, others

        bad, others = run(scenario())
        assert bad.outcome == "ServiceUnavailableError: the service answered 500"
        assert bad.numbers == [1, 2, 3, 4] and bad.times[-1] < 20
        assert all(other.numbers == [1] for other in others)

    def test_a_request_that_breaks_its_server_ends_where_it_is_the_last_one(self) -> None:
        log = one_request([broken()])
        assert log.outcome == "ServiceUnavailableError: the service answered 500"
        assert log.numbers[-1] == 4
        assert 600 < log.times[-1] < PATIENCE

    def test_an_outage_of_three_minutes_costs_no_request_its_attempts(self) -> None:
        async def scenario() -> list[Log]:
            scene = Scene()
            return list(
                await asyncio.gather(
                    *(scene.request(lambda call: broken() if scene.now < 180 else None) for _ in range(12))
                )
            )

        for log in run(scenario()):
            assert log.outcome == "done" and log.failed <= 2


class TestWaits:
    def test_waits_grow_to_a_minute_and_differ_between_requests(self) -> None:
        async def scenario() -> list[Log]:
            scene = Scene(patience=1e6)
            return list(
                await asyncio.gather(*(scene.request(lambda call: busy() if call < 20 else None) for _ in range(8)))
            )

        logs = run(scenario())
        waits = [[later - earlier - 1 for earlier, later in itertools.pairwise(log.times)] for log in logs]
        for each in waits:
            assert 0.5 <= each[0] <= 0.7 and all(45 <= wait <= 60 for wait in each[8:])
        assert len({round(each[-1], 3) for each in waits}) == len(waits)

    def test_a_stated_wait_is_waited_for_exactly(self) -> None:
        log = one_request([busy(700.0), busy(99.5), None])
        assert log.times == pytest.approx([0.0, 701.0, 801.5])

    def test_a_stated_wait_of_nothing_does_not_lead_to_a_call_in_every_moment(self) -> None:
        log = one_request([busy(0.0)] * 40 + [None], patience=1e6)
        assert log.times[-1] > 600


class TestPatience:
    def test_a_service_that_gives_no_answer_stops_the_run(self) -> None:
        async def scenario() -> tuple[Log, RunState, float]:
            scene = Scene()
            log = await scene.request(lambda call: busy())
            return log, scene.state, scene.now

        log, state, ended = run(scenario())
        assert log.outcome.startswith("StoppedError: vlm:x gave no answer for 30 min; the last error: the service")
        assert (
            state.stop_reason == "unavailable"
            and "run the same command again later, or raise --patience" in state.stop_line
        )
        assert state.error is None and state.final_error is None
        assert PATIENCE <= ended <= PATIENCE + 62

    def test_a_wait_longer_than_the_patience_stops_the_run_at_once(self) -> None:
        async def scenario() -> tuple[Log, float]:
            scene = Scene()
            return await scene.request(lambda call: busy(86400.0)), scene.now

        log, ended = run(scenario())
        assert "vlm:x asks to wait 24 h (the service answered 429)" in log.outcome
        assert ended == pytest.approx(1.0)

    def test_waits_that_add_up_to_more_than_the_patience_stop_it_too(self) -> None:
        log = one_request([busy(1000.0)])
        assert log.times == pytest.approx([0.0, 1001.0])
        assert "asks to wait 17 min" in log.outcome

    def test_without_patience_the_first_failure_stops_the_run(self) -> None:
        log = one_request([busy()], patience=0.0)
        assert len(log.calls) == 1 and log.outcome.startswith("StoppedError")

    def test_every_answer_renews_it(self) -> None:
        async def scenario() -> list[Log]:
            scene = Scene(patience=300.0)

            async def slow() -> list[Log]:
                logs = []
                for _ in range(10):  # the service answers one call every 200 seconds
                    logs.append(await scene.request(lambda call: None))
                    await asyncio.sleep(200)
                return logs

            slow_logs = asyncio.create_task(slow())
            waiting = await scene.request(lambda call: busy() if scene.now < 1500 else None)
            return [waiting, *await slow_logs]

        assert [log.outcome for log in run(scenario())] == ["done"] * 11

    def test_a_stop_of_the_run_ends_every_wait(self) -> None:
        async def scenario() -> tuple[list[Log], float]:
            scene = Scene()
            waiting = [asyncio.create_task(scene.request(lambda call: busy(900.0))) for _ in range(5)]
            await asyncio.sleep(10)
            scene.state.stop("interrupted")
            return list(await asyncio.gather(*waiting)), scene.now

        logs, ended = run(scenario())
        assert {log.outcome for log in logs} == {"StoppedError: interrupted"}
        assert ended == pytest.approx(10, abs=0.01)


class TestAccounts:
    def rejected(self) -> AccountError:
        return AccountError("rejects the key (401)", where="vlm:x", fix="set OPENAI_API_KEY")

    def test_three_rejections_in_a_row_end_the_run_with_the_error(self) -> None:
        async def scenario() -> tuple[list[Log], RunState]:
            scene = Scene()
            logs = await asyncio.gather(*(scene.request(lambda call: self.rejected()) for _ in range(2)))
            return list(logs), scene.state

        logs, state = run(scenario())
        assert all(log.outcome.startswith("StoppedError") for log in logs)
        assert sum(len(log.calls) for log in logs) <= 4
        assert isinstance(state.final_error, AccountError)
        assert str(state.final_error) == "vlm:x: rejects the key (401); set OPENAI_API_KEY"

    def test_a_lone_sample_ends_it_as_well(self) -> None:
        log = one_request([self.rejected()])
        assert log.outcome.startswith("StoppedError") and len(log.calls) == 3

    def test_a_rejection_that_does_not_repeat_is_called_again(self) -> None:
        log = one_request([self.rejected(), None])
        assert (log.outcome, log.failed) == ("done", 0)

    def test_a_sample_that_alone_is_rejected_remains_not_run(self) -> None:
        async def scenario() -> tuple[Log, Scene]:
            scene = Scene()
            bad = asyncio.create_task(scene.request(lambda call: self.rejected()))
            for _ in range(60):
                await scene.request(lambda call: None)
            return await bad, scene

        log, scene = run(scenario())
        assert log.outcome.startswith(LeftOutError.__name__)
        assert not scene.state.stop_reason
        (line,) = scene.service.notices
        assert "1 result not made" in line and "rejects the key" in line


class TestPauses:
    def test_equal_failures_in_a_row_pause_the_plugin(self) -> None:
        async def scenario() -> tuple[Scene, str]:
            scene = Scene(pausing=True)
            closed: list[str] = []
            scene.service.on_close = lambda: closed.append("closed")
            for number in range(MAX_EQUAL_FAILURES):
                assert not closed
                scene.service.failed(f"sample s{number}: no JSON in {number} characters", f"s{number}")
            assert closed == ["closed"]
            return scene, (await scene.request(lambda call: None)).outcome

        scene, outcome = run(scenario())
        assert outcome.startswith("ServicePausedError: judge is paused: 10 results in a row failed for the same reason")
        assert scene.service.notices == [scene.service.notice]
        assert not scene.state.stop_reason

    @pytest.mark.parametrize("between", ["success", "other"])
    def test_a_success_or_another_reason_between_them_starts_the_count_again(self, between: str) -> None:
        async def scenario() -> str:
            scene = Scene(pausing=True)
            for number in range(3 * MAX_EQUAL_FAILURES):
                if number % (MAX_EQUAL_FAILURES - 1) == 0:
                    if between == "success":
                        scene.service.succeeded()
                    else:
                        scene.service.failed("cut off", "s")
                scene.service.failed("no JSON", "s")
            return scene.service.notice

        assert run(scenario()) == ""

    def test_a_plugin_that_computes_is_not_paused(self) -> None:
        async def scenario() -> str:
            scene = Scene(pausing=False)
            for _ in range(5 * MAX_EQUAL_FAILURES):
                scene.service.failed("no", "s")
            return scene.service.notice

        assert run(scenario()) == ""


class TestChecks:
    def check(self, answers: Sequence[Exception | None]) -> tuple[str, int, float]:
        async def scenario() -> tuple[str, int, float]:
            scene = Scene()
            calls = 0

            async def check() -> None:
                nonlocal calls
                calls += 1
                if (error := answers[min(calls, len(answers)) - 1]) is not None:
                    raise error

            try:
                await check_service(check, scene.service)
            except Exception as error:
                return f"{type(error).__name__}: {describe(error)}", calls, scene.now
            return "passed", calls, scene.now

        return run(scenario())

    def test_a_rejection_ends_it_at_once(self) -> None:
        assert self.check([AccountError("rejects the key")])[:2] == ("AccountError: rejects the key", 1)
        assert self.check([ConfigError("no address")])[:2] == ("ConfigError: no address", 1)

    def test_an_unavailable_service_is_waited_for(self) -> None:
        assert self.check([busy()] * 5 + [broken()] * 5 + [None])[:2] == ("passed", 11)
        outcome, _, ended = self.check([broken()])
        assert outcome.startswith(StoppedError.__name__) and ended >= PATIENCE

    def test_an_error_of_the_check_itself_has_one_line(self) -> None:
        assert self.check([KeyError("x")])[0] == "ConfigError: judge: check_service failed: KeyError: 'x'"


# -- random schedules ------------------------------------------------------------------------------------------------

KINDS = ["ok", "ok", "ok", "429", "429 wait", "503", "500", "lost", "permanent", "account"]


@dataclass(frozen=True)
class Request:
    """A request of a simulated run.

    Attributes:
        replies: Kinds of replies to its calls; the last one is repeated, `ok` follows if it is none that ends.
        start: Start time in seconds.
        seconds: Duration of a call in seconds.
        cancel: Time at which it is cancelled, None for never.
    """

    replies: tuple[str, ...]
    start: float
    seconds: float
    cancel: float | None


ERRORS: dict[str, tuple[Callable[[], Exception], LoadSignal]] = {
    "429": (busy, LoadSignal.RATE_LIMITED),
    "429 wait": (lambda: busy(20.0), LoadSignal.RATE_LIMITED),
    "503": (busy, LoadSignal.UNAVAILABLE),
    "500": (broken, LoadSignal.UNAVAILABLE),
    "lost": (lambda: TransientError("the reply was lost"), LoadSignal.UNAVAILABLE),
    "permanent": (lambda: ValueError("no"), LoadSignal.NONE),
    "account": (lambda: AccountError("no credit"), LoadSignal.NONE),
}


async def simulate(
    requests: list[Request], limits: RateLimits, patience: float, forever: str | None
) -> tuple[list[str], int, RunState, int]:
    """Run requests through the retries and the rate control; return outcomes, requests not ended, state, in flight."""
    scene = Scene(patience)
    rate_control = RateControl(limits)
    in_flight = highest = 0

    async def call(request: Request, calls: int) -> str:
        nonlocal in_flight, highest
        async with rate_control.slot(100) as slot:
            in_flight += 1
            highest = max(highest, in_flight)
            try:
                await asyncio.sleep(request.seconds)
            finally:
                in_flight -= 1
            kind = request.replies[calls] if calls < len(request.replies) else (forever or "ok")
            if kind == "ok":
                slot.signal, slot.tokens = LoadSignal.SUCCESS, 100
                scene.service.answered()
                return "ok"
            make, slot.signal = ERRORS[kind]
            error = make()
            slot.retry_after = getattr(error, "retry_after", None)
            raise error

    async def work(request: Request) -> str:
        await asyncio.sleep(request.start)
        calls = -1

        async def attempt(number: int) -> str:
            nonlocal calls
            calls += 1
            assert number <= 4
            return await call(request, calls)

        try:
            return await with_retries(attempt, Attempts(scene.service, 4), scene.service)
        except Exception as error:
            return type(error).__name__

    tasks = [asyncio.create_task(work(request)) for request in requests]
    for request, task in zip(requests, tasks, strict=True):
        if request.cancel is not None:
            scene.loop.call_later(request.cancel, task.cancel)
    done, pending = await asyncio.wait(tasks, timeout=50 * 3600.0)
    outcomes = ["cancelled" if task.cancelled() else task.result() for task in done]
    for task in pending:
        task.cancel()
    return outcomes, len(pending), scene.state, highest


REQUESTS = st.builds(
    Request,
    replies=st.lists(st.sampled_from(KINDS), min_size=1, max_size=5).map(tuple),
    start=st.sampled_from([0.0, 0.0, 0.0, 0.5, 3.0, 100.0]),
    seconds=st.sampled_from([0.0, 0.2, 1.0, 7.0]),
    cancel=st.one_of(st.none(), st.none(), st.none(), st.sampled_from([0.0, 0.3, 1.0, 5.0, 60.0])),
)


@settings(max_examples=150, deadline=None)
@given(
    requests=st.lists(REQUESTS, min_size=1, max_size=16),
    concurrency=st.sampled_from([1, 2, 5, 256]),
    rpm=st.sampled_from([0.0, 0.0, 12.0, 600.0]),
    tpm=st.sampled_from([0.0, 0.0, 3000.0]),
    patience=st.sampled_from([0.0, 30.0, 600.0, 1800.0]),
    forever=st.sampled_from([None, None, "429", "503", "500", "account", "lost"]),
)
def test_every_request_ends_whatever_the_service_answers(
    requests: list[Request], concurrency: int, rpm: float, tpm: float, patience: float, forever: str | None
) -> None:
    outcomes, left, state, highest = run(simulate(requests, RateLimits(concurrency, rpm, tpm), patience, forever))
    assert left == 0
    assert highest <= concurrency
    known = {"ok", "cancelled", "ValueError", "TransientError", "ServiceUnavailableError", "StoppedError"}
    assert set(outcomes) <= known | {"LeftOutError", "ServicePausedError"}
    if "StoppedError" in outcomes:
        assert state.stop_reason
    if not state.stop_reason:
        assert len(outcomes) == len(requests)
