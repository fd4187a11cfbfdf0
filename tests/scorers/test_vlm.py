"""The scorer `vlm` with a server on this machine: requests, replies, errors and costs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import (
    AccountError,
    BudgetReachedError,
    ConfigError,
    TransientError,
    UnscorableError,
    UsageError,
)
from knowgen.core.metering import current_meter
from knowgen.core.records import (
    DIMENSIONS,
    Attempt,
    Generation,
    GenerationStatus,
    GroundTruth,
    Sample,
    Score,
    ScoreStatus,
    Usage,
)
from knowgen.scorers.contract import failed_score, scorer_capabilities, with_earlier
from knowgen.scorers.vlm.judge import VlmJudge
from knowgen.scorers.vlm.rubric import system_prompt, user_text
from tests.helpers.images import save_image
from tests.helpers.judge_server import JudgeServer, Script, Step, good

PROMPT = "A crest of the Ægir rowing club beside the words “FOUNDED 1907”.\nSecond line, {braces} and all."
SECRET = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def item(tmp_path: Path) -> tuple[Sample, GroundTruth, Generation]:
    sample = Sample(id="sample-7", prompt=PROMPT, category="sports", text_required=True)
    truth = GroundTruth(sample_id="sample-7", image=save_image(tmp_path / "truth.png", (120, 90), "blue"))
    generation = Generation(
        sample_id="sample-7",
        repeat=2,
        status=GenerationStatus.OK,
        image=save_image(tmp_path / "generated.png", (64, 48), "red"),
        used_prompt="a rewritten prompt the judge must not see",
    )
    return sample, truth, generation


Item = tuple[Sample, GroundTruth, Generation]


def score_with(script: Script, item: Item, **args: Any) -> tuple[Score, JudgeServer]:
    async def go(judge: VlmJudge) -> Score:
        try:
            return await judge.score(*item)
        finally:
            await judge.close()

    with JudgeServer(script) as server:
        return asyncio.run(go(VlmJudge("any-judge", base_url=server.url, **args))), server


def passing(script: Script, item: Item, **args: Any) -> TransientError:
    with pytest.raises(TransientError) as caught:
        score_with(script, item, **args)
    return caught.value


# ------------------------------------------------------------------------------------------------------ what is sent


def test_the_request_contains_rubric_prompt_and_images(item: Item) -> None:
    score, server = score_with([Step()], item, temperature=0.25, max_tokens=777)
    (call,) = server.calls
    assert call.path == "/v1/chat/completions"
    assert (call.body["model"], call.body["temperature"], call.body["max_tokens"]) == ("any-judge", 0.25, 777)
    assert [message["role"] for message in call.body["messages"]] == ["system", "user"]
    assert call.system == system_prompt()
    assert [part["type"] for part in call.parts] == ["text", "image_url", "image_url"]
    assert "Sample id: sample-7" in call.text.splitlines()
    assert PROMPT in call.text
    assert "rewritten" not in json.dumps(call.body)
    generated, truth = call.images
    assert (generated.format, generated.size, truth.format, truth.size) == ("JPEG", (64, 48), "JPEG", (120, 90))
    red, blue = (image.convert("RGB").getpixel((5, 5)) for image in (generated, truth))
    assert isinstance(red, tuple) and isinstance(blue, tuple)
    assert red[0] > 200 > red[2] and blue[2] > 200 > blue[0]
    digests = [hashlib.sha256(data).hexdigest() for data in call.image_bytes]
    assert score.details["pictures"] == {"generated": digests[0], "truth": digests[1]}
    texts = [call.system, *(user_text("{sample_id}", "{prompt}", required) for required in (None, True, False))]
    assert score.details["rubric_hash"] == hashlib.sha256("\0".join(texts).encode()).hexdigest()
    assert "category" not in call.text and "sports" not in call.text


def test_a_score_records_every_attempt(item: Item) -> None:
    score, _ = score_with([Step()], item, price_in=2.0, price_out=8.0)
    assert score.status is ScoreStatus.OK
    assert score.strict.values == {
        "faithfulness": 1.0, "visual_correctness": 0.5, "text_accuracy": 1.0, "aesthetics": 0.5
    }  # fmt: skip
    assert score.lenient is not None and score.lenient.values == score.strict.values
    (attempt,) = score.attempts
    assert attempt.reply == good() and attempt.error == "" and attempt.finish_reason == "stop"
    assert (score.judge_asked, score.judge_returned) == ("any-judge", "judge-2026-01-01")
    assert (score.sample_id, score.repeat, score.image) == ("sample-7", 2, item[2].image.sha256)  # type: ignore[union-attr]
    assert (score.usage.input_tokens, score.usage.output_tokens) == (1000, 100)
    assert score.usage.cost == pytest.approx(1000 * 2e-6 + 100 * 8e-6)
    assert Score.model_validate_json(score.model_dump_json()) == score


def test_the_request_says_whether_text_is_required(item: Item) -> None:
    sample, truth, generation = item
    for required, reply, words in (
        (True, good(), "asks for written text"),
        (False, good(text_accuracy=None, text_accuracy_na=True), "asks for no written text"),
        (None, good(text_accuracy=None, text_accuracy_na=True), ""),
    ):
        settled = sample.model_copy(update={"text_required": required})
        score, server = score_with([Step(reply=reply)], (settled, truth, generation))
        assert score.status is ScoreStatus.OK and len(server.calls) == 1
        lines = [line for line in server.calls[0].text.splitlines() if "The prompt asks for" in line]
        assert len(lines) == (0 if required is None else 1)
        assert all(words in line for line in lines)


# ----------------------------------------------------------------------------------------- replies off the contract


@pytest.mark.parametrize(
    ("reply", "lines", "official"),
    [
        (good(faithfulness=0.7), "faithfulness", 0.7),
        (good(faithfulness="0.5"), "faithfulness", 0.5),
        (good(faithfulness=None), "faithfulness", None),
        (f"My verdict: {good()}", "one JSON object", 1.0),
        (good()[:-20], "JSON", "again"),
        ("", "empty", "again"),
        (None, "empty", "again"),
        ("[]", "object", "again"),
        (good(text_accuracy_na=True), "must be false", 1.0),
    ],
)
def test_a_reply_that_breaks_the_contract_is_requested_again_with_the_fault(
    item: Item, reply: str | None, lines: str, official: float | str | None
) -> None:
    score, server = score_with([Step(reply=reply), Step(reply=good(faithfulness=0))], item)
    first, second = server.calls
    assert "earlier reply" not in first.text
    assert lines in second.text.rpartition("earlier reply")[2]
    assert [part["type"] for part in second.parts] == ["text", "image_url", "image_url"]
    assert score.strict.values["faithfulness"] == 0.0 and score.status is ScoreStatus.OK
    assert score.lenient is not None
    if official == "again":
        assert score.lenient.values == score.strict.values
    elif official is None:
        assert score.lenient.status is ScoreStatus.FAILED
    else:
        assert score.lenient.values["faithfulness"] == official
    assert [bool(attempt.error) for attempt in score.attempts] == [True, False]
    assert score.usage.input_tokens == 2000


def test_a_judge_that_never_meets_the_contract_fails_strictly_only(item: Item) -> None:
    score, server = score_with(
        [Step(reply="no"), Step(reply=good(aesthetics=0.9)), Step(reply=good(aesthetics=0.8))], item
    )
    assert len(server.calls) == 4
    assert score.status is ScoreStatus.FAILED
    assert "aesthetics" in score.strict.reason and "0.8" in score.strict.reason
    assert score.lenient is not None and score.lenient.values["aesthetics"] == 0.9
    assert [attempt.reply for attempt in score.attempts][:2] == ["no", good(aesthetics=0.9)]


def test_unparsable_replies_fail_strictly_and_leniently(item: Item) -> None:
    score, server = score_with([Step(reply="Nice image!")], item, attempts=2)
    assert len(server.calls) == 2
    assert score.lenient is not None
    assert (score.strict.status, score.lenient.status) == (ScoreStatus.FAILED, ScoreStatus.FAILED)
    assert "JSON" in score.strict.reason and not score.strict.values and not score.lenient.values


def test_a_score_whose_calls_took_too_long_gets_no_further_call(item: Item) -> None:
    score, server = score_with([Step(reply="no", delay=0.4)], item, attempts=50, timeout=1.0)
    assert score.status is ScoreStatus.FAILED and len(server.calls) == len(score.attempts) == 3


def test_a_cut_off_reply_is_requested_again_in_a_shorter_form(item: Item) -> None:
    _, server = score_with([Step(reply=good()[:30], finish="length"), Step()], item)
    assert "too long" in server.calls[1].text


@pytest.mark.parametrize(
    "step",
    [
        Step(reply=None, refusal="I won't compare these."),
        Step(reply=None, finish="content_filter"),
        Step(reply="", finish="content_filter"),
        Step(reply=good(), refusal="I won't compare these."),
        Step(reply=good(), finish="content_filter"),
        Step(reply=good(), finish="SAFETY"),
        Step(reply=good(), finish="PROHIBITED_CONTENT"),
    ],
)
def test_a_refusal_is_a_failed_score_with_its_text_and_is_not_requested_again(item: Item, step: Step) -> None:
    score, server = score_with([step], item)
    assert len(server.calls) == 1
    assert score.status is ScoreStatus.FAILED
    assert score.strict.reason.startswith("the judge refused: ")
    assert ("I won't compare these." if step.refusal else "content filter") in score.strict.reason
    assert not score.strict.values
    assert score.lenient == score.strict
    (attempt,) = score.attempts
    assert attempt.refused and attempt.reply == (step.reply or "") and attempt.usage.input_tokens == 1000


def test_a_refusal_in_a_part_of_the_content_is_recognised(item: Item) -> None:
    parts = [{"type": "text", "text": good()}, {"type": "refusal", "refusal": "I won't."}]
    message = {"role": "assistant", "content": parts}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
    score, server = score_with([Step(body=body)], item)
    assert len(server.calls) == 1 and score.strict.reason == "the judge refused: I won't."


def test_the_official_protocol_uses_an_earlier_reply_that_was_not_refused(item: Item) -> None:
    """The official evaluator would have accepted the first reply."""
    score, server = score_with([Step(reply=good(aesthetics=0.9)), Step(finish="content_filter")], item)
    assert len(server.calls) == 2
    assert score.status is ScoreStatus.FAILED and score.strict.reason.startswith("the judge refused: ")
    assert score.lenient is not None and score.lenient.values["aesthetics"] == 0.9


def test_a_stored_refusal_stays_a_refusal_when_its_sample_is_scored_again(item: Item) -> None:
    refused, _ = score_with([Step(reply=good(aesthetics=0), finish="content_filter")], item)
    later, _ = score_with([Step(reply=good(aesthetics=1))], item)
    stored = Score.model_validate_json(refused.model_dump_json())
    whole = with_earlier(scorer_capabilities(VlmJudge), later, item[0], stored.attempts)
    assert len(whole.attempts) == 2
    assert whole.strict.values["aesthetics"] == 1
    assert whole.lenient is not None and whole.lenient.values["aesthetics"] == 1


# ------------------------------------------------------------------------------------------------- faults on the way


@pytest.mark.parametrize("status", [400, 422])
def test_a_rejection_is_a_failed_score(item: Item, status: int) -> None:
    score, server = score_with([Step(status=status, error="a malformed message")], item)
    assert len(server.calls) == 2  # once more without the schema
    assert score.status is ScoreStatus.FAILED
    assert score.strict.reason == f"the endpoint answered {status} error: a malformed message"
    assert len(score.attempts) == 1


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422])
def test_an_unknown_model_is_an_error_of_the_account(item: Item, status: int) -> None:
    with pytest.raises(AccountError, match="model 'x' does not exist") as caught:
        score_with([Step(status=status, error="The model 'x' does not exist")], item)
    assert [attempt.usage.cost for attempt in caught.value.attempts] in ([None], [0.0])


def test_an_exhausted_quota_is_an_error_of_the_account(item: Item) -> None:
    with pytest.raises(AccountError, match="no money"):
        score_with([Step(status=429, code="insufficient_quota", error="no money")], item)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_busy_and_failing_servers_are_transient_errors(item: Item, status: int) -> None:
    error = passing([Step(status=status)], item)
    assert str(status) in str(error) and error.retry_after is None
    assert [attempt.error for attempt in error.attempts] == [str(error)]


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"Retry-After": "7"}, 7, 7),
        ({"Retry-After": "0.5"}, 0.5, 0.5),
        ({"retry-after-ms": "1500"}, 1.5, 1.5),
        ({"Retry-After": formatdate(0, usegmt=True)}, 0, 0),
    ],
)
def test_the_stated_wait_is_used(item: Item, headers: dict[str, str], low: float, high: float) -> None:
    error = passing([Step(status=429, headers=headers)], item)
    assert error.retry_after is not None and low <= error.retry_after <= high


def test_a_stated_date_is_a_wait_until_then(item: Item) -> None:
    before = time.time()
    step = Step(status=429, headers={"Retry-After": formatdate(before + 3600, usegmt=True)})
    wait = passing([step], item).retry_after
    assert wait is not None and 3599 - (time.time() - before) <= wait <= 3600  # a date has whole seconds


@pytest.mark.parametrize("wait", ["soon", "-", "1.2.3", "9" * 400])
def test_an_invalid_wait_is_ignored(item: Item, wait: str) -> None:
    assert passing([Step(status=503, headers={"Retry-After": wait})], item).retry_after is None


@pytest.mark.parametrize(
    "step",
    [
        Step(close=True),
        Step(cut=True),
        Step(body=b"<html>gateway</html>"),
        Step(body=b"<html>gateway</html>", headers={"Content-Type": "text/html"}),
        Step(body=b"[1]"),
        Step(body=b'{"choices": []}'),
        Step(body=b'{"error": {"message": "upstream is down", "code": 503}}'),
        Step(body=b"\xff\xfe"),
        Step(body=b""),
    ],
    ids=lambda step: repr(step.body) if step.body is not None else "close" if step.close else "cut",
)
def test_a_lost_answer_is_a_transient_error(item: Item, step: Step) -> None:
    error = passing([step], item)
    assert len(error.attempts) == 1 and error.attempts[0].error


def test_a_timeout_is_a_transient_error(item: Item) -> None:
    error = passing([Step(delay=30)], item, timeout=0.2)
    assert "0.2 s" in str(error)


def test_an_unreachable_server_is_a_transient_error(item: Item) -> None:
    with JudgeServer() as server:
        url = server.url
    with pytest.raises(TransientError, match="cannot be reached"):
        asyncio.run(VlmJudge("any", base_url=url).score(*item))


def test_a_reply_before_a_transient_error_is_stored(item: Item) -> None:
    """The first attempt gets an invalid reply and then a transient error; the second succeeds."""
    off = good(aesthetics=0.9)
    error = passing([Step(reply=off), Step(status=500)], item)
    assert [attempt.reply for attempt in error.attempts] == [off, ""]
    later, _ = score_with([Step()], item)
    whole = with_earlier(scorer_capabilities(VlmJudge), later, item[0], error.attempts)
    assert len(whole.attempts) == 3 and whole.usage.input_tokens == 2000
    assert whole.strict == later.strict
    assert whole.lenient is not None and whole.lenient.values["aesthetics"] == 0.9


def test_when_every_attempt_fails_the_official_protocol_uses_the_first_readable_reply(item: Item) -> None:
    off = good(aesthetics=0.9)
    error = passing([Step(reply=off), Step(status=500)], item)
    given_up = failed_score(item[0].id, 2, "vlm:any", "gave up after 4 tries")
    whole = with_earlier(scorer_capabilities(VlmJudge), given_up, item[0], error.attempts)
    assert (whole.status, whole.strict.reason) == (ScoreStatus.FAILED, "gave up after 4 tries")
    assert whole.lenient is not None and whole.lenient.values["aesthetics"] == 0.9


def test_a_stored_reply_that_meets_the_contract_is_not_requested_again(item: Item) -> None:
    """A run was interrupted after a valid reply."""
    given_up = failed_score(item[0].id, 2, "vlm:any", "no result in time")
    whole = with_earlier(scorer_capabilities(VlmJudge), given_up, item[0], (Attempt(reply=good(), model="m"),))
    assert (whole.status, whole.judge_returned) == (ScoreStatus.OK, "m")


def test_earlier_attempts_are_stored_for_a_scorer_that_parses_differently(item: Item) -> None:
    class Other:
        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            raise NotImplementedError

    later, _ = score_with([Step()], item)
    earlier = (Attempt(error="429"), Attempt(reply=good(aesthetics=0), usage=Usage(input_tokens=5, cost=0.5)))
    whole = with_earlier(scorer_capabilities(Other), later, item[0], earlier)
    assert [attempt.error for attempt in whole.attempts] == ["429", "", ""]
    assert whole.strict == later.strict and whole.usage == Usage(input_tokens=1005, output_tokens=100, cost=0.5)
    assert with_earlier(scorer_capabilities(Other), later, item[0], ()) is later


@pytest.mark.parametrize("which", ["missing", "truncated", "text"])
def test_an_image_that_does_not_open_is_not_sent(item: Item, which: str) -> None:
    sample, truth, generation = item
    path = truth.image.path  # type: ignore[union-attr]
    assert path is not None
    if which == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:60] if which == "truncated" else b"not an image")
    with JudgeServer() as server, pytest.raises(UnscorableError, match="ground truth does not open"):
        asyncio.run(VlmJudge("any", base_url=server.url).score(sample, truth, generation))
    assert server.calls == []


def test_parts_and_missing_fields_of_other_servers_are_accepted(item: Item) -> None:
    body = {"choices": [{"message": {"content": [{"type": "text", "text": good()}]}}]}
    score, _ = score_with([Step(body=json.dumps(body).encode())], item)
    assert score.status is ScoreStatus.OK and score.judge_returned == "" and score.attempts[0].finish_reason == ""


def test_many_samples_are_scored_concurrently(item: Item) -> None:
    async def go(judge: VlmJudge) -> list[Score]:
        return list(await asyncio.gather(*(judge.score(*item) for _ in range(24))))

    with JudgeServer([Step(delay=0.3)]) as server:
        scores = asyncio.run(go(VlmJudge("any", base_url=server.url)))
    assert {score.status for score in scores} == {ScoreStatus.OK}
    assert server.max_in_flight > 8


def test_a_judge_outlives_its_event_loop(item: Item) -> None:
    with JudgeServer() as server:
        judge = VlmJudge("any", base_url=server.url)
        for _ in range(2):
            assert asyncio.run(judge.score(*item)).status is ScoreStatus.OK


# ---------------------------------------------------------------------------------------------------------- money


class BudgetMeter:
    """A budget meter that records reservations and settlements, with an optional limit."""

    def __init__(self, limit: float = float("inf")) -> None:
        self.limit = limit
        self.reserved: list[float | None] = []
        self.settled: dict[int, float | None] = {}

    @property
    def spent(self) -> float:
        worst = enumerate(self.reserved)
        return sum(
            (self.settled.get(number) if self.settled.get(number) is not None else cost) or 0 for number, cost in worst
        )

    async def reserve(self, worst_case: float | None, who: str) -> int:
        if self.spent + (worst_case or 0) > self.limit:
            raise BudgetReachedError("the budget admits no further call")
        self.reserved.append(worst_case)
        return len(self.reserved) - 1

    async def settle(self, number: int, cost: float | None) -> None:
        self.settled[number] = cost


def metered(script: Script, item: Item, meter: BudgetMeter, **args: Any) -> tuple[Score | TransientError, JudgeServer]:
    async def go(judge: VlmJudge) -> Score | TransientError:
        current_meter.set(meter)
        try:
            return await judge.score(*item)
        except TransientError as error:
            return error

    prices = {"price_in": 2.0, "price_out": 8.0} | args
    with JudgeServer(script, price=(2.0, 8.0)) as server:
        return asyncio.run(go(VlmJudge("any", base_url=server.url, **prices))), server


def test_each_call_reserves_its_worst_case_and_settles_to_the_real_cost(item: Item) -> None:
    meter = BudgetMeter()
    score, server = metered([Step(reply="no"), Step(tokens=(1234, 56))], item, meter, max_tokens=1000)
    assert isinstance(score, Score)
    assert len(meter.reserved) == 2
    for call, worst in zip(server.calls, meter.reserved, strict=True):
        words = len((call.system + call.text).encode())
        assert worst is not None and worst >= (words + 2 * 1500) * 2e-6 + 1000 * 8e-6
    assert meter.settled[1] == pytest.approx(1234 * 2e-6 + 56 * 8e-6)
    assert score.usage.cost == pytest.approx(meter.spent) == pytest.approx(server.spent)


@pytest.mark.parametrize(
    ("step", "billed"),
    [
        (Step(status=429), False), (Step(status=500), False), (Step(status=503), False),
        (Step(status=400), False),
        (Step(status=504, billed=True), True), (Step(close=True), True), (Step(cut=True), True),
        (Step(delay=30), True), (Step(body=b"<html>"), True), (Step(tokens=None), True),
    ],
)  # fmt: skip
def test_a_call_that_may_have_been_billed_counts_at_its_worst_case(item: Item, step: Step, billed: bool) -> None:
    meter = BudgetMeter()
    outcome, server = metered([step], item, meter, timeout=1.0, schema="off")
    (worst,) = meter.reserved
    assert meter.settled == {0: None if billed else 0.0}
    (attempt,) = outcome.attempts
    assert attempt.usage.cost == (worst if billed else 0.0)
    assert server.spent <= meter.spent


def test_a_call_that_was_not_sent_costs_nothing(item: Item) -> None:
    async def go(judge: VlmJudge) -> None:
        current_meter.set(meter)
        await judge.score(*item)

    meter = BudgetMeter()
    with JudgeServer() as server:
        url = server.url
    with pytest.raises(TransientError):
        asyncio.run(go(VlmJudge("any", base_url=url, price_in=1, price_out=1)))
    assert meter.settled == {0: 0.0}


def test_the_budget_ends_a_conversation_without_losing_what_was_paid(item: Item) -> None:
    worst = BudgetMeter()
    metered([Step()], item, worst)
    meter = BudgetMeter(limit=(worst.reserved[0] or 0) * 1.01)
    score, server = metered([Step(reply=good(aesthetics=0.9), tokens=(9000, 500))], item, meter)
    assert isinstance(score, Score) and len(server.calls) == 1
    assert score.status is ScoreStatus.FAILED and "aesthetics" in score.strict.reason
    assert score.lenient is not None and score.lenient.values["aesthetics"] == 0.9
    with pytest.raises(BudgetReachedError):
        metered([Step()], item, BudgetMeter(limit=0.0))


@pytest.mark.parametrize(
    ("prices", "worst", "cost"),
    [
        ({}, None, None),
        ({"price_call": 0}, 0.0, 0.0),
        ({"price_call": 0.01}, 0.01, 0.01),
        ({"price_in": 0, "price_out": 0}, 0.0, 0.0),
    ],
)
def test_the_cost_follows_the_given_prices(
    item: Item, prices: dict[str, float], worst: float | None, cost: float | None
) -> None:
    meter = BudgetMeter()
    score, _ = metered([Step()], item, meter, **({"price_in": None, "price_out": None} | prices))
    assert isinstance(score, Score)
    assert (meter.reserved, score.usage.cost) == ([worst], cost)


# -------------------------------------------------------------------------------------------------------- secrets


def test_a_missing_key_is_one_line_with_the_command_to_set_it() -> None:
    with pytest.raises(ConfigError, match="export OPENAI_API_KEY=") as caught:
        VlmJudge("gpt-4.1")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="export OTHER_KEY="):
        VlmJudge("m", base_url="https://example.org/v1", key_env="OTHER_KEY")


def test_a_key_given_as_a_name_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match="name of an environment variable") as caught:
        VlmJudge("m", key_env=SECRET)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url", [f"http://me:{SECRET}@127.0.0.1/v1", f"https://example.org/v1?api_key={SECRET}", f"ftp://me:{SECRET}@x/"]
)
def test_a_secret_in_the_url_is_rejected(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        VlmJudge("m", base_url=url)
    assert SECRET not in str(caught.value)


def test_the_key_is_sent_and_never_shown(
    item: Item, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    script = [
        Step(reply=f"your key is {SECRET}"),
        Step(status=400, error=f"a malformed message of {SECRET} or sk-test****cdef."),
    ]
    score, server = score_with(script, item, key_env="JUDGE_KEY")
    assert {call.headers["authorization"] for call in server.calls} == {f"Bearer {SECRET}"}
    for shown in (score.model_dump_json(), caplog.text, repr(score)):
        assert SECRET not in shown and "sk-test" not in shown
    assert "[key]" in score.strict.reason
    judge = VlmJudge("m", base_url=server.url, key_env="JUDGE_KEY")
    assert SECRET not in repr(judge.endpoint) and SECRET not in repr(judge)


def test_a_local_server_does_not_receive_the_key_of_another_service(
    item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    _, server = score_with([Step()], item)
    assert SECRET not in json.dumps(server.calls[0].headers)


def test_the_environment_cannot_move_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert VlmJudge("gpt-4.1").endpoint.base_url == "https://api.openai.com/v1"


# -------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    "args",
    [
        {"model": ""}, {"attempts": 0}, {"attempts": "4"}, {"max_tokens": 0}, {"temperature": 3}, {"temperature": "0"},
        {"timeout": 0}, {"timeout": float("inf")}, {"concurrency": 0}, {"price_in": 1}, {"price_out": 1},
        {"price_call": -1}, {"price_in": float("nan"), "price_out": 1}, {"price_call": "0"},
        {"base_url": "127.0.0.1:80/v1"}, {"base_url": "ftp://127.0.0.1/"}, {"base_url": "http://"},
    ],
)  # fmt: skip
def test_invalid_arguments_are_rejected(args: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        VlmJudge(**({"model": "m", "base_url": "http://127.0.0.1/v1"} | args))


@pytest.mark.parametrize("url", ["ftp://x/", "127.0.0.1:80", "http://", "http://[::1"])
def test_an_invalid_url_is_not_repeated_in_the_error(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        VlmJudge("org/model", base_url=url)
    assert str(caught.value) == (
        "scorer vlm:org/model: base_url is not an http address; write base_url=http://HOST:PORT/v1"
    )


def test_the_declared_capabilities() -> None:
    traits = scorer_capabilities(VlmJudge)
    assert traits.shape == "score" and traits.needs == {"image", "truth_image"}
    assert traits.dimensions == DIMENSIONS and traits.note == "" and traits.version
    assert scorer_capabilities(VlmJudge("m", base_url="http://localhost:1", concurrency=3)).concurrency == 3
