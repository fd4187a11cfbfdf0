"""The bundled agent as a run uses it: from a request to an answer that is stored."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from knowgen.agents.gen_searcher import GenSearcher, answer_of
from knowgen.agents.policies.contract import Sampling
from knowgen.agents.records import Ending, Trajectory
from knowgen.core.errors import AccountError, ServiceUnavailableError, UsageError
from knowgen.core.records import AgentAnswer, AnswerStatus, GenerationRequest
from knowgen.search.contract import Hit, Page
from tests.helpers.search_agents import FakeSearch, Reply, ScriptedPolicy, answer, call, image_hits
from tests.helpers.virtual_time import run

HERE = __name__


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", str(tmp_path / "cache"))


def ask(replies: list[Reply], search: FakeSearch | None = None, **arguments: Any) -> AgentAnswer:
    """Return the agent's answer to a request."""
    agent = GenSearcher(ScriptedPolicy(replies), search or FakeSearch(), **arguments)
    return run(agent.answer(GenerationRequest(id="r1", prompt="Draw a boat.", seed=7)))


def test_a_request_becomes_an_answer_with_references_and_everything_that_led_to_it(tmp_path: Path) -> None:
    policy = ScriptedPolicy(
        [
            call("search", {"queries": ["red boat"]}, thought="Which boat?"),
            call("browse", {"url": "http://a", "query": "colour"}),
            call("image_search", {"query": "red boat"}),
            answer("The boat of the first reference image.", ["IMG_002", "IMG_003"]),
        ]
    )
    search = FakeSearch(
        [Hit(title="Boats", url="http://a", snippet="A boat.")],
        image_hits(tmp_path, 3),
        {"http://a": Page(url="http://a", title="Boats", text="The boat is red.")},
    )
    agent = GenSearcher(policy, search)
    result = run(agent.answer(GenerationRequest(id="r1", prompt="Draw a boat.", seed=7)))
    assert (result.status, result.ending, result.reason) == (AnswerStatus.OK, "answer", "")
    assert result.prompt == "The boat of the first reference image."
    assert [image.path for image in result.references] == [tmp_path / "2.png", tmp_path / "3.png"]
    assert result.reference_notes[0] == {
        "img_id": "IMG_002", "title": "Boat 2", "url": "https://example.org/2.jpg", "note": "note IMG_002",
        "page_url": "https://example.org/page2", "sha256": result.references[0].sha256,
    }  # fmt: skip
    assert [image.path for image in result.images] == [tmp_path / f"{number}.png" for number in (1, 2, 3)]
    assert [step["thought"] for step in result.trajectory] == ["Which boat?", "", "", ""]
    assert [step["calls"][0]["name"] for step in result.trajectory[:3]] == ["search", "browse", "image_search"]
    assert [image["id"] for image in result.trajectory[2]["new_images"]] == ["IMG_001", "IMG_002", "IMG_003"]
    assert result.evidence == (
        {"title": "Boats", "url": "http://a", "text": "A boat."},
        {"title": "Boats", "url": "http://a", "text": "Boats\n\nThe boat is red."},
    )
    assert [part.part for part in result.usage] == ["policy", "search"]
    assert policy.samplings == [Sampling(0.6, 0.9, 4096, 0, 7)] and policy.closed == 1
    assert (
        AgentAnswer.model_validate_json(json.dumps(result.model_dump(mode="json"), allow_nan=False)).ending == "answer"
    )


def test_the_date_of_the_system_prompt_can_be_given() -> None:
    policy = ScriptedPolicy([answer(), answer()])
    run(GenSearcher(policy, FakeSearch(), date="2026-03-01").run("Draw."))
    run(GenSearcher(policy, FakeSearch()).run("Draw."))
    assert policy.asked[0][0].text.endswith("Today's date: 2026-03-01")
    assert re.search(r"Today's date: \d{4}-\d\d-\d\d$", policy.asked[1][0].text)


def test_an_answer_without_references_is_one() -> None:
    result = ask([answer("p")])
    assert (result.status, result.prompt, result.references) == (AnswerStatus.OK, "p", ())


@pytest.mark.parametrize(
    ("replies", "ending"),
    [
        (["<answer>{}</answer>"], "answer_parse_failed"),
        (["same", "same"], "repeated_response"),
        ([f"words {number}" for number in range(10)], "no_answer"),
    ],
)
def test_an_ending_without_an_answer_is_a_result_with_a_reason(replies: list[Reply], ending: str) -> None:
    result = ask(replies)
    assert (result.status, result.ending) == (AnswerStatus.NONE, ending)
    assert result.reason and not result.prompt and not result.references and result.trajectory


@pytest.mark.parametrize("ending", Ending)
def test_every_ending_is_stored_by_its_name(ending: Ending) -> None:
    trajectory = Trajectory(ending=ending, reason="why", gen_prompt="p")
    assert answer_of(trajectory).ending == ending.value
    assert (answer_of(trajectory).status is AnswerStatus.OK) == (ending is Ending.ANSWER)


@pytest.mark.parametrize("error", [AccountError("no credit"), ServiceUnavailableError("503", retry_after=900.0)])
def test_a_service_that_fails_is_the_engines_matter(error: Exception) -> None:
    with pytest.raises(type(error)):
        ask([call("search", {"query": "a"})], FakeSearch({"a": error}))


class NamedPolicy(ScriptedPolicy):
    """A policy that is found by module and class."""

    def __init__(self, model: str = "", style: str = "plain") -> None:
        super().__init__([answer(f"in {style} style")])


class NamedSearch(FakeSearch):
    """A backend that is found by module and class."""

    def __init__(self, size: int = 1) -> None:
        super().__init__([Hit(title=f"{number}", url="u") for number in range(size)])


def test_policy_and_search_are_built_from_names_and_their_own_arguments() -> None:
    parts: dict[str, Any] = {"policy.style": "ink", "search.size": 3, "painter.steps": 20}
    agent = GenSearcher(f"{HERE}:NamedPolicy", f"{HERE}:NamedSearch", painter="openai:x", **parts)
    assert run(agent.run("Draw.")).gen_prompt == "in ink style"
    assert isinstance(agent.search, NamedSearch) and len(agent.search.hits) == 3
    assert (agent.painter, agent.fallback) == ("openai:x", "draw")


def test_what_decides_an_answer_is_kept_as_plain_attributes() -> None:
    agent = GenSearcher(ScriptedPolicy([]), FakeSearch(), rounds=3, images="last", image_pixels=0, top_p=1)
    parameters = [
        name
        for name, parameter in inspect.signature(GenSearcher).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    values = {name: getattr(agent, name) for name in parameters}
    assert (values["rounds"], values["images"], values["image_pixels"]) == (3, "last", 0)
    json.dumps({name: value for name, value in values.items() if name not in {"policy", "search"}})
    for version in ("gen-searcher-", "knowgen-agent-", "smart-", "passages-"):
        assert version in GenSearcher.revision


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompt": "mine"}, "prompt must be own, short, upstream or a YAML file"),
        ({"images": "middle"}, "images must be first or last"),
        ({"fallback": "blank"}, "fallback must be draw or fail"),
        ({"rounds": 0}, "rounds must be a whole number >= 1"),
        ({"temperature": 3}, "temperature must be a number from 0 to 2"),
        ({"top_p": 0}, "top_p must be a number above 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be"),
        ({"max_context": -1}, "max_context must be"),
        ({"time_limit": -1}, "time_limit must be"),
        ({"image_pixels": 10}, "image_pixels must be 0 or"),
        ({"date": "yesterday"}, "date must be a date, got 'yesterday'.*YYYY-MM-DD"),
        ({"tools": "serach"}, "unknown tool 'serach'"),
        ({"speed": 5}, "unknown argument 'speed'.*begin with policy., search., summary., painter."),
        ({"painters.x": 5}, "unknown argument 'painters.x'"),
        ({"policy.x": 5}, "arguments of a policy that is an object"),
        ({"search.x": 5}, "arguments of a search backend that is an object"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        GenSearcher(ScriptedPolicy([]), FakeSearch(), **arguments)
    assert re.search(words, str(caught.value))


def test_what_is_not_a_policy_or_a_backend_is_named() -> None:
    with pytest.raises(UsageError, match="needs a policy") as caught:
        GenSearcher(search=FakeSearch())
    assert "knowgen list policies" in str(caught.value)
    with pytest.raises(UsageError, match="needs a search backend"):
        GenSearcher(ScriptedPolicy([]))
    broken: Any = object()
    with pytest.raises(UsageError, match=r"open\(\) is missing"):
        GenSearcher(broken, FakeSearch())
    with pytest.raises(UsageError, match=r"search\(\) is missing"):
        GenSearcher(ScriptedPolicy([]), broken)


def test_all_parts_that_can_be_checked_are_checked_and_all_are_closed() -> None:
    class Checked(ScriptedPolicy):
        async def check_service(self) -> str:
            return "the model is not listed"

    policy, search = Checked([]), FakeSearch()
    agent = GenSearcher(policy, search)
    assert asyncio.run(agent.check_service()) == "the model is not listed"
    asyncio.run(agent.close())
    assert policy.ended and search.closed


def test_many_requests_are_answered_at_once() -> None:
    policy = ScriptedPolicy([call("search", {"query": "a"}), answer()], seconds=1.0)
    agent = GenSearcher(policy, FakeSearch(seconds=1.0))

    async def main() -> float:
        requests = [GenerationRequest(id=f"r{number}", prompt="Draw.") for number in range(50)]
        started = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*map(agent.answer, requests))
        assert {each.status for each in answers} == {AnswerStatus.OK}
        return asyncio.get_running_loop().time() - started

    assert run(main()) == pytest.approx(3.0, abs=0.1)
    assert policy.opened == policy.closed == 50
