"""`replay`: recorded replies repeat a trajectory without a model."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from knowgen.agents.policies.contract import PolicySession, Sampling
from knowgen.agents.policies.replay import ReplayPolicy
from knowgen.agents.records import Message, Step
from knowgen.core.errors import DataError, KnowgenError, UsageError
from tests.helpers.policies import SYSTEM

STEPS = [
    Step(round=1, reply="<tool_call>a</tool_call>", finish="stop", observation="found"),
    Step(round=2, reply="<answer>{}", finish="length"),
]


def steps_line(prompt: str, *steps: Step, **more: Any) -> str:
    return json.dumps({"prompt": prompt, "trajectory": [step.model_dump(mode="json") for step in steps], **more})


def chat_line(prompt: str, **more: Any) -> str:
    messages = [
        {"role": "system", "content": "You search."},
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": "<tool_call>a</tool_call>"},
        {"role": "user", "content": [{"type": "image", "image": "sha256"}, {"type": "text", "text": "found"}]},
        {"role": "assistant", "content": "<answer>{}", "finish": "length"},
    ]
    return json.dumps({"prompt": prompt, "messages": messages, **more})


def recorded(place: Path, *lines: str) -> str:
    path = place / "trajectories.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def replies(session: PolicySession, prompt: str, observations: list[str]) -> list[tuple[str, str]]:
    """Return text and finish of each reply, where observations follow the first ones."""

    async def run() -> list[tuple[str, str]]:
        messages = [SYSTEM, Message("user", prompt)]
        found: list[tuple[str, str]] = []
        for observation in [*observations, ""]:
            reply = await session.reply(messages)
            found.append((reply.text, reply.finish))
            messages += [Message("assistant", reply.text), Message("user", observation)]
        return found

    return asyncio.run(run())


EXPECTED = [("<tool_call>a</tool_call>", "stop"), ("<answer>{}", "length")]


@pytest.mark.parametrize("line", [steps_line("Draw.", *STEPS), chat_line("Draw.")])
def test_the_recorded_replies_come_in_order_from_steps_and_from_chat_form(tmp_path: Path, line: str) -> None:
    policy = ReplayPolicy(recorded(tmp_path, line))
    session = policy.open(Sampling(), "Draw.", "s")
    assert replies(session, "Draw.", ["found"]) == EXPECTED
    assert session.segments == ()


def test_a_conversation_that_differs_from_the_recorded_one_is_an_error(tmp_path: Path) -> None:
    path = recorded(tmp_path, steps_line("Draw.", *STEPS))
    with pytest.raises(
        KnowgenError, match=r":1: .*before reply 2: at character 3, 'nd' was recorded, 'l' came; .*check"
    ):
        replies(ReplayPolicy(path).open(Sampling(), "Draw.", "s"), "Draw.", ["foul"])
    assert replies(ReplayPolicy(path, check=False).open(Sampling(), "Draw.", "s"), "Draw.", ["foul"]) == EXPECTED


def test_the_end_of_a_recording_is_an_error_and_no_empty_reply(tmp_path: Path) -> None:
    session = ReplayPolicy(recorded(tmp_path, steps_line("Draw.", *STEPS))).open(Sampling(), "Draw.", "s")
    with pytest.raises(KnowgenError, match="the recording has 2 replies, and another one was asked for"):
        replies(session, "Draw.", ["found", "more"])


def test_repeats_of_a_prompt_take_its_recordings_in_order(tmp_path: Path) -> None:
    one, two = (Step(round=1, reply=text, finish="stop") for text in ("first", "second"))
    path = recorded(tmp_path, steps_line("P", two, repeat=1), steps_line("P", one, repeat=0), steps_line("Q", two))
    policy = ReplayPolicy(path)
    texts = [replies(policy.open(Sampling(), "P", name), "P", [])[0][0] for name in ("a", "b", "a")]
    assert texts == ["first", "second", "first"], "a session of the same name gets the same recording"
    assert replies(policy.open(Sampling(), "Q", "c"), "Q", []) == [("second", "stop")]


def test_a_session_takes_the_recording_of_its_seed_whatever_is_opened_first(tmp_path: Path) -> None:
    one, two = (Step(round=1, reply=text, finish="stop") for text in ("first", "second"))
    policy = ReplayPolicy(recorded(tmp_path, steps_line("P", one, seed=10), steps_line("P", two, seed=11)))
    texts = [replies(policy.open(Sampling(seed=seed), "P", f"s{seed}"), "P", [])[0][0] for seed in (11, 10, 5, 6)]
    assert texts == ["second", "first", "first", "second"], "those of other seeds come in order"


def test_a_prompt_that_was_not_recorded_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no trajectory of the prompt 'Another'"):
        ReplayPolicy(recorded(tmp_path, steps_line("Draw.", *STEPS))).open(Sampling(), "Another", "s")


def test_the_identity_is_that_of_the_replies(tmp_path: Path) -> None:
    one = ReplayPolicy(recorded(tmp_path, steps_line("Draw.", *STEPS))).identity
    assert ReplayPolicy(recorded(tmp_path, chat_line("Draw.", note="x"))).identity == one
    assert ReplayPolicy(recorded(tmp_path, steps_line("Draw.", STEPS[0]))).identity != one


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["{"], r"trajectories\.jsonl:1"),
        (['{"messages": []}'], ":1: has no prompt"),
        (['{"prompt": "a"}'], ":1: has neither messages nor a trajectory"),
        (['{"prompt": "a", "trajectory": [{"round": 1}]}'], ":1: step 1 has no reply"),
        (['{"prompt": "a", "messages": ["x"]}'], ":1: message 1 is not an object"),
        ([""], "contains no trajectory"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        ReplayPolicy(recorded(tmp_path, *lines))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl"):
        ReplayPolicy(str(tmp_path / "none.jsonl"))
    with pytest.raises(UsageError, match="name it as replay:FILE"):
        ReplayPolicy("")


def test_a_reply_that_follows_a_reply_is_not_its_observation(tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    said = [{"role": "user", "content": "p"}, *({"role": "assistant", "content": text} for text in ("one", "two"))]
    file.write_text(json.dumps({"prompt": "p", "messages": said}) + "\n", encoding="utf-8")
    session = ReplayPolicy(str(file)).open(Sampling(), "p", "s")
    first, last = Message("user", "p"), Message("user", "Answer now.")

    async def replies() -> list[str]:
        before = await session.reply([first])
        return [before.text, (await session.reply([first, Message("assistant", "one"), last])).text]

    assert asyncio.run(replies()) == ["one", "two"]
