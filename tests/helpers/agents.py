"""A small agent for tests of the engine, and image models that say what they were given."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.setting import noise_image
from knowgen.core.metering import paid_call
from knowgen.core.records import AgentAnswer, AnswerStatus, GenerationRequest, ImageRef, Usage, UsagePart, image_ref
from knowgen.core.spec import AgentSpec
from knowgen.engine import AgentHandle, ComponentRef
from knowgen.generators.contract import capabilities_of
from tests.helpers.engine import png

Script = Callable[[GenerationRequest, int], AgentAnswer | BaseException | None]


def stored_png(folder: Path, words: str) -> ImageRef:
    """Write an image that depends on the words only, and return its record."""
    data = png(words)
    path = folder / f"{hashlib.sha256(data).hexdigest()}.png"
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(data)
        part.rename(path)
    return image_ref(path)


class FakeAgent:
    """Answers with the prompt in other words and a number of images, and counts its calls.

    Args:
        folder: Folder of its images; a new one when empty.
        count: Number of reference images of an answer.
        painter: Its image model.
        cost: Cost of a search in US dollars.
    """

    revision = "1"
    concurrency = 4
    identity_excludes = frozenset({"folder"})

    def __init__(self, folder: str = "", count: int = 2, painter: object = "painter", cost: float = 0.0) -> None:
        self.folder, self.count, self.painter, self.cost = folder or tempfile.mkdtemp(), count, painter, cost
        self.calls: Counter[str] = Counter()
        self.script: Script | None = None
        self.closed = False

    async def answer(self, request: GenerationRequest) -> AgentAnswer:
        self.calls[request.prompt] += 1
        async with paid_call(self.cost, "search engine") as reservation:
            reservation.settle(self.cost)
        if self.script is not None:
            scripted = self.script(request, self.calls[request.prompt])
            if isinstance(scripted, BaseException):
                raise scripted
            if scripted is not None:
                return scripted
        return self.good(request)

    def good(self, request: GenerationRequest) -> AgentAnswer:
        """Return a whole answer: one image more was seen than is used."""
        seen = [stored_png(Path(self.folder), f"{request.prompt} {n}") for n in range(self.count + 1)]
        return AgentAnswer(
            ending="answer",
            prompt=f"In other words: {request.prompt}",
            references=tuple(seen[: self.count]),
            reference_notes=tuple({"img_id": f"IMG_{n:03d}", "note": f"note {n}"} for n in range(self.count)),
            evidence=({"title": "page", "text": "a fact"},),
            trajectory=({"round": 1, "images": [image.sha256 for image in seen]},),
            images=tuple(seen),
            usage=(UsagePart(part="search", calls=1, usage=Usage(cost=self.cost)),),
        )

    async def close(self) -> None:
        self.closed = True


def no_answer(ending: str) -> AgentAnswer:
    """Return the answer of an agent that ended without one."""
    return AgentAnswer(status=AnswerStatus.NONE, ending=ending, reason="by the script")


class Painter:
    """An image model that takes references, and records what it was given."""

    references: bool | int = True
    revision = "1"

    def __init__(self, style: str = "") -> None:
        self.style = style
        self.given: list[tuple[str, int]] = []

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        self.given.append((prompt, len(references)))
        return noise_image(f"{self.style} {prompt} {len(references)} {seed}")


class TwoReferences(Painter):
    """An image model that takes two references at most."""

    references = 2


def agent_handle(
    agent: Any, *, name: str = "agent", component_ref: ComponentRef | None = None, **spec: Any
) -> AgentHandle:
    """Return the handle of an agent object, or of a class that a worker process builds."""
    optional = bool(getattr(agent, "references_optional", False))
    identity = AgentSpec(name=name, references_optional=optional, **spec)
    return AgentHandle(identity, capabilities_of(agent), lambda: agent, component_ref)


AGENT = ComponentRef("generators", "tests.helpers.agents:FakeAgent")
"""An agent that a worker process builds."""
