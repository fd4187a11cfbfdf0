"""Turn what a generator returned into the bytes of an image that is certain to open.

`detach` copies an image in the generator's thread; `encode` checks it and makes a file of it, in other threads.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from knowgen.core.image_modes import check_values, notes_on, one_colour, to_rgb, upright_size
from knowgen.core.images import UnreadableImageError, decoded_image, open_image
from knowgen.engine.retry import ContractError
from knowgen.engine.returned_image import TakenImage, taken_image

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 100_000_000
"""Maximum number of pixels of a generated image."""
MIN_SIDE = 16
"""Minimum width and height of a generated image in pixels."""
KEPT_FORMATS = frozenset({"PNG", "JPEG", "WEBP"})
"""Files in these formats are stored byte for byte; others are converted to PNG, in the form of `open_image`."""

COMPRESS_LEVEL = 1
"""Compression level of PNG. A photo-like image of 1024 pixels takes 0.11 s and 2.0 MB at level 1, 0.20 s and 1.8 MB at
level 6.
"""


class EncodedImage(NamedTuple):
    """The bytes of an image file that is certain to open.

    Attributes:
        data: The bytes.
        width: Width in pixels, upright.
        height: Height in pixels, upright.
        format: Format as Pillow names it.
        notes: What was changed, in the file or whenever it is opened; see `OpenedImage`.
        one_colour: Colour of all pixels, such as #000000; empty for an image with more than one.
    """

    data: bytes
    width: int
    height: int
    format: str
    notes: tuple[str, ...] = ()
    one_colour: str = ""


@dataclass(frozen=True)
class UnusableImage:
    """Stands for an image that could not be copied from a generator; `encode` raises the reason."""

    reason: str


def detach(image: Any) -> Image | bytes | TakenImage:
    """Return an image that shares no memory and no file with what a generator returned.

    It does not encode, so it is fast enough for the generator's own thread. A PIL image is copied (one that was opened
    lazily is loaded first); a file is read.

    Args:
        image: Whatever `taken_image` takes: a PIL image, bytes, a path, an array, a list with one image.

    Raises:
        ContractError: It is none of these, cannot be read, or has a size that is not allowed.
    """
    from PIL import Image

    if isinstance(image, Image.Image):
        _check_size(image.width, image.height)  # before it is decoded
    taken = taken_image(image)
    if not isinstance(taken, bytes):
        pixels = taken.image if isinstance(taken, TakenImage) else taken
        _check_size(pixels.width, pixels.height)
    return taken


def encode(image: Any) -> EncodedImage:
    """Return a PIL image as PNG; check the bytes or the file of an image by decoding it completely.

    Args:
        image: A PIL image, which is written upright as 8-bit sRGB with transparent pixels on white, or another type
            that `detach` takes.

    Raises:
        ContractError: It is none of these, does not open, or has a size that is not allowed.
    """
    from PIL import Image

    if isinstance(image, UnusableImage):
        raise ContractError(image.reason)
    if not isinstance(image, Image.Image | TakenImage):
        image = detach(image)
    if isinstance(image, bytes):
        return _check_bytes(image)
    return _encode_pil(*image) if isinstance(image, TakenImage) else _encode_pil(image)


def _encode_pil(image: Image, notes: tuple[str, ...] = ()) -> EncodedImage:
    _check_size(image.width, image.height)
    try:
        opened = open_image(image)
    except UnreadableImageError as error:
        raise ContractError(f"the image cannot be used: {error.what}") from error
    return _as_png(opened.image, notes + opened.notes)


def _as_png(image: Image, notes: tuple[str, ...]) -> EncodedImage:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=COMPRESS_LEVEL)
    return EncodedImage(buffer.getvalue(), image.width, image.height, "PNG", notes, one_colour(image))


def _check_bytes(data: bytes) -> EncodedImage:
    try:
        with decoded_image(data, max_pixels=MAX_PIXELS) as opened:
            if not (problem := _size_problem(*opened.size)):
                return _kept(data, opened) if opened.format in KEPT_FORMATS else _converted(opened)
    except UnreadableImageError as error:
        raise ContractError(f"the {len(data)} bytes of the image do not open: {error.what}") from error
    raise ContractError(problem)


def _kept(data: bytes, opened: Image) -> EncodedImage:
    check_values(opened)
    width, height = upright_size(opened)
    return EncodedImage(data, width, height, opened.format or "", notes_on(opened), one_colour(opened))


def _converted(opened: Image) -> EncodedImage:
    kind = opened.format
    image, notes = to_rgb(opened, own=True)
    return _as_png(image, (*notes, f"{kind} is stored as PNG"))


def _check_size(width: int, height: int) -> None:
    if problem := _size_problem(width, height):
        raise ContractError(problem)


def _size_problem(width: int, height: int) -> str:
    if width < MIN_SIDE or height < MIN_SIDE:
        return f"the image is {width}x{height} pixels; the smallest side allowed is {MIN_SIDE}"
    if width * height > MAX_PIXELS:
        return f"the image is {width}x{height} pixels; at most {MAX_PIXELS // 10**6} million are allowed"
    return ""
