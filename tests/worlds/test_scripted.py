"""The policy `scripted`: its replies follow the protocol, and depend on what tools return."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from knowgen.agents.gen_searcher import GenSearcher
from knowgen.agents.policies.contract import Sampling
from knowgen.agents.protocol import calls_used, tool_error
from knowgen.agents.records import Ending, Message, Trajectory
from knowgen.core.errors import DataError
from knowgen.search.contract import Hit, ImageHit, Page, SearchBackend
from knowgen.worlds.baselines.scripted import MAX_CALLS, ScriptedPolicy
from knowgen.worlds.baselines.text_rules import parse_prompt
from tests.helpers.built_world import BuiltWorld

PROMPT = "In a flower garden, a dark billboard gives the year in which it was built; near it stands the tower Ovar."


def trajectories(world: BuiltWorld, search: SearchBackend | None = None) -> list[Trajectory]:
    agent = GenSearcher(ScriptedPolicy(), search or world.search)

    async def run() -> list[Trajectory]:
        return await asyncio.gather(*(agent.run(sample.prompt) for sample in world.task.samples()))

    return asyncio.run(run())


def test_every_prompt_of_a_world_gets_an_answer_within_the_calls_of_the_protocol(built_world: BuiltWorld) -> None:
    for trajectory in trajectories(built_world):
        assert trajectory.ending is Ending.ANSWER
        assert all(step.error == "" for step in trajectory.steps if step.calls[:1] and step.calls[0].name != "browse")
        assert sum(len(step.calls) for step in trajectory.steps) <= MAX_CALLS
        assert [step.thought != "" for step in trajectory.steps].count(False) == 0


def test_what_is_not_required_text_stays_out_of_the_quotes(built_world: BuiltWorld) -> None:
    for sample, trajectory in zip(built_world.task.samples(), trajectories(built_world), strict=True):
        assert trajectory.gen_prompt is not None and trajectory.gen_prompt.startswith(sample.prompt)
        added = re.findall(r'"([^"]+)"', trajectory.gen_prompt.removeprefix(sample.prompt))
        assert bool(added) <= bool(sample.text_required)
        assert set(parse_prompt(sample.prompt, ()).quoted) <= set(parse_prompt(trajectory.gen_prompt, ()).quoted)


class NothingFound:
    version = "empty"

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        return []

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        return []

    async def open(self, url: str) -> Page:
        raise DataError("no such page", where=url)


def test_without_results_the_prompt_is_the_answer(built_world: BuiltWorld) -> None:
    for sample, trajectory in zip(built_world.task.samples(), trajectories(built_world, NothingFound()), strict=True):
        assert (trajectory.ending, trajectory.gen_prompt) == (Ending.ANSWER, sample.prompt)
        assert trajectory.references == []


def ablated(world: BuiltWorld, count: int = 12, **arguments: Any) -> list[Trajectory]:
    """Return the trajectories of some prompts of a world with arguments of the agent."""
    agent = GenSearcher(ScriptedPolicy(), world.search, **arguments)
    prompts = [sample.prompt for sample in world.task.samples()][:count]

    async def run() -> list[Trajectory]:
        return await asyncio.gather(*map(agent.run, prompts))

    return asyncio.run(run())


def tools_called(trajectory: Trajectory) -> list[str]:
    return [call.name for step in trajectory.steps for call in step.calls]


@pytest.mark.parametrize(
    ("tools", "missing", "has_references", "adds_text"),
    [
        ("search,browse", "image_search", False, True),
        ("search,image_search", "browse", True, True),
        ("image_search", "search", True, False),
        ("search", "browse", False, True),
        ("", "search", False, False),
    ],
)
def test_it_does_with_the_tools_that_there_are(
    built_world: BuiltWorld, tools: str, missing: str, has_references: bool, adds_text: bool
) -> None:
    results = ablated(built_world, 24, tools=tools)
    assert {result.ending for result in results} == {Ending.ANSWER}
    for result in results:
        called = tools_called(result)
        absent = [name for name in called if name not in tools.split(",")]
        assert len(absent) == len(set(absent))  # one message per missing tool is enough
    assert any(missing in tools_called(result) for result in results)
    assert any(result.references for result in results) is has_references
    prompts = [sample.prompt for sample in built_world.task.samples()]
    added = [result.gen_prompt != prompt for result, prompt in zip(results, prompts, strict=False)]
    assert any(added) is (has_references or adds_text)
    lettering = ["The lettering reads" in (result.gen_prompt or "") for result in results]
    assert any(lettering) is adds_text


@pytest.mark.parametrize("calls", [0, 1, 2, 5])
def test_it_makes_no_more_calls_than_the_system_prompt_allows(built_world: BuiltWorld, calls: int) -> None:
    results = ablated(built_world, tool_calls=calls)
    assert {result.ending for result in results} == {Ending.ANSWER}
    assert max(len(tools_called(result)) for result in results) == calls
    assert all(step.error == "" for result in results for step in result.steps if not step.calls)


def test_a_call_that_is_refused_is_the_last_one() -> None:
    texts = replies(PROMPT, [tool_error(calls_used(0))])
    assert ["<tool_call>" in text for text in texts] == [True, False]


def replies(prompt: str, observations: Sequence[str]) -> list[str]:
    """Return the replies to observations, without an agent between."""
    session = ScriptedPolicy().open(Sampling(), prompt, "s")
    conversation = [Message("system", "x"), Message("user", prompt)]

    async def run() -> list[str]:
        texts = []
        for observation in [None, *observations]:
            if observation is not None:
                conversation.append(Message("user", f"<tool_response>\n{observation}\n</tool_response>"))
            reply = await session.reply(conversation)
            conversation.append(Message("assistant", reply.text))
            texts.append(reply.text)
        await session.close()
        return texts

    return asyncio.run(run())


def test_links_are_followed_from_the_text_that_browse_returns() -> None:
    found = "--- search result for [Ovar] ---\n[Ovar](https://a.example/ovar) Ovar\n--- end of search result ---"
    page = (
        "Ovar\n\nOvar is a tower that stands above Pohola.\n\nLinks on this page:\n"
        "- [Notes on Ovar](https://library.example/notes)\n- [Pohola](https://a.example/pohola)"
    )
    notes = "Notes on Ovar\n\nOvar was built in 1893."
    first, second, third, fourth = replies(PROMPT, [found, page, notes])
    call = r"<tool_call>(.*)</tool_call>"
    calls = [json.loads(re.findall(call, reply)[0]) for reply in (first, second, third, fourth)]
    assert calls[0] == {"name": "search", "arguments": {"queries": ["Ovar"], "top_k": 6}}
    assert calls[1]["arguments"]["url"] == ["https://a.example/ovar"]
    assert calls[2]["arguments"]["url"] == ["https://library.example/notes"]
    assert calls[3] == {"name": "image_search", "arguments": {"query": "Ovar"}}
    empty = "--- image search result for [Ovar] ---\n--- end of image search result ---"
    answer = json.loads(re.findall(r"<answer>(.*)</answer>", replies(PROMPT, [found, page, notes, empty])[-1])[0])
    assert answer == {"gen_prompt": f'{PROMPT} The lettering reads "1893".', "reference_images": []}
