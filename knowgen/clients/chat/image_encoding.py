"""Pictures as a VLM judge is shown them: JPEG, upright, on white, of bounded size."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from knowgen.core.atomic import write_file
from knowgen.core.errors import UnscorableError, UsageError
from knowgen.core.images import UnreadableImageError, opened_image, rgb_on_white

if TYPE_CHECKING:
    from PIL import Image

    from knowgen.core.records import ImageRef

LONGEST_SIDE = 4096
"""Pixels; larger pictures are scaled down (source: the KnowGen evaluation protocol)."""

QUALITY = 100
PICTURES_VERSION = "jpeg-2"
"""Raised whenever the same file could be encoded to other bytes by intent."""

SMALL = 65_536
"""Bytes up to which an encoded picture is kept in memory: a file of its own costs more than the encoding."""

URL_HEAD = "data:image/jpeg;base64,"
_PIECE = 3 * 131_072
"""Bytes that are turned into base64 at once; a multiple of three, so that the pieces join."""


@dataclass(frozen=True)
class ImageEncoding:
    """How pictures are encoded.

    Attributes:
        longest: Pixels of the longest side at most.
        quality: Of the JPEG, 1 to 100.
    """

    longest: int = LONGEST_SIDE
    quality: int = QUALITY

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            UsageError: One is out of its range.
        """
        for name, value, low, high in (("max_side", self.longest, 16, 16384), ("quality", self.quality, 1, 100)):
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UsageError(f"{name}={value} is not possible", fix=f"give a whole number from {low} to {high}")

    @property
    def name(self) -> str:
        """Returns the form as part of a key; it also names the libraries, whose JPEGs differ in bytes."""
        import PIL
        from PIL import features

        jpeg = features.version("libjpeg_turbo") or features.version("jpg")
        return f"{PICTURES_VERSION} {self.longest} {self.quality} pillow {PIL.__version__} jpeg {jpeg}"


@dataclass(frozen=True)
class EncodedImageFile:
    """A picture ready to be sent. The bytes of all but small ones lie in a file, so that many may wait in line.

    Attributes:
        sha256: Hex digest of the JPEG's bytes.
        width: Pixels.
        height: Pixels.
        size: Bytes of the JPEG.
        path: The JPEG, None for a small one.
        data: The bytes of a small one.
    """

    sha256: str
    width: int
    height: int
    size: int
    path: Path | None = None
    data: bytes = field(default=b"", repr=False)

    @property
    def url_length(self) -> int:
        """Returns the length of the data URL in characters."""
        return len(URL_HEAD) + -(-self.size // 3) * 4

    def url_pieces(self) -> Iterator[bytes]:
        """Yields the data URL piece by piece.

        Raises:
            OSError: The file is gone or shorter than it was.
        """
        yield URL_HEAD.encode()
        if self.path is None:
            yield base64.b64encode(self.data)
            return
        left = self.size
        with self.path.open("rb", buffering=0) as file:
            while left:
                piece = _exactly(file, min(_PIECE, left))
                left -= len(piece)
                yield base64.b64encode(piece)


def _exactly(file: io.FileIO, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        more = file.read(size - len(parts))
        if not more:
            raise OSError("an encoded picture was cut off")
        parts += more
    return bytes(parts)


def encode_file(picture: ImageRef, what: str, folder: Path, form: ImageEncoding | None = None) -> EncodedImageFile:
    """Encodes a picture in this process; all but small ones go into a folder of files named by content.

    Args:
        picture: With its path on this machine.
        what: What to call it in an error, such as `the ground truth`.
        folder: Root of the files, `ab/<sha256>.jpg`.
        form: How; as the protocol says when None.

    Raises:
        UnscorableError: It has no file, or the file does not decode.
        OSError: The file cannot be written.
    """
    if picture.path is None:
        raise UnscorableError(f"{what} {picture.sha256[:12]} has no file on this machine")
    return encode_path(picture.path, what, folder, form or ImageEncoding())


def encode_path(source: Path, what: str, folder: Path, form: ImageEncoding) -> EncodedImageFile:
    """Encodes a file; see `encode_file`."""
    data, width, height = encode_bytes(source, what, form)
    digest = hashlib.sha256(data).hexdigest()
    if len(data) <= SMALL:
        return EncodedImageFile(digest, width, height, len(data), data=data)
    path = folder / digest[:2] / f"{digest}.jpg"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data, durable=False)
    return EncodedImageFile(digest, width, height, len(data), path)


def encode_bytes(path: Path, what: str, form: ImageEncoding) -> tuple[bytes, int, int]:
    """Encodes a file: EXIF-transposed, longest side bounded (Lanczos), transparency on white, JPEG.

    Returns:
        The JPEG's bytes, its width and height.

    Raises:
        UnscorableError: The file does not decode.
    """
    from PIL import ImageOps

    try:
        with opened_image(path) as image:
            upright = rgb_on_white(_within(ImageOps.exif_transpose(image), form.longest))
    except UnreadableImageError as error:
        raise UnscorableError(f"{what} does not open: {error.what}", where=path.name) from error
    upright.info = {}  # comments and profiles of the file are not shown to the judge
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=form.quality, optimize=True)
    return buffer.getvalue(), upright.width, upright.height


def _within(picture: Image.Image, most: int) -> Image.Image:
    from PIL import Image

    longest = max(picture.size)
    if longest <= most:
        return picture
    scale = most / longest
    width, height = (max(1, int(side * scale)) for side in picture.size)  # cut off, not rounded: as the protocol does
    if picture.mode in {"P", "1"}:  # these would be resized by picking pixels
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    return picture.resize((width, height), Image.Resampling.LANCZOS)
