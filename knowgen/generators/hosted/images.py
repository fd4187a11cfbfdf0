"""Images sent to and received from services: reference images as bytes, and checks of returned images."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knowgen.clients.image_text import image_bytes_of
from knowgen.core.errors import KnowgenError
from knowgen.core.images import UnreadableImageError, inspect_image, open_image, read_image_file
from knowgen.core.records import ImageRef

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 100_000_000
"""Maximum number of pixels of an image that is opened."""

_MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_JPEG_QUALITY = 95
_SHRINK_FACTOR = 0.7
"""Factor on both sides of a reference image that has too many bytes, applied until it fits."""


class UnusableImageError(KnowgenError):
    """An image cannot be used; the message says which one and why."""


@dataclass(frozen=True)
class ReferenceLimits:
    """Limits of a service on reference images.

    Attributes:
        max_images: Maximum number of images in a request.
        max_bytes: Maximum number of bytes of an image.
        max_pixels: Maximum number of pixels of an image.
        formats: Formats of files that it takes, as PIL names them.
    """

    max_images: int
    max_bytes: int
    max_pixels: int
    formats: frozenset[str] = frozenset({"PNG", "JPEG", "WEBP"})


@dataclass(frozen=True)
class EncodedReference:
    """A reference image as it is sent.

    Attributes:
        data: Bytes of a PNG, JPEG or WebP file.
        mime: MIME type of the file.
    """

    data: bytes
    mime: str

    @property
    def base64(self) -> str:
        """The bytes in base64."""
        return base64.b64encode(self.data).decode("ascii")

    @property
    def data_url(self) -> str:
        """The image as a data URL."""
        return f"data:{self.mime};base64,{self.base64}"

    @property
    def suffix(self) -> str:
        """File name suffix of this type, without the dot."""
        return {"image/jpeg": "jpg"}.get(self.mime, self.mime.partition("/")[2])


def load_references(
    references: Sequence[ImageRef], limits: ReferenceLimits
) -> tuple[list[EncodedReference], dict[str, Any]]:
    """Load the reference images of a request in a form that the service takes.

    A file within the limits in a format that all services take is sent byte for byte, if every viewer shows it as it is
    scored. Others (an EXIF turn, a colour profile, 16 bits) are encoded again from the pixels of `open_image`, which is
    recorded.

    Args:
        references: Reference images in the request's order. Those past `max_images` are left out, which is recorded.
        limits: Limits of the service.

    Returns:
        The images, and what is recorded of them in the generation's settings.

    Raises:
        UnusableImageError: An image has no file or does not open.
    """
    if not references:
        return [], {}
    used = references[: limits.max_images]
    loaded, changes = [], []
    for number, reference in enumerate(used, 1):
        image, change = _load(reference, limits, f"reference image {number} ({reference.sha256[:12]})")
        loaded.append(image)
        if change:
            changes.append(f"{number}: {change}")
    settings: dict[str, Any] = {"references": [reference.sha256 for reference in used]}
    if len(references) > len(used):
        settings["references_dropped"] = (
            f"{len(references) - len(used)} past the service's limit of {limits.max_images}"
        )
    if changes:
        settings["references_changed"] = changes
    return loaded, settings


def _load(reference: ImageRef, limits: ReferenceLimits, label: str) -> tuple[EncodedReference, str]:
    """Return an image as it is sent, and how it was changed; empty for not at all."""
    if reference.path is None:
        raise UnusableImageError(f"{label} has no file on this machine")
    try:
        data = read_image_file(reference.path)
        opened = open_image(data, max_pixels=MAX_PIXELS)
    except UnreadableImageError as error:
        raise UnusableImageError(f"{label} does not open: {error.what}") from error
    image, notes = opened.image, opened.notes
    fits = len(data) <= limits.max_bytes and image.width * image.height <= limits.max_pixels
    if fits and opened.format in limits.formats and not notes:
        return EncodedReference(data, _MIME[opened.format]), ""
    change = f"{opened.format} sent as PNG" if fits else "made smaller, sent as JPEG"
    return _encode(image, limits, lossless=fits), "; ".join((change, *notes))


def _encode(image: Image, limits: ReferenceLimits, *, lossless: bool) -> EncodedReference:
    """Encode an image as PNG if `lossless` and within the limits, else as a JPEG small enough for them."""
    if lossless:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        if buffer.tell() <= limits.max_bytes:
            return EncodedReference(buffer.getvalue(), "image/png")
    scale = min(1.0, (limits.max_pixels / (image.width * image.height)) ** 0.5)
    while True:
        size = max(1, int(image.width * scale)), max(1, int(image.height * scale))
        buffer = io.BytesIO()
        image.resize(size).save(buffer, "JPEG", quality=_JPEG_QUALITY)
        if buffer.tell() <= limits.max_bytes or size == (1, 1):
            return EncodedReference(buffer.getvalue(), "image/jpeg")
        scale *= _SHRINK_FACTOR


def decode_base64(text: str) -> bytes:
    """Return the bytes of a base64 text or of a data URL; see `knowgen.clients.image_text`.

    Raises:
        UnusableImageError: It is not valid base64.
    """
    try:
        return image_bytes_of(text)
    except ValueError as error:
        raise UnusableImageError(str(error)) from error


def check_response_image(data: bytes) -> None:
    """Decode an image fully, to see that it opens.

    Raises:
        UnusableImageError: It does not open; the message says why.
    """
    try:
        inspect_image(data, max_pixels=MAX_PIXELS)
    except UnreadableImageError as error:
        raise UnusableImageError(
            f"the image in the response ({len(data)} bytes) does not open: {error.what}"
        ) from error
