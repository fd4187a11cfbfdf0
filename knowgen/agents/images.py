"""The images of a conversation: their ids, and the scaled copies that the policy is shown.

A copy is a file of content-addressed storage, so that a trajectory that waits holds no pixels.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from knowgen.agents.records import SeenImage
from knowgen.core.atomic import write_file
from knowgen.core.cache import FileCache, cache_folder
from knowgen.core.errors import UsageError
from knowgen.core.images import OPENING_VERSION, UnreadableImageError, inspect_image
from knowgen.core.records import ImageRef
from knowgen.core.scratch import ScratchFolder
from knowgen.core.spec import fingerprint

if TYPE_CHECKING:
    from PIL.Image import Image

FACTOR = 32
"""Side of the square of pixels that Qwen3-VL makes one token of."""

MAX_PIXELS = 160_000
"""Maximum width times height of an image in the published training."""

MIN_PIXELS = 4 * FACTOR * FACTOR
"""Minimum width times height of a scaled image (source: `smart_resize` in Qwen's processors)."""

MAX_RATIO = 200
"""Largest ratio of the sides of an image that is shown (source: as above, which refuses others)."""

SCALING_VERSION = f"smart-{OPENING_VERSION}"
"""Version of the scaling, part of keys. Increment it with any change that gives other pixels."""

CACHE = "images"


class SeenImages:
    """The images of a trajectory, numbered in the order in which they were seen. One file has one id.

    Attributes:
        by_id: The images by id.

    Example:
        >>> images = SeenImages()
        >>> boat = ImageRef(sha256="ab", width=640, height=480, format="JPEG")
        >>> images.add(boat, title="Boat", url="https://example.org/boat.jpg").id
        'IMG_001'
        >>> images.add(boat, title="The same boat", url="https://example.com/b.jpg").id
        'IMG_001'
    """

    def __init__(self) -> None:
        self.by_id: dict[str, SeenImage] = {}
        self._ids: dict[str, str] = {}

    def add(self, image: ImageRef, *, title: str, url: str, page_url: str = "") -> SeenImage:
        """Return the record of an image; one that was seen before keeps its id."""
        known = self._ids.get(image.sha256)
        if known is not None:
            return self.by_id[known]
        number = f"IMG_{len(self.by_id) + 1:03d}"
        self._ids[image.sha256] = number
        self.by_id[number] = SeenImage(id=number, image=image, title=title, url=url, page_url=page_url)
        return self.by_id[number]

    def get(self, image_id: str) -> SeenImage | None:
        """Return the image of an id, None if there is none."""
        return self.by_id.get(image_id)


def scaled_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return the size to which an image is scaled: sides that are multiples of `FACTOR`, at most `max_pixels` in all.

    This is the rule of Qwen's processors, which keeps the ratio of the sides as far as the multiples allow.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        max_pixels: Maximum width times height of the result.

    Raises:
        UnreadableImageError: One side is more than `MAX_RATIO` times as long as the other.

    Example:
        >>> scaled_size(1664, 928), scaled_size(100, 100)
        ((512, 288), (96, 96))
    """
    if max(width, height) > MAX_RATIO * min(width, height):
        raise UnreadableImageError(f"{width}x{height} pixels: one side is more than {MAX_RATIO} times the other")
    new_width, new_height = (round(side / FACTOR) * FACTOR for side in (width, height))
    area = width * height
    if new_width * new_height > max_pixels:
        shrink = (area / max_pixels) ** 0.5
        new_width, new_height = (max(FACTOR, int(side / shrink / FACTOR) * FACTOR) for side in (width, height))
    elif new_width * new_height < MIN_PIXELS:
        grow = (MIN_PIXELS / area) ** 0.5
        new_width, new_height = (-int(-side * grow // FACTOR) * FACTOR for side in (width, height))
    return new_width, new_height


class ImageScaler:
    """Makes the scaled copies that a policy is shown, each once, in the cache of images or a temporary folder.

    Args:
        max_pixels: Maximum width times height of a copy; 0 to show images as they are.

    Raises:
        UsageError: `max_pixels` is negative, or less than a policy can be shown.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or 0 < max_pixels < MIN_PIXELS:
            raise UsageError(f"image_pixels must be 0 or a whole number >= {MIN_PIXELS}, got {max_pixels!r}")
        if max_pixels < 0:
            raise UsageError(f"image_pixels must not be negative, got {max_pixels}", fix="0 shows images as they are")
        self._max_pixels = max_pixels
        self._files: FileCache | None = None
        self._temporary: ScratchFolder | None = None
        self._done: dict[str, ImageRef] = {}
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, "knowgen-images")

    async def scaled(self, image: ImageRef) -> ImageRef:
        """Return the copy of an image that the policy is shown, or the image where it is not scaled.

        Raises:
            UnreadableImageError: The image does not open, or is too long for its width.
        """
        if not self._max_pixels:
            return image
        key = fingerprint([SCALING_VERSION, image.sha256, self._max_pixels])
        done = self._done.get(key)
        if done is not None and done.path is not None and done.path.is_file():
            return done
        # threads of its own, since a semaphore could not be used by the event loop of a later call
        copy = await asyncio.get_running_loop().run_in_executor(self._threads, self._scaled, image, key)
        self._done[key] = copy
        return copy

    def _scaled(self, image: ImageRef, key: str) -> ImageRef:
        path = self._cache().find(key, ".png")
        if path is not None:
            with contextlib.suppress(UnreadableImageError):  # a damaged file is made again
                return _ref(path)
        path = self._cache().path(key, ".png")
        data = scaled_png(image.open(), self._max_pixels)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data, durable=False)
        self._cache().added(len(data))
        return _ref(path)

    def _cache(self) -> FileCache:
        if self._files is None:
            folder = cache_folder()
            if folder is None or not _writable(folder):
                self._temporary = ScratchFolder("knowgen.agent.")
                folder = self._temporary.path
            self._files = FileCache(CACHE, folder)
        return self._files

    def close(self) -> None:
        """Remove the temporary folder, if there is one, and end the threads."""
        self._threads.shutdown(wait=False)
        if self._temporary is not None:
            self._temporary.close()
        self._files = self._temporary = None


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def scaled_copy(pixels: Image, max_pixels: int = MAX_PIXELS) -> Image:
    """Return an image at the size at which a policy is shown it, or the image itself where it has that size.

    Args:
        pixels: The image.
        max_pixels: Maximum width times height; 0 for the image as it is.

    Raises:
        UnreadableImageError: One side is more than `MAX_RATIO` times as long as the other.
    """
    from PIL import Image

    size = scaled_size(*pixels.size, max_pixels) if max_pixels else pixels.size
    return pixels if size == pixels.size else pixels.resize(size, Image.Resampling.BICUBIC)


def scaled_png(pixels: Image, max_pixels: int) -> bytes:
    """Return the copy of an image that a policy is shown, as PNG; arguments and errors as in `scaled_copy`."""
    buffer = io.BytesIO()
    scaled_copy(pixels, max_pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _ref(path: Path) -> ImageRef:
    facts = inspect_image(path)
    return ImageRef(sha256=facts.sha256, width=facts.width, height=facts.height, format=facts.format, path=path)
