"""`knowgen check generator` on an agent: one trial answer, its references, and what a run would take."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from knowgen.cli.main import run
from knowgen.core.records import AgentAnswer, AnswerStatus, GenerationRequest, ImageRef, request_id
from knowgen.validation.agent import check_agent
from knowgen.validation.findings import Finding, worst
from tests.helpers.agents import FakeAgent, agent_handle, no_answer

MISSING = ImageRef(sha256="0" * 64, width=1, height=1, format="PNG", path=Path("/nowhere.png"))
REQUEST = GenerationRequest(id=request_id("one", 0), prompt="A red kite.", seed=1)


def findings(agent: Any, timeout: float = 60.0) -> list[Finding]:
    return check_agent(agent_handle(agent), REQUEST, samples=100, timeout=timeout, device="cpu")


def said(found: list[Finding], check: str) -> list[Finding]:
    return [each for each in found if each.check == check and each.level != "ok"]


def test_a_good_agent_passes_with_its_cost() -> None:
    agent = FakeAgent(cost=0.02)
    found = findings(agent)
    assert worst(found) == "ok", found
    assert agent.calls.total() == 1 and agent.closed
    assert "100 answers" in str(found[-1]) and "$2.00" in str(found[-1])


class Edited(FakeAgent):
    """Changes fields of a good answer."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        self.changes = changes

    def good(self, request: GenerationRequest) -> AgentAnswer:
        return super().good(request).model_copy(update=self.changes)


@pytest.mark.parametrize(
    ("changes", "check", "level", "words"),
    [
        ({"prompt": " "}, "answer", "warn", "no prompt"),
        ({"references": (), "reference_notes": ()}, "references", "warn", "would not be used"),
        ({"reference_notes": ({"note": "one"},)}, "references", "warn", "1 notes for 2 references"),
        ({"images": ()}, "references", "warn", "not among `images`"),
        ({"ending": ""}, "ending", "warn", "cannot count"),
        ({"trajectory": ()}, "trajectory", "warn", "no steps"),
        ({"status": AnswerStatus.FAILED, "reason": "no luck"}, "answer", "fail", "no luck"),
        ({"references": (MISSING, MISSING)}, "references", "fail", "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_answer_is_named(changes: dict[str, Any], check: str, level: str, words: str) -> None:
    found = said(findings(Edited(**changes)), check)
    assert [each.level for each in found][:1] == [level] and words in str(found[0])


def test_an_ending_without_an_answer_is_a_warning_with_its_reason() -> None:
    agent = FakeAgent()
    agent.script = lambda request, number: no_answer("repeated_response")
    (one,) = said(findings(agent), "answer")
    assert one.level == "warn" and "repeated_response" in one.what and "fallback=draw" in one.fix


class Raises(FakeAgent):
    async def answer(self, request: GenerationRequest) -> AgentAnswer:
        raise RuntimeError("no search today")


class WrongType(FakeAgent):
    async def answer(self, request: GenerationRequest) -> AgentAnswer:
        return {"prompt": "x"}  # type: ignore[return-value]


class Hangs(FakeAgent):
    async def answer(self, request: GenerationRequest) -> AgentAnswer:
        await asyncio.sleep(3600)
        raise AssertionError


class ClosesOnce(FakeAgent):
    async def close(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


@pytest.mark.parametrize(
    ("agent", "check", "words", "timeout"),
    [
        (Raises(), "answer", "no search today", 60.0),
        (WrongType(), "answer", "returned dict, not an AgentAnswer", 60.0),
        (Hangs(), "answer", "no result within", 0.2),
        (ClosesOnce(), "close", "the second call raises", 60.0),
    ],
)
def test_an_agent_that_breaks_the_contract_fails(agent: Any, check: str, words: str, timeout: float) -> None:
    found = findings(agent, timeout)
    (one,) = said(found, check)
    assert one.level == "fail" and words in one.what and worst(found) == "fail"


def test_the_bundled_agent_passes_with_the_search_of_the_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "generator", "gen_searcher", "-g", "policy=scripted"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"ok +references: \d that open", output) and output.endswith(" 0 warnings, 0 failed\n")


def test_a_wrong_image_model_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "generator", "gen_searcher", "-g", "policy=scripted", "-g", "painter=nope"]) == 2
    assert "unknown generator 'nope'" in capsys.readouterr().err
