"""The scorer `vlm` in a run: every sample ends with a score or a reason, even if the endpoint misbehaves."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.setting import NumberedTask
from knowgen.core.records import GroundTruth, ImageRef, Sample, Score, ScoreStatus
from knowgen.core.spec import RunSpec, select
from knowgen.engine import EngineOptions, RunOutcome, run, services
from knowgen.scorers.vlm.judge import VlmJudge
from knowgen.store.run import RunStore
from knowgen.workflows import resolve
from tests.helpers.judge_server import Call, JudgeServer, Step, good

SECRET = "sk-test-fedcba9876543210"


class ImageTask(NumberedTask):
    """A task of `count` samples with a ground-truth image each."""

    name = "images"

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(count)
        self.path = folder / "truth.png"
        Image.new("RGB", (40, 30), "navy").save(self.path)
        self.digest = hashlib.sha256(self.path.read_bytes()).hexdigest()

    def samples(self) -> Iterator[Sample]:
        for number in range(self.count):
            yield Sample(id=f"s{number}", prompt=f"Draw {number}.", category="sports", text_required=True)

    def truth(self, sample_id: str) -> GroundTruth:
        image = ImageRef(sha256=self.digest, width=40, height=30, format="PNG", path=self.path)
        return GroundTruth(sample_id=sample_id, image=image, text_required=True)


class Noise:
    """Generate an image that depends on the seed."""

    revision = "1"

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        return Image.frombytes("RGB", (32, 24), random.Random(f"{prompt}{seed}").randbytes(32 * 24 * 3))


def evaluate(folder: Path, url: str, count: int = 12, options: EngineOptions | None = None, **args: Any) -> RunOutcome:
    task = ImageTask(folder, count)
    generator = resolve.resolve_generator(Noise, {}, task)
    scorer = resolve.resolve_scorer("vlm:any", {"base_url": url, **args})
    spec = RunSpec(
        task=task.name,
        task_version=task.version,
        selection=select([sample.id for sample in task.samples()], "all"),
        generator=generator.spec,
        scorers=(scorer.spec,),
    )
    with RunStore.open(folder / "run", spec) as store:
        return run(spec, task, generator, [scorer], store, options or EngineOptions(progress=False, tries=2))


def scores_in(folder: Path) -> dict[str, Score]:
    with RunStore.read(folder / "run") as store:
        return {score.sample_id: score for _, score in store.scores()}


FATES: dict[str, list[Step]] = {
    "s0": [Step()],
    "s1": [Step(status=429, headers={"Retry-After": "0"}), Step()],
    "s2": [Step(status=500), Step()],
    "s3": [Step(reply=good()[:40]), Step(reply="Sure! Here it comes:"), Step()],
    "s4": [Step(close=True), Step()],
    "s5": [Step(cut=True), Step()],
    "s6": [Step(reply=None, refusal="I will not look at this.")],
    "s7": [Step(status=400, error="the image is too large")],
    "s8": [Step(reply="never any JSON")],
    "s9": [Step(status=500)],
    "s10": [Step(reply=good(aesthetics=0.75))],
    "s11": [Step(body=b"<html>bad gateway</html>"), Step(reply=""), Step(finish="length")],
}
GOOD_IN_THE_END = {"s0", "s1", "s2", "s3", "s4", "s5", "s11"}


def test_every_sample_ends_scored_or_failed_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "LONE_ATTEMPT_SECONDS", 0.2)
    options = EngineOptions(progress=False, tries=2, patience=6.0)
    lock, met = threading.Lock(), Counter[str]()

    def fate(call: Call) -> Step:
        with lock:
            number = met[call.sample_id]
            met[call.sample_id] += 1
        steps = FATES[call.sample_id]
        return steps[min(number, len(steps) - 1)]

    with JudgeServer(fate) as server:
        first = evaluate(tmp_path, server.url, options=options)
        assert (first.generated, first.scored + first.score_failed) == (12, 12)
        scores = scores_in(tmp_path)
        assert {name for name, score in scores.items() if score.status is ScoreStatus.OK} == GOOD_IN_THE_END
        for name, words in {
            "s6": "I will not look", "s7": "too large", "s8": "JSON", "s9": "500", "s10": "aesthetics"
        }.items():  # fmt: skip
            assert scores[name].status is ScoreStatus.FAILED and words in scores[name].strict.reason, name
            assert not scores[name].strict.values
        assert scores["s10"].lenient is not None and scores["s10"].lenient.values["aesthetics"] == 0.75
        before = Counter(call.sample_id for call in server.calls)
        second = evaluate(tmp_path, server.url, options=options)
        after = Counter(call.sample_id for call in server.calls)
    assert second.generated == 0
    assert {name for name in after if after[name] > before[name]} == set(FATES) - GOOD_IN_THE_END


def test_a_repeated_run_makes_no_call(tmp_path: Path) -> None:
    with JudgeServer() as server:
        evaluate(tmp_path, server.url)
        calls_before = len(server.calls)
        again = evaluate(tmp_path, server.url)
    assert (calls_before, len(server.calls), again.score_cached) == (12, 12, 12)


def test_speed_and_prices_are_not_part_of_the_key_but_the_decoding_is(tmp_path: Path) -> None:
    with JudgeServer() as server:
        evaluate(tmp_path, server.url, count=3)
        evaluate(tmp_path, server.url, count=3, concurrency=2, timeout=50, price_in=1, price_out=2)
        assert len(server.calls) == 3
        evaluate(tmp_path, server.url, count=3, temperature=0.5)
        assert len(server.calls) == 6


def test_the_charges_of_the_server_never_exceed_the_budget(tmp_path: Path) -> None:
    def fate(call: Call) -> Step:
        return Step(reply="no JSON" if call.number % 3 == 0 else good(), tokens=(2500, 300), delay=0.05)

    budget = 0.35
    with JudgeServer(fate, price=(2.0, 8.0)) as server:
        options = EngineOptions(progress=False, tries=2, budget=budget, concurrency=12)
        outcome = evaluate(tmp_path, server.url, 64, options, price_in=2.0, price_out=8.0, max_tokens=1000)
        assert outcome.stopped == "budget"
        assert 0 < server.spent <= budget
        stored = [attempt for score in scores_in(tmp_path).values() for attempt in score.attempts]
        assert len(stored) == len(server.calls)  # every reply that was paid for is there


def test_a_budget_without_a_price_is_an_error(tmp_path: Path) -> None:
    with JudgeServer() as server:
        with pytest.raises(Exception, match="price"):
            evaluate(tmp_path, server.url, options=EngineOptions(progress=False, budget=1.0))
        assert server.calls == []


def test_the_key_is_not_in_the_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    step = Step(status=400, error=f"a malformed message of {SECRET}")
    with JudgeServer([Step(), step]) as server:
        evaluate(tmp_path, server.url, key_env="JUDGE_KEY")
        assert server.calls[0].headers["authorization"] == f"Bearer {SECRET}"
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert files and not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_a_reply_paid_for_before_a_fault_stays_in_the_record(tmp_path: Path) -> None:
    """An invalid reply, then server errors, then a valid reply: the lenient score uses the first."""
    steps = [Step(reply=good(aesthetics=0.75)), Step(status=500), Step(reply=good(aesthetics=0.5))]
    with JudgeServer(steps) as server:
        evaluate(tmp_path, server.url, count=1)
        calls_before = len(server.calls)
    score = scores_in(tmp_path)["s0"]
    assert score.status is ScoreStatus.OK and calls_before == 3
    assert [bool(attempt.reply) for attempt in score.attempts] == [True, False, True]
    assert score.strict.values["aesthetics"] == 0.5
    assert score.lenient is not None and score.lenient.values["aesthetics"] == 0.75


def test_replies_of_a_failed_attempt_are_stored_and_counted(tmp_path: Path) -> None:
    def fate(call: Call) -> Step:
        return Step(reply="no JSON", tokens=(100, 10)) if call.number % 2 == 0 else Step(status=500)

    with JudgeServer(fate) as server:
        evaluate(tmp_path, server.url, count=1, price_in=1.0, price_out=1.0)
        calls_before = len(server.calls)
    score = scores_in(tmp_path)["s0"]
    assert score.status is ScoreStatus.FAILED
    assert len(score.attempts) == calls_before
    paid = sum(attempt.reply == "no JSON" for attempt in score.attempts)
    assert paid >= 1 and score.usage.input_tokens == 100 * paid
    assert score.usage.cost == pytest.approx(110e-6 * paid)


def test_concurrency_and_schema_support_are_noted(tmp_path: Path) -> None:
    """The run records changes of the concurrency, rejected schemas, and which replies were cached."""
    refused = Step(status=400, error="Unknown field response_format")
    plain = itertools.count()

    def script(call: Call) -> Step:
        if "response_format" in call.body:
            return refused
        return Step(status=429, headers={"Retry-After": "0"}) if next(plain) == 10 else Step(delay=0.02)

    with JudgeServer(script) as server:
        evaluate(tmp_path, server.url, count=40, cache=True)
        assert {score.status for score in scores_in(tmp_path).values()} == {ScoreStatus.OK}
        first = len(server.calls)
        with RunStore.read(tmp_path / "run") as store:
            paces = [(who, data["at_once"], data["why"]) for who, _, data in store.notes("pace")]
            schemas = [data["refused"] for _, _, data in store.notes("decoding")]
        assert paces[0] == ("vlm:any", 16, "start")
        assert any("busy" in why for _, _, why in paces)
        assert schemas and all("response_format" in body for body in schemas)
        (tmp_path / "again").mkdir()
        shutil.copy(tmp_path / "truth.png", tmp_path / "again")
        evaluate(tmp_path / "again", server.url, count=40, cache=True)
        assert len(server.calls) == first  # the refused schema was remembered, and every reply was cached
    assert all(score.attempts[0].cached for score in scores_in(tmp_path / "again").values())


def test_no_sample_waits_forever_after_exhausted_retries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both calls in flight end with 429 at different times, while four others wait."""
    monkeypatch.setattr(VlmJudge, "deadline", 20.0)  # a score that waits in vain fails then
    refused: set[str] = set()

    def fate(call: Call) -> Step:
        if call.number > 1:
            return Step()
        refused.add(call.sample_id)
        wait = {"retry-after-ms": str(200 * (call.number + 1))}
        return Step(status=429, headers=wait, delay=0.3 * (call.number + 1))

    with JudgeServer(fate) as server:
        outcome = evaluate(tmp_path, server.url, 6, EngineOptions(progress=False, tries=1), concurrency=2)
    scores = scores_in(tmp_path)
    assert len(scores) == 6 and len(refused) == 2 and not outcome.stopped
    assert {name for name, score in scores.items() if score.status is ScoreStatus.OK} >= set(scores) - refused
    assert all("429" in score.strict.reason for score in scores.values() if score.status is ScoreStatus.FAILED)


def with_usage(**usage: Any) -> Step:
    """Return a valid reply that is billed at 2,500 input and 700 output tokens and reports other counts."""
    message = {"role": "assistant", "content": good()}
    chat = {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    return Step(body=json.dumps(chat).encode(), tokens=(2500, 700))


@pytest.mark.parametrize("output", ["700", 700.5, None, -700])
def test_an_incomplete_usage_keeps_the_reservation(tmp_path: Path, output: Any) -> None:
    budget = 0.1
    step = with_usage(prompt_tokens=2500, completion_tokens=output)
    with JudgeServer([step], price=(2.0, 8.0)) as server:
        options = EngineOptions(progress=False, tries=2, budget=budget, concurrency=4)
        outcome = evaluate(tmp_path, server.url, 16, options, price_in=2.0, price_out=8.0, max_tokens=1000)
        assert outcome.stopped == "budget"
        assert 0 < server.spent <= budget
    with RunStore.read(tmp_path / "run") as store:
        assert server.spent <= store.spent() <= budget


def test_a_call_that_costs_more_than_its_reservation_counts_in_full_and_ends_a_run_beyond_its_budget(
    tmp_path: Path,
) -> None:
    step = with_usage(prompt_tokens=2500, completion_tokens=100_000)
    with JudgeServer([step]) as server:
        options = EngineOptions(progress=False, tries=2, budget=0.5, concurrency=1)
        outcome = evaluate(
            tmp_path, server.url, 8, options, price_in=2.0, price_out=8.0, max_tokens=1000, concurrency=1
        )
        assert outcome.stopped == "budget" and len(server.calls) == 1
    with RunStore.read(tmp_path / "run") as store:
        assert store.spent() == pytest.approx(2500 * 2e-6 + 100_000 * 8e-6)
