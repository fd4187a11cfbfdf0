"""Pictures in many modes and formats, each with the pixels it shows, computed with NumPy and not with Pillow."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

HEIGHT, WIDTH = 48, 64
ORIENTATION = 0x0112

SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
"""Columns: red, green and blue of sRGB as CIE XYZ under D50, as profiles hold them."""

DISPLAY_P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
"""The same of Display P3."""

SWAPPED = SRGB[:, ::-1]
"""A profile whose first channel is blue and whose last is red."""

ANIMATED = "several"
"""Part of the names of files with several frames, of which the first counts."""


@dataclass(frozen=True)
class ImageForm:
    """A file, the pixels that every viewer should show, and how far lossy compression may be off on average.

    Attributes:
        name: Mode, format and what is special.
        data: The file.
        shown: RGB, shape (height, width, 3).
        tolerance: Mean absolute difference in levels.
        kept: Whether the file itself is stored.
    """

    name: str
    data: bytes
    shown: Pixels
    tolerance: float = 1.0
    kept: bool = True


def picture() -> Pixels:
    """Return blocks of colour without any symmetry."""
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:24, :32], pixels[:24, 32:] = (200, 40, 30), (30, 170, 60)
    pixels[24:, :32], pixels[24:, 32:] = (40, 60, 190), (220, 210, 90)
    pixels[:8, :16] = (20, 20, 20)
    return pixels


def grey() -> Pixels:
    """Return blocks of grey without any symmetry, shape (height, width)."""
    return picture()[..., 1].copy()


def grey16() -> NDArray[np.uint16]:
    """Return the same with 16 bits, with low bits that 8 bits cannot hold."""
    return (grey().astype(np.uint16) * 257 + 60).astype(np.uint16)


def three(values: NDArray[Any]) -> Pixels:
    """Return grey values as RGB."""
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Return pixels as the EXIF standard says that an orientation is shown."""
    flipped = pixels.swapaxes(0, 1)
    result: Pixels = np.ascontiguousarray(
        {
            1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: flipped,
            6: np.rot90(pixels, -1), 7: flipped[::-1, ::-1], 8: np.rot90(pixels),
        }[orientation]
    )  # fmt: skip
    return result


def exif(orientation: int) -> bytes:
    """Return EXIF data with an orientation."""
    data = Image.Exif()
    data[ORIENTATION] = orientation
    return data.tobytes()


def linear(levels: NDArray[Any]) -> NDArray[np.float64]:
    """Return the light of sRGB levels, 0 to 1 (IEC 61966-2-1)."""
    values = np.asarray(levels, np.float64) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def levels(light: NDArray[Any]) -> Pixels:
    """Return light as sRGB levels."""
    light = np.clip(light, 0, 1)
    values = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray((values * 255).round(), np.uint8)


def from_primaries(pixels: Pixels, columns: NDArray[np.float64]) -> Pixels:
    """Return the sRGB levels of pixels that were encoded with other primaries and the curve of sRGB."""
    return levels(linear(pixels) @ (np.linalg.inv(SRGB) @ columns).T)


def _xyz(values: Any) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _curve(values: list[int]) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(f">I{len(values)}H", len(values), *values)


def _icc(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return an ICC profile, version 2.1, of a display."""
    description = b"a test profile\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(description)) + description + b"\0" * 78,
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": _xyz((0.9642, 1.0, 0.8249)),
        **tags,
    }
    table, body, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        padded = data + b"\0" * (-len(data) % 4)
        table += name + struct.pack(">2I", offset + len(body), len(data))
        body += padded
    header = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(body), b"\0" * 4, 0x02100000, b"mntr", space, b"XYZ ")
    header += b"\0" * 12 + b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + body


def rgb_profile(columns: NDArray[np.float64]) -> bytes:
    """Return an ICC profile with these primaries and the curve of sRGB."""
    curve = _curve([round(float(value) * 65535) for value in linear(np.linspace(0, 255, 1024))])
    colours = {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns.T, strict=True)}
    return _icc(b"RGB ", {**colours, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)})


def grey_profile(gamma: float) -> bytes:
    """Return an ICC profile of grey with a gamma."""
    return _icc(b"GRAY", {b"kTRC": _curve([round(gamma * 256)])})


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    """Return the file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def lab_image() -> tuple[Image.Image, Pixels]:
    """Return an image in CIELAB (D50), and what it shows."""
    values = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    values[:24], values[24:] = (130, 150, 140), (180, 120, 110)
    values[:8, :16] = (40, 128, 128)
    lightness = values[..., 0].astype(float) * 100 / 255
    first, second = values[..., 1].astype(float) - 128, values[..., 2].astype(float) - 128
    y = (lightness + 16) / 116
    f = np.stack([y + first / 500, y, y - second / 200], axis=-1)
    ratio = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    light = ratio * np.array([0.9642, 1.0, 0.8249]) @ np.linalg.inv(SRGB).T
    stored = values ^ np.array([0, 128, 128], np.uint8)  # Pillow reads a* and b* as signed numbers
    return Image.frombytes("LAB", (WIDTH, HEIGHT), stored.tobytes()), levels(light)


def on_white(pixels: Pixels, alpha: NDArray[Any]) -> Pixels:
    """Return pixels laid on white."""
    part = alpha.astype(np.float64)[..., None] / 255
    return np.asarray((pixels * part + 255 * (1 - part)).round(), np.uint8)


def alpha() -> Pixels:
    """Return opaque, half and fully transparent areas."""
    values = np.full((HEIGHT, WIDTH), 255, np.uint8)
    values[:, 40:52], values[:, 52:] = 128, 0
    return values


def _with_alpha() -> Image.Image:
    return Image.fromarray(np.dstack([picture(), alpha()]))


def _grey_with_alpha() -> Image.Image:
    return Image.merge("LA", [Image.fromarray(grey()), Image.fromarray(alpha())])


def _indexed(**transparency: Any) -> Image.Image:
    image = Image.fromarray((grey() > 100).astype(np.uint8) + 1)
    image = image.convert("P")
    image.putpalette([9, 9, 9, 250, 10, 20, 20, 60, 200] + [0] * 9)
    image.info.update(transparency)
    return image


def _indexed_shown(clear: int | None = None) -> Pixels:
    index = (grey() > 100).astype(int) + 1
    shown: Pixels = np.array([(9, 9, 9), (250, 10, 20), (20, 60, 200)], np.uint8)[index]
    shown[index == clear] = 255
    return shown


def forms() -> Iterator[ImageForm]:
    """Yield the files of every mode in the formats that hold it."""
    yield from _colour_forms()
    yield from _grey_forms()
    yield from _transparent_forms()
    yield from _profile_forms()
    yield from _turned_forms()
    yield from _several_forms()


def _colour_forms() -> Iterator[ImageForm]:
    image, shown = Image.fromarray(picture()), picture()
    for format, options, kept in (
        ("PNG", {}, True), ("JPEG", {"quality": 98, "subsampling": 0}, True), ("WEBP", {"lossless": True}, True),
        ("TIFF", {}, False), ("BMP", {}, False), ("PPM", {}, False), ("TGA", {}, False), ("JPEG2000", {}, False),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}, False),
    ):  # fmt: skip
        yield ImageForm(f"RGB {format}", saved(image, format, **options), shown, 3.0, kept)
    cmyk = np.dstack([255 - shown, np.zeros((HEIGHT, WIDTH), np.uint8)])
    plain_cmyk = Image.frombytes("CMYK", (WIDTH, HEIGHT), cmyk.tobytes())
    yield ImageForm("CMYK TIFF", saved(plain_cmyk, "TIFF"), shown, 1.0, kept=False)
    yield ImageForm("CMYK JPEG", saved(plain_cmyk, "JPEG", quality=98), shown, 6.0)
    yield ImageForm("YCbCr TIFF", saved(image.convert("YCbCr"), "TIFF"), shown, 2.0, kept=False)
    lab, lab_shown = lab_image()
    yield ImageForm("LAB TIFF", saved(lab, "TIFF"), lab_shown, 2.0, kept=False)
    yield ImageForm("P PNG", saved(_indexed(), "PNG"), _indexed_shown())
    yield ImageForm("P GIF", saved(_indexed(), "GIF"), _indexed_shown(), kept=False)


def _grey_forms() -> Iterator[ImageForm]:
    deep = Image.fromarray(grey16())
    for format, kept in (("PNG", True), ("TIFF", False)):
        yield ImageForm(f"L {format}", saved(Image.fromarray(grey()), format), three(grey()), kept=kept)
        bits = Image.fromarray(grey() > 100)
        yield ImageForm(f"1 {format}", saved(bits, format), three((grey() > 100) * 255), kept=kept)
        yield ImageForm(f"I;16 {format}", saved(deep, format), three(grey()), kept=kept)
    big_endian = Image.frombytes("I;16B", (WIDTH, HEIGHT), grey16().astype(">u2").tobytes())
    yield ImageForm("I;16B TIFF", saved(big_endian, "TIFF"), three(grey()), kept=False)
    clear = int(grey16()[0, 0])
    shown = three(grey())
    shown[:8, :16] = 255
    yield ImageForm("I;16 with a transparent value PNG", saved(deep, "PNG", transparency=clear), shown)
    floats = Image.fromarray(grey().astype(np.float32) / 255)
    yield ImageForm("F TIFF", saved(floats, "TIFF"), three(grey()), kept=False)
    yield ImageForm("L JPEG", saved(Image.fromarray(grey()), "JPEG", quality=98), three(grey()), 3.0)


def _transparent_forms() -> Iterator[ImageForm]:
    for format, options, kept in (
        ("PNG", {}, True), ("WEBP", {"lossless": True, "exact": True}, True), ("TIFF", {}, False),
    ):  # fmt: skip
        data = saved(_with_alpha(), format, **options)
        yield ImageForm(f"RGBA {format}", data, on_white(picture(), alpha()), 1.0, kept)
    yield ImageForm("LA PNG", saved(_grey_with_alpha(), "PNG"), on_white(three(grey()), alpha()))
    yield ImageForm("P transparent PNG", saved(_indexed(), "PNG", transparency=1), _indexed_shown(1))
    yield ImageForm("P transparent GIF", saved(_indexed(), "GIF", transparency=1), _indexed_shown(1), kept=False)
    shown = picture()
    shown[:8, :16] = 255
    data = saved(Image.fromarray(picture()), "PNG", transparency=(20, 20, 20))
    yield ImageForm("RGB with a transparent colour PNG", data, shown)


def _profile_forms() -> Iterator[ImageForm]:
    image = Image.fromarray(picture())
    for name, columns in (("swapped", SWAPPED), ("P3", DISPLAY_P3), ("sRGB", SRGB)):
        profile, shown = rgb_profile(columns), from_primaries(picture(), columns)
        yield ImageForm(f"RGB {name} profile PNG", saved(image, "PNG", icc_profile=profile), shown, 2.0)
        data = saved(image, "JPEG", quality=98, subsampling=0, icc_profile=profile)
        yield ImageForm(f"RGB {name} profile JPEG", data, shown, 4.0)
    profile, shown = rgb_profile(SWAPPED), from_primaries(picture(), SWAPPED)
    data = saved(image, "WEBP", lossless=True, icc_profile=profile)
    yield ImageForm("RGB swapped profile WEBP", data, shown, 2.0)
    yield ImageForm("RGB swapped profile TIFF", saved(image, "TIFF", icc_profile=profile), shown, 2.0, kept=False)
    data = saved(_with_alpha(), "PNG", icc_profile=profile)
    yield ImageForm("RGBA swapped profile PNG", data, on_white(shown, alpha()), 2.0)
    dark = levels((grey() / 255.0) ** 1.0)
    data = saved(Image.fromarray(grey()), "PNG", icc_profile=grey_profile(1.0))
    yield ImageForm("L linear profile PNG", data, three(dark), 3.0)
    yield ImageForm("RGB broken profile PNG", saved(image, "PNG", icc_profile=b"none" * 50), picture())
    data = saved(image, "PNG", icc_profile=grey_profile(1.0))
    yield ImageForm("RGB profile of grey PNG", data, picture())


def _turned_forms() -> Iterator[ImageForm]:
    image = Image.fromarray(picture())
    for format, options, kept in (
        ("PNG", {}, True), ("JPEG", {"quality": 98, "subsampling": 0}, True), ("WEBP", {"lossless": True}, True),
        ("TIFF", {}, False), ("TIFF", {"compression": "tiff_lzw"}, False),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}, False),
    ):  # fmt: skip
        for orientation in (2, 3, 6, 8) if format != "PNG" else range(1, 9):
            data = saved(image, format, exif=exif(orientation), **options)
            name = f"RGB turned {orientation} {format} {options.get('compression', '')}".strip()
            yield ImageForm(name, data, turned(picture(), orientation), 3.0, kept)
    deep = saved(Image.fromarray(grey16()), "PNG", exif=exif(6))
    yield ImageForm("I;16 turned 6 PNG", deep, turned(three(grey()), 6))
    data = saved(image, "PNG", exif=exif(8), icc_profile=rgb_profile(SWAPPED))
    yield ImageForm("RGB turned 8 swapped profile PNG", data, turned(from_primaries(picture(), SWAPPED), 8), 2.0)


def _several_forms() -> Iterator[ImageForm]:
    image, other = Image.fromarray(picture()), Image.new("RGB", (WIDTH, HEIGHT), (255, 0, 255))
    more: dict[str, Any] = {"save_all": True, "append_images": [other]}
    yield ImageForm(f"{ANIMATED} PNG", saved(image, "PNG", **more), picture())
    yield ImageForm(f"{ANIMATED} WEBP", saved(image, "WEBP", lossless=True, **more), picture(), 2.0)
    yield ImageForm(f"{ANIMATED} TIFF", saved(image, "TIFF", **more), picture(), kept=False)
    yield ImageForm(f"{ANIMATED} MPO", saved(image, "MPO", quality=98, **more), picture(), 4.0, kept=False)
    turned_mpo = saved(image, "MPO", quality=98, exif=exif(6), **more)
    yield ImageForm(f"{ANIMATED} MPO turned 6", turned_mpo, turned(picture(), 6), 4.0, kept=False)
    indexed = _indexed()
    data = saved(indexed, "GIF", save_all=True, append_images=[other.convert("P")])
    yield ImageForm(f"{ANIMATED} GIF", data, _indexed_shown(), kept=False)


FORMS = {form.name: form for form in forms()}
"""The files by name."""

Opener = Callable[[bytes], Pixels]


def distance(first: Pixels, second: Pixels) -> float:
    """Return the mean absolute difference in levels; 255 for images of different sizes."""
    if first.shape != second.shape:
        return 255.0
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


def plain_pixels(data: bytes) -> Pixels:
    """Return the pixels of a file as a program sees them that knows neither EXIF nor profiles nor 16 bits."""
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGB"
        return np.asarray(image)
