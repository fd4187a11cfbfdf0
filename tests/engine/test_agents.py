"""An agent and its image model are two stages: each has its own results, attempts and schedule."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from knowgen.core.errors import AccountError, TransientError
from knowgen.core.leaks import blocked_url
from knowgen.core.records import AgentAnswer, AnswerStatus, FailureCause, GenerationRequest, GenerationStatus
from knowgen.engine import AgentHandle, ComponentRef
from knowgen.interchange.agent_answers import open_keyed_answers
from tests.helpers.agents import FakeAgent, Painter, TwoReferences, agent_handle, no_answer
from tests.helpers.engine import Bench, Half, generator_handle, png, quick, scorer_handle


def test_an_image_is_generated_from_the_answer_of_the_agent(tmp_path: Path) -> None:
    agent, painter, bench = FakeAgent(), Painter(), Bench(tmp_path / "run")
    outcome = bench.run(3, painter, [scorer_handle(Half())], agent=agent_handle(agent))
    assert (outcome.answered, outcome.generated, outcome.scored) == (3, 3, 3)
    assert outcome.endings == {"answer": 3} and outcome.fallbacks == 0
    assert sorted(painter.given) == [(f"In other words: Draw number {n}.", 2) for n in range(3)]
    answer, generation = bench.answers()["s1", 0], bench.generations()["s1", 0]
    assert (answer.status, answer.ending, answer.attempts) == (AnswerStatus.OK, "answer", 1)
    for image in (*answer.references, *answer.images):
        assert image.path is not None and image.path.is_relative_to(bench.path / "images") and image.path.is_file()
    assert [image.sha256 for image in answer.images] == answer.trajectory[0]["images"]
    assert generation.used_prompt == answer.prompt and generation.ending == "answer" and not generation.fallback
    assert [(one["note"], one["sha256"]) for one in generation.references] == [
        (f"note {n}", image.sha256) for n, image in enumerate(answer.references)
    ]
    assert all(Path(one["path"]).is_file() for one in generation.references)
    assert generation.evidence == answer.evidence


def test_a_second_run_repeats_nothing(tmp_path: Path) -> None:
    agent, bench = FakeAgent(), Bench(tmp_path / "run")
    bench.run(3, Painter(), [scorer_handle(Half())], agent=agent_handle(agent))
    again = bench.run(3, Painter(), [scorer_handle(Half())], agent=agent_handle(agent))
    assert again.all_cached and (again.answer_cached, again.generation_cached, again.score_cached) == (3, 3, 3)
    assert agent.calls.total() == 3


def test_another_image_model_takes_every_search_of_a_run(tmp_path: Path) -> None:
    first, second = FakeAgent(cost=0.01), FakeAgent(cost=0.01)
    Bench(tmp_path / "first").run(3, Painter(), agent=agent_handle(first))
    painter, bench = Painter("other"), Bench(tmp_path / "second")
    outcome = bench.run(
        4,
        generator_handle(painter, name="other"),
        agent=agent_handle(second),
        answers=open_keyed_answers(tmp_path / "first"),
    )
    assert (outcome.answered, outcome.answer_cached, outcome.generated) == (1, 3, 4)
    assert dict(second.calls) == {"Draw number 3.": 1} and outcome.cost == pytest.approx(0.01)
    taken, made = bench.answers()["s0", 0], Bench(tmp_path / "first").answers()["s0", 0]
    assert (taken.prompt, taken.trajectory) == (made.prompt, made.trajectory)
    assert [image.sha256 for image in taken.images] == [image.sha256 for image in made.images]
    assert all(image.path is not None and image.path.is_file() for image in taken.images)


def test_a_failed_image_does_not_make_the_agent_search_again(tmp_path: Path) -> None:
    class Fails(Painter):
        def draw(self, prompt: str, references: object, seed: int) -> object:  # type: ignore[override]
            raise RuntimeError("out of paint")

    agent, bench = FakeAgent(), Bench(tmp_path / "run")
    first = bench.run(3, Fails(), agent=agent_handle(agent))
    assert (first.answered, first.generation_failed, first.answer_failed) == (3, 3, 0)
    again = bench.run(3, Painter(), agent=agent_handle(agent))
    assert (again.answered, again.generated) == (0, 3)
    assert agent.calls.total() == 3 and bench.generations()["s0", 0].attempts == 2


@pytest.mark.parametrize("fallback", ["draw", "fail"])
def test_without_an_answer_the_own_prompt_is_generated_or_the_sample_fails(tmp_path: Path, fallback: str) -> None:
    def script(request: GenerationRequest, call: int) -> AgentAnswer | None:
        return no_answer("repeated_response") if "number 1" in request.prompt else None

    agent, painter, bench = FakeAgent(), Painter(), Bench(tmp_path / "run")
    agent.script = script
    handle = agent_handle(agent, fallback=fallback)
    outcome = bench.run(2, painter, [scorer_handle(Half())], agent=handle)
    assert (outcome.answered, outcome.answer_failed, outcome.fallbacks) == (2, 0, 1)
    assert outcome.endings == {"answer": 1, "repeated_response": 1}
    generation = bench.generations()["s1", 0]
    assert generation.ending == "repeated_response" and "repeated_response" in generation.fallback
    if fallback == "draw":
        assert ("Draw number 1.", 0) in painter.given and generation.status is GenerationStatus.OK
        assert not generation.used_prompt and not generation.references
    else:
        assert len(painter.given) == 1 and "gave no usable answer" in generation.reason
        assert (generation.status, generation.cause) == (GenerationStatus.FAILED, FailureCause.SYSTEM)
    again = bench.run(2, painter, [scorer_handle(Half())], agent=handle)
    assert (again.answered, again.generated, again.fallbacks) == (0, 0, 1) and agent.calls.total() == 2


def test_references_are_limited_to_what_the_image_model_takes(tmp_path: Path) -> None:
    painter, bench = TwoReferences(), Bench(tmp_path / "run")
    bench.run(1, painter, agent=agent_handle(FakeAgent(count=4)))
    generation = bench.generations()["s0", 0]
    assert painter.given == [("In other words: Draw number 0.", 2)]
    assert len(generation.references) == 2 and generation.settings["references_left_out"] == 2
    assert len(bench.answers()["s0", 0].references) == 4


def test_a_phased_run_finishes_each_stage_and_frees_its_plugin_before_the_next(tmp_path: Path) -> None:
    events: list[str] = []

    class Searches(FakeAgent):
        async def answer(self, request: GenerationRequest) -> AgentAnswer:
            events.append("search")
            return await super().answer(request)

        async def close(self) -> None:
            events.append("free agent")

    class Paints(Painter):
        def draw(self, prompt: str, references: object, seed: int) -> object:  # type: ignore[override]
            events.append("paint")
            return super().draw(prompt, [], seed)

        def close(self) -> None:
            events.append("free painter")

    class Judges(Half):
        async def score(self, *item: object) -> object:  # type: ignore[override]
            events.append("judge")
            return await super().score(*item)  # type: ignore[arg-type]

    outcome = Bench(tmp_path / "run").run(
        3, Paints(), [scorer_handle(Judges())], quick(schedule="phased"), agent=agent_handle(Searches())
    )
    assert events == ["search"] * 3 + ["free agent"] + ["paint"] * 3 + ["free painter"] + ["judge"] * 3
    assert (outcome.answered, outcome.generated, outcome.scored, outcome.failed) == (3, 3, 3, 0)
    assert outcome.endings == {"answer": 3}


def test_a_failure_of_the_infrastructure_is_not_a_result_and_is_searched_for_again(tmp_path: Path) -> None:
    def script(request: GenerationRequest, call: int) -> AgentAnswer | BaseException | None:
        if "number 1" in request.prompt and not healed:
            return AgentAnswer(status=AnswerStatus.FAILED, cause=FailureCause.INFRASTRUCTURE, reason="no network")
        return None

    healed: list[bool] = []
    agent, bench = FakeAgent(), Bench(tmp_path / "run")
    agent.script = script
    first = bench.run(2, Painter(), [scorer_handle(Half())], agent=agent_handle(agent))
    assert (first.answered, first.answer_failed, first.generated) == (1, 1, 1)
    row = bench.rows()[1]
    assert (row.answer, row.answer_cause) == (AnswerStatus.FAILED, FailureCause.INFRASTRUCTURE)
    assert row.generation_cause is FailureCause.INFRASTRUCTURE and "no network" in row.generation_reason
    healed.append(True)
    again = bench.run(2, Painter(), [scorer_handle(Half())], agent=agent_handle(agent))
    assert (again.answered, again.answer_failed, again.generated, again.scored) == (1, 0, 1, 1)
    assert [row.answer for row in bench.rows()] == [AnswerStatus.OK, AnswerStatus.OK]


def test_a_transient_error_is_repeated_and_another_error_is_a_failure_of_the_agent(tmp_path: Path) -> None:
    def script(request: GenerationRequest, call: int) -> AgentAnswer | BaseException | None:
        if "number 0" in request.prompt:
            return TransientError("hiccup", retry_after=0.0) if call == 1 else None
        return ValueError("broken")

    agent, bench = FakeAgent(), Bench(tmp_path / "run")
    agent.script = script
    outcome = bench.run(2, Painter(), agent=agent_handle(agent))
    assert (outcome.answered, outcome.answer_failed, outcome.generated, outcome.generation_failed) == (1, 1, 1, 1)
    answers = bench.answers()
    assert (answers["s0", 0].attempts, answers["s1", 0].cause) == (2, FailureCause.SYSTEM)
    assert "the agent failed: ValueError: broken" in bench.generations()["s1", 0].reason


def test_an_account_that_is_turned_away_ends_the_run_and_leaves_the_rest_not_run(tmp_path: Path) -> None:
    agent, bench = FakeAgent(), Bench(tmp_path / "run")
    agent.script = lambda request, call: AccountError("the key is not valid", where="search engine")
    with pytest.raises(AccountError, match="the key is not valid"):
        bench.run(5, Painter(), agent=agent_handle(agent))
    assert not bench.path.exists(), "a directory without any result is removed"


def test_the_budget_stops_the_search_and_what_was_found_is_kept(tmp_path: Path) -> None:
    agent, bench = FakeAgent(cost=0.1), Bench(tmp_path / "run")
    outcome = bench.run(8, Painter(), options=quick(budget=0.35, concurrency=1), agent=agent_handle(agent))
    assert outcome.stopped == "budget" and "search engine" in outcome.refusal
    assert len(bench.answers()) == 3 and outcome.cost == pytest.approx(0.3)
    more = bench.run(8, Painter(), options=quick(budget=10.0, concurrency=1), agent=agent_handle(agent))
    assert (more.answered, more.answer_cached, more.generated + more.generation_cached) == (5, 3, 8)


# -- code that is not of this project ----------------------------------------------------------------------------------


PUBLISHED = "https://huggingface.co/datasets/GenSearcher/KnowGen-Bench"


class Elsewhere(FakeAgent):
    """Says in which process it runs, and breaks where the prompt asks for it."""

    def __init__(self, breaks: str = "") -> None:
        super().__init__()
        self.breaks = breaks

    async def answer(self, request: GenerationRequest) -> AgentAnswer:
        broken = "number 1" in request.prompt
        if broken and self.breaks == "exit":
            os._exit(3)
        if broken and self.breaks == "type":
            return "a text"  # type: ignore[return-value]
        found = await super().answer(request)
        if broken and self.breaks == "file":
            assert found.images[0].path is not None
            found.images[0].path.write_bytes(png("something else"))
        if broken and self.breaks == "plain":
            return found.model_copy(update={"trajectory": ({"round": object()},)})
        return found.model_copy(update={"trajectory": ({"pid": os.getpid(), "leak": blocked_url(PUBLISHED)},)})


def foreign(breaks: str = "") -> AgentHandle:
    ref = ComponentRef("generators", "tests.engine.test_agents:Elsewhere", {"breaks": breaks})
    return agent_handle(Elsewhere(breaks), component_ref=ref)


def test_an_agent_that_is_not_of_this_project_runs_in_a_worker_process(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    outcome = bench.run(3, Painter(), agent=foreign())
    assert (outcome.answered, outcome.generated) == (3, 3)
    pids = {answer.trajectory[0]["pid"] for answer in bench.answers().values()}
    assert len(pids) == 1 and os.getpid() not in pids
    for answer in bench.answers().values():
        assert len(answer.images) == 3 and all(
            image.path is not None and image.path.is_file() for image in answer.images
        )
    assert (bench.path / "logs").is_dir()


@pytest.mark.parametrize("workers", [None, 0])
def test_the_leak_guard_of_the_task_is_around_every_call_of_an_agent(tmp_path: Path, workers: int | None) -> None:
    bench = Bench(tmp_path / "run")
    bench.run(1, Painter(), options=quick(workers=workers), agent=foreign())
    assert "the published benchmark" in bench.answers()["s0", 0].trajectory[0]["leak"]
    assert not blocked_url(PUBLISHED), "outside a run nothing is blocked"


@pytest.mark.parametrize("workers", [None, 0])
@pytest.mark.parametrize(
    ("breaks", "words"),
    [("type", "returned str, not an AgentAnswer"), ("plain", "not valid"), ("exit", "ended with code 3")],
)
def test_an_agent_that_breaks_its_contract_fails_one_sample(
    tmp_path: Path, breaks: str, words: str, workers: int | None
) -> None:
    if breaks == "exit" and workers == 0:
        pytest.skip("it would end this process")
    bench = Bench(tmp_path / "run")
    outcome = bench.run(3, Painter(), options=quick(workers=workers, tries=2), agent=foreign(breaks))
    assert (outcome.answered, outcome.answer_failed, outcome.generated) == (2, 1, 2)
    answer = bench.answers()["s1", 0]
    assert answer.status is AnswerStatus.FAILED and words in answer.reason
    assert f"the agent failed: {answer.reason}" == bench.generations()["s1", 0].reason


def test_an_image_file_that_was_changed_is_left_out_with_the_reason(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    bench.run(2, Painter(), agent=foreign("file"))
    answer, whole = bench.answers()["s1", 0], bench.answers()["s0", 0]
    assert (len(whole.references), len(answer.references), len(answer.images)) == (2, 1, 2)
    assert "another content than the agent said" in answer.reason
    assert [note["img_id"] for note in answer.reference_notes] == ["IMG_001"]


# -- whatever happens in whatever order -------------------------------------------------------------------------------

RUNS = st.lists(
    st.tuples(
        st.sampled_from(["ink", "oil", "chalk"]),
        st.frozensets(st.sampled_from(["0", "1", "2"])),
        st.sampled_from(["stream", "phased"]),
    ),
    min_size=1,
    max_size=5,
)


class Unreliable(Painter):
    """Fails for some samples."""

    def __init__(self, style: str, failing: frozenset[str]) -> None:
        super().__init__(style)
        self.failing = failing

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        if any(f"number {number}." in prompt for number in self.failing):
            raise RuntimeError("out of paint")
        return super().draw(prompt, references, seed)


@settings(max_examples=6, deadline=None)
@given(runs=RUNS)
def test_no_prompt_is_searched_for_twice_whatever_becomes_of_images(
    runs: list[tuple[str, frozenset[str], str]],
) -> None:
    agent, made, painted = FakeAgent(), list[Path](), dict[str, set[str]]()
    with tempfile.TemporaryDirectory() as folder:
        for style, failing, schedule in runs:
            bench = Bench(Path(folder) / style)
            outcome = bench.run(
                3,
                generator_handle(Unreliable(style, failing), name=style),
                options=quick(schedule=schedule),
                agent=agent_handle(agent),
                answers=open_keyed_answers(made[0]) if made else None,
            )
            made.append(bench.path)
            painted[style] = painted.get(style, set()) | ({"0", "1", "2"} - failing)
            assert outcome.answered + outcome.answer_cached == 3 and outcome.expected == 3
            assert {name.removeprefix("s") for (name, _), one in bench.generations().items() if one.image} == painted[
                style
            ]
    assert set(agent.calls.values()) == {1} and len(agent.calls) == 3
