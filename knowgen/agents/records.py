"""The records of an agent's trajectory: messages, steps, images, and the token segments of its policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from knowgen.core.records import ImageRef, Record, Usage, UsagePart

Role = Literal["system", "user", "assistant"]


class Ending(StrEnum):
    """How a trajectory ended. The values are those of the published agent, and two of our own limits.

    Attributes:
        ANSWER: A valid answer.
        ANSWER_PARSE_FAILED: An answer that is not the required JSON, or that names an unknown image.
        REPEATED_RESPONSE: The same reply twice in a row, or two replies in a row that were cut without a result.
        MAX_RESPONSE_LENGTH_EXCEEDED: The trajectory outgrew its context.
        NO_ANSWER: The last call gave no answer.
        ERROR: A call of the policy failed.
        TIME_LIMIT: The trajectory took longer than its time limit.
    """

    ANSWER = "answer"
    ANSWER_PARSE_FAILED = "answer_parse_failed"
    REPEATED_RESPONSE = "repeated_response"
    MAX_RESPONSE_LENGTH_EXCEEDED = "max_response_length_exceeded"
    NO_ANSWER = "no_answer"
    ERROR = "error"
    TIME_LIMIT = "time_limit"


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: Who speaks. Results of tools have the role user, as in the published format.
        text: The text, without images.
        images: Images of the message, as files of content-addressed storage, already scaled for the policy.
        images_first: Whether the images come before the text.
    """

    role: Role
    text: str
    images: tuple[ImageRef, ...] = ()
    images_first: bool = True


@dataclass
class Segment:
    """Token ids that were appended to a trajectory at once.

    Attributes:
        ids: Token ids, with one run of image placeholders per image.
        sampled: Whether the policy sampled them. All others are context: prompts, tool results, closing tokens.
        logprobs: Log-probability of each sampled token under the policy that sampled it; None for context, and where
            the engine reports none.
        images: SHA-256 digests of the images of the segment, in the order of their placeholders.
        weights: Version of the weights that sampled it; empty when unknown.
    """

    ids: list[int]
    sampled: bool
    logprobs: list[float] | None = None
    images: list[str] = field(default_factory=list)
    weights: str = ""


class SeenImage(Record):
    """An image that the agent saw.

    Attributes:
        id: Its id in the trajectory, such as IMG_001.
        image: The image as it was downloaded.
        title: Title as the source gives it.
        url: URL of the image.
        page_url: URL of the page with the image; empty when unknown.
    """

    id: str
    image: ImageRef
    title: str = ""
    url: str = ""
    page_url: str = ""


class ToolCall(Record):
    """A call of a tool as the policy wrote it.

    Attributes:
        name: Name of the tool.
        arguments: Its arguments as parsed, of whatever type.
    """

    name: str
    arguments: Any = None


class Step(Record):
    """One round of a trajectory: what the policy replied, and what it was shown in response.

    Attributes:
        round: Number of the round, from 1; 0 for the last call, in which only an answer counts.
        instruction: Text of the message that asked for the reply, such as that of the last call; empty where the
            prompt or the observation before it did.
        thought: Text of the think block; empty without one.
        reply: The whole reply, as cut by the protocol.
        finish: Why the policy stopped: `stop`, `length`.
        calls: Tool calls of the reply, in order.
        observation: Text of the message that followed; empty when the trajectory ended with the reply.
        images: Ids of the images that the observation showed, with those seen before.
        new_images: The images among all that were listed for the first time.
        error: What was wrong with the reply or the calls; empty when nothing was.
        blocked: Reasons why something was not fetched, one for each time.
        capped: Number of tokens that were cut from tool results.
        policy_seconds: Time of the policy's reply, in seconds.
        tool_seconds: Time of the tools, in seconds.
        policy_usage: Tokens and cost of the policy.
        tool_usage: Tokens and cost of the tools, summary model and search together.
    """

    round: int
    instruction: str = ""
    thought: str = ""
    reply: str = ""
    finish: str = ""
    calls: tuple[ToolCall, ...] = ()
    observation: str = ""
    images: tuple[str, ...] = ()
    new_images: tuple[SeenImage, ...] = ()
    error: str = ""
    blocked: tuple[str, ...] = ()
    capped: int = 0
    policy_seconds: float = Field(default=0.0, allow_inf_nan=False)
    tool_seconds: float = Field(default=0.0, allow_inf_nan=False)
    policy_usage: Usage = Usage()
    tool_usage: Usage = Usage()


@dataclass
class Trajectory:
    """Everything that happened from a prompt to an answer.

    Attributes:
        messages: The conversation.
        steps: The rounds, oldest first.
        segments: Token ids of the conversation, for policies of tokens; empty otherwise.
        images: Every image that was seen, by id.
        ending: How it ended; None while it runs.
        reason: Why it ended so, in words.
        gen_prompt: The rewritten prompt; None without an answer.
        references: The chosen images with the policy's notes, in the order of the answer.
        evidence: Text that tools gathered: title, url, text.
        usage: What each part used.
        seconds: Time it took, in seconds.
    """

    messages: list[Message] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    segments: Sequence[Segment] = ()
    images: dict[str, SeenImage] = field(default_factory=dict)
    ending: Ending | None = None
    reason: str = ""
    gen_prompt: str | None = None
    references: list[tuple[SeenImage, str]] = field(default_factory=list)
    evidence: list[dict[str, Any]] = field(default_factory=list)
    usage: list[UsagePart] = field(default_factory=list)
    seconds: float = 0.0
