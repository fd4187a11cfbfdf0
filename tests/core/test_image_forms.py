"""Every mode, format, turn, profile and animation is opened as what it shows."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from knowgen.core.images import MAX_BYTES, UnreadableImageError, inspect_image, open_image, open_rgb, read_image_file
from knowgen.core.records import image_ref
from tests.helpers.image_forms import (
    ANIMATED,
    FORMS,
    HEIGHT,
    SWAPPED,
    WIDTH,
    distance,
    exif,
    from_primaries,
    grey,
    grey16,
    picture,
    rgb_profile,
    saved,
    three,
    turned,
)


@pytest.mark.parametrize("name", FORMS)
def test_a_file_is_opened_as_what_it_shows(tmp_path: Path, name: str) -> None:
    form = FORMS[name]
    opened = open_image(form.data)
    assert (opened.image.mode, opened.image.info) == ("RGB", {})
    assert distance(np.asarray(opened.image), form.shown) <= form.tolerance
    facts = inspect_image(form.data)
    assert (facts.height, facts.width) == form.shown.shape[:2]
    (tmp_path / "a file").write_bytes(form.data)
    reference = image_ref(tmp_path / "a file")
    assert distance(np.asarray(reference.open()), np.asarray(opened.image)) == 0
    assert (reference.height, reference.width) == form.shown.shape[:2]


@pytest.mark.parametrize("name", FORMS)
def test_an_image_that_pillow_has_opened_is_the_same(name: str) -> None:
    form = FORMS[name]
    with Image.open(io.BytesIO(form.data)) as image:
        before = image.tobytes()
        assert distance(np.asarray(open_rgb(image)), form.shown) <= form.tolerance
        assert image.tobytes() == before  # the caller's object stays as it was


def test_the_notes_say_what_was_changed() -> None:
    def notes(name: str) -> str:
        return "; ".join(open_image(FORMS[name].data).notes)

    assert notes("RGB PNG") == notes("RGB JPEG") == notes("L PNG") == notes("RGB sRGB profile PNG") == ""
    assert notes("I;16 PNG") == "16-bit grey is shown with 8 bits"
    assert notes("RGB turned 6 WEBP") == "turned upright (EXIF orientation 6)"
    assert notes("RGB swapped profile JPEG") == "converted from the colour profile 'a test profile' to sRGB"
    assert notes("RGB broken profile PNG") == "its colour profile is damaged and was ignored"
    assert notes("RGB profile of grey PNG") == "its colour profile is for GRAY and was ignored"
    assert notes("RGBA PNG") == "transparent pixels are on white"
    assert "without a colour profile" in notes("CMYK TIFF")
    assert notes(f"{ANIMATED} GIF") == "frame 1 of several is used"
    assert notes(f"{ANIMATED} MPO") == "picture 1 of several is used"


def test_every_mode_of_pillow_is_opened_or_refused_with_what_to_give_instead() -> None:
    for mode in Image.MODES:
        image = Image.new(mode, (4, 3))
        if mode == "I":
            with pytest.raises(UnreadableImageError, match=r"32-bit integers \(mode I, 0 to 0\) .* 16-bit grey"):
                open_image(image)
        else:
            assert (open_image(image).image.mode, open_image(image).image.size) == ("RGB", (4, 3)), mode


@pytest.mark.parametrize("values", [[0.0, 1.5], [-0.2, 1.0], [0.0, float("nan")], [0.0, 255.0]])
def test_floats_outside_0_to_1_are_refused_in_a_file_too(values: list[float]) -> None:
    image = Image.fromarray(np.array([values] * 3, np.float32))
    for source in (image, saved(image, "TIFF")):
        with pytest.raises(UnreadableImageError, match=r"floats \(mode F\) are not all in \[0, 1\]"):
            open_image(source)
    with pytest.raises(UnreadableImageError, match="mode F"):
        inspect_image(saved(image, "TIFF"))


def test_32_bit_integers_of_a_png_are_16_bit_grey_and_of_a_tiff_are_refused() -> None:
    image = Image.fromarray(grey16().astype(np.int32))
    with pytest.raises(UnreadableImageError, match="mode I"):
        open_image(saved(image, "TIFF"))
    image.format = "PNG"  # how Pillow before 11.0 opened 16-bit grey
    assert distance(np.asarray(open_rgb(image)), three(grey())) == 0


def test_every_level_of_16_bits_is_rounded_to_the_nearest_of_8() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    shown = np.asarray(open_rgb(Image.fromarray(values)))[..., 0]
    assert (shown == np.floor(values / 257 + 0.5)).all()


def test_a_premultiplied_image_is_laid_on_white_once() -> None:
    image = Image.frombytes("RGBa", (1, 1), bytes([100, 0, 0, 128]))  # half of (200, 0, 0)
    assert open_rgb(image).getpixel((0, 0)) == (227, 127, 127)
    grey_image = Image.new("La", (1, 1), (50, 128))  # half of 100
    assert open_rgb(grey_image).getpixel((0, 0)) == (177, 177, 177)


def test_a_png_with_linear_light_is_converted() -> None:
    data = saved(Image.fromarray(picture()), "PNG")
    gamma = b"gAMA" + (100_000).to_bytes(4, "big")
    chunk = (4).to_bytes(4, "big") + gamma + zlib.crc32(gamma).to_bytes(4, "big")
    linear_light = data[:33] + chunk + data[33:]
    light = picture() / 255
    shown = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    assert distance(np.asarray(open_rgb(linear_light)), shown.round().astype(np.uint8)) == 0


def test_an_opened_image_that_was_processed_is_still_turned_and_converted() -> None:
    with Image.open(io.BytesIO(FORMS["RGB turned 8 swapped profile PNG"].data)) as image:
        copy = image.convert("RGBA")
    shown = turned(from_primaries(picture(), SWAPPED), 8)
    assert distance(np.asarray(open_rgb(copy)), shown) <= 2


def test_damaged_metadata_does_not_make_an_image_unreadable() -> None:
    for damaged in ({"exif": b"nothing of the kind"}, {"Raw profile type exif": "\n\n\nzz"}):
        image = Image.fromarray(picture())
        image.info.update(damaged)
        opened = open_image(image)
        assert opened.image.size == (WIDTH, HEIGHT)
        assert opened.notes == ("its EXIF data is damaged and was ignored",)


def test_a_file_that_is_not_regular_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    (tmp_path / "empty.png").touch()
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    reasons = {
        "pipe.png": "it is a pipe, not a regular file",
        "link.png": "it is a pipe, not a regular file",
        "/dev/zero": "it is a device, not a regular file",
        ".": "it is a folder, not a regular file",
        "empty.png": "the file is empty",
        "huge.png": "the file is larger than 512 MiB",
        "none.png": "the file is missing",
        "a\0b.png": "null byte",
        "x" * 300: "too long",
    }
    for name, reason in reasons.items():
        for call in (open_rgb, inspect_image, read_image_file, image_ref):
            with pytest.raises(UnreadableImageError, match=reason):
                call(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"), (b"%PDF-1.7", "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript file"),
        (b"\n<!DOCTYPE html><title>404</title>", "a web page"), (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow-heif"), (b"text", "unknown image format"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_an_image_is_named(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "a.png").write_bytes(data)
    for source in (data, tmp_path / "a.png"):
        with pytest.raises(UnreadableImageError, match=reason):
            open_rgb(source)


def test_turned_pixels_are_not_written_back(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(Image.fromarray(picture()), "JPEG", exif=exif(6), icc_profile=rgb_profile(SWAPPED)))
    before = path.read_bytes()
    open_rgb(path)
    image_ref(path).open()
    assert path.read_bytes() == before
