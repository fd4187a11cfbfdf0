"""Pictures as a VLM judge is shown them: JPEG, upright, on white, of bounded size."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
from dataclasses import dataclass

from PIL import Image, ImageOps

from knowgen.errors import UnscorableError
from knowgen.records import ImageRef

LONGEST_SIDE = 4096
"""Pixels; larger pictures are scaled down (source: the KnowGen evaluation protocol)."""

QUALITY = 100
PICTURES_VERSION = "jpeg-1"
"""Raised whenever the same file could be encoded to other bytes by intent."""


@dataclass(frozen=True)
class Encoded:
    """A picture ready to be sent.

    Attributes:
        data: Bytes of a JPEG file.
        sha256: Hex digest of `data`.
        width: Pixels.
        height: Pixels.
        url: The same bytes as a data URL.
    """

    data: bytes
    sha256: str
    width: int
    height: int
    url: str


async def encode(picture: ImageRef, what: str) -> Encoded:
    """Encodes a picture in a thread.

    Args:
        picture: With its path on this machine.
        what: What to call it in an error, such as `the ground truth`.

    Raises:
        UnscorableError: It has no file, or the file does not decode.
    """
    return await asyncio.to_thread(encode_file, picture, what)


def encode_file(picture: ImageRef, what: str) -> Encoded:
    """Encodes a picture: EXIF-transposed, transparency on white, longest side at most 4096 (Lanczos), JPEG 100.

    Args:
        picture: With its path on this machine.
        what: What to call it in an error.

    Raises:
        UnscorableError: It has no file, or the file does not decode.
    """
    if picture.path is None:
        raise UnscorableError(f"{what} {picture.sha256[:12]} has no file on this machine")
    try:
        with Image.open(picture.path) as opened:
            opened.load()
            upright = _within(_on_white(ImageOps.exif_transpose(opened)))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnscorableError(f"{what} does not open: {error}", where=picture.path.name) from error
    upright.info = {}  # comments and profiles of the file are not shown to the judge
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    data = buffer.getvalue()
    return Encoded(
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        width=upright.width,
        height=upright.height,
        url=f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}",
    )


def _on_white(picture: Image.Image) -> Image.Image:
    """Returns the picture as 8-bit RGB; what is transparent becomes white."""
    if picture.mode.startswith("I;16"):
        return picture.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(ground, layer).convert("RGB")


def _within(picture: Image.Image) -> Image.Image:
    longest = max(picture.size)
    if longest <= LONGEST_SIDE:
        return picture
    width, height = (max(1, round(side * LONGEST_SIDE / longest)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)
