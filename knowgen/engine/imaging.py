"""From whatever a generator gave back to the bytes of a picture that certainly opens."""

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
MAX_BYTES = 512 * 1024 * 1024
MIN_SIDE = 16
KEPT_FORMATS = frozenset({"PNG", "JPEG", "WEBP"})
"""Files in these formats are stored byte for byte; any other becomes a PNG."""

COMPRESS_LEVEL = 1
"""Of PNG. A photo-like picture of 1024 pixels takes 0.11 s and 2.0 MB at level 1, 0.20 s and 1.8 MB at level 6."""


class EncodedImage(NamedTuple):
    """The bytes of a picture, its size in pixels and its format as Pillow names it."""

    data: bytes
    width: int
    height: int
    format: str


class ScratchFile(NamedTuple):
    """A picture that a worker process has encoded and checked; reading it removes the file."""

    path: Path
    width: int
    height: int
    format: str

    def read(self) -> EncodedImage:
        """Takes the picture over.

        Raises:
            ContractError: The file is gone.
        """
        encoded = EncodedImage(_read(self.path), self.width, self.height, self.format)
        self.path.unlink(missing_ok=True)
        return encoded


@dataclass(frozen=True)
class UnusableImage:
    """Stands for an image that could not be taken from a generator; `encode` raises the reason."""

    reason: str


def detach(image: Any) -> Image | bytes:
    """Return an image that shares no memory and no file with what a generator returned.

    Decoding and encoding are left to `encode`, so that this is fast enough for the generator's own thread. A PIL image
    is copied (a lazily opened one is loaded first), a file is read.

    Args:
        image: A PIL image, bytes or another buffer, or a path.

    Raises:
        ContractError: It is none of these, cannot be read, or has an impossible size; the message says which.
    """
    from PIL import Image

    if isinstance(image, Image.Image):
        _check_size(image.width, image.height)
        try:
            return Image.Image.copy(image)  # not a subclass's own copy(), which may return the same pixels
        except Exception as error:  # Pillow raises all kinds for a broken image object
            raise ContractError(f"the image cannot be read: {type(error).__name__}: {error}") from error
    if isinstance(image, (bytes, bytearray, memoryview)):
        return image if type(image) is bytes else bytes(image)
    if isinstance(image, Path):
        return _read(image)
    if image is None:
        raise ContractError("the generator gave no picture (None)")
    raise ContractError(f"the generator gave a {type(image).__name__}, not a PIL image, bytes or a Path")


def encode(image: Any) -> EncodedImage:
    """Turns a PIL image into a PNG, and checks the bytes or the file of a picture by decoding it whole.

    Args:
        image: A PIL image (transparency is laid on white, other modes become RGB), or what else `detach` takes.

    Raises:
        ContractError: It is none of these, does not open, or has an impossible size; the message says which.
    """
    from PIL import Image

    if isinstance(image, UnusableImage):
        raise ContractError(image.reason)
    if isinstance(image, ScratchFile):
        return image.read()
    if not isinstance(image, Image.Image):
        image = detach(image)
    return _check_bytes(image) if isinstance(image, bytes) else _encode_picture(image)


def _encode_picture(image: Image) -> EncodedImage:
    _check_size(image.width, image.height)
    try:
        buffer = io.BytesIO()
        _to_rgb(image).save(buffer, "PNG", compress_level=COMPRESS_LEVEL)
    except Exception as error:  # Pillow raises all kinds for a broken image object
        raise ContractError(f"the picture cannot be written as PNG: {type(error).__name__}: {error}") from error
    return EncodedImage(buffer.getvalue(), image.width, image.height, "PNG")


def _to_rgb(image: Image) -> Image:
    from PIL import Image as Pillow

    if image.mode == "RGB":
        return image
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        white = Pillow.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture.getchannel("A"))
        return white
    return image.convert("RGB")


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may block, or never end
            raise ContractError(f"the picture file {path.name} is not a regular file")
        if status.st_size > MAX_BYTES:
            raise ContractError(f"the picture file {path.name} is larger than {MAX_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise ContractError(f"the picture file {path.name} cannot be read: {error.strerror}") from error


def _check_bytes(data: bytes) -> EncodedImage:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            _check_size(picture.width, picture.height)
            picture.load()
            if picture.format in KEPT_FORMATS:
                return EncodedImage(data, picture.width, picture.height, picture.format)
            return _encode_picture(picture)
    except UnidentifiedImageError as error:
        raise ContractError(f"the {len(data)} bytes of the picture are in no known image format") from error
    except ContractError:
        raise
    except Exception as error:  # Pillow raises all kinds for a broken file
        raise ContractError(f"the picture does not open: {type(error).__name__}: {error}") from error


def _check_size(width: int, height: int) -> None:
    if width < MIN_SIDE or height < MIN_SIDE:
        raise ContractError(f"the picture is {width}x{height} pixels; the smallest side allowed is {MIN_SIDE}")
    if width * height > MAX_PIXELS:
        raise ContractError(
            f"the picture is {width}x{height} pixels; at most {MAX_PIXELS // 10**6} million are allowed"
        )
