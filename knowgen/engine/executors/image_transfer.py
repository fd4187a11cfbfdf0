"""Hand an image from a worker process to the run, which encodes and checks it as if it had been made in the run.

Plain pixels and the bytes of files cross as they are, because encoding takes about fifty times as long. Images with a
palette, a colour profile or other information are encoded in the worker by the function that the run uses.
"""

from __future__ import annotations

from typing import Any

from knowgen.core.images import UnreadableImageError, decoded_image
from knowgen.engine.imaging import MAX_PIXELS, UnusableImage, encode
from knowgen.engine.retry import ContractError
from knowgen.engine.returned_image import TakenImage

_RAW_MODES = {"L": ("L", 1), "RGB": ("RGBX", 4), "RGBA": ("RGBA", 4)}
"""Modes whose pixels cross as Pillow holds them, with the raw mode and bytes per pixel.

Pillow holds RGB in four bytes; to leave one out takes longer than to send it.
"""


def pack_image(image: Any) -> tuple[dict[str, Any], bytes]:
    """Return the description of an image for a message, and the payload.

    Args:
        image: What `snapshot` returned: a PIL image, also with notes, the bytes of a file, or an `UnusableImage`.

    Raises:
        ContractError: It is not an image, or cannot be written.
    """
    from PIL import Image as Pillow

    if isinstance(image, UnusableImage):
        raise ContractError(image.reason)
    if isinstance(image, bytes):
        if not image:
            raise ContractError("the 0 bytes of the image do not open: unknown image format")
        return {}, image
    pixels, notes = image if isinstance(image, TakenImage) else (image, ())
    if isinstance(pixels, Pillow.Image) and pixels.mode in _RAW_MODES and not pixels.info and not pixels.getexif():
        raw_mode, _ = _RAW_MODES[pixels.mode]
        payload = pixels.tobytes("raw", raw_mode)
        return {"mode": pixels.mode, "size": list(pixels.size), "notes": list(notes)}, payload
    encoded = encode(image)
    return {"notes": list(encoded.notes)}, encoded.data


def unpack_image(description: dict[str, Any], payload: bytes) -> TakenImage | bytes:
    """Return the image of a message: a PIL image with notes, or the bytes of a file.

    Raises:
        ContractError: The payload does not fit the description.
    """
    from PIL import Image as Pillow

    if "notes" not in description:
        return payload
    notes = tuple(map(str, description["notes"]))
    if "mode" not in description:
        try:
            with decoded_image(payload, max_pixels=MAX_PIXELS) as opened:
                return TakenImage(opened.copy(), notes)
        except UnreadableImageError as error:
            raise ContractError(f"the image of the worker process does not open: {error.what}") from error
    mode, size = description["mode"], tuple(description["size"])
    if mode not in _RAW_MODES or len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ContractError(f"the worker process sent an image of mode {mode!r} and size {size!r}")
    raw_mode, channels = _RAW_MODES[mode]
    if size[0] * size[1] > MAX_PIXELS or size[0] * size[1] * channels != len(payload):
        raise ContractError(f"the worker process sent {len(payload)} bytes for {size[0]}x{size[1]} pixels")
    read = Pillow.frombuffer if raw_mode == mode else Pillow.frombytes  # the first one needs no copy
    return TakenImage(read(mode, size, payload, "raw", raw_mode, 0, 1), notes)
