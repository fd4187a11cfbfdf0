"""Images as a model of the Qwen-VL family takes them, each preprocessed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from knowgen.core.records import ImageRef

CACHE_BYTES = 256 << 20
"""Maximum size of the preprocessed images that are kept, in bytes."""


class PixelCache:
    """Preprocesses images and keeps the results, the least recently used are dropped first.

    Args:
        image_processor: Returns the image processor of the model; it is called for each image that is not kept.
        size: Maximum size of what is kept, in bytes; one image is always kept.

    Attributes:
        passes: Number of images that were preprocessed.
    """

    def __init__(self, image_processor: Callable[[], Any], size: int = CACHE_BYTES) -> None:
        self.passes = 0
        self._image_processor, self._size = image_processor, size
        self._kept: OrderedDict[str, tuple[Any, Any]] = OrderedDict()
        self._used = 0

    def of(self, image: ImageRef) -> tuple[Any, Any]:
        """Return an image as the model takes it.

        Returns:
            Its patches, of shape (patches, values of a patch), and its grid, of shape (1, 3).
        """
        known = self._kept.get(image.sha256)
        if known is not None:
            self._kept.move_to_end(image.sha256)
            return known
        data = self._image_processor()(images=[image.open()], return_tensors="pt")
        entry = (data["pixel_values"], data["image_grid_thw"])
        self.passes += 1
        self._kept[image.sha256] = entry
        self._used += _bytes(entry[0])
        while self._used > self._size and len(self._kept) > 1:
            self._used -= _bytes(self._kept.popitem(last=False)[1][0])
        return entry

    def clear(self) -> None:
        """Drop everything."""
        self._kept.clear()
        self._used = 0


def _bytes(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())
