"""Conversations, images and a scripted engine for tests of policies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from knowgen.agents.policies.contract import Policy, PolicySession, Sampling
from knowgen.agents.records import Message
from knowgen.agents.rendering import Renderer
from knowgen.agents.tokens import SampledReply
from knowgen.core.records import ImageRef, image_ref
from tests.helpers import tiny_models

SYSTEM, PROMPT = Message("system", "You search."), Message("user", "Draw the harbour of the town.")


def picture(folder: Path, colour: str, size: tuple[int, int] = (96, 64)) -> ImageRef:
    """Save an image of one colour."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{colour}.png"
    Image.new("RGB", size, colour).save(path)
    return image_ref(path)


class ScriptedEngine:
    """A token engine that returns given ids, or raises given errors, and records its calls."""

    def __init__(self, steps: Sequence[list[int] | Exception], max_context: int = 0) -> None:
        self.renderer = Renderer(tiny_models.tokenizer())
        self.max_context, self.model = max_context, "scripted"
        self.steps = list(steps)
        self.calls: list[tuple[list[int], tuple[str, ...], Sampling, str]] = []

    async def open(self) -> None:
        """Do nothing."""

    async def image_tokens(self, image: ImageRef) -> int:
        """Return 3 for every image."""
        return 3

    async def generate(
        self, ids: Sequence[int], images: Sequence[ImageRef], sampling: Sampling, session: str
    ) -> SampledReply:
        """Return the next ids, or raise the next error."""
        self.calls.append((list(ids), tuple(image.sha256 for image in images), sampling, session))
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        ended = step[-1:] == [self.renderer.end]
        return SampledReply(step, [-0.5] * len(step), "stop" if ended else "length", "v1")


async def trajectory(policy: Policy, sampling: Sampling, name: str, pictures: Sequence[ImageRef]) -> PolicySession:
    """Run a trajectory of one round for each picture, which is the result of a tool, and one round before."""
    session = policy.open(sampling, PROMPT.text, name)
    messages = [SYSTEM, PROMPT]
    for number, image in enumerate([*pictures, None]):
        reply = await session.reply(messages)
        if image is not None:
            shown = f"<tool_response>\nIMG_{number:03d}: title: a picture\n</tool_response>"
            messages += [Message("assistant", reply.text), Message("user", shown, (image,))]
    return session


def sampled_ids(session: PolicySession) -> list[list[int]]:
    """Return the ids of each reply."""
    return [segment.ids for segment in session.segments if segment.sampled]
