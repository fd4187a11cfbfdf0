"""The bundled agent as a run uses it: from a request to an answer that is stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowgen.agents.gen_searcher import GenSearcher
from knowgen.core.records import AnswerStatus, GenerationRequest
from knowgen.search.contract import Hit
from tests.helpers.search_agents import FakeSearch, ScriptedPolicy, answer, call, image_hits
from tests.helpers.virtual_time import run


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", str(tmp_path / "cache"))


def test_a_request_becomes_an_answer_with_references_and_everything_that_led_to_it(tmp_path: Path) -> None:
    policy = ScriptedPolicy(
        [
            call("search", {"queries": ["red boat"]}, thought="Which boat?"),
            call("image_search", {"query": "red boat"}),
            answer("The boat of the first reference image.", ["IMG_002"]),
        ]
    )
    search = FakeSearch([Hit(title="Boats", url="https://example.org", snippet="A boat.")], image_hits(tmp_path, 3))
    agent = GenSearcher(policy, search)
    result = run(agent.answer(GenerationRequest(id="r1", prompt="Draw a boat.", seed=7)))
    assert (result.status, result.ending) == (AnswerStatus.OK, "answer")
    assert result.prompt == "The boat of the first reference image."
    assert [image.path for image in result.references] == [tmp_path / "2.png"]
    assert result.reference_notes[0]["img_id"] == "IMG_002" and result.reference_notes[0]["note"] == "note IMG_002"
    assert len(result.images) == 3
    assert [step["thought"] for step in result.trajectory] == ["Which boat?", "", ""]
    assert {part.part for part in result.usage} == {"policy", "search"}
    assert policy.samplings[0].seed == 7 and policy.closed == 1
