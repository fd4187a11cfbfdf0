"""Open image files: one opener for everything that stores, shows, scores or checks an image.

`open_image` returns every image in one form, 8-bit sRGB, upright and on white (`core/image_modes.py`): what a judge is
sent, a scorer measures and a page shows are the same pixels. A file that does not open gives one type of
error with a one-line reason. Files are never written.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from knowgen.core.errors import DataError, KnowgenError
from knowgen.core.image_modes import UnclearValuesError, check_values, to_rgb, upright_size
from knowgen.core.steps import counted
from knowgen.core.text import error_message, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

OPENING_VERSION = "3"
"""Version of `open_image`, part of whatever is computed from its pixels. Increment it when they change."""

FORMATS = (
    "PNG", "JPEG", "WEBP", "MPO", "GIF", "TIFF", "AVIF", "HEIF", "BMP", "DIB", "PPM", "JPEG2000", "ICO", "ICNS", "TGA",
    "PCX", "PSD", "QOI", "SGI", "DDS",
)  # fmt: skip
"""Formats that are opened, as Pillow names them. Others are drawings, data or need another program (EPS)."""

MAX_PIXELS = 178_956_970
"""Maximum width times height of an image, where the caller names none: at which Pillow refuses to open it."""

MAX_BYTES = 512 * 1024 * 1024
"""Maximum size of an image file in bytes."""

REASON_LENGTH = 240
_MAX_THREADS = 32

_SIGNATURES = ((b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff", "JPEG"))
"""First bytes of the formats for which Pillow need not load all of its plugins."""

_OTHER_FILES = (
    (b"<svg", "an SVG drawing"), (b"<?xml", "an XML file"), (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript file"), (b"<!doctype html", "a web page"), (b"<html", "a web page"),
    (b"\xff\x0a", "a JPEG XL image"), (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
)  # fmt: skip
"""First bytes of files that are often given instead of an image, and what they are."""


class UnreadableImageError(DataError):
    """An image cannot be opened; `what` is the reason, such as `unknown image format`."""


@dataclass(frozen=True)
class OpenedImage:
    """An image in the one form in which all images are shown, scored and compared.

    Attributes:
        image: 8-bit sRGB (mode RGB), upright, transparent pixels on white, without metadata.
        format: Format of the file, as Pillow names it; empty for an image that came from no file.
        notes: What was changed to reach this form, one text for each change. Without notes, the file itself shows it.
    """

    image: Image
    format: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageFacts:
    """Hash, size and format of an image file.

    Attributes:
        sha256: SHA-256 hex digest of the file's bytes.
        width: Width in pixels, upright.
        height: Height in pixels, upright.
        format: Format as Pillow names it, such as PNG, JPEG or WEBP.
    """

    sha256: str
    width: int
    height: int
    format: str


def open_image(
    source: Path | bytes | Image, *, formats: Sequence[str] | None = None, max_pixels: int = MAX_PIXELS
) -> OpenedImage:
    """Open an image and return it as 8-bit sRGB, upright, with transparent pixels on white.

    Of a file with several frames or pictures the first is taken. Colour profiles are converted to sRGB (relative
    colorimetric); one that is damaged or does not fit the image is ignored and noted.

    Args:
        source: A file, the bytes of one, or a PIL image.
        formats: Accepted formats, as Pillow names them; `FORMATS` when None.
        max_pixels: Maximum width times height. An image with more pixels is refused before it is decoded.

    Raises:
        UnreadableImageError: The image cannot be opened, or its values do not say which of them is white.

    Example:
        >>> from PIL import Image
        >>> opened = open_image(Image.new("I;16", (2, 1), 128 * 257))
        >>> opened.image.getpixel((0, 0)), opened.notes
        ((128, 128, 128), ('16-bit grey is shown with 8 bits',))
    """
    if isinstance(source, Path | bytes):
        with decoded_image(source, formats, max_pixels) as image:
            pixels, notes = to_rgb(image, own=True)
            return OpenedImage(pixels, image.format or "", notes)
    try:
        _check_pixels(source, max_pixels)
        source.load()
        pixels, notes = to_rgb(source)
    except KnowgenError:
        raise
    except Exception as error:  # Pillow raises many types for a broken image
        raise UnreadableImageError(_reason(error, b"")) from error
    return OpenedImage(pixels, source.format or "", notes)


def open_rgb(source: Path | bytes | Image | None) -> Image:
    """Return the pixels of `open_image`: 8-bit sRGB, upright, with transparent pixels on white.

    Raises:
        UnreadableImageError: The source is None, or the image cannot be opened.
    """
    if source is None:
        raise UnreadableImageError("no file on this machine")
    return open_image(source).image


def read_image_file(path: Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
        UnreadableImageError: It is missing, empty, too large, or not a regular file (a pipe or device may have no end).
    """
    try:
        with _open_regular(path) as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UnreadableImageError(_reason(error, path)) from error


def _open_regular(path: Path) -> IO[bytes]:
    """Open a regular file without ever blocking."""
    _check_regular(path.stat())
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _check_regular(os.fstat(descriptor))  # it may have been replaced meanwhile
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
        raise UnreadableImageError(f"it is {kinds.get(stat.S_IFMT(status.st_mode), 'a socket')}, not a regular file")
    if status.st_size == 0:
        raise UnreadableImageError("the file is empty")
    if status.st_size > MAX_BYTES:
        raise UnreadableImageError(f"the file is larger than {MAX_BYTES >> 20} MiB")


@contextmanager
def decoded_image(
    source: Path | bytes, formats: Sequence[str] | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[Image]:
    """Open a file and decode its pixels, in whatever form it has them; arguments as in `open_image`.

    Errors that Pillow raises in the `with` block, such as while converting the image, become the same error.

    Raises:
        UnreadableImageError: The image cannot be opened.
    """
    with _opened_file(source, formats, max_pixels) as image:
        image.load()
        yield image


def image_size(
    source: Path | bytes, *, formats: Sequence[str] | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Return width and height as the file's header states them, without decoding; arguments as in `open_image`.

    Raises:
        UnreadableImageError: The header is not that of an accepted image, or states too many pixels.
    """
    with _opened_file(source, formats, max_pixels) as image:
        return image.size


@contextmanager
def _opened_file(source: Path | bytes, formats: Sequence[str] | None, max_pixels: int) -> Iterator[Image]:
    """Open a file without decoding it; errors of Pillow, also those in the `with` block, are `UnreadableImageError`."""
    from PIL import Image

    try:
        with (
            io.BytesIO(source) if isinstance(source, bytes) else _open_regular(source) as file,
            Image.open(file, formats=_tried_formats(file, formats)) as image,
        ):
            _check_pixels(image, max_pixels)
            yield image
    except KnowgenError:
        raise
    except Exception as error:  # a broken file makes Pillow raise OSError, SyntaxError, struct.error and many others
        raise UnreadableImageError(_reason(error, source)) from error


def _tried_formats(file: IO[bytes], formats: Sequence[str] | None) -> tuple[str, ...]:
    """Return the formats to try: by the first bytes where they suffice, else all accepted ones that Pillow reads."""
    from PIL import Image

    start = file.read(16)
    accepted = FORMATS if formats is None else tuple(formats)
    for signature, name in _SIGNATURES:
        if start.startswith(signature) and name in accepted:
            return (name,)
    if start.startswith(b"RIFF") and start.endswith(b"WEBP", 8, 12) and "WEBP" in accepted:
        return ("WEBP",)
    _load_all_plugins()
    return tuple(name for name in accepted if name in Image.OPEN)


@cache
def _load_all_plugins() -> None:
    """Load all plugins of Pillow, and the one for HEIC if it is installed."""
    from PIL import Image

    Image.init()
    if "HEIF" not in Image.OPEN:
        try:
            from pillow_heif import register_heif_opener  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            return
        register_heif_opener()


def _check_pixels(image: Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise UnreadableImageError(f"{image.width}x{image.height} pixels, at most {_millions(max_pixels)} are allowed")


def _millions(pixels: int) -> str:
    return f"{pixels / 1e6:.4g} million" if pixels >= 10**6 else str(pixels)


def _reason(error: Exception, source: Path | bytes) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return _unidentified(source)
    if isinstance(error, Image.DecompressionBombError):
        found = re.search(r"\d+ pixels", str(error))  # Pillow tells the size nowhere else
        return f"{found.group() if found else 'too many pixels'}, at most {_millions(MAX_PIXELS)} are allowed"
    if isinstance(error, FileNotFoundError):
        return "the file is missing"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = str(error) if isinstance(error, UnclearValuesError) else error_message(error, None)
    if isinstance(source, Path):  # the whole path says nothing more than the name
        message = message.replace(str(source), source.name)
    return one_line(message, REASON_LENGTH)


def _unidentified(source: Path | bytes) -> str:
    """Return the reason for a file in no known image format, with what it is if that is easily seen."""
    if isinstance(source, bytes):
        start = source[:64]
    else:
        with _open_regular(source) as file:
            start = file.read(64)
    text = start.lstrip().lower()
    for signature, name in _OTHER_FILES:
        if text.startswith(signature) or start.startswith(signature):
            return f"it is {name}, not an image that can be opened"
    if start[4:8] == b"ftyp" and start[8:12] in {b"heic", b"heix", b"mif1", b"msf1"}:
        return "HEIC images need the package pillow-heif; install it, or convert the image to PNG"
    return "unknown image format"


def inspect_image(
    source: Path | bytes, *, formats: Sequence[str] | None = None, max_pixels: int = MAX_PIXELS
) -> ImageFacts:
    """Decode an image and return its hash, size and format; arguments and errors as in `open_image`."""
    data = read_image_file(source) if isinstance(source, Path) else source
    with decoded_image(data, formats, max_pixels) as image:
        check_values(image)
        width, height = upright_size(image)
        return ImageFacts(hashlib.sha256(data).hexdigest(), width, height, image.format or "")


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
        made = pool.map(lambda name: _facts_or_error(files[name]), names)
        results = list(counted(made, "decoding images", len(names)))
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
