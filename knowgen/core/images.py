"""Open image files, with one error type and a one-line reason for every file that does not open."""

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
_MAX_THREADS = 32


class UnreadableImageError(DataError):
    """An image cannot be opened; `what` is the reason, such as `unknown image format`."""


@dataclass(frozen=True)
class ImageFacts:
    """Hash, size and format of an image file.

    Attributes:
        sha256: SHA-256 hex digest of the file's bytes.
        width: Width in pixels.
        height: Height in pixels.
        format: Format as Pillow names it, such as PNG, JPEG or WEBP.
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

    Errors that Pillow raises in the `with` block, such as while converting the image, become the same error.

    Args:
        source: A file, or its bytes.
        formats: Accepted formats, as Pillow names them; every format it knows when None.
        max_pixels: Maximum width times height. An image with more pixels is refused before it is decoded.

    Raises:
        UnreadableImageError: The image cannot be opened.
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
    """Decode an image and return its hash, size and format; arguments as in `opened_image`.

    Raises:
        UnreadableImageError: The image cannot be opened.
    """
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise UnreadableImageError(_reason(error, source)) from error
    with opened_image(data, formats=formats, max_pixels=max_pixels) as image:
        return ImageFacts(hashlib.sha256(data).hexdigest(), image.width, image.height, image.format or "")


def inspect_images(files: Mapping[str, Path], rows: Mapping[str, str]) -> dict[str, ImageFacts]:
    """Decode images in parallel and return their hashes, sizes and formats by name.

    Args:
        files: Image files by name.
        rows: For each name, the first row of the data set that refers to it, for error messages.

    Raises:
        DataError: An image cannot be opened. The message names the first in order and the number of the others.
    """
    from concurrent.futures import ThreadPoolExecutor  # a process that only encodes images starts without it

    names = list(files)
    with ThreadPoolExecutor(min(_MAX_THREADS, 2 * (os.cpu_count() or 1))) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large images and unusual metadata are allowed here
        results = list(pool.map(lambda name: _facts_or_error(files[name]), names))
    facts: dict[str, ImageFacts] = {}
    errors: list[tuple[str, UnreadableImageError]] = []
    for name, result in zip(names, results, strict=True):
        if isinstance(result, UnreadableImageError):
            errors.append((name, result))
        else:
            facts[name] = result
    if errors:
        name, error = errors[0]
        more = f" (and {len(errors) - 1} other images do not open)" if len(errors) > 1 else ""
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
    """Return an image file as 8-bit RGB, rotated as its EXIF data says and with transparent pixels on white.

    Raises:
        UnreadableImageError: The path is None, or the image cannot be opened.
    """
    from PIL import ImageOps

    if path is None:
        raise UnreadableImageError("no file on this machine")
    with opened_image(path) as image:
        return rgb_on_white(ImageOps.exif_transpose(image))


def rgb_on_white(image: Image) -> Image:
    """Return an image as 8-bit RGB, with transparent pixels on white and 16-bit grey scaled to 8 bits.

    Example:
        >>> from PIL import Image
        >>> rgb_on_white(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    from PIL import Image

    if image.mode.startswith("I;16"):  # `convert` would clip these
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    background = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(background, layer).convert("RGB")
