"""Batches for the gradient: rows of token ids padded on the right, with the pixels of all their images.

A batch without images gets a blank one behind its last token, where the loss has no weight and no token looks. The
vision tower then runs in every process, as it must where its blocks are sharded; the loss and the gradient are those of
the batch without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from knowgen.agents.rendering import Renderer

if TYPE_CHECKING:
    from PIL.Image import Image

IGNORED = -100
"""Label of a token that the loss leaves out."""


def padded(rows: Sequence[Sequence[int]], value: int) -> Any:
    """Return rows of token ids as a tensor of shape (rows, longest), filled up on the right.

    Args:
        rows: The rows.
        value: What they are filled up with.
    """
    import torch

    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def image_inputs(processor: Any, images: Sequence[Image]) -> dict[str, Any]:
    """Return pixels and grids of images, in the order of their placeholders.

    Args:
        processor: Processor of the Qwen-VL family.
        images: At least one image.
    """
    data = processor.image_processor(images=list(images), return_tensors="pt")
    return {name: data[name] for name in ("pixel_values", "image_grid_thw")}


def append_blank_image(inputs: dict[str, Any], processor: Any, renderer: Renderer) -> dict[str, Any]:
    """Return a batch with a blank image behind the last token of its first row.

    Its tokens have attention mask 0, label `IGNORED` and, under any other name, 0.

    Args:
        inputs: Tensors of shape (rows, tokens) with `input_ids` and `attention_mask`, padded on the right; no images.
        processor: Processor of the Qwen-VL family.
        renderer: Renderer of its tokenizer.
    """
    import torch

    image = _blank_image(processor)
    tokens = int(image["image_grid_thw"].prod()) // int(processor.image_processor.merge_size) ** 2
    tail = torch.tensor(renderer.image_ids(tokens))
    ids = inputs["input_ids"]
    blank = torch.full((ids.shape[0], len(tail)), processor.tokenizer.pad_token_id)
    blank[0] = tail
    fill = {"input_ids": blank, "labels": torch.full_like(blank, IGNORED)}
    longer = {}
    for name, values in inputs.items():
        added = fill.get(name, torch.zeros_like(blank))
        longer[name] = torch.cat([values, added.to(values.device, values.dtype)], dim=1)
    if "mm_token_type_ids" in inputs:
        longer["mm_token_type_ids"] = (longer["input_ids"] == renderer.image).to(inputs["mm_token_type_ids"].dtype)
    return {**longer, **{name: values.to(ids.device) for name, values in image.items()}}


def _blank_image(processor: Any) -> dict[str, Any]:
    """Return the pixels and the grid of the smallest image: one token."""
    from PIL import Image

    side = int(processor.image_processor.patch_size) * int(processor.image_processor.merge_size)
    data = processor.image_processor(images=[Image.new("RGB", (side, side))], do_resize=False, return_tensors="pt")
    return {name: data[name] for name in ("pixel_values", "image_grid_thw")}
