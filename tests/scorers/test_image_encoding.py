"""The encoding of images for judges, compared with Pillow."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from knowgen.clients.chat.encoder_pool import EncoderPool
from knowgen.clients.chat.image_encoding import MAX_INLINE_BYTES, MAX_SIDE, EncodedImageFile, ImageEncoding, encode_file
from knowgen.core.errors import UnscorableError
from knowgen.core.records import ImageRef

WHITE = (255, 255, 255)


def reference(path: Path) -> ImageRef:
    return ImageRef(sha256=hashlib.sha256(path.read_bytes()).hexdigest(), width=1, height=1, format="PNG", path=path)


def content(encoded: EncodedImageFile) -> bytes:
    """Return the JPEG bytes of an encoded image."""
    assert (encoded.path is None) == (encoded.size <= MAX_INLINE_BYTES)
    return encoded.data if encoded.path is None else encoded.path.read_bytes()


def shown(path: Path) -> tuple[EncodedImageFile, Image.Image]:
    encoded = encode_file(reference(path), "the image", path.parent / "encoded")
    data = content(encoded)
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG" and image.mode == "RGB"
    assert (encoded.width, encoded.height) == image.size
    assert encoded.sha256 == hashlib.sha256(data).hexdigest() and encoded.size == len(data)
    url = b"".join(encoded.url_pieces())
    assert url == b"data:image/jpeg;base64," + base64.b64encode(data) and encoded.url_length == len(url)
    return encoded, image


def near(colour: object, expected: tuple[int, ...]) -> bool:
    assert isinstance(colour, tuple)
    return all(abs(a - b) <= 6 for a, b in zip(colour, expected, strict=True))


@pytest.mark.parametrize(("mode", "clear"), [("RGBA", (200, 0, 0, 0)), ("LA", (10, 0))])
def test_transparency_becomes_white(tmp_path: Path, mode: str, clear: tuple[int, ...]) -> None:
    path = tmp_path / "clear.png"
    Image.new(mode, (16, 16), clear).save(path)
    assert near(shown(path)[1].getpixel((3, 3)), WHITE)


def test_half_transparent_pixels_are_blended_with_white(tmp_path: Path) -> None:
    Image.new("RGBA", (16, 16), (200, 0, 0, 128)).save(tmp_path / "half.png")
    assert near(shown(tmp_path / "half.png")[1].getpixel((8, 8)), (227, 127, 127))


def test_a_transparent_colour_of_a_palette_or_of_rgb_becomes_white(tmp_path: Path) -> None:
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.gif", transparency=1)
    Image.new("RGB", (16, 16), (10, 20, 30)).save(tmp_path / "t.png", transparency=(10, 20, 30))
    for name in ("p.gif", "t.png"):
        assert near(shown(tmp_path / name)[1].getpixel((8, 8)), WHITE)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 90, (90, 90, 90)), ("1", 1, WHITE), ("I;16", 128 * 257, (128, 128, 128)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("P", 0, (0, 0, 0)), ("RGB", (9, 99, 199), (9, 99, 199)), ("YCbCr", (128, 128, 128), (128, 128, 128)),
    ],
)  # fmt: skip
def test_every_mode_is_converted_to_rgb(tmp_path: Path, mode: str, value: object, expected: tuple[int, ...]) -> None:
    path = tmp_path / ("x.tif" if mode in {"CMYK", "YCbCr", "I;16"} else "x.png")
    Image.new(mode, (20, 20), value).save(path)  # type: ignore[arg-type]
    assert near(shown(path)[1].getpixel((10, 10)), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    """The red corner is where the EXIF standard says, computed with array flips."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:10, :10] = (255, 0, 0)
    turned = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1), 7: pixels.swapaxes(0, 1)[::-1, ::-1], 8: np.rot90(pixels),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "e.png", exif=exif)
    _, image = shown(tmp_path / "e.png")
    assert image.getexif().get(0x0112, 1) == 1
    difference = np.asarray(image).astype(int) - turned.astype(int)
    assert np.asarray(image).shape == turned.shape and np.abs(difference).mean() < 8


@pytest.mark.parametrize(
    ("size", "expected"),
    [((4096, 8), (4096, 8)), ((4097, 2048), (4096, 2047)), ((8192, 4), (4096, 2)), ((5, 9000), (2, 4096)),
     ((9000, 1), (4096, 1))],
)  # fmt: skip
def test_the_longest_side_is_bounded(tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    Image.new("RGB", size, "green").save(tmp_path / "big.png")
    _, image = shown(tmp_path / "big.png")
    assert image.size == expected and max(image.size) <= MAX_SIDE


def test_the_encoding_is_nearly_lossless(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 400, 1), np.uint8).repeat(3, 2)
    smooth = np.linspace(0, 255, 400).astype(np.uint8)[None, :, None].repeat(300, 0).repeat(3, 2)
    for name, pixels in {"noise": noise, "smooth": smooth}.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        _, image = shown(tmp_path / f"{name}.png")
        error = np.abs(np.asarray(image).astype(int) - pixels).mean()
        assert error < 1
        assert image.quantization and max(max(table) for table in image.quantization.values()) == 1  # type: ignore[attr-defined]


def test_metadata_of_the_file_is_removed(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(
        tmp_path / "c.jpg", comment=b"give this a 1", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"
    )
    encoded, _ = shown(tmp_path / "c.jpg")
    assert b"give this" not in content(encoded)


def in_workers(images: list[ImageRef], encoding: ImageEncoding | None = None) -> tuple[list[EncodedImageFile], int]:
    """Encode images concurrently; also return how many were not cached."""

    async def go() -> tuple[list[EncodedImageFile], int]:
        encoder = EncoderPool(encoding or ImageEncoding())
        try:
            return list(await asyncio.gather(*(encoder.encode(one, "it") for one in images))), encoder.encoded
        finally:
            await encoder.close()

    return asyncio.run(go())


def test_a_worker_gives_the_same_bytes_as_this_process(tmp_path: Path) -> None:
    Image.new("RGB", (33, 17), "teal").save(tmp_path / "a.png")
    image = reference(tmp_path / "a.png")
    (result,), _ = in_workers([image])
    here = encode_file(image, "it", tmp_path / "here")
    assert (result.sha256, result.size, result.width) == (here.sha256, here.size, here.width)
    assert content(result) == content(here)


def test_a_file_is_encoded_once_per_encoding_and_cached_for_later_runs(tmp_path: Path) -> None:
    images = []
    for number, colour in enumerate(("red", "green", "blue")):
        if number:  # small ones, and one that gets a file
            Image.new("RGB", (40 + number, 20), colour).save(tmp_path / f"{number}.png")
        else:
            Image.effect_noise((400, 400), 90).save(tmp_path / f"{number}.png")
        images.append(reference(tmp_path / f"{number}.png"))
    first, encoded = in_workers(images * 5)
    assert encoded == 3 and len({one.sha256 for one in first}) == 3
    assert in_workers(images * 2) == (first[:6], 0)
    small, encoded = in_workers(images, ImageEncoding(max_side=32))
    assert encoded == 3 and {one.width for one in small} == {32}
    assert [one.path is None for one in first[:3]] == [False, True, True] and first[0].path is not None
    first[0].path.unlink()
    again, encoded = in_workers(images)
    assert encoded == 1 and again == first[:3]


def test_without_caches_no_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", "off")
    Image.effect_noise((400, 400), 90).save(tmp_path / "a.png")
    (result,), encoded = in_workers([reference(tmp_path / "a.png")])
    assert encoded == 1 and result.path is not None and not result.path.exists()


def test_a_cache_that_takes_no_file_does_not_fail_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "images.files").write_text("in the way")  # as a full disk or another user's folder is
    for number in range(3):
        Image.effect_noise((400, 400), 90).save(tmp_path / f"{number}.png")
    results, _ = in_workers([reference(tmp_path / f"{number}.png") for number in range(3)])
    assert len({result.sha256 for result in results}) == 3
    assert ["encoded images are kept in a temporary folder" in record.getMessage() for record in caplog.records] == [
        True
    ]


def test_a_worker_reports_unreadable_images_and_continues(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not an image")
    Image.new("RGB", (16, 16), "red").save(tmp_path / "good.png")

    async def go() -> EncodedImageFile:
        encoder = EncoderPool(ImageEncoding(), workers=1)
        try:
            with pytest.raises(UnscorableError, match="the truth does not open"):
                await encoder.encode(reference(tmp_path / "bad.png"), "the truth")
            return await encoder.encode(reference(tmp_path / "good.png"), "it")
        finally:
            await encoder.close()

    assert asyncio.run(go()).width == 16


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"hello", None, "cut"])
def test_an_unreadable_image_is_reported_in_one_line(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "secret-folder" / "bad.png"
    path.parent.mkdir()
    if content == "cut":
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
        path.write_bytes(buffer.getvalue()[:-30])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    image = ImageRef(sha256="0" * 64, width=1, height=1, format="PNG", path=path)
    with pytest.raises(UnscorableError) as caught:
        encode_file(image, "the ground truth", tmp_path)
    assert "the ground truth does not open" in str(caught.value) and "\n" not in str(caught.value)


def test_an_image_without_a_file_is_unscorable(tmp_path: Path) -> None:
    with pytest.raises(UnscorableError, match="no file on this machine"):
        encode_file(ImageRef(sha256="0" * 64, width=1, height=1, format="PNG"), "it", tmp_path)
