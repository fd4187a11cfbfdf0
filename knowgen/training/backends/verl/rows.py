"""A trajectory as one row of token ids for a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from knowgen.agents.records import Message, Segment
from knowgen.core.records import ImageRef


@dataclass(frozen=True)
class TokenRow:
    """The ids of a trajectory, up to its last sampled id: what follows has no gradient.

    Attributes:
        prompt: Ids of system prompt and prompt, up to the header of the first reply.
        completion: Ids of replies and of everything between them.
        mask: For each id of the completion, 1 where it was sampled and 0 otherwise.
        logprobs: Log-probability of each sampled id, 0 for the others; None where a reply has none.
        images: Images in the order of their placeholders.
    """

    prompt: list[int]
    completion: list[int]
    mask: list[int]
    logprobs: list[float] | None
    images: list[ImageRef] = field(default_factory=list)

    @classmethod
    def of(cls, segments: Sequence[Segment], messages: Sequence[Message]) -> TokenRow | None:
        """Return the row of a trajectory; None where nothing was sampled.

        Args:
            segments: Its ids. The first segment is the prompt.
            messages: Its messages, which have the images.
        """
        last = max((place for place, segment in enumerate(segments) if segment.sampled), default=0)
        if not last:
            return None
        used = segments[: last + 1]
        completion = used[1:]
        known = all(segment.logprobs is not None for segment in completion if segment.sampled)
        images = {image.sha256: image for message in messages for image in message.images}
        return cls(
            prompt=list(used[0].ids),
            completion=[token for segment in completion for token in segment.ids],
            mask=[int(segment.sampled) for segment in completion for _ in segment.ids],
            logprobs=[value for segment in completion for value in _logprobs(segment)] if known else None,
            images=[images[digest] for segment in used for digest in segment.images],
        )


def _logprobs(segment: Segment) -> list[float]:
    return segment.logprobs if segment.sampled and segment.logprobs is not None else [0.0] * len(segment.ids)
