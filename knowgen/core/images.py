"""Opening image files: every reason why one does not open becomes one error with one line."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from knowgen.core.errors import DataError, KnowgenError
from knowgen.core.text import error_message, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

REASON_LENGTH = 160
_MOST_THREADS = 32


class UnreadableImageError(DataError):
    """An image that does not open; `what` says why, such as `unknown image format`."""


@dataclass(frozen=True)
class ImageFacts:
    """What a decoded image file is.

    Attributes:
        sha256: Hex digest of the file's bytes.
        width: Pixels.
        height: Pixels.
        format: As Pillow names it: PNG, JPEG, WEBP.
    """

    sha256: str
    width: int
    height: int
    format: str


@contextmanager
def opened_image(
    source: Path | bytes, *, formats: Sequence[str] | None = None, max_pixels: int | None = None
) -> Iterator[Image]:
    """Open an image and decode all its pixels.

    The `with` block may convert the image: whatever Pillow raises there is turned into the same error.

    Args:
        source: A file, or its bytes.
        formats: Formats that are tried, as Pillow names them; None for every format it knows.
        max_pixels: Maximum width times height. An image with more pixels is refused before it is decoded.

    Raises:
        UnreadableImageError: It does not open.
    """
    from PIL import Image

    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=None if formats is None else tuple(formats)) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise UnreadableImageError(f"{image.width}x{image.height} pixels, at most {max_pixels} are allowed")
            image.load()
            yield image
    except KnowgenError:
        raise
    except Exception as error:  # a broken file makes Pillow raise OSError, SyntaxError, struct.error and many others
        raise UnreadableImageError(_reason(error, source)) from error


def _reason(error: Exception, source: Path | bytes) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "unknown image format"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels"
    if isinstance(error, FileNotFoundError):
        return "the file is missing"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = error_message(error, None)
    if isinstance(source, Path):  # the whole path says nothing more than the name
        message = message.replace(str(source), source.name)
    return one_line(message, REASON_LENGTH)


def inspect_image(
    source: Path | bytes, *, formats: Sequence[str] | None = None, max_pixels: int | None = None
) -> ImageFacts:
    """Decode an image and return what it is; see `opened_image`.

    Raises:
        UnreadableImageError: It does not open.
    """
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise UnreadableImageError(_reason(error, source)) from error
    with opened_image(data, formats=formats, max_pixels=max_pixels) as image:
        return ImageFacts(hashlib.sha256(data).hexdigest(), image.width, image.height, image.format or "")


def inspect_images(files: Mapping[str, Path], rows: Mapping[str, str]) -> dict[str, ImageFacts]:
    """Decode images in parallel and return what each is, by its name.

    Args:
        files: Image files by name.
        rows: For each name, the first row of the data set that refers to it; named in errors.

    Raises:
        DataError: An image does not open. The first by order is named, with the number of the others.
    """
    from concurrent.futures import ThreadPoolExecutor  # a process that only encodes images starts without it

    names = list(files)
    with ThreadPoolExecutor(min(_MOST_THREADS, 2 * (os.cpu_count() or 1))) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about large images and odd metadata; what does not open is an error
        results = list(pool.map(lambda name: _facts_or_error(files[name]), names))
    facts: dict[str, ImageFacts] = {}
    faults: list[tuple[str, UnreadableImageError]] = []
    for name, result in zip(names, results, strict=True):
        if isinstance(result, UnreadableImageError):
            faults.append((name, result))
        else:
            facts[name] = result
    if faults:
        name, error = faults[0]
        more = f" (and {len(faults) - 1} other images do not open)" if len(faults) > 1 else ""
        raise DataError(
            f"the image {name} does not open: {error.what}{more}", where=rows[name], fix="fetch it again"
        ) from error
    return facts


def _facts_or_error(path: Path) -> ImageFacts | UnreadableImageError:
    try:
        return inspect_image(path)
    except UnreadableImageError as error:
        return error


def open_rgb(path: Path | None) -> Image:
    """Return an image file as 8-bit RGB: upright as its EXIF data says, with transparency laid on white.

    Raises:
        UnreadableImageError: There is no file, or it does not open.
    """
    from PIL import ImageOps

    if path is None:
        raise UnreadableImageError("no file on this machine")
    with opened_image(path) as image:
        return rgb_on_white(ImageOps.exif_transpose(image))


def rgb_on_white(image: Image) -> Image:
    """Return an image as 8-bit RGB; what is transparent becomes white, and 16 bits of grey are scaled to 8."""
    from PIL import Image

    if image.mode.startswith("I;16"):  # `convert` would clip these
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(ground, layer).convert("RGB")
