"""The engine over verl's servers: the limits of a trajectory, and what becomes of failures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from knowgen.agents.policies.contract import ContextFullError, Sampling
from knowgen.agents.records import Message
from knowgen.core.errors import KnowgenError, ServiceUnavailableError
from knowgen.training.backends.verl.engine import VerlEngine, VerlPolicy
from tests.helpers import tiny_models
from tests.helpers.search_agents import stored_image

pytest.importorskip("transformers")


class Servers:
    """verl's client, whose replies are given.

    Args:
        replies: Ids of each reply, or errors.
        fields: Further fields of a reply.
    """

    def __init__(self, *replies: list[int] | Exception, **fields: Any) -> None:
        self.replies, self.fields = list(replies), fields
        self.asked: list[dict[str, Any]] = []

    async def generate(self, **request: Any) -> Any:
        self.asked.append(request)
        reply = self.replies[min(len(self.asked), len(self.replies)) - 1]
        if isinstance(reply, Exception):
            raise reply
        known = {"log_probs": [-0.5] * len(reply), "stop_reason": "completed", "extra_fields": {"global_steps": 7}}
        return SimpleNamespace(token_ids=reply, **{**known, **self.fields})


@pytest.fixture(scope="module")
def processor() -> Any:
    return tiny_models.processor()


def engine_of(servers: Servers, processor: Any, prompt: int = 200, completion: int = 40) -> VerlEngine:
    return VerlEngine(servers, processor, max_prompt=prompt, max_completion=completion)


def sampled(engine: VerlEngine, ids: list[int], limit: int = 30) -> Any:
    return asyncio.run(engine.generate(ids, (), Sampling(0.7, 0.9, limit, seed=3), "1/a/3"))


def test_a_reply_has_its_ids_log_probabilities_and_the_version_of_the_weights(processor: Any) -> None:
    end = processor.tokenizer.eos_token_id
    reply = sampled(engine_of(Servers([5, 6, end]), processor), [1, 2])
    assert (reply.ids, reply.logprobs, reply.finish, reply.weights) == ([5, 6, end], [-0.5] * 3, "stop", "7")


def test_a_reply_without_an_end_token_was_cut(processor: Any) -> None:
    assert sampled(engine_of(Servers([5] * 30), processor), [1, 2]).finish == "length"


def test_prompt_and_completion_keep_to_their_limits(processor: Any) -> None:
    servers = Servers([5, 6])
    engine = engine_of(servers, processor, prompt=10, completion=40)
    with pytest.raises(ContextFullError, match="the prompt has 11 tokens"):
        sampled(engine, [1] * 11)
    engine.forget("1/a/3")
    sampled(engine, [1] * 10)
    sampled(engine, [1] * 45)  # 35 tokens follow the prompt
    assert [each["sampling_params"]["max_tokens"] for each in servers.asked] == [30, 5]
    with pytest.raises(ContextFullError, match="40 tokens follow the prompt"):
        sampled(engine, [1] * 50)


@pytest.mark.parametrize(
    "servers",
    [
        Servers(RuntimeError("the actor died")),
        Servers([5], stop_reason="aborted"),
        Servers([], stop_reason=None),
    ],
)
def test_a_failure_of_the_servers_does_not_count_as_a_result_of_the_policy(servers: Servers, processor: Any) -> None:
    with pytest.raises(ServiceUnavailableError):
        sampled(engine_of(servers, processor), [1, 2])


def test_log_probabilities_that_do_not_fit_their_ids_are_an_error(processor: Any) -> None:
    with pytest.raises(KnowgenError, match="2 token ids have 1 log-probabilities"):
        sampled(engine_of(Servers([5, 6], log_probs=[-1.0]), processor), [1])


def test_a_session_sends_its_images_in_order_and_is_forgotten_when_it_ends(processor: Any, tmp_path: Path) -> None:
    servers = Servers([5, processor.tokenizer.eos_token_id])
    engine = engine_of(servers, processor)
    images = tuple(stored_image(tmp_path, number, (64, 32 * number)) for number in (1, 2))

    async def talk() -> None:
        session = VerlPolicy(engine).open(Sampling(max_new_tokens=8), "Draw.", "one")
        await session.reply([Message("user", "Draw.", images)])
        assert [image.size for image in servers.asked[0]["image_data"]] == [(64, 32), (64, 64)]
        ids = servers.asked[0]["prompt_ids"]
        assert ids.count(engine.renderer.image) == 2 + 4  # a placeholder for each 32 x 32 pixels
        await session.close()

    asyncio.run(talk())
    assert engine._prompt_lengths == {}
