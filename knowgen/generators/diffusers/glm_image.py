"""References of GLM-Image: the image features of its encoder, in the form that its pipeline reads.

transformers 5.24 returns the features of an image as a grid of shape (width, rows, columns), and makes tokens of a list
of such grids. `GlmImagePipeline` of diffusers 0.42.1 joins the images in one table of shape (patches, width), and fails
with every reference. Neither release says which other release it works with.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


def read_references(pipe: Any) -> None:
    """Have the encoder of a GLM-Image pipeline return features as the pipeline reads them; leave others as they are.

    Args:
        pipe: A pipeline of any class.
    """
    encoder = getattr(pipe, "vision_language_encoder", None)
    if type(pipe).__name__ != "GlmImagePipeline" or encoder is None:
        return
    features, tokens = encoder.get_image_features, encoder.get_image_tokens
    are_grids = False

    def get_image_features(pixel_values: Any, image_grid_thw: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal are_grids
        output = features(pixel_values, image_grid_thw, *args, **kwargs)
        if args or kwargs:  # called by the encoder itself, which reads the new form
            return output
        are_grids = output.pooler_output[0].dim() == 3
        if are_grids:
            output.pooler_output = [grid.flatten(1).T for grid in output.pooler_output]
        return output

    def get_image_tokens(hidden_states: Any, image_grid_thw: Any = None) -> Any:
        if are_grids and image_grid_thw is not None:
            shapes = [[int(side) for side in grid[-2:]] for grid in image_grid_thw]
            tables = hidden_states.split([rows * columns for rows, columns in shapes])
            hidden_states = [table.T.reshape(-1, *shape) for table, shape in zip(tables, shapes, strict=True)]
        return tokens(hidden_states, image_grid_thw)

    encoder.get_image_features, encoder.get_image_tokens = get_image_features, get_image_tokens


def fitting_reference(pipe: Any, image: Image) -> Image:
    """Return a reference image in a size that GLM-Image can read; those of other pipelines as they are.

    Its encoder scales images to sides that are multiples of two patches (32 pixels) and are between two limits, its VAE
    does not, and both must see the same number of patches.
    """
    processor = getattr(getattr(pipe, "processor", None), "image_processor", None)
    if type(pipe).__name__ != "GlmImagePipeline" or processor is None:
        return image
    step = 2 * processor.patch_size * processor.merge_size
    least, most = (math.sqrt(processor.size[name]) for name in ("shortest_edge", "longest_edge"))
    scale = min(max(1.0, least / min(image.size)), most / max(image.size))
    lowest, highest = math.ceil(least / step) * step, max(math.floor(most / step), 1) * step
    sides = [min(max(round(side * scale / step) * step, lowest), highest) for side in image.size]
    if image.size == tuple(sides):
        return image
    from PIL.Image import Resampling

    return image.resize((sides[0], sides[1]), Resampling.LANCZOS)
