"""The contract of a policy: it opens one session per trajectory, and a session replies to a growing conversation.

A policy of an own package is found by the entry-point group `knowgen.policies`, or as `module:Class`. A policy of
tokens keeps its session's ids append-only: what was sampled is never encoded again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from knowgen.agents.records import Message, Segment
from knowgen.core.errors import KnowgenError
from knowgen.core.records import Usage

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How replies are sampled.

    Attributes:
        temperature: 0 for the most probable token.
        top_p: Share of probability that is sampled from, in (0, 1].
        max_new_tokens: Maximum number of tokens of one reply.
        max_context: Maximum number of tokens of a conversation, images included; 0 for the policy's own limit.
        seed: Seed of the trajectory; None for none.
    """

    temperature: float = 0.6
    top_p: float = 0.9
    max_new_tokens: int = 4096
    max_context: int = 0
    seed: int | None = None


@dataclass(frozen=True)
class PolicyReply:
    """A reply of a policy.

    Attributes:
        text: The reply as text, with a reasoning that the service returned apart put before it in a think block.
        finish: `stop`, or `length` when the limit on tokens cut it.
        usage: Tokens and cost.
        model: Model name that the service returned; empty when it returned none.
        details: Further data for the records, such as timings of the service.
    """

    text: str
    finish: Finish = "stop"
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


class ContextFullError(KnowgenError):
    """The conversation does not fit into the policy's context."""


class PolicySession(Protocol):
    """One trajectory of a policy."""

    @property
    def segments(self) -> Sequence[Segment]:
        """Token ids so far; empty for a policy of text."""
        ...

    async def reply(self, messages: Sequence[Message]) -> PolicyReply:
        """Return the reply to a conversation, which ends in a message of the role user.

        The conversation is that of the last call, its reply as an assistant message, and further messages.

        Raises:
            ContextFullError: The conversation does not fit into the context.
            TransientError: The service cannot answer now; the call may be repeated.
            AccountError: The service rejects the account.
            BudgetReachedError: The budget does not allow the call.
            KnowgenError: The call failed for another reason.
        """
        ...

    async def close(self) -> None:
        """Free what the session holds, such as places in a cache."""
        ...


class Policy(Protocol):
    """Decides the steps of many trajectories at once."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What of the policy decides its replies, as plain data for keys: model, revision, parameters; no secrets."""
        ...

    def open(self, sampling: Sampling, prompt: str, session: str) -> PolicySession:
        """Return a new session.

        Args:
            sampling: How replies are sampled.
            prompt: Prompt of the task, for policies that follow rules or replay.
            session: Name of the trajectory, unique in the run.
        """
        ...

    async def close(self) -> None:
        """Close connections, and free the model."""
        ...
