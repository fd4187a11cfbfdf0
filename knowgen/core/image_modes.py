"""Convert a decoded image of any mode to the one form in which every image is shown, scored and compared.

The form is 8-bit sRGB (Pillow's mode RGB), upright, with transparent pixels on white and without metadata. Each
change that this takes is a note.

16-bit grey is scaled from 0..65535 to 0..255. Numbers of 32 bits say nothing about which of them is white, so such an
image is rejected, with two exceptions: floats that are all in [0, 1], and 32-bit integers of a PNG or PPM file, which
are how some versions of Pillow open 16-bit grey.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

SRGB_TOLERANCE = 2
"""A colour profile that changes no value by more than this many levels of 255 counts as sRGB."""

GAMMA_TOLERANCE = 0.05
"""Relative difference from 1 / 2.2 up to which the gamma of a PNG file counts as that of sRGB."""

_TURNED = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
"""Keys of `Image.info` that may hold an orientation."""

_CHANGING = frozenset({*_TURNED, "icc_profile", "gamma", "transparency"})
"""Keys of `Image.info` that may change how pixels are shown."""

_SIDEWAYS = (5, 6, 7, 8)
"""Orientations that exchange width and height."""

_SIXTEEN_BIT_FILES = ("PNG", "PPM")
_PROFILE_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
"""Colour space, as ICC profiles name it, by mode."""


class UnclearValuesError(ValueError):
    """The values of an image do not say which of them is white; the message says what to return instead."""


def to_rgb(image: Image, *, own: bool = False) -> tuple[Image, tuple[str, ...]]:
    """Return an image as 8-bit sRGB, upright and on white, and what was changed to make it so.

    Args:
        image: A decoded image of any mode.
        own: Whether its metadata may be removed from the object itself, which saves a copy.

    Returns:
        An image of mode RGB, the same object if nothing had to be changed, and the changes in words.

    Raises:
        UnclearValuesError: It has 32-bit integers, or floats outside [0, 1].

    Example:
        >>> from PIL import Image
        >>> white, notes = to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0)))
        >>> white.getpixel((0, 0)), notes
        ((255, 255, 255), ('transparent pixels are on white',))
    """
    if image.mode == "RGB" and not image.info:
        return image, ()
    notes = list(notes_on_frames(image))
    turn = orientation(image, notes)
    pixels, alpha = _opaque_and_alpha(image, notes)
    pixels = _in_srgb(pixels, image.info, notes)
    if alpha is not None:
        pixels = _on_white(pixels, alpha, notes)
    pixels = _turned(pixels, turn, notes)
    if pixels is image and not own:
        pixels = image.copy()
    pixels.info = {}
    return pixels, tuple(notes)


def notes_on(image: Image) -> tuple[str, ...]:
    """Return what `to_rgb` changes in a decoded image."""
    if image.mode in {"RGB", "L", "1"} and not _CHANGING.intersection(image.info):
        return notes_on_frames(image)
    return to_rgb(image)[1]


_PLACES = (0.5, 0.9, 0.3, 0.7, 0.1, 0.2, 0.4, 0.6, 0.8)


def one_colour(image: Image) -> str:
    """Return the colour of a decoded image whose pixels all have it, such as #000000; empty if there are several.

    Differences of one level, as JPEG makes them, do not count. A few pixels usually show that there are several.

    Raises:
        UnclearValuesError: See `to_rgb`.
    """
    spread = {"1": 0, "P": 0, "PA": 0}.get(image.mode, 257 if image.mode.startswith("I;16") else 1)
    width, height = image.size
    corner = image.getpixel((0, 0))
    for part in _PLACES:
        if _distance(image.getpixel((int(width * part), int(height * part))), corner) > 2 * spread:
            return ""
    extrema = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    if any(high - low > 2 * spread for low, high in bands):
        return ""
    pixel, _ = to_rgb(image.crop((0, 0, 1, 1)))
    return f"#{pixel.tobytes().hex()}"


def _distance(first: Any, second: Any) -> float:
    pairs = zip(first, second, strict=True) if isinstance(first, tuple) else [(first, second)]
    return max(abs(float(one) - float(other)) for one, other in pairs)


def notes_on_frames(image: Image) -> tuple[str, ...]:
    """Return which one is used of the frames, pages or pictures of an opened file; nothing if it has only one."""
    if not getattr(image, "is_animated", False):
        return ()
    what = {"MPO": "picture", "TIFF": "page"}.get(image.format or "", "frame")
    return (f"{what} {image.tell() + 1} of several is used",)


def orientation(image: Image, notes: list[str] | None = None) -> int:
    """Return the EXIF orientation of a decoded image, 1 (upright) to 8; 1 where it has none.

    Args:
        image: A decoded image.
        notes: Where it is noted that the metadata cannot be read.
    """
    if not any(key in image.info for key in _TURNED):  # Pillow itself turns a TIFF upright
        return 1
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001 - Pillow raises many types for damaged metadata
        if notes is not None:
            notes.append("its EXIF data is damaged and was ignored")
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright_size(image: Image) -> tuple[int, int]:
    """Return width and height of a decoded image after it is turned as its EXIF data says."""
    width, height = image.size
    return (height, width) if orientation(image) in _SIDEWAYS else (width, height)


def _turned(image: Image, turn: int, notes: list[str]) -> Image:
    from PIL.Image import Transpose

    if turn == 1:
        return image
    notes.append(f"turned upright (EXIF orientation {turn})")
    return image.transpose(
        {
            2: Transpose.FLIP_LEFT_RIGHT,
            3: Transpose.ROTATE_180,
            4: Transpose.FLIP_TOP_BOTTOM,
            5: Transpose.TRANSPOSE,
            6: Transpose.ROTATE_270,
            7: Transpose.TRANSVERSE,
            8: Transpose.ROTATE_90,
        }[turn]
    )


def _opaque_and_alpha(image: Image, notes: list[str]) -> tuple[Image, Image | None]:
    """Return the colours in a mode of `_PROFILE_SPACES`, and the alpha channel (mode L) if there is one."""
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        return _grey_of_numbers(image, notes)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode == "LA":
        return image.getchannel("L"), image.getchannel("A")
    if image.has_transparency_data and image.mode not in {"CMYK", "LAB", "HSV", "YCbCr", "RGBX"}:
        layer = image.convert("RGBA")
        return layer.convert("RGB"), layer.getchannel("A")
    if image.mode in {"1"}:
        return image.convert("L"), None
    if image.mode not in _PROFILE_SPACES:
        return image.convert("RGB"), None
    return image, None


def check_values(image: Image) -> None:
    """Check that it is clear which values of an image are black and white.

    Raises:
        UnclearValuesError: It is not.
    """
    if image.mode in {"I", "F"}:
        _grey_of_numbers(image, [])


def _grey_of_numbers(image: Image, notes: list[str]) -> tuple[Image, Image | None]:
    """Return an image with 16 or 32 bits a pixel as 8-bit grey, and its alpha if one value is transparent."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image)
    if image.mode == "F":
        # also true for NaN, which compares with nothing
        if not (values.min() >= 0.0 and values.max() <= 1.0):
            raise UnclearValuesError(
                "its 32-bit floats (mode F) are not all in [0, 1], so it is not clear which is white; "
                "give 8-bit values (mode L or RGB), or floats in [0, 1]"
            )
        notes.append("floats in [0, 1] became 8-bit grey")
        return Image.fromarray((values * 255).round().astype(np.uint8)), None
    if image.mode == "I":
        low, high = int(values.min()), int(values.max())
        if image.format not in _SIXTEEN_BIT_FILES or low < 0 or high > 65535:
            raise UnclearValuesError(
                f"its 32-bit integers (mode I, {low} to {high}) do not say which is white; "
                "give 8-bit values (mode L or RGB), or 16-bit grey (mode I;16)"
            )
    notes.append("16-bit grey is shown with 8 bits")
    grey = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey, None
    return grey, Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))


def _in_srgb(image: Image, info: dict[Any, Any], notes: list[str]) -> Image:
    """Return colours as sRGB, converted from the colour profile or the gamma that came with them."""
    profile, gamma = info.get("icc_profile"), info.get("gamma")
    if isinstance(profile, bytes) and profile:
        converted = _from_profile(image, profile, notes)
        if converted is not None:
            return converted
    elif isinstance(gamma, float) and gamma > 0 and "srgb" not in info and abs(gamma * 2.2 - 1) > GAMMA_TOLERANCE:
        notes.append(f"converted from a gamma of {gamma:g} to sRGB")
        rgb = image.convert("RGB")
        return rgb.point(_gamma_table(gamma) * 3)
    if image.mode == "CMYK":
        notes.append("CMYK without a colour profile became RGB by the plain formula")
    if image.mode == "LAB":
        return _lab_transform()(image)
    return image.convert("RGB") if image.mode != "RGB" else image


def _gamma_table(gamma: float) -> list[int]:
    """Return the sRGB level of each level that was encoded with a gamma (file sample = light ** gamma)."""
    light = [(level / 255) ** (1 / gamma) for level in range(256)]
    return [round(255 * (12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055)) for v in light]


def _from_profile(image: Image, profile: bytes, notes: list[str]) -> Image | None:
    """Return an image converted from its colour profile to sRGB; None if the profile cannot be used, which is noted."""
    name, space, transform = _profile(profile)
    if transform is None:
        notes.append("its colour profile is damaged and was ignored")
        return None
    if space == "RGB" and image.mode == "L":
        image = image.convert("RGB")
    if _PROFILE_SPACES[image.mode] != space:
        notes.append(f"its colour profile is for {space} and was ignored")
        return None
    converted = transform(image)
    if converted is None:
        return image.convert("RGB")
    notes.append(f"converted from the colour profile {name!r} to sRGB")
    return converted


@lru_cache(maxsize=16)
def _profile(data: bytes) -> tuple[str, str, Callable[[Image], Image | None] | None]:
    """Return name, colour space, and conversion to sRGB of a profile, which returns None where it changes nothing.

    The conversion is None if the profile is damaged.
    """
    from PIL import ImageCms

    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(data)).profile
        space = opened.xcolor_space.strip()
        name = " ".join(str(opened.profile_description or "").split())[:60] or "without a name"
        mode = {space: mode for mode, space in _PROFILE_SPACES.items()}.get(space)
        if mode is None:  # a space that no mode of Pillow has
            return name, space, _changes_nothing
        convert = _transform(lambda: ImageCms.ImageCmsProfile(io.BytesIO(data)), mode)
        return name, space, _changes_nothing if _is_srgb(convert, mode) else convert
    except Exception:  # noqa: BLE001 - Pillow raises many types for a damaged profile
        return "", "", None


def _changes_nothing(image: Image) -> Image | None:
    return None


def _transform(profile: Callable[[], Any], mode: str) -> Callable[[Image], Image]:
    """Return a conversion to sRGB: relative colorimetric with black point compensation, as image editors convert.

    Profile and transform are made for each image, because they must not be used by two threads at once.
    """
    from PIL import ImageCms

    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION

    def convert(image: Image) -> Image:
        built = ImageCms.buildTransform(profile(), ImageCms.createProfile("sRGB"), mode, "RGB", intent, flags)
        return built.apply(image)

    return convert


def _lab_transform() -> Callable[[Image], Image]:
    from PIL import ImageCms

    return _transform(lambda: ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB")


def _is_srgb(convert: Callable[[Image], Image], mode: str) -> bool:
    """Return whether a conversion changes no colour of a grid visibly."""
    import numpy as np
    from PIL import Image

    if mode == "L":
        levels = np.arange(256, dtype=np.uint8)[None, :]
        before, after = levels[..., None], np.asarray(convert(Image.fromarray(levels)))
    elif mode == "RGB":
        levels = np.arange(0, 256, 51, dtype=np.uint8)
        before = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
        after = np.asarray(convert(Image.fromarray(before)))
    else:
        return False
    return int(np.abs(after.astype(int) - before.astype(int)).max()) <= SRGB_TOLERANCE


def _on_white(image: Image, alpha: Image, notes: list[str]) -> Image:
    from PIL import Image

    lowest, _ = alpha.getextrema()
    if lowest == 255:
        return image
    notes.append("transparent pixels are on white")
    layer = image.convert("RGBA")
    layer.putalpha(alpha)
    return Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer).convert("RGB")
