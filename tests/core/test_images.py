"""Opening images, and the errors of files that do not open."""

from __future__ import annotations

import ast
import hashlib
import io
import struct
from pathlib import Path

import pytest
from PIL import Image

from knowgen.core.errors import DataError
from knowgen.core.images import (
    ImageFacts,
    UnreadableImageError,
    decoded_image,
    image_size,
    inspect_image,
    inspect_images,
    open_rgb,
)
from knowgen.core.python_source import parse_python


def test_files_are_opened_in_one_place() -> None:
    openers = [
        path.name
        for path in (Path(__file__).parents[2] / "knowgen").rglob("*.py")
        for node in ast.walk(parse_python(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).removeprefix("PIL.") == "Image.open"
    ]
    assert openers == ["images.py"]


def test_the_size_of_an_image_is_read_from_its_header_and_bounded() -> None:
    data = encoded(noise(40, 30))
    assert image_size(data) == (40, 30)
    assert image_size(data[:100]) == (40, 30), "nothing is decoded"
    with pytest.raises(UnreadableImageError, match="40x30 pixels, at most 1000 are allowed"):
        image_size(data, max_pixels=1000)
    with pytest.raises(UnreadableImageError, match="unknown image format"):
        image_size(encoded(noise(), "TIFF"), formats=("PNG", "JPEG"))


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(width: int = 40, height: int = 30) -> Image.Image:
    return Image.effect_noise((width, height), 80).convert("RGB")


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty|unknown image format"),
    "html": (b"<html>not found</html>", "it is a web page, not an image"),
    "cut": (encoded(noise())[:-60], "."),
    "cut jpeg": (encoded(noise(), "JPEG")[:-200], "truncated"),
    "bomb": (b"P6 60000 60000 255\n", "3600000000 pixels"),
    "bad chunk": (encoded(noise())[:60] + b"\xff" * 40 + encoded(noise())[100:], "."),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_one_error_with_one_line(tmp_path: Path, name: str) -> None:
    data, reason = BROKEN[name]
    path = tmp_path / "broken.png"
    path.write_bytes(data)
    for call in (inspect_image, open_rgb):
        with pytest.raises(UnreadableImageError, match=reason) as caught:
            call(path)
        assert "\n" not in caught.value.what and str(tmp_path) not in caught.value.what
        assert 0 < len(caught.value.what) <= 240
    with pytest.raises(UnreadableImageError, match=reason):
        inspect_image(data)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    for call in (inspect_image, open_rgb):
        with pytest.raises(UnreadableImageError, match=r"^the file is missing$"):
            call(tmp_path / "nowhere.png")
    with pytest.raises(UnreadableImageError, match="it is a folder, not a regular file"):
        inspect_image(tmp_path)
    with pytest.raises(UnreadableImageError, match="no file on this machine"):
        open_rgb(None)


def test_an_error_of_the_conversion_is_the_same_error() -> None:
    with pytest.raises(UnreadableImageError, match="unpack requires"), decoded_image(encoded(noise())):
        struct.unpack(">I", b"12")


def test_an_image_over_the_limit_is_refused_before_it_is_decoded() -> None:
    cut = encoded(noise(40, 30))[:-60]
    with pytest.raises(UnreadableImageError, match="40x30 pixels, at most 1199 are allowed"):
        inspect_image(cut, max_pixels=1199)
    assert inspect_image(encoded(noise(40, 30)), max_pixels=1200).width == 40


def test_only_the_named_formats_are_opened() -> None:
    data = encoded(noise(), "GIF")
    assert inspect_image(data).format == "GIF"
    with pytest.raises(UnreadableImageError, match="unknown image format"):
        inspect_image(data, formats=("PNG", "JPEG"))


def test_size_and_format_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    path.write_bytes(encoded(noise(7, 9), "WEBP"))
    expected = ImageFacts(hashlib.sha256(path.read_bytes()).hexdigest(), 7, 9, "WEBP")
    assert inspect_image(path) == inspect_image(path.read_bytes()) == expected


def test_the_first_of_several_broken_images_is_named(tmp_path: Path) -> None:
    files = {}
    for name in ("a", "b", "c", "d"):
        files[name] = tmp_path / f"{name}.png"
        files[name].write_bytes(encoded(noise()) if name in "ac" else b"text")
    rows = {name: f"row {name}" for name in files}
    with pytest.raises(DataError) as caught:
        inspect_images(files, rows)
    text = "row b: the image b does not open: unknown image format (and 1 other images do not open); fetch it again"
    assert str(caught.value) == text
    good = {name: files[name] for name in "ac"}
    assert inspect_images(good, rows) == {name: inspect_image(path) for name, path in good.items()}


def test_an_image_is_turned_upright_as_its_exif_data_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    (tmp_path / "turned.tiff").write_bytes(encoded(image, "TIFF", exif=exif))
    (tmp_path / "turned.png").write_bytes(encoded(image, exif=exif))
    assert open_rgb(tmp_path / "turned.png").size == open_rgb(tmp_path / "turned.tiff").size == (2, 4)


def test_transparency_is_laid_on_white() -> None:
    half = Image.new("RGBA", (1, 1), (255, 0, 0, 128))
    assert open_rgb(half).getpixel((0, 0)) == (255, 127, 127)
    indexed = Image.new("P", (1, 1), 0)
    indexed.info["transparency"] = 0
    assert open_rgb(indexed).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_of_grey_keep_their_shades() -> None:
    grey = Image.new("I;16", (1, 1), 128 * 257)
    assert open_rgb(grey).getpixel((0, 0)) == (128, 128, 128)
