"""The contract of a tool. A tool of an own package is found by the entry-point group `knowgen.tools`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True)
class ToolContext:
    """What a tool is given besides its arguments.

    Attributes:
        search: The search backend.
        images: The images of the trajectory.
        prompt: Prompt of the task.
    """

    search: SearchBackend
    images: ImageRegistry
    prompt: str = ""


@dataclass(frozen=True)
class ToolResult:
    """What a tool found.

    Attributes:
        text: Text for the policy. It is data: the agent removes what could open or close a tag of its protocol.
        images: Images to show with the text, in order.
        evidence: Text for scorers that read it: title, url, text.
        error: What went wrong; empty when nothing did.
        blocked: Reasons why something was not fetched, one for each time.
        usage: What the call used, by part.
    """

    text: str
    images: Sequence[SeenImage] = ()
    evidence: Sequence[Mapping[str, Any]] = ()
    error: str = ""
    blocked: Sequence[str] = ()
    usage: Sequence[UsagePart] = field(default=())


class Tool(Protocol):
    """Something an agent can call.

    Attributes:
        name: Name in calls.
        description: What it does, for the system prompt.
        parameters: JSON schema of its arguments, an object.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Run a call.

        Raises:
            TransientError, AccountError: A service that it needs is unavailable. This says nothing about the policy.
            Exception: Any other error becomes an observation that the policy reads.
        """
        ...
