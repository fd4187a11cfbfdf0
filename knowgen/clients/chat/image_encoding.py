"""Encoding images for a VLM judge: JPEG of the pixels that `open_image` returns, size bounded."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from knowgen.core.atomic import write_file
from knowgen.core.errors import UnscorableError, UsageError
from knowgen.core.images import OPENING_VERSION, UnreadableImageError, open_rgb

if TYPE_CHECKING:
    from PIL import Image

    from knowgen.core.records import ImageRef

MAX_SIDE = 4096
"""Maximum length of the longer side in pixels; larger images are scaled down (source: KnowGen evaluation protocol)."""

QUALITY = 100
"""JPEG quality."""

ENCODING_VERSION = f"jpeg-{OPENING_VERSION}"
"""Version of the encoding. Increment it with any change that encodes the same file to other bytes."""

MAX_INLINE_BYTES = 65_536
"""Maximum size in bytes of an encoded image that is kept in memory: a file would cost more than encoding it again."""

_LOWER_QUALITIES = (95, 90)
"""Qualities to try before pixels are given up: they halve the size of a JPEG of quality 100, and hardly show."""

_SHRINK = 0.8
"""Factor on both sides of a JPEG that is still too large, applied until it fits."""

_SMALLEST_SIDE = 64
"""Longer side in pixels below which an image is not made smaller."""

DATA_URL_PREFIX = "data:image/jpeg;base64,"
_PIECE = 3 * 131_072
"""Number of bytes converted to base64 at once; a multiple of three, so that the pieces can be joined."""


@dataclass(frozen=True)
class ImageEncoding:
    """Settings of the encoding.

    Attributes:
        max_side: Maximum length of the longer side in pixels, 16 to 16384.
        quality: JPEG quality, 1 to 100.
        max_bytes: Maximum size of the JPEG in bytes, 0 for no maximum. A larger one is encoded again, first with a
            lower quality, then with fewer pixels.
    """

    max_side: int = MAX_SIDE
    quality: int = QUALITY
    max_bytes: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: A value is out of its range.
        """
        for name, value, low, high in (("max_side", self.max_side, 16, 16384), ("quality", self.quality, 1, 100)):
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UsageError(f"{name} must be a whole number from {low} to {high}, got {value!r}")

    @cached_property
    def name(self) -> str:
        """The settings as part of a key, with the versions of the libraries, which decide the bytes too."""
        import PIL
        from PIL import features

        jpeg = features.version("libjpeg_turbo") or features.version("jpg")
        limit = f" {self.max_bytes} bytes" if self.max_bytes else ""
        return f"{ENCODING_VERSION} {self.max_side} {self.quality}{limit} pillow {PIL.__version__} jpeg {jpeg}"


@dataclass(frozen=True)
class EncodedImageFile:
    """An encoded image. All but small ones are files, so that requests waiting to be sent take no memory for them.

    Attributes:
        sha256: SHA-256 of the JPEG's bytes, hex.
        width: Width in pixels.
        height: Height in pixels.
        size: Size of the JPEG in bytes.
        path: JPEG file, None for a small image.
        data: JPEG bytes of a small image, else empty.
        source: The image that was encoded, where it may have to be encoded again; None otherwise.
        what: Name of the image in errors, such as `the ground truth`.
        reduced: Whether it was made smaller than asked for, because the endpoint takes no larger one.
    """

    sha256: str
    width: int
    height: int
    size: int
    path: Path | None = None
    data: bytes = field(default=b"", repr=False)
    source: ImageRef | None = field(default=None, repr=False, compare=False)
    what: str = field(default="", compare=False)
    reduced: bool = field(default=False, compare=False)

    @property
    def url_length(self) -> int:
        """Length of the data URL in characters."""
        return len(DATA_URL_PREFIX) + -(-self.size // 3) * 4

    def url_pieces(self) -> Iterator[bytes]:
        """Yield the data URL in pieces.

        Raises:
            OSError: The file is missing or shorter than it was.
        """
        yield DATA_URL_PREFIX.encode()
        if self.path is None:
            yield base64.b64encode(self.data)
            return
        left = self.size
        with self.path.open("rb", buffering=0) as file:
            while left:
                piece = _read_exactly(file, min(_PIECE, left))
                left -= len(piece)
                yield base64.b64encode(piece)


def _read_exactly(file: io.FileIO, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        more = file.read(size - len(parts))
        if not more:
            raise OSError("the file of an encoded image was cut off")
        parts += more
    return bytes(parts)


def encode_file(image: ImageRef, what: str, folder: Path, encoding: ImageEncoding | None = None) -> EncodedImageFile:
    """Encode an image in this process. All but small ones are written to files named by content.

    Args:
        image: Image with its path on this machine.
        what: Name of the image in errors, such as `the ground truth`.
        folder: Root folder of the files `ab/<sha256>.jpg`.
        encoding: Settings; those of the KnowGen evaluation protocol when None.

    Raises:
        UnscorableError: The image has no file, or the file cannot be decoded.
        OSError: The file cannot be written.
    """
    if image.path is None:
        raise UnscorableError(f"{what} {image.sha256[:12]} has no file on this machine")
    return encode_path(image.path, what, folder, encoding or ImageEncoding())


def encode_path(source: Path, what: str, folder: Path, encoding: ImageEncoding) -> EncodedImageFile:
    """Encode a file; see `encode_file`."""
    data, width, height = encode_bytes(source, what, encoding)
    digest = hashlib.sha256(data).hexdigest()
    if len(data) <= MAX_INLINE_BYTES:
        return EncodedImageFile(digest, width, height, len(data), data=data)
    path = folder / digest[:2] / f"{digest}.jpg"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data, durable=False)
    return EncodedImageFile(digest, width, height, len(data), path)


def encode_bytes(path: Path, what: str, encoding: ImageEncoding) -> tuple[bytes, int, int]:
    """Encode a file: open it upright, as sRGB and on white, scale to the maximum side (Lanczos), encode as JPEG.

    Returns:
        The JPEG's bytes, its width and its height in pixels.

    Raises:
        UnscorableError: The file cannot be decoded.
    """
    try:
        image = _scaled_down(open_rgb(path), encoding.max_side)
    except UnreadableImageError as error:
        raise UnscorableError(f"{what} does not open: {error.what}", where=path.name) from error
    return _compressed(image, encoding)


def _compressed(image: Image.Image, encoding: ImageEncoding) -> tuple[bytes, int, int]:
    """Return a JPEG with its width and height, within the maximum size where there is one."""
    from PIL import Image

    qualities = [encoding.quality, *(each for each in _LOWER_QUALITIES if each < encoding.quality)]
    while True:
        for quality in qualities:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality, optimize=True)
            if not encoding.max_bytes or buffer.tell() <= encoding.max_bytes or max(image.size) <= _SMALLEST_SIDE:
                return buffer.getvalue(), image.width, image.height
        smaller = tuple(max(1, int(side * _SHRINK)) for side in image.size)
        image = image.resize((smaller[0], smaller[1]), Image.Resampling.LANCZOS)
        qualities = qualities[-1:]


def _scaled_down(image: Image.Image, max_side: int) -> Image.Image:
    from PIL import Image

    longer = max(image.size)
    if longer <= max_side:
        return image
    scale = max_side / longer
    width, height = (max(1, int(side * scale)) for side in image.size)  # truncated, not rounded: as the protocol does
    return image.resize((width, height), Image.Resampling.LANCZOS)
