"""Hand an image from a worker process to the run, which encodes and checks it as if it had been made in the run.

Plain pixels and the bytes of files cross as they are, because encoding takes about fifty times as long. Images with a
palette, a colour profile or other information are encoded in the worker by the function that the run uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knowgen.engine.imaging import MAX_PIXELS, UnusableImage, encode
from knowgen.engine.retry import ContractError

if TYPE_CHECKING:
    from PIL.Image import Image

_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
"""Modes whose pixels cross as they are, with their bytes per pixel."""


def pack_image(image: Any) -> tuple[dict[str, Any], bytes]:
    """Return the description of an image for a message, and the payload.

    Args:
        image: What `snapshot` returned: a PIL image, the bytes of a file, or an `UnusableImage`.

    Raises:
        ContractError: It is not an image, or cannot be written.
    """
    from PIL import Image as Pillow

    if isinstance(image, UnusableImage):
        raise ContractError(image.reason)
    if isinstance(image, Pillow.Image) and image.mode in _CHANNELS and not image.info and not image.getexif():
        return {"mode": image.mode, "size": list(image.size)}, image.tobytes()
    if isinstance(image, bytes):
        if not image:
            raise ContractError("the 0 bytes of the image are in no known image format")
        return {}, image
    return {}, encode(image).data


def unpack_image(description: dict[str, Any], payload: bytes) -> Image | bytes:
    """Return the image of a message: a PIL image of plain pixels, or the bytes of a file.

    Raises:
        ContractError: The payload does not fit the description.
    """
    from PIL import Image as Pillow

    if "mode" not in description:
        return payload
    mode, size = description["mode"], tuple(description["size"])
    if mode not in _CHANNELS or len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ContractError(f"the worker process sent an image of mode {mode!r} and size {size!r}")
    if size[0] * size[1] > MAX_PIXELS or size[0] * size[1] * _CHANNELS[mode] != len(payload):
        raise ContractError(f"the worker process sent {len(payload)} bytes for {size[0]}x{size[1]} pixels")
    return Pillow.frombuffer(mode, size, payload, "raw", mode, 0, 1)
