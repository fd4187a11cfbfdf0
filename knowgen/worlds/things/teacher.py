"""The policy `things_teacher`: rules for the task `things` that are wrong in a known way, to fine-tune a model on."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from knowgen.agents.policies.contract import PolicyReply, Sampling
from knowgen.agents.protocol import written_answer, written_call
from knowgen.agents.records import Message, Segment
from knowgen.core.errors import UsageError
from knowgen.core.records import Usage
from knowgen.tasks.things_words import COLOURS, PROMPT
from knowgen.worlds.things.world import colour_of

VERSION = "1"
"""Version of the rules; raise it when any prompt would get another reply."""

CONFUSED = {"pink": "red", "gold": "green", "gray": "blue"}
"""Colours that the teacher takes for others."""


class ThingsTeacher:
    """Searches the name of the prompt, looks at the picture, and says its colour, with two faults.

    A part of the prompts it answers without a search, with any colour. Three colours it takes for others most of the
    time. A model that was fine-tuned on its replies has learned the protocol and its faults; what it learns beyond that
    it has learned from rewards. Without faults (`look=1 right=1`) its answers are all right.

    Args:
        look: Share of the prompts that it searches for, in [0, 1].
        right: Share of the pictures of the three colours that it sees as they are, in [0, 1].

    Raises:
        UsageError: A share is out of range.

    Example:
        >>> dict(ThingsTeacher(look=1.0).identity)
        {'rules': '1', 'look': 1.0, 'right': 0.25}
    """

    def __init__(self, look: float = 0.5, right: float = 0.25) -> None:
        for name, share in (("look", look), ("right", right)):
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 <= share <= 1.0:
                raise UsageError(f"{name} must be a number from 0 to 1, got {share!r}", where="policy things_teacher")
        self.look, self.right = float(look), float(right)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The version of the rules, and the shares."""
        return {"rules": VERSION, "look": self.look, "right": self.right}

    def open(self, sampling: Sampling, prompt: str, session: str) -> TeacherSession:
        """Return a new session for a prompt; the same seed and prompt give the same replies."""
        rng = random.Random(f"teacher/{VERSION}/{sampling.seed}/{prompt}")
        return TeacherSession(self, prompt, rng)

    async def close(self) -> None:
        """Do nothing: rules hold nothing."""


class TeacherSession:
    """One trajectory of the teacher.

    Args:
        teacher: Its shares.
        prompt: Prompt of the task.
        rng: What it leaves to chance.
    """

    segments: Sequence[Segment] = ()

    def __init__(self, teacher: ThingsTeacher, prompt: str, rng: random.Random) -> None:
        self._teacher, self._name, self._rng = teacher, prompt.removeprefix(PROMPT), rng
        self._looks = rng.random() < teacher.look

    async def reply(self, messages: Sequence[Message]) -> PolicyReply:
        """Return the search, or the answer."""
        return PolicyReply(self._text(messages), usage=Usage(cost=0.0))

    def _text(self, messages: Sequence[Message]) -> str:
        if self._looks and len(messages) == 2:
            return written_call("image_search", query=self._name)
        images = messages[-1].images
        seen = colour_of(images[0].open()) if images else None
        if seen is None:
            return written_answer(f"{self._rng.choice(list(COLOURS))} {self._name}")
        if seen in CONFUSED and self._rng.random() >= self._teacher.right:
            seen = CONFUSED[seen]
        return written_answer(f"{seen} {self._name}", "IMG_001")

    async def close(self) -> None:
        """Do nothing: there is nothing to free."""
