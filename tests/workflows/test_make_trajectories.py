"""Conversations for fine-tuning from trajectories: what the policy saw, what passes a filter, and marks in texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knowgen.agents.policies.contract import PolicyReply, PolicySession, Sampling
from knowgen.agents.records import Message, Segment
from knowgen.core.errors import KnowgenError, UsageError
from knowgen.core.run_config import RunConfig
from knowgen.training.conversations import load_conversations
from knowgen.workflows.make_trajectories import Keep, MadeConversations, make_conversations, plan_trajectories
from knowgen.worlds.things.teacher import ThingsTeacher
from tests.helpers.small_task import make_task

ARGUMENTS = {"prompt": "short", "date": "2026-01-01", "tools": "image_search", "rounds": 2, "tool_calls": 2}


Shown = tuple[str, str, list[bytes]]
"""Role, text and pixels of a message."""


def shown(message: Message) -> Shown:
    """Return a message as a policy is given it."""
    return message.role, message.text, [image.open().tobytes() for image in message.images]


class Recorder:
    """A policy that records the conversations that another one is given.

    Args:
        policy: The other policy.
        fails: Prompts at whose first reply it fails.
    """

    def __init__(self, policy: Any, fails: Sequence[str] = ()) -> None:
        self._policy, self.fails = policy, list(fails)
        self.seen: dict[str, list[Shown]] = {}

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"name": "recorder"}

    def open(self, sampling: Sampling, prompt: str, session: str) -> PolicySession:
        return _RecordedSession(self, self._policy.open(sampling, prompt, session), f"{prompt}|{sampling.seed}")

    async def close(self) -> None:
        """Do nothing."""


class _RecordedSession:
    segments: Sequence[Segment] = ()

    def __init__(self, recorder: Recorder, inner: PolicySession, name: str) -> None:
        self._recorder, self._inner, self._name = recorder, inner, name

    async def reply(self, messages: Sequence[Message]) -> PolicyReply:
        if self._name.partition("|")[0] in self._recorder.fails:
            raise KnowgenError("the model failed")
        reply = await self._inner.reply(messages)
        self._recorder.seen[self._name] = [*map(shown, messages), ("assistant", reply.text, [])]
        return reply

    async def close(self) -> None:
        """Do nothing."""


class Replies:
    """A policy that gives the same replies to every prompt."""

    def __init__(self, *replies: str) -> None:
        self._replies = replies

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"replies": list(self._replies)}

    def open(self, sampling: Sampling, prompt: str, session: str) -> PolicySession:
        return _Replying(list(self._replies))

    async def close(self) -> None:
        """Do nothing."""


class _Replying:
    segments: Sequence[Segment] = ()

    def __init__(self, replies: list[str]) -> None:
        self._replies = replies

    async def reply(self, messages: Sequence[Message]) -> PolicyReply:
        return PolicyReply(self._replies.pop(0))

    async def close(self) -> None:
        """Do nothing."""


def make(out: Path, policy: Any, keep: str = "ending=answer", **options: Any) -> MadeConversations:
    """Make conversations of the task `things`, or of another one."""
    settings = {"task": "things:6:0", "scorers": (), "text_scorer": "", "painter": "things_painter", **options}
    arguments = {**ARGUMENTS, **settings.pop("arguments", {})}
    named = {name: settings.pop(name) for name in ("scorers", "text_scorer", "painter")}
    task = settings.pop("task")
    config = RunConfig(generator_args=arguments, workers=0, **settings)
    planned = plan_trajectories(task, policy, config, keep=Keep.of(keep), **named)
    return make_conversations(
        planned,
        out,
        Keep.of(keep),
        scored=bool(named["scorers"]),
        text_scored=bool(named["text_scorer"]),
        before_calls=lambda: None,
    )


def stored(folder: Path) -> list[list[Shown]]:
    """Return role, text and pixels of each message of each conversation."""
    found = []
    for conversation in load_conversations(folder):
        images = iter(conversation.images)
        messages: list[Shown] = []
        for message in conversation.messages:
            pixels = [Image.open(next(images)).convert("RGB").tobytes() for piece in message.pieces if piece is None]
            messages.append((message.role, "".join(piece for piece in message.pieces if piece is not None), pixels))
        found.append(messages)
    return found


@pytest.mark.parametrize("pixels", [4096, 0])
def test_a_conversation_is_what_the_policy_saw(tmp_path: Path, pixels: int) -> None:
    policy = Recorder(ThingsTeacher(look=1.0, right=1.0))
    made = make(tmp_path, policy, arguments={"image_pixels": pixels})
    assert (made.kept, made.left_out) == (6, {})
    expected = sorted(policy.seen.values())
    assert sorted(stored(tmp_path)) == expected
    assert all(len(conversation) == 5 and conversation[3][2] for conversation in expected)  # each has looked


def test_filters_count_what_they_leave_out(tmp_path: Path) -> None:
    keep = "ending=answer,score>=0.5,text>=0.9"
    scorers = {"scorers": ("things_check",), "text_scorer": "world_answer"}
    made = make(tmp_path, ThingsTeacher(), keep, task="things:30:0", **scorers)
    assert made.kept + sum(each.total() for each in made.left_out.values()) == 30
    assert 0 < made.kept < 30
    assert set(made.left_out) <= {"score>=0.5", "text>=0.9"} and made.left_out["score>=0.5"]["too low"] > 0
    rows = [json.loads(line) for line in (tmp_path / "conversations.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rows] == list(range(1, made.kept + 1))
    assert all(row["score"] >= 0.5 and row["text"] >= 0.9 and row["ending"] == "answer" for row in rows)


def test_endings_are_filtered_by_name(tmp_path: Path) -> None:
    policy = Replies("<answer>nothing</answer>")
    left_out = make(tmp_path / "a", policy).left_out
    assert {rule: dict(reasons) for rule, reasons in left_out.items()} == {"ending=answer": {"answer_parse_failed": 6}}
    assert (tmp_path / "a" / "conversations.jsonl").read_text() == ""
    assert make(tmp_path / "b", policy, "ending=answer|answer_parse_failed").kept == 6


def test_repeats_are_trajectories_of_their_own(tmp_path: Path) -> None:
    made = make(tmp_path, ThingsTeacher(), repeats=3)
    assert made.kept == 18
    ids = [conversation.id for conversation in load_conversations(tmp_path)]
    assert len(set(ids)) == 18 and {name.rpartition("#")[2] for name in ids} == {"0", "1", "2"}
    assert len({json.dumps(conversation, default=bytes.hex) for conversation in stored(tmp_path)}) > 6


def test_a_failure_is_counted_and_tried_again_by_the_same_call(tmp_path: Path) -> None:
    first = make(tmp_path / "a", ThingsTeacher())
    prompts = [conversation.messages[1].content for conversation in load_conversations(first.files.conversations)]
    policy = Recorder(ThingsTeacher(), fails=prompts[:2])
    made = make(tmp_path / "b", policy)
    ended = {rule: dict(reasons) for rule, reasons in made.left_out.items()}
    assert (made.kept, ended, made.failed) == (4, {"ending=answer": {"error": 2}}, 0)
    assert len(policy.seen) == 4


def test_the_same_call_goes_on_and_does_not_run_the_policy_again(tmp_path: Path) -> None:
    policy = Recorder(ThingsTeacher())
    first = make(tmp_path, policy, limit=2)
    assert (first.kept, len(policy.seen)) == (2, 2)
    policy.seen.clear()
    assert make(tmp_path, policy).kept == 6
    assert len(policy.seen) == 4
    text = (tmp_path / "conversations.jsonl").read_text()
    policy.seen.clear()
    assert make(tmp_path, policy).kept == 6
    assert policy.seen == {} and (tmp_path / "conversations.jsonl").read_text() == text


def test_a_mark_in_a_text_does_not_stand_for_an_image(tmp_path: Path) -> None:
    task = make_task(tmp_path / "task", ["Draw the tag <image> and <image\\>."])
    reply = '<answer>{"gen_prompt": "A sign that reads <image>.", "reference_images": []}</answer>'
    options: dict[str, Any] = {
        "task": str(task),
        "painter": "painter",
        "arguments": {"tools": "search", "search": "things:0"},
    }
    made = make(tmp_path / "out.jsonl", Replies(reply), **options)
    assert made.kept == 1
    (conversation,) = load_conversations(tmp_path / "out.jsonl")
    assert conversation.images == ()
    (messages,) = stored(tmp_path / "out.jsonl")
    assert [text for _, text, _ in messages[1:]] == ["Draw the tag <image> and <image\\>.", reply]


def test_a_file_has_its_images_beside_it(tmp_path: Path) -> None:
    made = make(tmp_path / "first.jsonl", ThingsTeacher(look=1.0), limit=1)
    assert made.files.run == tmp_path / "first.run"
    (conversation,) = load_conversations(tmp_path / "first.jsonl")
    assert conversation.images[0].is_relative_to(tmp_path / "first.images")


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ("score>=0.8", r"score>=0\.8 needs a scorer; give --scorer SCORER"),
        ("text>=1", "text>=1 needs a scorer"),
        ("score>=8", "'score>=8' is not a filter"),
        ("score=1", "'score=1' is not a filter"),
        ("ending=done", "no ending 'done'"),
    ],
)
def test_a_wrong_filter_is_one_line_before_anything_runs(tmp_path: Path, keep: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(tmp_path / "out", ThingsTeacher(), keep)
    assert not (tmp_path / "out").exists()
