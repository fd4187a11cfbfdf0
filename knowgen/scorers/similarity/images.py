"""Opening a picture file as every similarity scorer sees it: upright, 8-bit RGB, transparency on white."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

OPENING_VERSION = "rgb-1"
"""Raised whenever the same file could open to other pixels by intent; part of every embedding's key."""


class BrokenImageError(Exception):
    """A picture does not open; the message says why."""


@dataclass(frozen=True)
class ImageFile:
    """A picture file.

    Attributes:
        sha256: Hex digest of the file's bytes.
        path: Where it lies; None when it has no file on this machine.
        what: What to call it in a reason, such as `the ground truth`.
    """

    sha256: str
    path: Path | None
    what: str


def open_rgb(path: Path | None) -> Image:
    """Opens a picture.

    Raises:
        BrokenImageError: It has no file, or the file does not decode.
    """
    from PIL import Image, ImageOps

    if path is None:
        raise BrokenImageError("it has no file on this machine")
    try:
        with Image.open(path) as opened:
            opened.load()
            return _on_white(ImageOps.exif_transpose(opened))
    except (OSError, ValueError, SyntaxError, TypeError, struct.error, Image.DecompressionBombError) as error:
        # a message of Pillow may hold the whole path, which says nothing more than the digest does
        text = " ".join(str(error).split()).replace(str(path), path.name)
        raise BrokenImageError(text or type(error).__name__) from error


def _on_white(picture: Image) -> Image:
    from PIL import Image

    if picture.mode.startswith("I;16"):  # 16 bits of grey, which `convert` would clip
        return picture.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(ground, layer).convert("RGB")
