"""Turn what a generator returned into the bytes of an image that is certain to open.

`detach` copies an image in the generator's thread; `encode` checks it and makes a file of it, in other threads.
"""

from __future__ import annotations

import io
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from knowgen.engine.retry import ContractError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 100_000_000
"""Maximum number of pixels of a generated image."""
MAX_BYTES = 512 * 1024 * 1024
"""Maximum size of an image file in bytes."""
MIN_SIDE = 16
"""Minimum width and height of a generated image in pixels."""
KEPT_FORMATS = frozenset({"PNG", "JPEG", "WEBP"})
"""Files in these formats are stored byte for byte; others are converted to PNG."""

COMPRESS_LEVEL = 1
"""Compression level of PNG. A photo-like image of 1024 pixels takes 0.11 s and 2.0 MB at level 1, 0.20 s and 1.8 MB at
level 6.
"""


class EncodedImage(NamedTuple):
    """The bytes of an image file, its size in pixels, and its format as Pillow names it."""

    data: bytes
    width: int
    height: int
    format: str


@dataclass(frozen=True)
class UnusableImage:
    """Stands for an image that could not be copied from a generator; `encode` raises the reason."""

    reason: str


def detach(image: Any) -> Image | bytes:
    """Return an image that shares no memory and no file with what a generator returned.

    It does not decode or encode, so it is fast enough for the generator's own thread. A PIL image is copied (one that
    was opened lazily is loaded first); a file is read.

    Args:
        image: A PIL image, bytes or another buffer, or a path.

    Raises:
        ContractError: It is none of these, cannot be read, or has a size that is not allowed.
    """
    from PIL import Image

    if isinstance(image, Image.Image):
        _check_size(image.width, image.height)
        try:
            return Image.Image.copy(image)  # not a subclass's own copy(), which may return the same pixels
        except Exception as error:  # Pillow raises many types for a broken image
            raise ContractError(f"the image cannot be read: {type(error).__name__}: {error}") from error
    if isinstance(image, (bytes, bytearray, memoryview)):
        return image if type(image) is bytes else bytes(image)
    if isinstance(image, Path):
        return _read(image)
    if image is None:
        raise ContractError("the generator returned no image (None)")
    raise ContractError(f"the generator returned {type(image).__name__}, not a PIL image, bytes or a Path")


def encode(image: Any) -> EncodedImage:
    """Return a PIL image as PNG; check the bytes or the file of an image by decoding it completely.

    Args:
        image: A PIL image (transparency becomes white, other modes become RGB), or another type that `detach` takes.

    Raises:
        ContractError: It is none of these, does not open, or has a size that is not allowed.
    """
    from PIL import Image

    if isinstance(image, UnusableImage):
        raise ContractError(image.reason)
    if not isinstance(image, Image.Image):
        image = detach(image)
    return _check_bytes(image) if isinstance(image, bytes) else _encode_pil(image)


def _encode_pil(image: Image) -> EncodedImage:
    _check_size(image.width, image.height)
    try:
        buffer = io.BytesIO()
        _to_rgb(image).save(buffer, "PNG", compress_level=COMPRESS_LEVEL)
    except Exception as error:  # Pillow raises many types for a broken image
        raise ContractError(f"the image cannot be written as PNG: {type(error).__name__}: {error}") from error
    return EncodedImage(buffer.getvalue(), image.width, image.height, "PNG")


def _to_rgb(image: Image) -> Image:
    from PIL import Image as Pillow

    if image.mode == "RGB":
        return image
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Pillow.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may block, or never end
            raise ContractError(f"the image file {path.name} is not a regular file")
        if status.st_size > MAX_BYTES:
            raise ContractError(f"the image file {path.name} is larger than {MAX_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise ContractError(f"the image file {path.name} cannot be read: {error.strerror}") from error


def _check_bytes(data: bytes) -> EncodedImage:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as opened:
            _check_size(opened.width, opened.height)
            opened.load()
            if opened.format in KEPT_FORMATS:
                return EncodedImage(data, opened.width, opened.height, opened.format)
            return _encode_pil(opened)
    except UnidentifiedImageError as error:
        raise ContractError(f"the {len(data)} bytes of the image are in no known image format") from error
    except ContractError:
        raise
    except Exception as error:  # Pillow raises many types for a broken file
        raise ContractError(f"the image does not open: {type(error).__name__}: {error}") from error


def _check_size(width: int, height: int) -> None:
    if width < MIN_SIDE or height < MIN_SIDE:
        raise ContractError(f"the image is {width}x{height} pixels; the smallest side allowed is {MIN_SIDE}")
    if width * height > MAX_PIXELS:
        raise ContractError(f"the image is {width}x{height} pixels; at most {MAX_PIXELS // 10**6} million are allowed")
