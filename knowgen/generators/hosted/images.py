"""Pictures on their way to and from services: reference images as bytes, answers as checked bytes."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knowgen.core.errors import KnowgenError
from knowgen.core.images import UnreadableImageError, opened_image, rgb_on_white
from knowgen.core.records import ImageRef

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 100_000_000
_MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_QUALITY = 95
_SMALLER = 0.7
"""A reference image that weighs too much is made so much smaller on each side until it does not."""


class UnusableImageError(KnowgenError):
    """A picture that cannot be used; the message says which and why."""


@dataclass(frozen=True)
class ReferenceForm:
    """What a service takes as reference images.

    Attributes:
        most: Pictures a request at most.
        most_bytes: Bytes a picture at most.
        most_pixels: Pixels a picture at most.
    """

    most: int
    most_bytes: int
    most_pixels: int


@dataclass(frozen=True)
class EncodedReference:
    """A reference image as it is sent.

    Attributes:
        data: Bytes of a PNG, JPEG or WebP file.
        mime: Its type.
    """

    data: bytes
    mime: str

    @property
    def base64(self) -> str:
        """The bytes in base64."""
        return base64.b64encode(self.data).decode("ascii")

    @property
    def data_url(self) -> str:
        """The picture as a data URL."""
        return f"data:{self.mime};base64,{self.base64}"

    @property
    def suffix(self) -> str:
        """Ending of a file of this type."""
        return {"image/jpeg": "jpg"}.get(self.mime, self.mime.partition("/")[2])


def load_references(
    references: Sequence[ImageRef], form: ReferenceForm
) -> tuple[list[EncodedReference], dict[str, Any]]:
    """Reads the reference images of a request as a service takes them.

    Files in a format that all services take go out byte for byte; others, and those that are too large, are encoded
    anew, which is noted.

    Args:
        references: In the request's order; those past the service's limit are left out, which is noted.
        form: What the service takes.

    Returns:
        The pictures, and what is to be noted of them in the drawing's settings.

    Raises:
        UnusableImageError: One has no file or does not open.
    """
    if not references:
        return [], {}
    taken = references[: form.most]
    loaded, changed = [], []
    for number, reference in enumerate(taken, 1):
        picture, note = _load(reference, form, f"reference image {number} ({reference.sha256[:12]})")
        loaded.append(picture)
        if note:
            changed.append(f"{number}: {note}")
    notes: dict[str, Any] = {"references": [reference.sha256 for reference in taken]}
    if len(references) > len(taken):
        notes["references_dropped"] = f"{len(references) - len(taken)} past the service's limit of {form.most}"
    if changed:
        notes["references_changed"] = changed
    return loaded, notes


def _load(reference: ImageRef, form: ReferenceForm, what: str) -> tuple[EncodedReference, str]:
    from PIL import ImageOps

    if reference.path is None:
        raise UnusableImageError(f"{what} has no file on this machine")
    try:
        data = reference.path.read_bytes()
        with opened_image(data, max_pixels=MOST_PIXELS) as image:
            fits = len(data) <= form.most_bytes and image.width * image.height <= form.most_pixels
            if fits and image.format in _MIME:
                return EncodedReference(data, _MIME[image.format]), ""
            upright = ImageOps.exif_transpose(image)
            return _encode(rgb_on_white(upright), form, keep=fits), _told(image.format, fits=fits)
    except OSError as error:
        raise UnusableImageError(f"{what} cannot be read: {error.strerror}") from error
    except UnreadableImageError as error:
        raise UnusableImageError(f"{what} does not open: {error.what}") from error


def _told(kind: str | None, *, fits: bool) -> str:
    return f"{kind} sent as PNG" if fits else "made smaller, sent as JPEG"


def _encode(picture: Image, form: ReferenceForm, *, keep: bool) -> EncodedReference:
    if keep:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        if buffer.tell() <= form.most_bytes:
            return EncodedReference(buffer.getvalue(), "image/png")
    scale = min(1.0, (form.most_pixels / (picture.width * picture.height)) ** 0.5)
    while True:
        size = max(1, int(picture.width * scale)), max(1, int(picture.height * scale))
        buffer = io.BytesIO()
        picture.resize(size).save(buffer, "JPEG", quality=_QUALITY)
        if buffer.tell() <= form.most_bytes or size == (1, 1):
            return EncodedReference(buffer.getvalue(), "image/jpeg")
        scale *= _SMALLER


def decode(text: str) -> bytes:
    """Returns the bytes of a picture that came in base64, with or without a data URL's head.

    Raises:
        UnusableImageError: It is no base64.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnusableImageError("the picture in the answer is no valid base64") from error


def check(data: bytes) -> None:
    """Decodes a picture whole.

    Raises:
        UnusableImageError: It does not open, and why.
    """
    try:
        with opened_image(data, max_pixels=MOST_PIXELS):
            pass
    except UnreadableImageError as error:
        raise UnusableImageError(f"the image in the answer ({len(data)} bytes) does not open: {error.what}") from error
