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

    pixels, grid = blank_image(processor.image_processor)
    tail = torch.tensor(renderer.image_run(1))
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
    return {**longer, "pixel_values": pixels.to(ids.device), "image_grid_thw": grid.to(ids.device)}


def blank_image(image_processor: Any) -> tuple[Any, Any]:
    """Return the smallest image that a model takes, as it takes it, with its grid: one placeholder, all patches 0."""
    import torch

    side = int(image_processor.merge_size)
    values = 3 * int(image_processor.temporal_patch_size) * int(image_processor.patch_size) ** 2
    return torch.zeros(side * side, values), torch.tensor([[1, side, side]])
