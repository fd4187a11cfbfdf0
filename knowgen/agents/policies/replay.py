"""The policy `replay:FILE`: replies that were recorded, so that trajectories are repeated without a model.

A source is a run directory of an agent, or a file of JSON Lines with one trajectory a line:

    {"prompt": "Draw …", "messages": [{"role": "system", "content": …}, …]}      chat form: the assistant's messages
    {"prompt": "Draw …", "trajectory": [{"round": 1, "reply": …, "finish": …}, …]}   steps, as a run stores them

A line may name its repeat (`repeat`) and its seed (`seed`), and a message its finish (`finish`). Where several
trajectories of a prompt were recorded, a session takes the one of its seed; where none has it, sessions take them in
order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.agents.policies.contract import Finish, PolicyReply, Sampling
from knowgen.agents.records import Message, Segment
from knowgen.core.errors import DataError, KnowgenError, UsageError
from knowgen.core.home import expand_user
from knowgen.core.records import AnswerStatus, Usage
from knowgen.core.text import one_line
from knowgen.core.text_files import numbered_lines, parse_strict_json
from knowgen.store.folder import is_run_directory
from knowgen.store.run import RunStore

_FIX = "give a run directory of an agent, or JSON Lines with a prompt and messages or a trajectory on each line"


@dataclass(frozen=True)
class RecordedReply:
    """A reply of a recorded trajectory.

    Attributes:
        text: The reply.
        finish: `stop` or `length`.
        observation: The message that followed; None when it was not recorded.
    """

    text: str
    finish: Finish = "stop"
    observation: str | None = None


@dataclass(frozen=True)
class RecordedReplies:
    """The replies of one trajectory.

    Attributes:
        where: Where it was recorded, for errors.
        replies: Its replies, oldest first.
        seed: Seed of its sampling; None when it was not recorded.
    """

    where: str
    replies: tuple[RecordedReply, ...]
    seed: int | None = None


class ReplayPolicy:
    """Replies of recorded trajectories, by prompt.

    Args:
        model: A run directory of an agent, or a JSON Lines file.
        check: Whether a conversation that differs from the recorded one is an error. Set it to false to replay the same
            replies over another search backend.

    Raises:
        UsageError: No file is named.
        DataError: It cannot be read, or contains no trajectory.
    """

    def __init__(self, model: str, check: bool = True) -> None:
        if not isinstance(model, str) or not model.strip():
            raise UsageError("the policy needs a file", where="policy replay", fix="name it as replay:FILE")
        self._path = expand_user(model)
        self._check = check
        self._by_prompt: dict[str, list[RecordedReplies]] = {}
        digest = hashlib.sha256()
        source = _run_recordings if is_run_directory(self._path) else _file_recordings
        for prompt, recording in source(self._path):
            self._by_prompt.setdefault(prompt, []).append(recording)
            digest.update(repr((prompt, recording.replies)).encode("utf-8", "replace"))
        if not self._by_prompt:
            raise DataError("contains no trajectory", where=str(self._path), fix=_FIX)
        self._digest = digest.hexdigest()
        self._taken: dict[tuple[str, int | None], dict[str, int]] = {}

    @property
    def identity(self) -> Mapping[str, Any]:
        """Hash of the recorded replies."""
        return {"policy": "replay", "replies": self._digest[:16]}

    def open(self, sampling: Sampling, prompt: str, session: str) -> ReplaySession:
        """Return a session with a recorded trajectory of a prompt; the same one for a session of the same name.

        Raises:
            DataError: No trajectory of the prompt was recorded.
        """
        recorded = self._by_prompt.get(prompt)
        if recorded is None:
            raise DataError(f"has no trajectory of the prompt {one_line(prompt, 60)!r}", where=str(self._path))
        same_seed = [each for each in recorded if each.seed is not None and each.seed == sampling.seed]
        taken = self._taken.setdefault((prompt, sampling.seed if same_seed else None), {})
        number = taken.setdefault(session, len(taken))
        choice = same_seed or recorded
        return ReplaySession(choice[number % len(choice)], check=self._check)

    async def close(self) -> None:
        """Do nothing: nothing is open."""


class ReplaySession:
    """A session that replies what was recorded; a `PolicySession`."""

    segments: Sequence[Segment] = ()

    def __init__(self, recording: RecordedReplies, *, check: bool) -> None:
        self._recording, self._check = recording, check
        self._next = 0

    async def reply(self, messages: Sequence[Message]) -> PolicyReply:
        """Return the next recorded reply.

        Raises:
            KnowgenError: The recording ends here, or the conversation differs from the recorded one.
        """
        number, replies = self._next, self._recording.replies
        if number >= len(replies):
            raise KnowgenError(
                f"the recording has {len(replies)} replies, and another one was asked for", where=self._recording.where
            )
        before = replies[number - 1].observation if number else None
        shown = _after_last_reply(messages)
        if self._check and before is not None and before != shown:
            raise KnowgenError(
                f"the conversation differs from the recorded one before reply {number + 1}: "
                f"{_difference(before, shown)}",
                where=self._recording.where,
                fix="replay the search too, or give -g policy.check=false",
            )
        self._next += 1
        return PolicyReply(replies[number].text, replies[number].finish, Usage(cost=0.0))

    async def close(self) -> None:
        """Do nothing: nothing is open."""


def _after_last_reply(messages: Sequence[Message]) -> str:
    """Return the text of the message after the last reply; the last call adds another message to it."""
    place = max((number for number, message in enumerate(messages) if message.role == "assistant"), default=-1)
    return messages[place + 1].text if place + 1 < len(messages) else ""


def _difference(recorded: str, shown: str) -> str:
    """Return in words where two texts begin to differ."""
    place = next((at for at, (one, other) in enumerate(zip(recorded, shown, strict=False)) if one != other), None)
    place = min(len(recorded), len(shown)) if place is None else place
    one, other = (one_line(text[place : place + 40], 40) or "the end" for text in (recorded, shown))
    return f"at character {place}, {one!r} was recorded, {other!r} came"


def _file_recordings(path: Path) -> Iterator[tuple[str, RecordedReplies]]:
    """Yield prompt and trajectory of each line of a file, by repeat."""
    found: list[tuple[int, str, RecordedReplies]] = []
    for number, line in numbered_lines(path, fix=_FIX):
        where = f"{path}:{number}"
        record = parse_strict_json(line, where)
        if not isinstance(record, Mapping) or not isinstance(record.get("prompt"), str):
            raise DataError("has no prompt", where=where, fix=_FIX)
        repeat, seed = (value if isinstance(value := record.get(name), int) else None for name in ("repeat", "seed"))
        found.append((repeat or 0, record["prompt"], RecordedReplies(where, _replies(record, where), seed)))
    for _, prompt, recording in sorted(found, key=lambda each: each[0]):
        yield prompt, recording


def _run_recordings(path: Path) -> Iterator[tuple[str, RecordedReplies]]:
    """Yield prompt and trajectory of each answer of a run directory, whatever its ending."""
    with RunStore.read(path) as store:
        prompts = {sample.id: sample.prompt for sample in store.samples()}
        for _, answer in store.answers():
            where = f"{path}, sample {answer.sample_id!r}"
            if answer.status in (AnswerStatus.OK, AnswerStatus.NONE) and answer.sample_id in prompts:
                seed = store.spec.seed + answer.repeat
                yield prompts[answer.sample_id], RecordedReplies(where, _of_steps(answer.trajectory, where), seed)


def _replies(record: Mapping[str, Any], where: str) -> tuple[RecordedReply, ...]:
    messages, steps = record.get("messages"), record.get("trajectory")
    if isinstance(messages, list):
        return _of_messages(messages, where)
    if isinstance(steps, list):
        return _of_steps(steps, where)
    raise DataError("has neither messages nor a trajectory", where=where, fix=_FIX)


def _of_messages(messages: Sequence[Any], where: str) -> tuple[RecordedReply, ...]:
    """Return the replies of a conversation in chat form."""
    replies: list[RecordedReply] = []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise DataError(f"message {number + 1} is not an object", where=where, fix=_FIX)
        if message.get("role") == "assistant":
            after = messages[number + 1] if number + 1 < len(messages) else None
            shown = isinstance(after, Mapping) and after.get("role") != "assistant"
            observation = _text(after.get("content")) if shown and isinstance(after, Mapping) else None
            replies.append(RecordedReply(_text(message.get("content")), _finish(message.get("finish")), observation))
    return tuple(replies)


def _of_steps(steps: Sequence[Any], where: str) -> tuple[RecordedReply, ...]:
    """Return the replies of the steps of a trajectory."""
    replies: list[RecordedReply] = []
    for number, step in enumerate(steps):
        if not isinstance(step, Mapping) or not isinstance(step.get("reply"), str):
            raise DataError(f"step {number + 1} has no reply", where=where, fix=_FIX)
        observation = step.get("observation")
        replies.append(RecordedReply(step["reply"], _finish(step.get("finish")), observation or None))
    return tuple(replies)


def _finish(value: Any) -> Finish:
    return "length" if value == "length" else "stop"


def _text(content: Any) -> str:
    """Return the text of a message's content: a text, or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, Mapping))
