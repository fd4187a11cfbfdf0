"""Batches of conversations. Images are opened when their batch is made, and are in memory no longer than it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from knowgen.agents.images import scaled_copy
from knowgen.agents.rendering import Renderer
from knowgen.core.images import open_rgb
from knowgen.training.batches import IGNORED, append_blank_image, image_inputs, padded
from knowgen.training.conversations import SftConversation
from knowgen.training.sft.encoding import ConversationEncoder

NUMBER = "conversation"
"""Column of a data set with the number of each conversation."""
CUT = "cut"
"""Entry of a batch with the number of its conversations that were cut; the model does not take it."""


class ConversationCollator:
    """Makes batches of conversations, with labels on what the policy is to learn.

    Args:
        conversations: All conversations.
        processor: Processor of the Qwen-VL family.
        renderer: Renderer of its tokenizer.
        encoder: Encodes them.
        image_pixels: Maximum width times height of an image, as the encoder has it; 0 for images as they are.
    """

    def __init__(
        self,
        conversations: Sequence[SftConversation],
        processor: Any,
        renderer: Renderer,
        encoder: ConversationEncoder,
        image_pixels: int,
    ) -> None:
        self._conversations, self._processor = conversations, processor
        self._renderer, self._encoder, self._image_pixels = renderer, encoder, image_pixels

    def __call__(self, rows: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """Return a batch.

        Args:
            rows: Rows of a data set, each with the number of a conversation under `NUMBER`.

        Returns:
            Tensors: `input_ids`, `attention_mask`, `labels` and `mm_token_type_ids` of shape (rows, tokens),
            `pixel_values` and `image_grid_thw` of all images, and `CUT`.

        Raises:
            DataError: A conversation is damaged, or an image does not open.
        """
        import torch

        encoded = [self._encoder.encode(self._conversations[row[NUMBER]]) for row in rows]
        ids = padded([each.ids for each in encoded], self._processor.tokenizer.pad_token_id)
        inputs = {
            "input_ids": ids,
            "attention_mask": padded([[1] * len(each.ids) for each in encoded], 0),
            "labels": padded([each.labels for each in encoded], IGNORED),
            "mm_token_type_ids": (ids == self._renderer.image).int(),
        }
        images = [scaled_copy(open_rgb(path), self._image_pixels) for each in encoded for path in each.images]
        if images:
            inputs |= image_inputs(self._processor, images)
        else:
            inputs = append_blank_image(inputs, self._processor, self._renderer)
        return {**inputs, CUT: torch.tensor(sum(each.cut for each in encoded))}
