"""What a generator may return: taken where it is certain what it shows, else refused with what to return instead."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from knowgen.core.records import GenerationStatus
from knowgen.engine.imaging import EncodedImage, encode
from knowgen.engine.retry import ContractError
from knowgen.engine.snapshot import snapshot
from knowgen.generators.contract import GeneratedImage
from tests.helpers.engine import Bench
from tests.helpers.image_forms import (
    FORMS,
    alpha,
    distance,
    grey,
    grey16,
    on_white,
    picture,
    plain_pixels,
    saved,
    three,
)

PICTURE = Image.fromarray(picture())
FLOATS = picture().astype(np.float32) / 255


def returned(value: Any) -> EncodedImage:
    """Return what is stored of a value that a generator returned."""
    return encode(snapshot(value).image)


def tensor(values: Any) -> Any:
    torch = pytest.importorskip("torch")
    return torch.tensor(np.ascontiguousarray(values))


def chw(values: np.ndarray) -> np.ndarray:
    return values.transpose(2, 0, 1)


TAKEN: dict[str, Any] = {
    "list with one image": [PICTURE],
    "tuple with one image": (PICTURE,),
    "output of a pipeline": SimpleNamespace(images=[PICTURE]),
    "output of a pipeline as an array": SimpleNamespace(images=FLOATS[None]),
    "mapping with images": {"images": [PICTURE]},
    "BytesIO": io.BytesIO(saved(PICTURE, "PNG")),
    "data URL": "data:image/png;base64," + base64.b64encode(saved(PICTURE, "PNG")).decode(),
    "array": picture(),
    "array, channels first": chw(picture()),
    "array, batch of one": picture()[None],
    "array of float64": FLOATS.astype(np.float64),
    "array of float16": FLOATS.astype(np.float16),
    "read-only view": picture()[::-1][::-1],
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_form_that_leaves_no_doubt_is_taken(name: str) -> None:
    for value in (TAKEN[name], GeneratedImage(image=TAKEN[name])):
        assert distance(plain_pixels(returned(value).data), picture()) < 0.3


@pytest.mark.parametrize("kind", ["str", "Path", "PathLike"])
def test_a_path_is_taken_and_its_file_kept(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(FORMS["RGB turned 6 JPEG"].data)

    class Named:
        def __fspath__(self) -> str:
            return str(path)

    result = returned({"str": str(path), "Path": path, "PathLike": Named()}[kind])
    assert result.data == path.read_bytes() and (result.width, result.height) == (48, 64)
    assert result.notes == ("turned upright (EXIF orientation 6)",)


@pytest.mark.parametrize("layout", ["HWC", "CHW", "BCHW"])
@pytest.mark.parametrize("kind", ["uint8", "float32", "bfloat16", "requires grad"])
def test_a_tensor_is_taken_in_either_layout(layout: str, kind: str) -> None:
    values = picture() if kind == "uint8" else FLOATS
    values = {"HWC": values, "CHW": chw(values), "BCHW": chw(values)[None]}[layout]
    value = tensor(values)
    if kind == "bfloat16":
        value = value.bfloat16()
    if kind == "requires grad":
        value.requires_grad_()
    assert distance(plain_pixels(returned(value).data), picture()) < 0.6  # bfloat16 has 8 significant bits


def test_arrays_without_colour_and_with_transparency_are_taken() -> None:
    for value in (grey(), grey()[..., None], grey()[None], grey16(), (grey() / 255.0)):
        assert distance(plain_pixels(returned(value).data), three(grey())) == 0
    layered = np.dstack([picture(), alpha()])
    assert distance(plain_pixels(returned(layered).data), on_white(picture(), alpha())) < 1
    assert distance(plain_pixels(returned(grey() > 100).data), three((grey() > 100) * 255)) == 0


def test_an_array_that_is_reused_is_taken_as_it_was() -> None:
    canvas = picture()
    for value in (canvas, tensor(canvas)):
        taken = snapshot(value)
        value[:] = 0
        assert distance(plain_pixels(encode(taken.image).data), picture()) == 0
        canvas = picture()


REFUSED: dict[str, tuple[Any, str]] = {
    "int64": (
        picture().astype(np.int64),
        r"of int64 \(48x64x3\), which does not say which value is white; .*uint8",
    ),
    "uint16 with colour": (picture().astype(np.uint16), "array of uint16"),
    "floats up to 255": (
        picture().astype(np.float32),
        r"from 20 to 220, not in \[0, 1\]; return x.astype",
    ),
    "floats from -1 to 1": (FLOATS * 2 - 1, r"not in \[0, 1\]; return \(x / 2 \+ 0.5\)"),
    "NaN": (np.full((20, 20, 3), np.nan), "NaN or infinite"),
    "complex": (np.zeros((20, 20, 3), complex), "array of complex128"),
    "four images": (np.zeros((4, 20, 20, 3), np.uint8), "shape 4x20x20x3; return one image"),
    "two channels": (np.zeros((20, 20, 2), np.uint8), "shape 20x20x2; return one image"),
    "one axis": (np.zeros(20, np.uint8), "shape 20; return one image"),
    "two images in a list": ([PICTURE, PICTURE], "a list with 2 items where one image is expected"),
    "two images of a pipeline": (
        SimpleNamespace(images=[PICTURE] * 2),
        r"2 items .* return result.images\[0\]",
    ),
    "images and flags": (([PICTURE], [False]), "a tuple with 2 items"),
    "no image in a list": ([], "a list with 0 items"),
    "a number": (7, "an int, which is not an image; return a PIL image"),
    "a mapping": ({"image": 1}, "a dict, which is not an image"),
    "None": (None, r"no image \(None\)"),
    "an address": ("https://example.org/a.png", "the address https://example.org/a.png; fetch it and return the bytes"),
    "base64": (base64.b64encode(bytes(9000)).decode(), "a text of 12000 characters; .*b64decode"),
    "a reply": ("Here is the image\nyou asked for", "a text of 31 characters"),
    "a broken data URL": ("data:image/png;base64,###", "not valid base64"),
    "a path to nothing": ("nowhere/a.png", "the image file a.png cannot be read: the file is missing"),
    "32-bit integers": (Image.new("I", (20, 20), 70_000), r"32-bit integers \(mode I, 70000 to 70000\)"),
    "32-bit floats": (Image.new("F", (20, 20), 255.0), "floats"),
    "a vector drawing": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_refused_with_what_to_return(name: str) -> None:
    value, reason = REFUSED[name]
    with pytest.raises(ContractError, match=reason) as caught:
        returned(value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_an_image_that_a_safety_checker_blanked_is_refused_not_stored_black() -> None:
    output = SimpleNamespace(images=[Image.new("RGB", (64, 64))], nsfw_content_detected=[True])
    result = snapshot(output)
    assert (result.status, result.image) == (GenerationStatus.REFUSED, None) and "safety checker" in result.reason
    output.nsfw_content_detected = [False]
    assert snapshot(output).status is GenerationStatus.OK


def test_an_animation_that_pillow_has_opened_is_noted_and_its_current_frame_taken() -> None:
    frames = [PICTURE, Image.new("RGB", PICTURE.size, (255, 0, 255))]
    data = saved(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(data)) as opened:
        first = returned(opened)
        opened.seek(1)
        second = returned(opened)
    assert first.notes == ("frame 1 of several is used",) and second.notes == ("frame 2 of several is used",)
    assert distance(plain_pixels(first.data), picture()) == 0 and second.one_colour == "#ff00ff"


def test_the_colour_of_a_blank_image_is_known_without_decoding_it_again() -> None:
    almost = np.full((64, 64, 3), 30, np.uint8)
    almost[63, 63] = 90  # one other pixel is enough
    assert returned(almost).one_colour == "" == returned(picture()).one_colour
    assert returned(np.full((64, 64, 3), 30, np.uint8)).one_colour == "#1e1e1e"
    for format in ("PNG", "JPEG", "WEBP", "GIF", "TIFF"):
        for mode in ("RGB", "L", "P", "1"):
            if (format, mode) in {("JPEG", "P"), ("WEBP", "P")}:
                continue
            assert returned(saved(Image.new(mode, (40, 30)), format)).one_colour == "#000000", (format, mode)
    assert returned(Image.new("RGBA", (40, 30), (9, 9, 9, 0))).one_colour == "#ffffff"
    assert returned(saved(Image.new("I;16", (40, 30), 65535), "PNG")).one_colour == "#ffffff"
    rgba = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    rgba.putpixel((20, 20), (0, 0, 0, 255))
    assert returned(saved(rgba, "PNG")).one_colour == ""  # a black dot on white


class Returns:
    """Returns for each sample another kind of value."""

    values: tuple[Any, ...] = ()

    def draw(self, prompt: str, references: object, seed: int) -> Any:
        return self.values[int(prompt.rsplit(maxsplit=1)[-1].strip("."))]


def test_a_run_records_what_was_changed_and_every_refusal_with_its_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    path = tmp_path / "a.png"
    path.write_bytes(FORMS["I;16 turned 6 PNG"].data)
    values = (str(path), picture(), str(tmp_path / "pipe.png"), "/dev/zero", Image.new("I", (20, 20)), str(tmp_path))
    bench = Bench(tmp_path / "run")
    bench.run(len(values), type("ReturnsThese", (Returns,), {"values": values})())
    found = {name: generation for (name, _), generation in bench.generations().items()}
    first, second, *refused = (found[f"s{number}"] for number in range(len(values)))
    assert first.image is not None and (first.image.width, first.image.height) == (48, 64)
    assert first.image_notes == ("16-bit grey is shown with 8 bits", "turned upright (EXIF orientation 6)")
    assert first.image.path is not None and first.image.path.read_bytes() == path.read_bytes()
    assert second.status == "ok" and second.image_notes == ()
    assert [each.status for each in refused] == ["failed"] * 4
    for each, reason in zip(refused, ("a pipe", "a device", "mode I", "a folder"), strict=True):
        assert reason in each.reason
