"""Judges as vendors serve them today: parameters that are not taken, reasoning, small contexts, limits on images."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knowgen.core.errors import ConfigError, ServiceUnavailableError
from knowgen.core.metering import current_meter
from knowgen.core.records import (
    Generation,
    GenerationStatus,
    GroundTruth,
    ImageRef,
    Sample,
    Score,
    ScoreStatus,
    image_ref,
)
from knowgen.scorers.vlm.judge import VlmJudge
from tests.helpers.images import save_image
from tests.helpers.judge_server import Call, JudgeServer, Script, Step, good

Item = tuple[Sample, GroundTruth, Generation]
WORDS = "Only the default (1) value is supported."


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def shared_cache(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep encoded images between tests, so that each is encoded by a worker process once."""
    monkeypatch.setenv("KNOWGEN_CACHE", str(caches))


@pytest.fixture
def item(tmp_path: Path) -> Item:
    truth = GroundTruth(sample_id="s", image=save_image(tmp_path / "truth.png", (120, 90), "blue"))
    image = save_image(tmp_path / "generated.png", (64, 48), "red")
    generation = Generation(sample_id="s", status=GenerationStatus.OK, image=image)
    return Sample(id="s", prompt="A red boat", text_required=True), truth, generation


class Notes:
    """A meter without limit that keeps the notes of a run."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, dict[str, Any]]] = []

    def note(self, caller: str, kind: str, data: dict[str, Any]) -> None:
        self.notes.append((kind, data))

    async def reserve(self, worst_case: float | None, caller: str) -> int:
        return 0

    async def settle(self, number: int, cost: float | None) -> None:
        """Keep nothing."""

    @property
    def decoding(self) -> list[dict[str, Any]]:
        return [data for kind, data in self.notes if kind == "decoding"]


def scores(script: Script, item: Item, count: int = 1, notes: Notes | None = None, **args: Any) -> tuple[
    list[Score], JudgeServer
]:  # fmt: skip
    """Score a sample several times, with one judge, one after the other; each is another judge repeat to the server."""

    async def go(judge: VlmJudge) -> list[Score]:
        current_meter.set(notes)
        try:
            return [await judge.score(*item) for _ in range(count)]
        finally:
            await judge.close()

    with JudgeServer(script) as server:
        return asyncio.run(go(VlmJudge("judge", base_url=server.url, **{"cache": False, **args}))), server


def refusal(message: str, param: str | None = None, code: str | None = None, status: int = 400) -> Step:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Step(status=status, body=json.dumps({"error": error}).encode())


def reasoning_model(call: Call) -> Step:
    """Answer as OpenAI's reasoning models do, one refusal at a time."""
    if "max_tokens" in call.body:
        words = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return refusal(words, "max_tokens", "unsupported_parameter")
    if call.body.get("temperature", 1) != 1:
        words = f"Unsupported value: 'temperature' does not support 0.0 with this model. {WORDS}"
        return refusal(words, "temperature", "unsupported_value")
    return Step()


def test_what_a_reasoning_model_does_not_take_is_learnt_once_and_recorded(item: Item) -> None:
    notes = Notes()
    (first, second), server = scores(reasoning_model, item, 2, notes)
    assert [score.status for score in (first, second)] == [ScoreStatus.OK] * 2
    assert len(server.calls) == 4  # two refusals, which cost nothing, then one call for each score
    last = server.calls[-1].body
    assert last["max_completion_tokens"] == 8192 and not {"temperature", "max_tokens"} & last.keys()
    changes = ["temperature not accepted", "max_tokens sent as max_completion_tokens"]
    assert first.details["decoding"] == second.details["decoding"] == changes
    assert [len(score.attempts) for score in (first, second)] == [1, 1]
    assert [note["changes"] for note in notes.decoding] == [changes]
    assert WORDS in notes.decoding[0]["refused"]


def test_another_run_finds_the_replies_without_a_call(item: Item) -> None:
    async def once(url: str) -> Score:
        judge = VlmJudge("judge", base_url=url, cache=True)
        try:
            return await judge.score(*item)
        finally:
            await judge.close()

    with JudgeServer(reasoning_model) as server:
        first = asyncio.run(once(server.url))
        called = len(server.calls)
        again = asyncio.run(once(server.url))
        assert len(server.calls) == called == 3
    assert again.attempts[0].cached and again.details["decoding"] == first.details["decoding"]


NAMES: dict[str, tuple[Callable[[Call], bool], Step]] = {
    "pydantic": (
        lambda call: "temperature" not in call.body,
        Step(status=422, body=b'{"detail": [{"loc": ["body", "temperature"], "msg": "Extra inputs not permitted"}]}'),
    ),
    "json schema": (
        lambda call: "response_format" not in call.body,
        refusal("Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
                "response_format"),
    ),
    "json schema, not named": (lambda call: "response_format" not in call.body, refusal("bad request")),
    "json schema, 500": (lambda call: "response_format" not in call.body, Step(status=500, error="")),
}  # fmt: skip


@pytest.mark.parametrize("case", list(NAMES))
def test_other_servers_say_it_in_other_words(item: Item, case: str) -> None:
    takes, step = NAMES[case]
    (score,), server = scores(lambda call: Step() if takes(call) else step, item)
    assert score.status is ScoreStatus.OK and len(server.calls) == 2
    assert len(score.details["decoding"]) == 1 and "not accepted" in score.details["decoding"][0]


def test_a_server_error_is_tried_once_without_the_schema_and_learnt_from_when_it_happens_again(item: Item) -> None:
    takes, step = NAMES["json schema, 500"]
    many, server = scores(lambda call: Step() if takes(call) else step, item, 4)
    assert {score.status for score in many} == {ScoreStatus.OK}
    assert len(server.calls) == 2 + 2 + 1 + 1
    with pytest.raises(ServiceUnavailableError) as caught:
        scores([Step(status=500)], item)
    assert not caught.value.busy and len(caught.value.attempts) == 1


def test_a_server_that_has_taken_the_schema_is_not_asked_without_it(item: Item) -> None:
    seen: list[bool] = []

    def recorded(call: Call) -> Step:
        seen.append("response_format" in call.body)
        return Step() if call.number == 0 else Step(status=500)

    with pytest.raises(ServiceUnavailableError):
        scores(recorded, item, 2)
    assert seen == [True, True]


def test_a_schema_that_the_user_asked_for_is_not_left_out(item: Item) -> None:
    (score,), server = scores([refusal("response_format is not supported", "response_format")], item, schema="on")
    assert score.status is ScoreStatus.FAILED and len(server.calls) == 1


# ------------------------------------------------------------------------------------------------------------ lengths

LIMITS = {
    "vllm, older": "This model's maximum context length is {context} tokens. However, you requested {total} tokens "
    "({prompt} in the messages, {limit} in the completion). Please reduce the length of the messages or completion.",
    "vllm": "'max_tokens' or 'max_completion_tokens' is too large: {limit}. This model's maximum context length is "
    "{context} tokens and your request has {prompt} input tokens ({limit} > {context} - {prompt}).",
    "vllm, newer": "This model's maximum context length is {context} tokens. However, you requested {limit} output "
    "tokens and your prompt contains at least {least} input tokens, for a total of at least {more} tokens.",
    "sglang": "Requested token count exceeds the model's maximum context length of {context} tokens. You requested a "
    "total of {total} tokens: {prompt} tokens from the input messages and {limit} tokens for the completion.",
    "tgi": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= {context}. Given: {prompt} `inputs` "
    "tokens and {limit} `max_new_tokens`",
}


def small_context(words: str, prompt: int = 5000, context: int = 8192) -> Callable[[Call], Step]:
    def answer(call: Call) -> Step:
        limit = call.body["max_tokens"]
        if prompt + limit <= context:
            return Step()
        least, more = context + 1 - limit, context + 1
        facts = {"context": context, "prompt": prompt, "limit": limit, "total": prompt + limit}
        return refusal(words.format(**facts, least=least, more=more))

    return answer


@pytest.mark.parametrize("server", list(LIMITS))
def test_max_tokens_is_fitted_to_a_small_context(item: Item, server: str) -> None:
    (score, _), served = scores(small_context(LIMITS[server]), item, 2)
    assert score.status is ScoreStatus.OK and len(served.calls) == 3
    sent = served.calls[-1].body["max_tokens"]
    assert 256 <= sent <= 8192 - 5000
    assert score.details["decoding"] == [f"max_tokens lowered from 8192 to {sent}"]


def test_a_prompt_that_leaves_no_room_says_what_to_change(item: Item) -> None:
    (score,), served = scores(small_context(LIMITS["vllm, older"], prompt=9000), item, schema="off")
    assert score.status is ScoreStatus.FAILED and len(served.calls) == 1
    assert "9000 in the messages" in score.strict.reason and "-s max_tokens=…" in score.strict.reason
    assert "-s max_side=…" in score.strict.reason


@pytest.mark.parametrize(
    "words",
    [
        "max_tokens is too large: 8192. This model supports at most 4096 completion tokens, whereas you provided 8192.",
        "`max_tokens` must be less than or equal to `4096`, the maximum value for `max_tokens` of this model",
        "Range of max_tokens should be [1, 4096]",
    ],
)
def test_max_tokens_above_the_limit_of_a_model_is_lowered(item: Item, words: str) -> None:
    def answer(call: Call) -> Step:
        return Step() if call.body["max_tokens"] <= 4096 else refusal(words, "max_tokens")

    (score,), served = scores(answer, item)
    assert score.status is ScoreStatus.OK and served.calls[-1].body["max_tokens"] == 4096


# ---------------------------------------------------------------------------------------------------------- reasoning

THOUGHTS = 'Is it {red}? A draft: {"faithfulness": 0}'
REASONING = {
    "<think>": f"<think>{THOUGHTS}</think>\n\n{good()}",
    "<thinking>": f"<thinking>\n{THOUGHTS}\n</thinking>\n```json\n{good()}\n```",
    "opened in the prompt": f"{THOUGHTS}\n</think>\n{good()}",
    "[THINK]": f"[THINK]{THOUGHTS}[/THINK]{good()}",
    "channels": f"<|channel|>analysis<|message|>{THOUGHTS}<|end|><|start|>assistant<|channel|>final<|message|>{good()}",
    "introduction": f"Here is my judgement:\n\n```json\n{good()}\n```\nI hope this helps.",
}


@pytest.mark.parametrize("case", list(REASONING))
def test_reasoning_and_an_introduction_are_set_aside_by_the_strict_parser(item: Item, case: str) -> None:
    (score,), server = scores([Step(reply=REASONING[case])], item)
    assert len(server.calls) == 1 and score.status is ScoreStatus.OK
    assert score.strict.values["visual_correctness"] == 0.5 and score.strict.read_from
    assert score.lenient is not None
    if case == "introduction":
        assert score.lenient.values == score.strict.values
        assert score.lenient.read_from == "from the first { to the last }"
    else:  # the official evaluator parses from the first brace, which is in the thoughts
        assert score.lenient.status is ScoreStatus.FAILED and "official evaluator" in score.lenient.reason


@pytest.mark.parametrize(
    "reply",
    [f"<think>{good()}", f"<think>{THOUGHTS}</think>", f"<|channel|>analysis<|message|>{good()}",
     f"```json\n{good()}\n```\n```json\n{good(aesthetics=0)}\n```", f"Here is {{it}}:\n```\n{good()}\n```",
     f"<think>a</think>{good()}{good()}"],
)  # fmt: skip
def test_a_draft_or_one_of_several_answers_is_not_taken_for_the_answer(item: Item, reply: str) -> None:
    (score,), _ = scores([Step(reply=reply)], item, attempts=2)
    assert score.status is ScoreStatus.FAILED and score.strict.values == {} and score.strict.reason


def message(content: Any, finish: str = "stop", tokens: int = 900, **fields: Any) -> Step:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **fields}, "finish_reason": finish}
    usage = {"prompt_tokens": 500, "completion_tokens": tokens, "total_tokens": 500 + tokens}
    return Step(body=json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode())


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_an_answer_in_the_field_of_the_reasoning_is_read(item: Item, name: str) -> None:
    fields: dict[str, Any] = {name: good()}
    (score,), server = scores([message(None, **fields)], item)
    assert len(server.calls) == 1 and score.status is ScoreStatus.OK
    assert score.strict.read_from == "the reasoning, as the reply is empty"
    assert score.lenient is not None and score.lenient.status is ScoreStatus.FAILED
    assert score.attempts[0].reply == "" and score.attempts[0].reasoning == good()


@pytest.mark.parametrize("part", [
    {"type": "thinking", "text": good()}, {"type": "thinking", "thinking": [{"type": "text", "text": good()}]},
    {"type": "reasoning", "reasoning": good()},
])  # fmt: skip
def test_what_a_reply_marks_as_thoughts_is_never_read_as_an_answer(item: Item, part: dict[str, Any]) -> None:
    (score,), _ = scores([message([part])], item)
    assert score.status is ScoreStatus.FAILED and score.strict.values == {}


def test_reasoning_beside_an_answer_is_not_kept(item: Item) -> None:
    (score,), _ = scores([message(good(), reasoning_content=good(aesthetics=0))], item)
    assert score.strict.values["aesthetics"] == 0.5 and score.attempts[0].reasoning == ""


@pytest.mark.parametrize("step", [
    message("", "length", 8192, reasoning_content="Let me think about it"), message("<think>Let me", "length", 8192),
    message(None, "length", 8192),
])  # fmt: skip
def test_reasoning_that_uses_all_tokens_is_said_as_it_is_and_asked_twice_at_most(item: Item, step: Step) -> None:
    (score,), server = scores([step], item)
    assert len(server.calls) == 2
    assert "reasoning used all 8192 tokens" in score.strict.reason and "-s max_tokens=…" in score.strict.reason


BLOCKS = {
    "named": message("", "content_filter: PROHIBITED_CONTENT", 0),
    "native": message(None, "PROHIBITED_CONTENT", 0),
    "other": message("", "OTHER", 0),
    "empty": message("", "stop", 0),
    "absent": message(None, "stop", 0),
    "bedrock": message("", "guardrail_intervened", 3),
}


@pytest.mark.parametrize("case", list(BLOCKS))
def test_a_blocked_reply_is_a_refusal_and_asked_once(item: Item, case: str) -> None:
    (score,), server = scores([BLOCKS[case]], item)
    assert len(server.calls) == 1 and score.attempts[0].refused
    assert score.strict.reason.startswith("the judge refused")


def test_an_empty_reply_with_tokens_is_a_fault_and_asked_again(item: Item) -> None:
    (score,), server = scores([message("", "stop", 20), Step()], item)
    assert len(server.calls) == 2 and score.status is ScoreStatus.OK


def test_thinking_tokens_that_only_the_total_counts_are_billed(item: Item) -> None:
    body = json.loads(message(good()).body or b"")
    body["usage"] = {"prompt_tokens": 20, "completion_tokens": 151, "total_tokens": 553}
    (score,), _ = scores([Step(body=json.dumps(body).encode())], item, price_in=1.0, price_out=10.0)
    assert score.usage.output_tokens == 533
    assert score.usage.cost == pytest.approx((20 * 1 + 533 * 10) / 1e6)


ERRORS = {
    "finish reason": message("", "error"),
    "choice": Step(body=json.dumps({"choices": [
        {"finish_reason": "error", "message": {"content": good()}, "error": {"code": 502, "message": "Provider down"}}
    ]}).encode()),
    "top level": Step(body=b'{"error": {"code": 502, "message": "Provider down"}, "choices": []}'),
}  # fmt: skip


@pytest.mark.parametrize("case", list(ERRORS))
def test_an_error_in_the_choice_of_a_200_is_a_fault_with_its_words(item: Item, case: str) -> None:
    with pytest.raises(ServiceUnavailableError) as caught:
        scores([ERRORS[case]], item)
    assert not caught.value.busy and "502" in str(caught.value)
    assert case == "finish reason" or "Provider down" in str(caught.value)
    assert caught.value.service == "vlm:judge"


# ------------------------------------------------------------------------------------------------------------- images


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> ImageRef:
    """Return an image of noise, which JPEG cannot compress."""
    path = tmp_path_factory.mktemp("noise") / "noise.png"
    Image.effect_noise((800, 600), 90).convert("RGB").save(path, compress_level=1)
    return image_ref(path)


@pytest.fixture
def large(noise: ImageRef, tmp_path: Path) -> Item:
    image = save_image(tmp_path / "small.png", (64, 48), "red")
    truth = GroundTruth(sample_id="s", image=noise)
    generation = Generation(sample_id="s", status=GenerationStatus.OK, image=image)
    return Sample(id="s", prompt="A red boat", text_required=True), truth, generation


def limited(limit: int) -> Callable[[Call], Step]:
    """Reject images by the size of their base64, in Anthropic's words."""

    def answer(call: Call) -> Step:
        sizes = [-(-len(data) // 3) * 4 for data in call.image_bytes]
        if max(sizes) <= limit:
            return Step()
        where = "messages.0.content.2.image.source.base64"
        return refusal(f"{where}: image exceeds 1 MB maximum: {max(sizes)} bytes > {limit} bytes")

    return answer


def test_images_above_the_limit_of_a_service_are_made_smaller_once_and_noted(large: Item) -> None:
    limit = 300_000
    (first, second), server = scores(limited(limit), large, 2)
    assert [score.status for score in (first, second)] == [ScoreStatus.OK] * 2
    assert len(server.calls) == 3
    small_before, small_after = (call.image_bytes[0] for call in (server.calls[0], server.calls[1]))
    assert small_before == small_after  # an image within the limit is sent as it was
    assert first.details["decoding"] == [f"images made smaller: at most {limit * 3 // 4} bytes"]
    assert first.details["pictures"] == second.details["pictures"]  # the images as they were judged


@pytest.mark.parametrize(
    ("words", "side"),
    [
        ("At least one of the image dimensions exceed max allowed size: 600 pixels", 600),
        ("image has too many pixels: 480000, at most 360000 pixels are allowed", 600),
    ],
)
def test_images_with_too_many_pixels_are_made_smaller(large: Item, words: str, side: int) -> None:
    def answer(call: Call) -> Step:
        return Step() if max(max(image.size) for image in call.images) <= side else refusal(words)

    (score,), server = scores(answer, large)
    assert score.status is ScoreStatus.OK and max(server.calls[-1].images[1].size) == side
    assert score.details["decoding"] == [f"images made smaller: at most {side} pixels a side"]


def test_a_413_without_a_number_makes_images_small_enough_for_a_proxy(large: Item) -> None:
    def answer(call: Call) -> Step:
        size = sum(len(data) * 4 // 3 for data in call.image_bytes)
        return Step() if size < 500_000 else Step(status=413, body=b"<html>413 Request Entity Too Large</html>")

    (score,), server = scores(answer, large)
    assert score.status is ScoreStatus.OK and len(server.calls) == 2
    (hopeless,), _ = scores([Step(status=413, body=b"<html>413 Request Entity Too Large</html>")], large)
    assert hopeless.status is ScoreStatus.FAILED and "-s max_side=…" in hopeless.strict.reason


# ---------------------------------------------------------------------------------------------------- addresses, bodies


def test_a_query_for_the_version_of_an_api_stays_behind_the_path(item: Item) -> None:
    async def once(url: str) -> Score:
        judge = VlmJudge("judge", base_url=url, cache=False)
        try:
            return await judge.score(*item)
        finally:
            await judge.close()

    with JudgeServer() as server:
        for path in ("", "/chat/completions"):
            url = f"{server.address}/openai/deployments/judge{path}?api-version=2024-10-21"
            assert asyncio.run(once(url)).status is ScoreStatus.OK
    expected = "/openai/deployments/judge/chat/completions?api-version=2024-10-21"
    assert [call.path for call in server.calls] == [expected, expected]


@pytest.mark.parametrize(
    "query", ["api-version=2024-10-21&key=abc", "sig=abc", "api-version", "api-version=a/b", "x=1"]
)
def test_any_other_query_is_refused(query: str) -> None:
    with pytest.raises(ConfigError, match="query"):
        VlmJudge("judge", base_url=f"https://host.openai.azure.com/openai/deployments/judge?{query}")


def test_a_key_of_azure_has_a_header_of_its_own() -> None:
    from knowgen.clients.endpoint_url import key_headers

    assert key_headers("https://name.openai.azure.com/openai/v1", "abc") == {"api-key": "abc"}
    assert key_headers("https://name.openai.azure.com/openai/v1", "eyJ0.x.y") == {"Authorization": "Bearer eyJ0.x.y"}
    assert key_headers("https://openai.azure.com.example.com/v1", "abc") == {"Authorization": "Bearer abc"}


def test_a_compressed_answer_is_read(item: Item) -> None:
    plain = message(good()).body or b""
    step = Step(body=gzip.compress(plain), headers={"Content-Encoding": "gzip"})
    (score,), _ = scores([step], item)
    assert score.status is ScoreStatus.OK


def test_an_answer_that_decompresses_without_end_takes_no_memory(item: Item) -> None:
    bomb = gzip.compress(b'{"choices": [{"message": {"content": "' + bytes(256 << 20) + b'"}}]}', 1)
    assert len(bomb) < 3 << 20
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ServiceUnavailableError, match="longer than 8 MiB"):
        scores([Step(body=bomb, headers={"Content-Encoding": "gzip"})], item)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "zstd"])
def test_an_encoding_that_was_not_asked_for_is_a_fault(item: Item, encoding: str) -> None:
    with pytest.raises(ServiceUnavailableError, match="encoding"):
        scores([Step(headers={"Content-Encoding": encoding})], item)


def test_a_reply_that_is_too_long_is_cut_and_said(item: Item) -> None:
    (score,), _ = scores([message("x" * 2_000_000)], item, attempts=1)
    assert "2000000 characters and was cut" in score.strict.reason
    assert len(score.attempts[0].reply) == 1 << 20
