"""Runs of the agent with policies: over a chat endpoint, and repeated from what that run recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import knowgen
from knowgen.core.records import AgentAnswer, AnswerStatus
from knowgen.store.run import RunStore
from tests.helpers.judge_server import Call, JudgeServer, Step
from tests.helpers.search_agents import answer, call

AGENT, PAINTER = "knowgen.agents.gen_searcher:GenSearcher", "tests.helpers.agents:Painter"
OPENAI, REPLAY = "knowgen.agents.policies.openai:OpenAiPolicy", "knowgen.agents.policies.replay:ReplayPolicy"


def evaluate(out: Path, policy: str, **arguments: Any) -> dict[tuple[str, int], AgentAnswer]:
    ids = [sample.id for sample in knowgen.load_task("knowgen_mini").samples()][:3]
    given = {"policy": policy, "painter": PAINTER, **arguments}
    knowgen.evaluate("knowgen_mini", AGENT, "pixels", out=out, ids=ids, workers=0, repeats=2, generator_args=given)
    with RunStore.read(out) as store:
        return {(each.sample_id, each.repeat): each for _, each in store.answers()}


def script(request: Call) -> Step:
    """Reply as a model that searches once; it answers in other words to another seed, and never to one prompt."""
    messages = request.body["messages"]
    prompt, replied = messages[1]["content"], sum(message["role"] == "assistant" for message in messages)
    if "museum" in prompt:
        return Step(reply="I do not know.", tokens=(100, 5))
    if not replied:
        return Step(reply=call("search", {"queries": [prompt[:40]]}, "I look it up."), tokens=(100, 20))
    return Step(reply=answer(f"{prompt} Seed {request.body['seed']}."), tokens=(200, 10))


def without_times(steps: Any) -> list[dict[str, Any]]:
    left_out = ("policy_seconds", "tool_seconds", "policy_usage")
    return [{name: value for name, value in step.items() if name not in left_out} for step in steps]


def test_a_run_over_chat_is_repeated_from_its_directory_without_a_model(tmp_path: Path) -> None:
    with JudgeServer(script) as server:
        prices = {"policy.price_in": 1.0, "policy.price_out": 10.0}
        first = evaluate(tmp_path / "first", OPENAI, **{"policy.model": "m", "policy.base_url": server.url, **prices})
        calls = len(server.calls)
    assert {each.status for each in first.values()} == {AnswerStatus.OK, AnswerStatus.NONE}
    prompts = {each.prompt for each in first.values() if each.prompt}
    assert any("Seed 0." in prompt for prompt in prompts) and any("Seed 1." in prompt for prompt in prompts)
    policy = [part for each in first.values() for part in each.usage if part.part == "policy"]
    assert sum(part.calls for part in policy) == calls
    assert all(part.usage.cost for part in policy)
    again = evaluate(tmp_path / "again", REPLAY, **{"policy.model": str(tmp_path / "first")})
    assert first.keys() == again.keys() and len(first) == 6
    for place, recorded in first.items():
        assert without_times(again[place].trajectory) == without_times(recorded.trajectory)
        assert (again[place].prompt, again[place].ending) == (recorded.prompt, recorded.ending)
    assert len(server.calls) == calls
