"""Sessions of a policy that takes and returns token ids, over any engine that samples them.

A conversation is a list of segments that only grows (`Segment`): context that was rendered, and ids that were sampled.
Inference, evaluation and training read the same segments, so that what is trained on is what was sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from knowgen.agents.policies.contract import ContextFullError, Finish, PolicyReply, Sampling
from knowgen.agents.records import Message, Segment
from knowgen.agents.rendering import Renderer
from knowgen.core.errors import KnowgenError
from knowgen.core.records import ImageRef, Usage


@dataclass(frozen=True)
class SampledReply:
    """A reply as an engine sampled it.

    Attributes:
        ids: SampledReply ids, with the end token where it was sampled.
        logprobs: Log-probability of each id; None where the engine reports none.
        finish: `stop` where an end token was sampled, else `length`.
        weights: Version of the weights; empty when unknown.
        cost: Cost in US dollars; None when it is not known.
    """

    ids: list[int]
    logprobs: list[float] | None = None
    finish: Finish = "stop"
    weights: str = ""
    cost: float | None = 0.0


class TokenEngine(Protocol):
    """Samples ids after a conversation of ids and images.

    Attributes:
        renderer: Renderer of the model's chat format.
        max_context: Maximum number of ids of a conversation with its reply; 0 when it is not known.
        model: Name of the model.
    """

    renderer: Renderer
    max_context: int
    model: str

    async def open(self) -> None:
        """Prepare the engine, such as by loading the model, before its first use. It may be called many times."""
        ...

    async def image_tokens(self, image: ImageRef) -> int:
        """Return the number of placeholders of an image."""
        ...

    async def generate(
        self, ids: Sequence[int], images: Sequence[ImageRef], sampling: Sampling, session: str
    ) -> SampledReply:
        """Sample a reply.

        The tokens that the renderer bans are never sampled.

        Args:
            ids: The conversation, up to the header of the reply.
            images: Images in the order of their placeholders.
            sampling: How the reply is sampled; `max_new_tokens` is its maximum number of ids.
            session: Name of the trajectory, for caches of prefixes.

        Raises:
            ContextFullError: The conversation does not fit into the model's context.
            TransientError: The engine cannot answer now.
            AccountError: The engine rejects every call.
            KnowgenError: The call failed for another reason.
        """
        ...


@dataclass
class TokenSession:
    """One trajectory of a policy of tokens; a `PolicySession`.

    Attributes:
        engine: What samples.
        sampling: How replies are sampled.
        name: Name of the trajectory.
        on_close: Called once when the session is closed.
        segments: Ids so far.
    """

    engine: TokenEngine
    sampling: Sampling
    name: str
    on_close: Callable[[], None] | None = None
    segments: list[Segment] = field(default_factory=list)
    _images: list[ImageRef] = field(default_factory=list, repr=False)
    _rendered: int = 0
    """Number of messages that the segments contain, replies included."""

    async def reply(self, messages: Sequence[Message]) -> PolicyReply:
        """Return the reply to a conversation; see `PolicySession`.

        A call that failed may be repeated with the same messages.

        Raises:
            ContextFullError: The conversation is longer than `max_context`, or leaves no room for a reply.
            KnowgenError: The conversation is not the earlier one with messages added, or the engine failed.
        """
        await self.engine.open()
        await self._append(messages)
        ids = [token for segment in self.segments for token in segment.ids]
        limit = self._room(len(ids))
        sampling = replace(self.sampling, max_new_tokens=limit)
        sampled = await self.engine.generate(ids, tuple(self._images), sampling, self.name)
        self.segments.append(Segment(sampled.ids, True, sampled.logprobs, weights=sampled.weights))
        self._rendered += 1
        return PolicyReply(
            text=self.engine.renderer.decode(sampled.ids),
            finish=sampled.finish,
            usage=Usage(input_tokens=len(ids), output_tokens=len(sampled.ids), cost=sampled.cost),
            model=self.engine.model,
            details={"weights": sampled.weights} if sampled.weights else {},
        )

    async def close(self) -> None:
        """Forget the images."""
        self._images.clear()
        if self.on_close is not None:
            self.on_close()
            self.on_close = None

    async def _append(self, messages: Sequence[Message]) -> None:
        """Render the messages that are new."""
        replied = bool(self.segments) and self.segments[-1].sampled
        if replied and (len(messages) < self._rendered or messages[self._rendered - 1].role != "assistant"):
            raise KnowgenError("the conversation lacks the last reply", where=f"trajectory {self.name}")
        new = messages[self._rendered :]
        if not new:
            if not self.segments or replied:
                raise KnowgenError("the conversation has no new message", where=f"trajectory {self.name}")
            return
        renderer = self.engine.renderer
        ids = renderer.closing(self.segments[-1].ids) if replied else []
        unanswered = self.segments[-1] if self.segments and not replied else None
        images: list[ImageRef] = []
        for message in new:
            counts = [await self.engine.image_tokens(image) for image in message.images]
            ids += renderer.message(message.role, message.text, counts, images_first=message.images_first)
            images += message.images
        ids += renderer.reply_header()
        if unanswered is not None:  # the earlier call failed: the header moves to the end
            del unanswered.ids[-len(renderer.reply_header()) :]
        self._images += images
        self.segments.append(Segment(ids, False, images=[image.sha256 for image in images]))
        self._rendered += len(new)

    def _room(self, used: int) -> int:
        """Return the maximum number of ids of the next reply."""
        limit = self.sampling.max_context
        if limit and used > limit:
            raise ContextFullError(
                f"the conversation has {used} tokens, more than {limit}", where=f"trajectory {self.name}"
            )
        room = self.sampling.max_new_tokens
        if self.engine.max_context:
            room = min(room, self.engine.max_context - used)
        if room < 1:
            raise ContextFullError(
                f"the conversation has {used} tokens, and the model takes {self.engine.max_context}",
                where=f"trajectory {self.name}",
            )
        return room
