"""A policy and a search backend with scripted behaviour, for tests of the agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from knowgen.agents.loop import SearchAgent
from knowgen.agents.policies.contract import PolicyReply, Sampling
from knowgen.agents.prompts.texts import AgentTexts
from knowgen.agents.records import Message, Segment, Trajectory
from knowgen.agents.tools.extraction import PassageReader
from knowgen.agents.tools.load import load_tools
from knowgen.core.errors import DataError
from knowgen.core.records import ImageRef, Usage, image_ref
from knowgen.search.contract import Hit, ImageHit, Page
from tests.helpers.virtual_time import run

Reply = str | PolicyReply | BaseException | Callable[[Sequence[Message]], "Reply"]

TEXTS = AgentTexts(
    version="test",
    system="SYSTEM ",
    final="FINAL",
    too_long="TOO LONG",
    invalid="INVALID",
    summary=lambda content, query: f"{query}?\n{content}",
    summary_part=lambda content, query: f"part: {query}?\n{content}",
    parts="PARTS\n",
)


def call(name: str, arguments: Any = None, thought: str = "") -> str:
    """Return a reply with a tool call."""
    think = f"<think>{thought}</think>\n" if thought else ""
    body = json.dumps({"name": name, "arguments": {} if arguments is None else arguments}, ensure_ascii=False)
    return f"{think}<tool_call>\n{body}\n</tool_call>"


def answer(gen_prompt: Any = "A red boat.", references: Any = ()) -> str:
    """Return a reply with an answer; references are ids, or whole items."""
    items = [{"img_id": each, "note": f"note {each}"} if isinstance(each, str) else each for each in references]
    return f"<answer>{json.dumps({'gen_prompt': gen_prompt, 'reference_images': items})}</answer>"


class ScriptedPolicy:
    """A policy whose replies are given, the last one repeated with its number.

    Args:
        replies: Texts, whole replies, errors to raise, or functions of the conversation.
        seconds: Time of a reply.

    Attributes:
        asked: The conversations that were replied to.
        closed: Number of sessions that were closed.
    """

    def __init__(self, replies: Sequence[Reply], seconds: float = 0.0) -> None:
        self.replies, self.seconds = list(replies), seconds
        self.asked: list[list[Message]] = []
        self.samplings: list[Sampling] = []
        self.opened = self.closed = 0
        self.ended = False

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"policy": "scripted test"}

    def open(self, sampling: Sampling, prompt: str, session: str) -> ScriptedSession:
        self.opened += 1
        self.samplings.append(sampling)
        return ScriptedSession(self)

    async def close(self) -> None:
        self.ended = True


class ScriptedSession:
    """A session of a `ScriptedPolicy`."""

    segments: Sequence[Segment] = ()

    def __init__(self, policy: ScriptedPolicy) -> None:
        self._policy = policy
        self._number = 0

    async def reply(self, messages: Sequence[Message]) -> PolicyReply:
        policy, number = self._policy, self._number
        policy.asked.append(list(messages))
        self._number += 1
        if policy.seconds:
            await asyncio.sleep(policy.seconds)
        scripted = policy.replies[number] if number < len(policy.replies) else f"reply {number}"
        while callable(scripted):
            scripted = scripted(messages)
        if isinstance(scripted, BaseException):
            raise scripted
        if isinstance(scripted, PolicyReply):
            return scripted
        return PolicyReply(scripted, usage=Usage(input_tokens=10, output_tokens=2, cost=0.0))

    async def close(self) -> None:
        self._policy.closed += 1


class FakeSearch:
    """A search backend over given results.

    Args:
        hits: Pages for every query, or by query.
        images: Images for every query.
        pages: Pages by URL.
        seconds: Time of a call.

    Attributes:
        calls: Calls as tuples of method, argument and number.
        most_at_once: Maximum number of concurrent calls.
    """

    version = "fake"

    def __init__(
        self,
        hits: Sequence[Hit] | Mapping[str, Sequence[Hit] | Exception] = (),
        images: Sequence[ImageHit] | Exception = (),
        pages: Mapping[str, Page | Exception] | None = None,
        seconds: float = 0.0,
    ) -> None:
        self.hits, self.images, self.pages, self.seconds = hits, images, dict(pages or {}), seconds
        self.calls: list[tuple[str, str, int]] = []
        self.most_at_once = self._now = 0
        self.closed = False

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        await self._called("search", query, k)
        found = self.hits.get(query, ()) if isinstance(self.hits, Mapping) else self.hits
        if isinstance(found, Exception):
            raise found
        return list(found)[:k]

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        await self._called("image_search", query, k)
        if isinstance(self.images, Exception):
            raise self.images
        return list(self.images)[:k]

    async def open(self, url: str) -> Page:
        await self._called("open", url, 0)
        page = self.pages.get(url, DataError("page not found"))
        if isinstance(page, Exception):
            raise page
        return page

    async def close(self) -> None:
        self.closed = True

    async def _called(self, method: str, argument: str, number: int) -> None:
        self.calls.append((method, argument, number))
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self._now -= 1


def stored_image(folder: Path, number: int, size: tuple[int, int] = (64, 48)) -> ImageRef:
    """Write an image that depends on a number, and return its record."""
    from PIL import Image

    path = folder / f"{number}.png"
    Image.new("RGB", size, (number * 7 % 256, number * 31 % 256, number % 256)).save(path)
    return image_ref(path)


def image_hits(folder: Path, count: int) -> list[ImageHit]:
    """Return hits with images, numbered from 1."""
    return [
        ImageHit(
            title=f"Boat {number}",
            url=f"https://example.org/{number}.jpg",
            page_url=f"https://example.org/page{number}",
            image=stored_image(folder, number),
        )
        for number in range(1, count + 1)
    ]


def make_agent(policy: ScriptedPolicy, search: FakeSearch | None = None, **settings: Any) -> SearchAgent:
    """Return an agent with the bundled tools and short texts."""
    given: dict[str, Any] = {"texts": TEXTS, "reader": PassageReader(), "today": lambda: "2026-11-28", **settings}
    given.setdefault("tools", load_tools("search,image_search,browse"))
    return SearchAgent(policy, search or FakeSearch(), **given)


def run_agent(replies: Sequence[Reply], search: FakeSearch | None = None, **settings: Any) -> Trajectory:
    """Run a trajectory in virtual time."""
    return run(make_agent(ScriptedPolicy(replies), search, **settings).run("Draw a boat."))
