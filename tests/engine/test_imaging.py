"""Images that generators return become bytes that open, or are rejected with a reason."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.setting import noise_image
from knowgen.engine.imaging import encode
from knowgen.engine.retry import ContractError


def saved(image_format: str, image: Image.Image | None = None) -> bytes:
    buffer = io.BytesIO()
    (image or noise_image("x")).save(buffer, image_format)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_known_formats_stay_as_they_are(kind: str, tmp_path: Path) -> None:
    data = saved(kind)
    file = tmp_path / "image"
    file.write_bytes(data)
    for given in (data, bytearray(data), file):
        assert encode(given) == (data, 48, 32, kind, (), "")


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF"])
def test_other_formats_become_png_of_the_same_pixels(kind: str) -> None:
    image = noise_image("x").quantize(16).convert("RGB") if kind == "GIF" else noise_image("x")
    encoded = encode(saved(kind, image))
    assert encoded.format == "PNG"
    with Image.open(io.BytesIO(encoded.data)) as opened:
        assert opened.convert("RGB").tobytes() == image.tobytes()


def test_half_transparent_red_becomes_pink() -> None:
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 128))
    with Image.open(io.BytesIO(encode(image).data)) as opened:
        red, green, blue = opened.getpixel((5, 5))  # type: ignore[misc]
    # 255 * 128/255 + 255 * 127/255 = 255; 0 * 128/255 + 255 * 127/255 = 127
    assert (red, green, blue) == (255, 127, 127)


@pytest.mark.parametrize("size", [(1, 1), (15, 400), (400, 15)])
def test_tiny_images_are_refused_in_every_form(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    for given in (image, saved("PNG", image)):
        with pytest.raises(ContractError, match=f"{size[0]}x{size[1]} pixels; the smallest side"):
            encode(given)


def test_sixteen_pixels_are_enough() -> None:
    assert encode(Image.new("RGB", (16, 16))).width == 16


def test_a_truncated_file_does_not_open() -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        data = saved(kind)
        with pytest.raises(ContractError, match="image"):
            encode(data[: len(data) // 2])


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(ContractError, match="at most 100 million"):
        encode(Image.new("1", (20_000, 6_000)))
