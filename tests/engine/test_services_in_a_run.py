"""Runs whose services are slow, down, broken or reject the account end by themselves, with the right results."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.setting import noise_image
from knowgen.core.errors import AccountError, BudgetReachedError, ConfigError, ServiceUnavailableError, TransientError
from knowgen.core.records import (
    Attempt,
    FailureCause,
    Generation,
    GenerationRequest,
    GenerationStatus,
    GroundTruth,
    Sample,
    Score,
    ScoreStatus,
)
from knowgen.core.waiting import waiting
from knowgen.engine import ComponentRef, EngineOptions, ScorerHandle, attempts, services
from knowgen.generators.contract import GeneratedImage
from knowgen.scorers.contract import failed_score
from tests.helpers.engine import Bench, Half, Plain, generator_handle, quick, score_of, scorer_handle

MINUTE = 0.1
"""A minute of these tests, in seconds."""


@pytest.fixture(autouse=True)
def _short_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all waits of the engine pass as if a minute took `MINUTE`."""
    for module, name in (
        (attempts, "FIRST_WAIT_SECONDS"),
        (attempts, "LONGEST_WAIT_SECONDS"),
        (attempts, "LEAST_ANNOUNCED_SECONDS"),
        (services, "LONE_ATTEMPT_SECONDS"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name) * MINUTE / 60)


def options(minutes: float = 30, **fields: Any) -> EngineOptions:
    """Return options with a patience of so many minutes."""
    return quick(**{"patience": minutes * MINUTE, **fields})


class Judge:
    """A judge whose service answers as a function says.

    Args:
        fault: Takes the sample's id and the number of the call, and returns the error of the call or None.
    """

    concurrency = 16

    def __init__(self, fault: Callable[[str, int], Exception | None]) -> None:
        self.fault = fault
        self.calls: list[str] = []

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        self.calls.append(sample.id)
        if (error := self.fault(sample.id, len(self.calls))) is not None:
            raise error
        return score_of(sample, generation, int(sample.id[1:]) % 5 / 4)

    def handle(self, name: str = "judge") -> ScorerHandle:
        return scorer_handle(Judge, name=name, build=lambda: self)


def busy(status: int = 429, wait: float | None = None) -> ServiceUnavailableError:
    return ServiceUnavailableError(
        f"the endpoint answered {status}", service="vlm:x", busy=status in (429, 503), retry_after=wait
    )


def check_figures(scores: Sequence[Score], count: int) -> None:
    """Check that the scores are those of a service without faults, each made in one attempt."""
    assert len(scores) == count
    for score in scores:
        assert score.status is ScoreStatus.OK and score.tries == 1 and score.cause is None
        assert set(score.strict.values.values()) == {int(score.sample_id[1:]) % 5 / 4}


def test_a_judge_that_answers_five_calls_a_minute_scores_every_sample(tmp_path: Path) -> None:
    window: list[float] = []

    def fault(sample_id: str, call: int) -> Exception | None:
        now = time.monotonic()
        window[:] = [when for when in window if now - when < MINUTE]
        if len(window) >= 5:
            return busy()
        window.append(now)
        return None

    bench = Bench(tmp_path / "run")
    judge = Judge(fault)
    outcome = bench.run(30, Plain(), [judge.handle()], options())
    assert (outcome.scored, outcome.score_failed, outcome.stopped) == (30, 0, "")
    assert len(judge.calls) > 30
    check_figures(list(bench.scores().values()), 30)


@pytest.mark.parametrize("status", [503, 502])
def test_a_judge_that_is_down_for_three_minutes_scores_every_sample(tmp_path: Path, status: int) -> None:
    ends: list[float] = []

    def fault(sample_id: str, call: int) -> Exception | None:
        if call <= 8:
            return None
        ends.append(time.monotonic() + 3 * MINUTE)  # the first entry counts
        return busy(status) if time.monotonic() < ends[0] else None

    bench = Bench(tmp_path / "run")
    outcome = bench.run(30, Plain(), [Judge(fault).handle()], options())
    assert (outcome.scored, outcome.score_failed, outcome.stopped) == (30, 0, "")
    scores = [score.model_copy(update={"tries": 1}) for score in bench.scores().values()]
    check_figures(scores, 30)


def test_a_judge_that_never_answers_for_one_sample_in_ten_scores_the_others(tmp_path: Path) -> None:
    def fault(sample_id: str, call: int) -> Exception | None:
        return busy(500) if sample_id.endswith("7") else None

    bench = Bench(tmp_path / "run")
    outcome = bench.run(30, Plain(), [Judge(fault).handle()], options())
    assert (outcome.scored, outcome.score_failed, outcome.stopped) == (27, 3, "")
    scores = {sample_id: score for (sample_id, *_), score in bench.scores().items()}
    bad = {sample_id: scores.pop(sample_id) for sample_id in ("s7", "s17", "s27")}
    check_figures(list(scores.values()), 27)
    for score in bad.values():
        assert score.status is ScoreStatus.FAILED and score.strict.reason == "the endpoint answered 500"
        assert score.cause is FailureCause.INFRASTRUCTURE and score.tries == 4


def test_a_failure_of_the_infrastructure_is_tried_again_by_every_run(tmp_path: Path) -> None:
    class Service:
        async def generate(self, request: GenerationRequest) -> GeneratedImage:
            if "number 1." in request.prompt and down:
                raise busy(500)
            return GeneratedImage(noise_image(request.prompt))

    bench, down = Bench(tmp_path / "run"), True
    for _ in range(4):
        bench.run(3, Service(), [], options(tries=2, max_attempts=3))
        failed = bench.generations()["s1", 0]
        assert failed.status is GenerationStatus.FAILED and failed.cause is FailureCause.INFRASTRUCTURE
    down = False
    assert bench.run(3, Service(), [], options()).generated == 1
    assert bench.generations()["s1", 0].cause is None


def test_a_service_that_asks_for_a_day_stops_the_run_with_one_line(tmp_path: Path) -> None:
    asked = busy(429, wait=86400.0)
    bench = Bench(tmp_path / "run")
    outcome = bench.run(12, Plain(), [Judge(lambda sample_id, call: asked if call > 4 else None).handle()], options())
    assert outcome.stopped == "unavailable" and outcome.score_failed == 0
    (line,) = outcome.notices
    assert line.startswith("vlm:x asks to wait 24 h (the endpoint answered 429); the rest is not run: run the same")
    assert len(bench.scores()) == outcome.scored == 4
    again = bench.run(12, Plain(), [Judge(lambda sample_id, call: None).handle()], options())
    assert (again.scored, again.score_cached, again.stopped, again.notices) == (8, 4, "", ())


def test_a_service_without_an_answer_stops_the_run_after_the_patience(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    judge = Judge(lambda sample_id, call: busy(503))
    outcome = bench.run(12, Plain(), [judge.handle(), scorer_handle(Half(), name="half")], options(5))
    assert outcome.stopped == "unavailable" and outcome.score_failed == 0
    assert "vlm:x gave no answer for" in outcome.notices[0] and "--patience" in outcome.notices[0]
    assert {scorer for (_, _, scorer, _) in bench.scores()} == {"half"}, "the other scorer finished its images"


def test_the_rest_of_a_stopped_run_does_not_wait_for_its_turn(tmp_path: Path) -> None:
    """Calls that wait for a rate limit have not been sent: a stop does not wait for them."""

    class Queueing(Judge):
        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            if sample.id != "s0":
                with waiting():
                    await asyncio.sleep(3600)
            return await super().score(sample, truth, generation)

    judge = Queueing(lambda sample_id, call: busy(429, wait=86400.0))
    outcome = Bench(tmp_path / "run").run(6, Plain(), [judge.handle()], options())
    assert outcome.stopped == "unavailable" and judge.calls == ["s0"]


def test_a_key_that_is_rejected_ends_the_run_and_nothing_is_failed(tmp_path: Path) -> None:
    rejected = AccountError("rejects the key (401)", fix="set OPENAI_API_KEY")
    bench = Bench(tmp_path / "run")
    judge = Judge(lambda sample_id, call: rejected if call > 8 else None)
    with pytest.raises(AccountError, match="rejects the key .401.; set OPENAI_API_KEY"):
        bench.run(48, Plain(), [judge.handle()], options())
    assert len(judge.calls) <= 8 + 16 + 3
    assert [score.status for score in bench.scores().values()] == [ScoreStatus.OK] * 8
    assert all(generation.status is GenerationStatus.OK for generation in bench.generations().values())


def test_a_judge_that_breaks_its_contract_every_time_is_paused_and_the_others_go_on(tmp_path: Path) -> None:
    class Breaks(Judge):
        concurrency = 2

        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            self.calls.append(sample.id)
            return failed_score(
                sample.id, generation.repeat, "judge", "no JSON", attempts=(Attempt(reply="Sure!", error="no JSON"),)
            )

    bench, judge = Bench(tmp_path / "run"), Breaks(lambda sample_id, call: None)
    outcome = bench.run(60, Plain(), [judge.handle(), scorer_handle(Half(), name="half")], options())
    # the judge fails at once, so that its slots take a few further samples before the failures are counted
    assert services.MAX_EQUAL_FAILURES <= len(judge.calls) <= 2 * services.MAX_EQUAL_FAILURES
    assert outcome.notices == ("judge is paused: 10 results in a row failed for the same reason: no JSON",)
    assert outcome.stopped == "" and outcome.generated == 60
    assert sum(scorer == "half" for (_, _, scorer, _) in bench.scores()) == 60
    assert all(score.cause in (None, FailureCause.SYSTEM) for score in bench.scores().values())


def test_refusals_do_not_pause_a_judge_and_have_their_own_cause(tmp_path: Path) -> None:
    class Refuses(Judge):
        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            attempt = Attempt(error="the judge refused", refused=True)
            return failed_score(sample.id, generation.repeat, "judge", "the judge refused", attempts=(attempt,))

    bench = Bench(tmp_path / "run")
    outcome = bench.run(24, Plain(), [Refuses(lambda sample_id, call: None).handle()], options())
    assert (outcome.score_failed, outcome.notices) == (24, ())
    assert {score.cause for score in bench.scores().values()} == {FailureCause.REFUSAL}


def test_an_aborted_run_closes_the_judge_in_its_own_event_loop(tmp_path: Path) -> None:
    class Connected(Judge):
        closed: list[str] = []  # noqa: RUF012 - one judge only

        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            self.calls.append(sample.id)
            try:
                while len(self.calls) < 4:
                    await asyncio.sleep(0.01)
                if sample.id == "s3":
                    raise ConfigError("cannot go on")
                await asyncio.sleep(3600)
            finally:
                self.closed.append("call")
            raise AssertionError("the call was to be cancelled")

        async def close(self) -> None:
            await asyncio.sleep(0.01)
            self.closed.append("judge")

    judge = Connected(lambda sample_id, call: None)
    with pytest.raises(ConfigError, match="cannot go on"):
        Bench(tmp_path / "run").run(4, Plain(), [judge.handle()], options())
    assert judge.closed == ["call"] * 4 + ["judge"]


# -- the check before the first call ---------------------------------------------------------------------------------


class Checked(Half):
    """A judge that checks its service first."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers, self.checks = list(answers), 0

    async def check_service(self) -> None:
        self.checks += 1
        if self.answers and (error := self.answers.pop(0)) is not None:
            raise error


class Counting(Plain):
    """A generator that counts its images."""

    def __init__(self) -> None:
        self.images = 0

    def draw(self, prompt: str, references: object, seed: int) -> Image.Image:
        self.images += 1
        return super().draw(prompt, references, seed)


@pytest.mark.parametrize("schedule", ["stream", "phased"])
def test_a_rejected_key_is_found_before_anything_is_generated_and_leaves_no_directory(
    tmp_path: Path, schedule: str
) -> None:
    bench, generator = Bench(tmp_path / "run"), Counting()
    with pytest.raises(AccountError, match="rejects the key"):
        bench.run(5, generator, [scorer_handle(Checked(AccountError("rejects the key")))], options(schedule=schedule))
    assert generator.images == 0 and not bench.path.exists()


def test_an_unavailable_service_is_waited_for_before_anything_is_generated(tmp_path: Path) -> None:
    judge = Checked(busy(503), busy(502), None)
    assert Bench(tmp_path / "run").run(5, Plain(), [scorer_handle(judge)], options()).scored == 5
    assert judge.checks == 3
    down = Checked(*[busy(503)] * 1000)
    bench, generator = Bench(tmp_path / "down"), Counting()
    outcome = bench.run(5, generator, [scorer_handle(down)], options(3))
    assert (outcome.stopped, generator.images, bench.scores()) == ("unavailable", 0, {})


def test_the_check_is_made_once_and_only_where_there_is_work(tmp_path: Path) -> None:
    bench, first, second = Bench(tmp_path / "run"), Checked(), Checked()
    bench.run(5, Plain(), [scorer_handle(first)], options())
    bench.run(5, Plain(), [scorer_handle(second)], options())
    assert (first.checks, second.checks) == (1, 0)
    other = Checked()
    bench.run(5, Plain(), [scorer_handle(second), scorer_handle(other, name="other")], options())
    assert (second.checks, other.checks) == (0, 1)


class CheckedInWorker:
    """A generator whose service rejects the account; its images say so if they are made."""

    concurrency = 2

    async def check_service(self) -> None:
        raise AccountError("rejects the key", fix="set KEY")

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        raise AssertionError("nothing may be generated")


def test_the_check_runs_in_a_worker_process_too(tmp_path: Path) -> None:
    ref = ComponentRef("generators", "tests.engine.test_services_in_a_run:CheckedInWorker")
    with pytest.raises(AccountError, match="rejects the key; set KEY"):
        Bench(tmp_path / "run").run(3, generator_handle(CheckedInWorker(), component_ref=ref), [], options(workers=1))


# -- time limits -------------------------------------------------------------------------------------------------------


class Waits:
    """A generator that waits for its turn longer than its time limit, and then generates quickly."""

    concurrency = 2
    revision = "1"

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        with waiting():
            await asyncio.sleep(1.2)
        return GeneratedImage(noise_image(request.prompt))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_time_limit_does_not_count_waiting(tmp_path: Path, workers: int) -> None:
    ref = ComponentRef("generators", "tests.engine.test_services_in_a_run:Waits")
    handle = generator_handle(Waits(), component_ref=ref)
    outcome = Bench(tmp_path / "run").run(2, handle, [], options(workers=workers, timeout=1.0))
    assert (outcome.generated, outcome.generation_failed) == (2, 0)


class Endless:
    """Yields the first image of its batch again and again."""

    batch_size = 3
    revision = "1"

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        for _ in range(2000):
            yield GeneratedImage(noise_image("x"), request_id=requests[0].id)
            time.sleep(0.005)


class SlowlyEndless(Endless):
    """Yields an image that nobody asked for before each time limit passes."""

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        for _ in range(100):
            yield GeneratedImage(noise_image("x"), request_id="unknown")
            time.sleep(0.2)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [Endless, SlowlyEndless])
def test_results_that_were_not_asked_for_give_no_further_time(tmp_path: Path, kind: type, workers: int) -> None:
    ref = ComponentRef("generators", f"tests.engine.test_services_in_a_run:{kind.__name__}")
    bench = Bench(tmp_path / "run")
    outcome = bench.run(3, generator_handle(kind(), component_ref=ref), [], options(workers=workers, timeout=0.7))
    assert outcome.generated + outcome.generation_failed == 3
    reasons = {generation.reason for generation in bench.generations().values() if generation.reason}
    assert (reasons or kind is Endless) and all(
        "not asked for" in reason or "within 0.7 s" in reason for reason in reasons
    )


def test_a_batch_that_hangs_is_given_up_after_one_time_limit(tmp_path: Path) -> None:
    started = threading.Event()
    release = threading.Event()

    class Hangs:
        batch_size = 8

        def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
            started.set()
            release.wait()
            yield GeneratedImage(noise_image("late"), request_id=requests[0].id)

    before = time.monotonic()
    outcome = Bench(tmp_path / "run").run(8, Hangs(), [], options(timeout=2.0))
    release.set()
    assert started.is_set() and outcome.generation_failed == 8
    assert time.monotonic() - before < 8 * 2.0, "the limit is not multiplied by the size of the batch"


def test_a_slow_batch_has_the_whole_limit_for_each_further_image(tmp_path: Path) -> None:
    class Slow:
        batch_size = 5

        def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
            for request in requests:
                time.sleep(0.4)
                yield GeneratedImage(noise_image(request.prompt), request_id=request.id)

    assert Bench(tmp_path / "run").run(5, Slow(), [], options(timeout=1.5)).generated == 5


def test_waits_for_the_budget_and_plain_errors_keep_their_meaning(tmp_path: Path) -> None:
    class Odd(Judge):
        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            raise {"s0": BudgetReachedError("no"), "s1": TransientError("a fault")}[sample.id]

    outcome = Bench(tmp_path / "run").run(2, Plain(), [Odd(lambda sample_id, call: None).handle()], options())
    assert outcome.stopped == "budget"
