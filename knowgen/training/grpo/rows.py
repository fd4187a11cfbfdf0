"""Episodes as rows of a trainer: token ids, which of them were sampled, their log-probabilities, and images.

The ids are those that the model was given and sampled, never encoded again. Every row has an image, so that all rows
and all processes run the vision tower, which sharded weights require: a row without one gets a blank image after its
last token. No token follows it and it is not trained on, so that it changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from knowgen.agents.records import Segment
from knowgen.agents.rendering import Renderer
from knowgen.core.errors import KnowgenError
from knowgen.core.records import ImageRef
from knowgen.training.backends.contract import Episode


@dataclass(frozen=True)
class TrainingRow:
    """An episode as the trainer takes it.

    Attributes:
        prompt: Ids up to the header of the first reply.
        completion: All ids after that.
        sampled: 1 for each id of the completion that the policy sampled, 0 for all others.
        logprobs: Log-probability of each id of the completion by the engine; 0 where it was not sampled.
        images: Images in the order of their placeholders; None for the blank one.
    """

    prompt: list[int]
    completion: list[int]
    sampled: list[int]
    logprobs: list[float]
    images: list[ImageRef | None]


class RowBuilder:
    """Builds rows for a model of the Qwen-VL family.

    Args:
        processor: Processor of the model.
        where: Name of the training in errors.
        blank_images: Whether a row without images gets a blank one; not for trainers that see to it themselves.
    """

    def __init__(self, processor: Any, where: str, *, blank_images: bool = True) -> None:
        renderer = Renderer(processor.tokenizer, where)
        self._end, self._where, self._blank_images = renderer.end, where, blank_images
        self._empty = renderer.reply_header()
        self._blank = renderer.image_run(1)

    def row(self, episode: Episode) -> TrainingRow:
        """Return the row of an episode.

        An episode in which the policy sampled nothing, because a service failed or the prompt was too long, gets a row
        of a few ids that are not trained on. What follows the last sampled id is left out.

        Raises:
            KnowgenError: The policy keeps no ids or no log-probabilities, or an image is unknown.
        """
        segments = list(episode.trajectory.segments) if episode.trajectory is not None else []
        while segments and not segments[-1].sampled:
            segments.pop()
        if not segments:
            return self._with_image(TrainingRow(list(self._empty), [self._end], [0], [0.0], []))
        first, *rest = segments
        if first.sampled:
            raise self._error(episode, "its first ids were sampled, without a prompt")
        return self._with_image(
            TrainingRow(
                list(first.ids),
                [token for segment in rest for token in segment.ids],
                [int(segment.sampled) for segment in rest for _ in segment.ids],
                [value for segment in rest for value in self._logprobs(episode, segment)],
                self._images(episode, segments),
            )
        )

    def _logprobs(self, episode: Episode, segment: Segment) -> list[float]:
        if not segment.sampled:
            return [0.0] * len(segment.ids)
        if segment.logprobs is None or len(segment.logprobs) != len(segment.ids):
            raise self._error(episode, "its engine reports no log-probability for each sampled token")
        return segment.logprobs

    def _images(self, episode: Episode, segments: list[Segment]) -> list[ImageRef | None]:
        assert episode.trajectory is not None
        shown = {image.sha256: image for message in episode.trajectory.messages for image in message.images}
        named = [digest for segment in segments for digest in segment.images]
        if missing := [digest for digest in named if digest not in shown]:
            raise self._error(episode, f"the image {missing[0]} is in none of its messages")
        return [shown[digest] for digest in named]

    def _with_image(self, row: TrainingRow) -> TrainingRow:
        """Return a row that has an image, where every row must have one."""
        if row.images or not self._blank_images:
            return row
        tail = self._blank
        return TrainingRow(
            row.prompt,
            row.completion + tail,
            row.sampled + [0] * len(tail),
            row.logprobs + [0.0] * len(tail),
            [None],
        )

    def _error(self, episode: Episode, what: str) -> KnowgenError:
        return KnowgenError(what, where=f"{self._where}: episode {episode.prompt.key}#{episode.number}")
