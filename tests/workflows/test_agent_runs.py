"""A run with an agent as users start it: names and flat arguments, `--requests`, and the commands on its directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import knowgen
from knowgen import api
from knowgen.core.arguments import ArgumentText
from knowgen.core.errors import ConfigError, DataError, UsageError
from knowgen.core.records import DIMENSIONS, AgentAnswer, AnswerStatus, Generation
from knowgen.store.run import RunStore
from knowgen.suites import run_suite
from knowgen.workflows.agents import resolve_system
from knowgen.workflows.merge import merge
from knowgen.workflows.reproduce import reproduce
from knowgen.workflows.verify import verify
from tests.helpers.agents import FakeAgent, Painter, TwoReferences, no_answer
from tests.helpers.engine import Half

AGENT, PAINTER = "tests.helpers.agents:FakeAgent", "tests.helpers.agents:Painter"


class OfficialHalf(Half):
    revision = version = "1"
    dimensions = DIMENSIONS


class Other(OfficialHalf):
    """Another scorer."""


@pytest.fixture(autouse=True)
def without_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write no page after a run, which takes longer than these runs."""
    monkeypatch.setattr(api.Run, "report", lambda self, out=None: self.path / "report")


def first_ids(count: int) -> list[str]:
    return [sample.id for sample in knowgen.load_task("knowgen_mini").samples()][:count]


def evaluate(out: Path, agent: Any = AGENT, count: int = 3, **fields: Any) -> api.Run:
    arguments = {} if isinstance(agent, FakeAgent) else {"painter": PAINTER, "painter.style": "ink", "count": 2}
    given = {"generator_args": arguments, "ids": first_ids(count), "workers": 0, **fields}
    return knowgen.evaluate("knowgen_mini", agent, [OfficialHalf()], out=out, **given)


def stored(path: Path) -> tuple[dict[str, AgentAnswer], dict[str, Generation]]:
    with RunStore.read(path) as store:
        answers = {f"{a.sample_id} {a.repeat}": a for _, a in store.answers()}
        return answers, {f"{g.sample_id} {g.repeat}": g for _, g in store.generations()}


def image_digests(path: Path) -> dict[str, str]:
    return {name: each.image.sha256 for name, each in stored(path)[1].items() if each.image is not None}


def test_flat_arguments_go_to_the_agent_and_to_its_image_model(tmp_path: Path) -> None:
    run = evaluate(tmp_path / "run")
    assert run.spec.agent is not None
    assert (run.spec.agent.name, run.spec.agent.args) == (AGENT, {"count": 2})
    assert (run.spec.generator.name, run.spec.generator.args) == (PAINTER, {"style": "ink"})
    assert run.spec.system == f"{AGENT}(count=2) + {PAINTER}(style=ink)" == run.summary.system
    assert api.default_out(run.spec).name.startswith("knowgen_mini__tests.helpers.agents-FakeAgent-count-2-tests.h")


def test_an_object_is_an_agent_too(tmp_path: Path) -> None:
    agent, painter = FakeAgent(), Painter("oil")
    agent.painter = painter
    run = evaluate(tmp_path / "run", agent)
    assert len(painter.given) == 3 == agent.calls.total()
    assert run.spec.agent is not None and run.spec.agent.args == {"count": 2, "cost": 0.0}
    assert run.spec.generator.args == {"style": "oil"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"painter": "nobody"}, "unknown generator 'nobody'"),
        ({"painter": None}, "names no image model"),
        ({"painter": AGENT}, "is an agent, which generates no images itself"),
        ({"painter": "noise"}, "takes no reference images"),
        ({"painter": PAINTER, "painter.size": 3}, "unexpected keyword argument 'size'"),
        ({"painter": PAINTER, "rounds": 3}, "unexpected keyword argument 'rounds'"),
        ({"painter": PAINTER, "fallback": "guess"}, "takes one of draw, fail"),
    ],
)
def test_arguments_that_do_not_fit_are_named_before_anything_is_built(
    tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    class Nameless(FakeAgent):
        painter = None

    agent = AGENT if arguments["painter"] is not None else Nameless
    with pytest.raises(UsageError, match=words):
        evaluate(tmp_path / "run", agent, generator_args=arguments)
    assert not (tmp_path / "run").exists()


def test_another_image_model_reuses_the_searches_of_a_run(tmp_path: Path) -> None:
    evaluate(tmp_path / "first")
    other = {"painter": PAINTER, "painter.style": "oil", "count": 2, "fallback": "fail"}
    run = evaluate(tmp_path / "second", count=4, generator_args=other, requests=tmp_path / "first")
    assert run.outcome is not None and (run.outcome.answer_cached, run.outcome.answered) == (3, 1)
    assert run.spec.requests == ""
    again = evaluate(tmp_path / "second", count=4, generator_args=other)
    assert again.outcome is not None and again.outcome.all_cached, "the answers are stored in the run itself"
    changed = evaluate(tmp_path / "third", generator_args={**other, "count": 1}, requests=tmp_path / "first")
    assert changed.outcome is not None and changed.outcome.answered == 3, "another agent gives other answers"


def test_answers_that_an_agent_cannot_take_over_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: is missing"):
        evaluate(tmp_path / "run", requests=tmp_path / "nowhere")
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(DataError, match=r"results\.json: has no stored answers of an agent; name a run of this agent"):
        evaluate(tmp_path / "run", requests=tmp_path / "results.json")


def test_a_plain_generator_makes_the_same_images_from_the_answers_of_a_run(tmp_path: Path) -> None:
    run = evaluate(tmp_path / "first")
    plain = knowgen.evaluate(
        "knowgen_mini", PAINTER, [OfficialHalf()], out=tmp_path / "plain", ids=first_ids(3), workers=0,
        generator_args={"style": "ink"}, requests=tmp_path / "first",
    )  # fmt: skip
    assert plain.spec.agent is None and plain.spec.requests.startswith(AGENT)
    assert image_digests(run.path) == image_digests(plain.path) and len(image_digests(run.path)) == 3
    generation = next(iter(stored(plain.path)[1].values()))
    assert generation.ending == "answer" and generation.trajectory and generation.evidence


def test_the_official_export_has_prompts_and_references_that_another_run_reads(tmp_path: Path) -> None:
    run = knowgen.evaluate(
        "knowgen_mini", AGENT, [OfficialHalf()], out=tmp_path / "run", ids=first_ids(2), workers=0,
        generator_args={"painter": PAINTER, "painter.style": "ink"},
    )  # fmt: skip
    api.export(run, "official", tmp_path / "run" / "results.json")
    item = json.loads((tmp_path / "run" / "results.json").read_text())[0]
    answer = stored(run.path)[0][f"{item['id']} 0"]
    assert item["gen_prompt"] == answer.prompt
    first = item["reference_images"][0]
    assert (first["img_id"], first["note"]) == ("IMG_000", "note 0")
    assert (tmp_path / "run" / first["local_path"]).read_bytes() == Path(str(answer.references[0].path)).read_bytes()
    again = knowgen.evaluate(
        "knowgen_mini", PAINTER, [OfficialHalf()], out=tmp_path / "again", ids=first_ids(2), workers=0,
        generator_args={"style": "ink"}, requests=tmp_path / "run" / "results.json",
    )  # fmt: skip
    assert image_digests(again.path) == image_digests(run.path)


def test_a_directory_holds_the_run_of_one_agent(tmp_path: Path) -> None:
    evaluate(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"agent\.args\.count is 2 there and 1 here"):
        evaluate(tmp_path / "run", generator_args={"painter": PAINTER, "painter.style": "ink", "count": 1})


def test_shards_are_merged_with_their_answers_and_images(tmp_path: Path) -> None:
    whole = evaluate(tmp_path / "whole", count=4)
    for number in (1, 2):
        evaluate(tmp_path / f"part{number}", count=4, shard=f"{number}/2")
    merged = merge([tmp_path / "part1", tmp_path / "part2"], tmp_path / "merged")
    assert verify(merged.path).ok
    (answers_of_parts, images_of_parts), (answers_of_whole, images_of_whole) = stored(merged.path), stored(whole.path)
    assert answers_of_parts.keys() == answers_of_whole.keys() and images_of_parts.keys() == images_of_whole.keys()
    with RunStore.read(merged.path) as store:
        answers = list(store.answers())
        assert len(answers) == 4
        assert all(store.image_ok(image) for _, answer in answers for image in answer.images)


def test_a_run_is_verified_down_to_the_images_that_its_agent_saw(tmp_path: Path) -> None:
    def script(request: Any, call: int) -> AgentAnswer | None:
        return no_answer("no_answer") if call and request.prompt == prompts[1] else None

    prompts = [sample.prompt for sample in knowgen.load_task("knowgen_mini").samples()]
    agent = FakeAgent()
    agent.painter, agent.script = Painter(), script
    run = evaluate(tmp_path / "run", agent)
    result = verify(run.path)
    assert result.ok and (result.checked["answers"], result.checked["keys"]) == (3, 9)
    answer = next(one for one in stored(run.path)[0].values() if one.status is AnswerStatus.OK)
    assert answer.images[-1].path is not None and answer.images[-1] not in answer.references
    answer.images[-1].path.unlink()
    assert [str(finding) for finding in verify(run.path).findings if finding.check == "images"]


def test_images_are_reproduced_from_the_stored_answers_without_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = evaluate(tmp_path / "run")

    async def forbidden(self: object, request: object) -> None:
        raise AssertionError("the agent was called")

    monkeypatch.setattr(FakeAgent, "answer", forbidden)
    result = reproduce(run.path)
    assert len(result.images) == 3 and all(image.verdict == "same" for image in result.images), result.images


@pytest.mark.parametrize(
    ("painter", "arguments", "most"),
    [
        ("http:http://127.0.0.1:9", {}, 3),
        ("http:http://127.0.0.1:9", {"most_references": 1}, 1),
        ("gemini:gemini-2.5-flash-image", {"base_url": "http://127.0.0.1:9"}, 3),
        ("gemini:gemini-3-pro-image-preview", {"base_url": "http://127.0.0.1:9"}, 14),
        ("openai:gpt-image-1", {"base_url": "http://127.0.0.1:9/v1"}, 16),
        ("tests.helpers.agents:TwoReferences", {}, 2),
        (PAINTER, {}, None),
    ],
)
def test_the_number_of_references_of_an_image_model_is_known_before_it_is_built(
    painter: str, arguments: dict[str, Any], most: int | None
) -> None:
    flat = {"painter": painter, **{f"painter.{name}": value for name, value in arguments.items()}}
    system = resolve_system(AGENT, flat, None)
    assert system.agent is not None and system.agent.spec.args == {}
    assert system.generator.capabilities.most_references == most


AGENT_FILE = """
from tests.helpers.agents import FakeAgent, Painter


class Mine(FakeAgent):
    revision = "1"


class Paints(Painter):
    revision = "1"
"""


def test_a_suite_names_the_agent_and_its_image_model_as_its_file_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "suites"
    folder.mkdir()
    (folder / "mine.py").write_text(AGENT_FILE)
    system = {
        "generator": "mine.py:Mine",
        "name": "mine",
        "args": {"painter": "mine.py:Paints", "painter.style": "ink"},
    }
    suite = {"systems": [system], "tasks": [{"task": "knowgen_mini", "limit": 1}], "scorers": ["pixels"]}
    (folder / "suite.yaml").write_text(json.dumps({**suite, "workers": 0}))
    monkeypatch.chdir(tmp_path)
    result = run_suite(folder / "suite.yaml", tmp_path / "out")
    assert [each.status for each in result.runs] == ["done"]
    with RunStore.read(result.runs[0].path) as store:
        assert store.spec.agent is not None
        assert (store.spec.agent.name, store.spec.generator.name) == ("mine.py:Mine", "mine.py:Paints")
        assert len(list(store.answers())) == 1


def test_the_summary_counts_answers_apart_from_images(tmp_path: Path) -> None:
    def script(request: Any, call: int) -> AgentAnswer | None:
        ending = {prompts[0]: "no_answer", prompts[1]: "repeated_response"}.get(request.prompt)
        return None if ending is None else no_answer(ending)

    prompts = [sample.prompt for sample in knowgen.load_task("knowgen_mini").samples()]
    agent = FakeAgent(cost=0.02)
    agent.painter, agent.script = Painter(), script
    run = evaluate(tmp_path / "run", agent, count=4)
    counts = run.summary.answers
    assert counts is not None
    assert (counts.expected, counts.answered, counts.none, counts.fallbacks) == (4, 2, 2, 2)
    assert counts.endings == {"answer": 2, "no_answer": 1, "repeated_response": 1}
    parts = {part.name: part.samples for part in run.summary.slices if part.kind == "answer"}
    assert parts == {"used": 2, "fallback": 2}, "they are scored apart"
    assert "answers of the agent: 4 of 4 (2 answer, 1 no_answer, 1 repeated_response); 2 fallbacks" in run.summary.notes
    assert run.summary.cost == pytest.approx(0.08), "searches that ended without an answer were paid for too"
    written = json.loads((run.path / "summary.json").read_text())["summaries"][0]
    assert written["answers"]["endings"] == counts.endings
    assert {row.ending for row in run.rows()} == {"answer", "no_answer", "repeated_response"}
    table = run.to_pandas()
    assert sorted(table["ending"]) == ["answer", "answer", "no_answer", "repeated_response"]
    assert sorted(table["answer_status"]) == ["none", "none", "ok", "ok"] and table["fallback"].notna().sum() == 2
    page = api.write_report([run], run.path / "report").read_text()
    assert "2 paid calls" in page and ">Agent</th>" in page


class PricedSearch:
    """A search backend whose queries cost something."""

    version = "1"

    def __init__(self, price: float = 0.002) -> None:
        self.price = price

    @classmethod
    def query_price(cls, price: float = 0.002) -> float:
        return price

    async def search(self, query: str, k: int = 5) -> list[Any]:
        return []

    async def image_search(self, query: str, k: int = 5) -> list[Any]:
        return []

    async def open(self, url: str) -> None:
        raise LookupError(url)


class Policy:
    """A policy whose calls cost something."""

    revision = "3"
    identity_excludes = frozenset({"places"})

    def __init__(self, model: str = "", temperature: float = 0.6, places: int = 8, price: float | None = None) -> None:
        self.temperature = temperature

    @classmethod
    def price_known(cls, price: float | None = None, **_: Any) -> bool:
        return price is not None


class WithParts(FakeAgent):
    """An agent with a policy and a search backend."""

    wants_search = True

    def __init__(self, policy: str, search: Any, painter: str = "", **parts: Any) -> None:
        super().__init__()


def test_the_parts_of_an_agent_are_identified_by_what_decides_its_answers() -> None:
    here = "tests.workflows.test_agent_runs"
    flat = {
        "painter": PAINTER, "policy": f"{here}:Policy", "policy.temperature": ArgumentText("0.1"),
        "policy.places": ArgumentText("64"), "search": f"{here}:PricedSearch", "search.price": ArgumentText("0.005"),
        "summary": "small-model", "summary.base_url": "http://127.0.0.1:9/v1", "summary.max_tokens": ArgumentText("99"),
    }  # fmt: skip
    agent = resolve_system(f"{here}:WithParts", flat, None).agent
    assert agent is not None
    policy, summary = agent.spec.parts["policy"], agent.spec.parts["summary"]
    assert (policy.name, policy.args, policy.version) == (f"{here}:Policy", {"temperature": 0.1}, "3")
    assert (summary.name, summary.args) == ("small-model", {"max_tokens": 99})
    assert agent.spec.search == f"{here}:PricedSearch@1" and agent.spec.args == {}
    assert agent.query_price == 0.005 and agent.price_known is False
    assert "policy=" in agent.spec.label
    plan = api.plan(
        "knowgen_mini", f"{here}:WithParts", ["pixels"], api.RunConfig(generator_args=flat, limit=2, workers=0)
    )
    assert f"a query of {here}:PricedSearch is at most $0.005" in api.forecast(plan, Path("nowhere"))
    assert any("policy.price_in" in line for line in api.price_warnings(plan))


def test_the_forecast_names_agent_and_answers(tmp_path: Path) -> None:
    arguments = {"painter": PAINTER, "cost": 0.02, "fallback": "fail"}
    config = api.RunConfig(generator_args=arguments, ids=first_ids(3), workers=0)
    plan = api.plan("knowgen_mini", AGENT, ["pixels"], config)
    before = api.forecast(plan, tmp_path / "run")
    assert f"agent      {AGENT} 1" in before and 'cost=0.02 fallback="fail"' in before
    assert "answers    3" in before and f"{AGENT}: 3 to search for" in before
    evaluate(tmp_path / "run", count=1, generator_args=arguments)
    assert f"{AGENT}: 2 to search for, about $0.04 ($0.0200 each, from 1 stored answer)" in api.forecast(
        plan, tmp_path / "run"
    )


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_run_is_scored_again_with_its_answers(tmp_path: Path, *, elsewhere: bool) -> None:
    def script(request: Any, call: int) -> AgentAnswer | None:
        return no_answer("no_answer") if request.prompt == prompt else None

    prompt = next(iter(knowgen.load_task("knowgen_mini").samples())).prompt
    agent = FakeAgent(count=4)
    agent.painter, agent.script = TwoReferences(), script
    first = evaluate(tmp_path / "run", agent)
    again = api.score(first.path, [Other()], out=tmp_path / "other" if elsewhere else None)
    assert again.spec.agent == first.spec.agent and again.spec.system == first.spec.system
    assert again.outcome is not None and again.outcome.scored == 3
    assert stored(again.path)[0].keys() == stored(first.path)[0].keys()
    for name, generation in stored(again.path)[1].items():
        before = stored(first.path)[1][name]
        assert (generation.ending, generation.fallback) == (before.ending, before.fallback)
        assert generation.image is not None and before.image is not None
        assert generation.image.sha256 == before.image.sha256
        assert len(generation.references) == (0 if generation.fallback else 2)
    assert again.summary.answers == first.summary.answers
    assert verify(again.path).ok, verify(again.path).findings


@pytest.mark.parametrize(
    ("tools", "optional"), [({}, False), ({"tools": "search,browse"}, True), ({"tools": "search, image_search"}, False)]
)
def test_gen_searcher_needs_references_where_it_can_look_for_images(tools: dict[str, str], *, optional: bool) -> None:
    flat = {"painter": PAINTER, "policy": "tests.workflows.test_agent_runs:Policy", **tools}
    system = resolve_system("gen_searcher", flat, knowgen.load_task("knowgen_mini"))
    assert system.agent is not None and system.agent.spec.references_optional is optional
    assert system.agent.spec.search.startswith("world@") and system.agent.spec.args == tools
