"""`openai`: trajectories over a chat endpoint, whatever its host takes and returns."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knowgen.agents.policies.contract import ContextFullError, PolicyReply, PolicySession, Sampling
from knowgen.agents.policies.openai import OpenAiPolicy
from knowgen.agents.records import Message
from knowgen.core.errors import (
    AccountError,
    BudgetReachedError,
    ConfigError,
    KnowgenError,
    ServiceUnavailableError,
    UsageError,
)
from knowgen.core.metering import current_meter, spending
from tests.helpers.judge_server import Call, JudgeServer, Step
from tests.helpers.policies import PROMPT, SYSTEM, picture

WARM = Sampling(temperature=0.7, top_p=0.95, max_new_tokens=900, seed=4)


def run(server: JudgeServer, use: Callable[[OpenAiPolicy], Any], **arguments: Any) -> Any:
    """Run a coroutine function with a policy of the server."""

    async def closing() -> Any:
        policy = OpenAiPolicy("m", server.url, **arguments)
        try:
            return await use(policy)
        finally:
            await policy.close()

    return asyncio.run(closing())


def one_reply(server: JudgeServer, sampling: Sampling = WARM, *messages: Message, **arguments: Any) -> PolicyReply:
    async def use(policy: OpenAiPolicy) -> PolicyReply:
        return await policy.open(sampling, PROMPT.text, "t").reply([SYSTEM, PROMPT, *messages])

    reply: PolicyReply = run(server, use, **arguments)
    return reply


def chat(message: dict[str, Any], finish: str = "stop") -> Step:
    """Return an answer with a message of any form."""
    usage = {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70}
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return Step(body=json.dumps({"model": "m-1", "choices": [choice], "usage": usage}).encode())


def rejected(message: str, status: int = 400, **fields: Any) -> Step:
    """Return an error of the endpoint."""
    return Step(status=status, body=json.dumps({"error": {"message": message, **fields}}).encode())


def test_a_conversation_is_sent_in_the_chat_format_with_its_images_in_order(tmp_path: Path) -> None:
    red, blue = picture(tmp_path, "red"), picture(tmp_path, "blue", (40, 200))
    more = [
        Message("assistant", "<think>Look.</think>"),
        Message("user", "found", (red, blue)),
        Message("assistant", "Go on."),
        Message("user", "after", (blue,), images_first=False),
    ]
    with JudgeServer([chat({"content": "done"})]) as server:
        reply = one_reply(server, WARM, *more)
    body = server.calls[0].body
    assert {name: body[name] for name in ("temperature", "top_p", "max_tokens", "seed")} == {
        "temperature": 0.7, "top_p": 0.95, "max_tokens": 900, "seed": 4,
    }  # fmt: skip
    system, prompt, thought, found, _, after = body["messages"]
    assert system == {"role": "system", "content": SYSTEM.text} and prompt["content"] == PROMPT.text
    assert thought == {"role": "assistant", "content": "<think>Look.</think>"}
    assert [part["type"] for part in found["content"]] == ["image_url", "image_url", "text"]
    assert [part["type"] for part in after["content"]] == ["text", "image_url"]
    assert found["content"][1] == after["content"][1], "the same image in the same form"
    assert found["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert (reply.text, reply.finish, reply.model) == ("done", "stop", "m-1")
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (50, 20)


def test_greedy_sampling_sends_no_top_p_and_no_seed_where_there_is_none() -> None:
    with JudgeServer([chat({"content": "x"})]) as server:
        one_reply(server, Sampling(temperature=0.0))
    assert server.calls[0].body["temperature"] == 0.0
    assert not {"top_p", "seed"} & set(server.calls[0].body)


@pytest.mark.parametrize(
    ("message", "finish", "text"),
    [
        ({"content": "answer", "reasoning_content": " why "}, "stop", "<think>\nwhy\n</think>\nanswer"),
        ({"content": "answer", "reasoning": "why"}, "stop", "<think>\nwhy\n</think>\nanswer"),
        ({"content": "<think>a</think>b", "reasoning": "a"}, "stop", "<think>a</think>b"),
        ({"content": None, "reasoning": "so far"}, "length", "<think>\nso far"),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "why"}]}, {"type": "text", "text": "b"},
                ]
            },
            "stop",
            "<think>\nwhy\n</think>\nb",
        ),
        (
            {
                "content": "Look.",
                "tool_calls": [{"function": {"name": "search", "arguments": '{"queries": ["é"]}'}, "type": "function"}],
            },
            "tool_calls",
            'Look.\n<tool_call>\n{"name": "search", "arguments": {"queries": ["é"]}}\n</tool_call>',
        ),
        (
            {"content": "", "tool_calls": [{"function": {"name": "browse", "arguments": "{broken"}}]},
            "tool_calls",
            '<tool_call>\n{"name": "browse", "arguments": "{broken"}\n</tool_call>',
        ),
        (
            {"content": '<tool_call>{"name": "a"}</tool_call>', "tool_calls": [{"function": {"name": "a"}}]},
            "stop",
            '<tool_call>{"name": "a"}</tool_call>',
        ),
    ],
)  # fmt: skip
def test_what_a_server_takes_out_of_a_reply_is_put_back(message: dict[str, Any], finish: str, text: str) -> None:
    with JudgeServer([chat(message, finish)]) as server:
        reply = one_reply(server)
    assert reply.text == text
    assert reply.finish == ("length" if finish == "length" else "stop")


@pytest.mark.parametrize(
    ("error", "missing"),
    [
        (rejected("Unsupported parameter: 'top_p' is not supported with this model.", param="top_p"), "top_p"),
        (rejected("Unsupported value: 'temperature' does not support 0.7.", param="temperature"), "temperature"),
        (
            Step(status=422, body=b'{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": '
                 b'"Extra inputs are not permitted", "input": 4}]}'),
            "seed",
        ),
    ],
)  # fmt: skip
def test_a_parameter_that_the_host_does_not_take_is_left_out_from_then_on(error: Step, missing: str) -> None:
    with JudgeServer(lambda call: error if missing in call.body else chat({"content": "ok"})) as server:

        async def use(policy: OpenAiPolicy) -> list[PolicyReply]:
            return [await policy.open(WARM, "", name).reply([SYSTEM, PROMPT]) for name in ("a", "b")]

        first, second = run(server, use)
    assert [missing in call.body for call in server.calls] == [True, False, False]
    assert first.text == second.text == "ok"
    assert f"{missing} not accepted" in first.details["decoding"]


def too_long(prompt: int) -> Step:
    return rejected(
        "This model's maximum context length is 4096 tokens. However, you requested "
        f"{prompt + 900} tokens ({prompt} in the messages, 900 in the completion). Please reduce the length."
    )


def test_a_reply_is_fitted_beside_a_long_conversation_for_that_call_alone() -> None:
    steps = [too_long(3300), chat({"content": "short"}), chat({"content": "long"})]
    with JudgeServer(steps) as server:

        async def use(policy: OpenAiPolicy) -> None:
            await policy.open(WARM, "", "a").reply([SYSTEM, PROMPT])
            await policy.open(WARM, "", "b").reply([SYSTEM, PROMPT])

        run(server, use)
    sent = [call.body["max_tokens"] for call in server.calls]
    assert sent[0] == 900 and 256 <= sent[1] < 796 and sent[2] == 900


def test_a_conversation_that_leaves_no_room_for_a_reply_is_full() -> None:
    with JudgeServer([too_long(4000)]) as server, pytest.raises(ContextFullError, match="maximum context length"):
        one_reply(server)


def test_a_conversation_over_the_limit_ends_before_the_next_call() -> None:
    with JudgeServer([chat({"content": "x"})]) as server:

        async def use(policy: OpenAiPolicy) -> None:
            session = policy.open(Sampling(max_context=60), "", "t")
            await session.reply([SYSTEM, PROMPT])
            with pytest.raises(ContextFullError, match="70 tokens, more than 60"):
                await session.reply([SYSTEM, PROMPT, Message("assistant", "x"), PROMPT])

        run(server, use)
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    ("step", "error", "words"),
    [
        (Step(status=503, error="overloaded", headers={"Retry-After": "7"}), ServiceUnavailableError, "overloaded"),
        (Step(status=500, error="boom"), ServiceUnavailableError, "boom"),
        (Step(status=401, error="wrong key"), AccountError, "wrong key"),
        (Step(status=400, error="no such field"), KnowgenError, "policy openai:m: the endpoint answered 400"),
        (Step(status=400, code="content_filter", error="unsafe"), KnowgenError, "policy openai:m: the model refused"),
        (chat({"content": "", "refusal": "I cannot."}), KnowgenError, "the model refused: I cannot."),
    ],
)
def test_errors_of_the_service(step: Step, error: type[KnowgenError], words: str) -> None:
    with JudgeServer([step]) as server, pytest.raises(error, match=words) as raised:
        one_reply(server)
    assert "judge" not in str(raised.value)
    if isinstance(raised.value, ServiceUnavailableError):
        assert raised.value.service == "openai:m"
        assert raised.value.retry_after == (7.0 if step.status == 503 else None)


def test_images_are_made_smaller_where_the_host_takes_no_larger_ones(tmp_path: Path) -> None:
    def limited(call: Call) -> Step:
        from base64 import b64decode
        from io import BytesIO

        from PIL import Image

        url = call.body["messages"][2]["content"][0]["image_url"]["url"]
        if max(Image.open(BytesIO(b64decode(url.partition(",")[2]))).size) > 128:
            return rejected("At least one of the image dimensions exceed max allowed size: 128 pixels")
        return chat({"content": "ok"})

    large = Message("user", "look", (picture(tmp_path, "red", (600, 400)),))
    with JudgeServer(limited) as server:
        reply = one_reply(server, WARM, large)
    assert reply.text == "ok" and len(server.calls) == 2
    assert reply.details["decoding"] == ["images made smaller: at most 128 pixels a side"]


def test_what_helps_against_too_large_an_image_is_an_option_of_the_policy(tmp_path: Path) -> None:
    look = Message("user", "look", (picture(tmp_path, "red"),))
    advice = r"send smaller images with -g policy\.max_side"
    with JudgeServer([rejected("image too large", status=413)]) as server, pytest.raises(KnowgenError, match=advice):
        one_reply(server, WARM, look)


class LowBudget:
    """A meter without money."""

    async def reserve(self, worst_case: float | None, caller: str) -> int:
        raise BudgetReachedError(f"{caller} may cost {worst_case:.4f}")

    async def settle(self, number: int, cost: float | None) -> None:
        """Do nothing."""


def test_calls_are_priced_and_counted_and_the_budget_holds() -> None:
    with JudgeServer([chat({"content": "x"})]) as server:

        async def use(policy: OpenAiPolicy) -> tuple[int, float | None]:
            with spending() as spent:
                await policy.open(WARM, "", "t").reply([SYSTEM, PROMPT])
            token = current_meter.set(LowBudget())
            with pytest.raises(BudgetReachedError, match="openai:m may cost"):
                await policy.open(WARM, "", "u").reply([SYSTEM, PROMPT])
            current_meter.reset(token)
            return spent.calls, spent.cost

        calls, cost = run(server, use, price_in=10.0, price_out=100.0)
    assert calls == 1 and cost == pytest.approx((50 * 10 + 20 * 100) / 1e6)
    assert len(server.calls) == 1


def test_equal_requests_of_two_trajectories_are_two_calls() -> None:
    with JudgeServer([chat({"content": "one"}), chat({"content": "two"})]) as server:

        async def use(policy: OpenAiPolicy) -> list[str]:
            sessions: list[PolicySession] = [policy.open(WARM, PROMPT.text, name) for name in ("a", "b")]
            return [(await session.reply([SYSTEM, PROMPT])).text for session in sessions]

        assert run(server, use) == ["one", "two"]


def test_the_check_before_a_run_is_one_free_call() -> None:
    with JudgeServer(models=[{"id": "other"}]) as server:
        assert "m" in run(server, lambda policy: policy.check_service())
    assert not server.calls and len(server.fetched) == 1


def test_bad_arguments_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match="name it as openai:MODEL"):
        OpenAiPolicy(" ")
    with pytest.raises(UsageError, match="timeout must be a number > 0"):
        OpenAiPolicy("m", "http://127.0.0.1:1/v1", timeout=-1)
    with pytest.raises(ConfigError, match=r"policy openai:m: the key for api\.openai\.com is missing"):
        OpenAiPolicy("m")


def test_the_identity_has_what_decides_replies_and_no_price() -> None:
    one = OpenAiPolicy("m", "http://127.0.0.1:8000/v1", price_call=1.0, timeout=5.0)
    assert one.identity == OpenAiPolicy("m", "http://127.0.0.1:8000/v1/").identity
    assert one.identity != OpenAiPolicy("m", "http://127.0.0.1:8000/v1", max_side=512).identity
    assert OpenAiPolicy.price_known("gpt-4.1") and OpenAiPolicy.price_known("x", "http://127.0.0.1:1/v1")
    assert not OpenAiPolicy.price_known("x", "https://example.org/v1")
