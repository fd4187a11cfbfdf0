"""The search backend `oracle`: first what the ground truth rests on, and never without a ground truth."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import knowgen
from knowgen.agents.gen_searcher import GenSearcher
from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.records import AnswerStatus, GenerationRequest, GroundTruth
from knowgen.store.run import RunStore
from knowgen.workflows.agents import resolve_system
from knowgen.workflows.resolve import resolve_generator
from knowgen.worlds.baselines.scripted import ScriptedPolicy
from knowgen.worlds.oracle_search import OracleSearch
from tests.helpers.built_world import BuiltWorld, rows_of

ARGUMENTS = {"policy": "scripted", "painter": "painter", "search": "oracle"}


def oracle(world: BuiltWorld) -> OracleSearch:
    return OracleSearch(f"world:{world.folder / 'search'}")


def test_the_pages_of_the_evidence_come_first_for_every_query(built_world: BuiltWorld) -> None:
    backend = oracle(built_world)
    for sample in list(built_world.task.samples())[:12]:
        truth = built_world.task.truth(sample.id)
        search = backend.for_truth(truth)
        for query in ("nothing of this", truth.subjects[0]["name"], sample.prompt):
            hits = asyncio.run(search.search(query, 30))
            count = len(truth.evidence)
            assert {hit.url for hit in hits[:count]} == set(truth.evidence)
            assert len({hit.url for hit in hits}) == len(hits)
            assert asyncio.run(search.search(query, 1)) == hits[:1]
    asyncio.run(backend.close())


def test_a_true_image_of_each_subject_comes_first_and_is_none_of_the_world(built_world: BuiltWorld) -> None:
    backend = oracle(built_world)
    known = {row["image"]["sha256"] for row in rows_of(built_world.folder / "search" / "pictures.jsonl")}
    sample = next(each for each in built_world.task.samples() if len(built_world.task.truth(each.id).subjects) > 1)
    truth = built_world.task.truth(sample.id)
    names = [subject["name"] for subject in truth.subjects]
    search = backend.for_truth(truth)
    hits = asyncio.run(search.image_search(names[1], 6))
    assert [hit.title for hit in hits[: len(names)]] == [names[1], names[0], *names[2:]]
    assert len(hits) == 6 and all(hit.image is not None for hit in hits)
    from_the_world = [hit.image is not None and hit.image.sha256 in known for hit in hits]
    assert from_the_world == [False] * len(names) + [True] * (6 - len(names))
    again = asyncio.run(backend.for_truth(truth).image_search(names[1], 1))[0]
    assert again == hits[0]
    path = again.image.path if again.image is not None else None
    assert path is not None and path.is_file()
    asyncio.run(backend.close())
    assert not path.exists()


def test_the_true_image_differs_from_that_of_what_looks_alike(built_world: BuiltWorld) -> None:
    backend = oracle(built_world)
    truth = built_world.task.truth(next(iter(built_world.task.samples())).id)
    alike = truth.model_copy(
        update={"sample_id": "alike", "subjects": ({**truth.subjects[0], "look": truth.subjects[0]["look_alike"]},)}
    )
    true, other = (asyncio.run(backend.for_truth(each).image_search("x", 1))[0].image for each in (truth, alike))
    assert true is not None and other is not None
    assert not np.array_equal(np.asarray(true.open()), np.asarray(other.open()))
    asyncio.run(backend.close())


def test_without_a_ground_truth_nothing_is_answered(built_world: BuiltWorld) -> None:
    backend = oracle(built_world)
    for call in (backend.search("x"), backend.image_search("x"), backend.open("https://atlas.example/x")):
        with pytest.raises(ConfigError, match="the ground truth of the sample is not known"):
            asyncio.run(call)
    agent = GenSearcher(ScriptedPolicy(), backend, painter="painter")
    assert agent.privileged
    with pytest.raises(ConfigError, match="has no ground truth"):
        asyncio.run(agent.answer(GenerationRequest(id="1", prompt="the tower Ovar")))


def test_a_ground_truth_that_does_not_fit_is_refused(built_world: BuiltWorld) -> None:
    backend = oracle(built_world)
    with pytest.raises(UsageError, match="has no evidence and appearances"):
        backend.for_truth(GroundTruth(sample_id="s1"))
    truth = built_world.task.truth(next(iter(built_world.task.samples())).id)
    foreign = truth.model_copy(update={"evidence": ("https://atlas.example/elsewhere",)})
    with pytest.raises(UsageError, match="is not among its pages"):
        asyncio.run(backend.for_truth(foreign).search("x"))


def test_a_run_with_it_is_privileged_whatever_uses_it() -> None:
    task = knowgen.load_task("knowgen_mini")
    system = resolve_system("gen_searcher", ARGUMENTS, task)
    assert system.agent is not None
    assert system.agent.spec.privileged and system.agent.capabilities.privileged
    assert system.agent.spec.search.startswith("oracle@world@")
    plain = resolve_system("gen_searcher", {**ARGUMENTS, "search": "world"}, task).agent
    assert plain is not None and not plain.spec.privileged and not plain.capabilities.privileged
    other = resolve_generator(f"{__name__}:Searching", {"search": "oracle"}, task)
    assert other.spec.privileged and other.capabilities.privileged


class Searching:
    """A generator that searches, and cannot hand on a ground truth."""

    wants_search = True
    revision = "1"

    def __init__(self, search: object) -> None:
        self.search = search

    def draw(self, prompt: str, references: object, seed: int) -> object:
        raise NotImplementedError


def test_the_agent_hands_it_the_truth_of_each_sample(tmp_path: Path) -> None:
    task = knowgen.load_task("knowgen_mini")
    ids = [sample.id for sample in task.samples()][:3]
    run = knowgen.evaluate(
        "knowgen_mini", "gen_searcher", "pixels", generator_args=ARGUMENTS, ids=ids, out=tmp_path / "run", workers=0
    )
    assert run.spec.privileged
    with RunStore.read(run.path) as store:
        answers = {answer.sample_id: answer for _, answer in store.answers()}
    for name in ids:
        truth = task.truth(name)
        assert answers[name].status is AnswerStatus.OK
        assert set(truth.evidence) <= {each["url"] for each in answers[name].evidence}
        seen = {title for step in answers[name].trajectory for title in _oracle_images(step)}
        assert seen == {one["name"] for one in truth.subjects}
    again = knowgen.evaluate(
        "knowgen_mini", "painter", "pixels", ids=ids, out=tmp_path / "again", workers=0, requests=run.path
    )
    assert again.spec.agent is None and again.spec.privileged  # its answers come from the ground truth


def _oracle_images(step: Mapping[str, Any]) -> list[str]:
    """Return the titles of the images of a step that show the ground truth."""
    return [image["title"] for image in step["new_images"] if "/oracle/" in image["url"]]
