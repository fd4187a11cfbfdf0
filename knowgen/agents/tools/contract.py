"""The contract of a tool. A tool of an own package is found by the entry-point group `knowgen.tools`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from knowgen.agents.records import SeenImage
from knowgen.core.records import ImageRef, UsagePart
from knowgen.search.contract import SearchBackend


class ImageRegistry(Protocol):
    """The images of a trajectory, numbered in the order in which they were seen."""

    def add(self, image: ImageRef, *, title: str, url: str, page_url: str = "") -> SeenImage:
        """Return the record of an image; one that was seen before keeps its id."""
        ...

    def get(self, image_id: str) -> SeenImage | None:
        """Return the image of an id, None if there is none."""
        ...


class PageReader(Protocol):
    """Answers a question from the text of a page."""

    async def read(self, text: str, query: str) -> tuple[str, Sequence[UsagePart]]:
        """Return the answer, and what it used.

        Raises:
            KnowgenError: It has none.
        """
        ...


async def _at_once() -> None:
    """Return at once: no other call runs."""


@dataclass(frozen=True)
class ToolContext:
    """What a tool is given besides its arguments.

    Attributes:
        search: The search backend.
        images: The images of the trajectory.
        reader: Answers questions from pages.
        prompt: Prompt of the task.
        failures_as_text: Whether a search that a service failed to answer becomes a text, as in the published agent. It
            raises the error otherwise.
        list_links: Whether `browse` lists the links of a page after its answer, which the published agent does not.
        turn: Await it before images are added where several calls of a reply run at once, so that their ids follow the
            order of the calls.
    """

    search: SearchBackend
    images: ImageRegistry
    reader: PageReader
    prompt: str = ""
    failures_as_text: bool = False
    list_links: bool = True
    turn: Callable[[], Awaitable[None]] = _at_once


@dataclass(frozen=True)
class ToolResult:
    """What a tool found.

    Attributes:
        text: Text for the policy. It is data: the agent removes what could open or close a tag of its protocol.
        images: Images to show with the text, in order.
        evidence: Text for scorers that read it: title, url, text.
        error: What went wrong; empty when nothing did.
        blocked: Reasons why something was not fetched, one for each time.
        usage: What the call used besides the search, by part.
        capped: Number of tokens that the tool cut from what it found.
    """

    text: str
    images: Sequence[SeenImage] = ()
    evidence: Sequence[Mapping[str, Any]] = ()
    error: str = ""
    blocked: Sequence[str] = ()
    usage: Sequence[UsagePart] = field(default=())
    capped: int = 0


class Tool(Protocol):
    """Something an agent can call."""

    @property
    def name(self) -> str:
        """Name in calls."""
        ...

    @property
    def description(self) -> str:
        """What it does, for the system prompt."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of its arguments, an object."""
        ...

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Run a call.

        Raises:
            TransientError, AccountError: A service that it needs is unavailable. This says nothing about the policy.
            Exception: Any other error becomes an observation that the policy reads.
        """
        ...
