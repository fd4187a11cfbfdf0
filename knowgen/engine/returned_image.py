"""Take an image in whatever form a generator returns it, where the form leaves no doubt what it shows.

Taken are PIL images, the bytes of an image file, paths, data URLs, arrays and tensors, lists with one image, and the
outputs of pipelines (`.images`). Everything else is rejected with what to return instead.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from knowgen.clients.image_text import image_bytes_of
from knowgen.core.image_modes import notes_on_frames
from knowgen.core.images import UnreadableImageError, read_image_file
from knowgen.core.text import one_line
from knowgen.engine.retry import ContractError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


class TakenImage(NamedTuple):
    """A PIL image, and what was left out when it was taken from what a generator returned."""

    image: Image
    notes: tuple[str, ...]


TAKEN = "a PIL image, the bytes of an image file, or the path of one"
"""What a generator may return, in the reason for a value that is refused."""

_CHANNELS = (1, 3, 4)
_SMALLEST_SIDE = 5
"""An axis at least this long is a side of the image; a shorter one holds its channels."""
_ROUNDING = 1e-3
"""How far outside [0, 1] a float may be by rounding."""


def taken_image(value: Any) -> Image | bytes | TakenImage:
    """Return what a generator returned as a PIL image or the bytes of a file, which share no memory with it.

    Args:
        value: What the generator returned.

    Raises:
        ContractError: It is not certain what image it is, or it cannot be read.
    """
    from PIL import Image

    if isinstance(value, Image.Image):
        return _copied(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return value if type(value) is bytes else bytes(value)
    if isinstance(value, io.BytesIO):
        return value.getvalue()
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, os.PathLike):
        return _read(Path(value))
    if value is None:
        raise ContractError("the generator returned no image (None)")
    if _is_array(value):
        return _from_array(value)
    images = value.get("images") if isinstance(value, Mapping) else getattr(value, "images", None)
    if images is not None:
        return _only_one(images, f"{type(value).__name__}.images", "return result.images[0]")
    if isinstance(value, list | tuple):
        return _only_one(value, f"a {type(value).__name__}", "return one image for each request")
    raise ContractError(f"the generator returned {_kind(value)}, which is not an image; return {TAKEN}")


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _copied(image: Image) -> Image | TakenImage:
    from PIL import Image

    try:
        notes = notes_on_frames(image)
        copy = Image.Image.copy(image)  # not a subclass's own copy(), which may return the same pixels
    except Exception as error:  # Pillow raises many types for a broken image
        raise ContractError(f"the image cannot be read: {one_line(error, 200)}") from error
    copy.format = image.format  # decides what 32-bit integers mean
    return TakenImage(copy, notes) if notes else copy


def _read(path: Path) -> bytes:
    try:
        return read_image_file(path)
    except UnreadableImageError as error:
        raise ContractError(f"the image file {one_line(path.name, 80)} cannot be read: {error.what}") from error


def _from_text(text: str) -> bytes:
    """Return the image of a data URL or a path."""
    if text.startswith("data:"):
        try:
            return image_bytes_of(text)
        except ValueError as error:
            raise ContractError("the generator returned a data URL that is not valid base64") from error
    if text.startswith(("http://", "https://")):
        raise ContractError(f"the generator returned the address {one_line(text, 80)}; fetch it and return the bytes")
    if len(text) > 4096 or "\n" in text:  # longer than any path: base64, or the text of a reply
        what = f"a text of {len(text)} characters"
        raise ContractError(f"the generator returned {what}; return {TAKEN} (base64.b64decode(text) for base64)")
    return _read(Path(text))


def _only_one(images: Any, what: str, fix: str) -> Image | bytes | TakenImage:
    if _is_array(images):
        return _from_array(images)
    if not isinstance(images, Sequence) or isinstance(images, str | bytes) or len(images) != 1:
        size = f"{len(images)} items" if isinstance(images, Sequence) else f"{_kind(images)}, no list"
        raise ContractError(f"the generator returned {what} with {size} where one image is expected; {fix}")
    return taken_image(images[0])


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array_interface__") or _is_tensor(value) or hasattr(type(value), "__array__")


def _is_tensor(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach")


def _from_array(value: Any) -> Image:
    """Return an array or tensor as a PIL image of mode L, RGB, RGBA or I;16."""
    from PIL import Image

    array = _numbers(value)
    shape = "x".join(map(str, array.shape))
    pixels = _height_width_channels(array, shape)
    levels = _levels(pixels, f"an array of {array.dtype} ({shape})")
    return Image.fromarray(levels[..., 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels)


def _numbers(value: Any) -> NDArray[Any]:
    import numpy as np

    try:
        if _is_tensor(value):
            value = value.detach().cpu()
            value = (value.float() if value.is_floating_point() else value).numpy()  # numpy has no bfloat16
        return np.array(value)
    except Exception as error:  # an array of another library may raise anything
        raise ContractError(
            f"the generator returned {_kind(value)} that cannot be read: {one_line(error, 160)}"
        ) from error


def _height_width_channels(array: NDArray[Any], shape: str) -> NDArray[Any]:
    """Return an array as (height, width) or (height, width, channels), whichever axis the channels are on."""
    expected = f"the generator returned an array of shape {shape}; return one image, height x width x 3"
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 2:
        return array
    if array.ndim != 3 or array.size == 0:
        raise ContractError(expected)
    first, _, last = array.shape
    if last in _CHANNELS and first >= _SMALLEST_SIDE:
        return array
    if first in _CHANNELS and last >= _SMALLEST_SIDE:
        return array.transpose(1, 2, 0)
    raise ContractError(expected)


def _levels(pixels: NDArray[Any], what: str) -> NDArray[Any]:
    """Return values as levels of 8 bits, or of 16 bits for an image without colour."""
    import numpy as np

    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if pixels.dtype == np.bool_:
        return np.ascontiguousarray(pixels).astype(np.uint8) * 255
    if pixels.dtype == np.uint16 and (pixels.ndim == 2 or pixels.shape[2] == 1):
        return np.ascontiguousarray(pixels)
    if np.issubdtype(pixels.dtype, np.floating):
        return _levels_of_floats(pixels, what)
    fix = "return values from 0 to 255 as .astype(numpy.uint8), or values from 0 to 1 as floats"
    raise ContractError(f"the generator returned {what}, which does not say which value is white; {fix}")


def _levels_of_floats(pixels: NDArray[Any], what: str) -> NDArray[np.uint8]:
    import numpy as np

    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite(low + high):
        raise ContractError(f"the generator returned {what} with NaN or infinite values instead of an image")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        fix = "(x / 2 + 0.5).clip(0, 1)" if low < 0 and high <= 1 + _ROUNDING else "x.astype(numpy.uint8)"
        raise ContractError(f"the generator returned {what} from {low:g} to {high:g}, not in [0, 1]; return {fix}")
    return np.ascontiguousarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
