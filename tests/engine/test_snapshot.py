"""Every stored image belongs to its prompt, even if a generator reuses its canvas, output file and result object."""

from __future__ import annotations

import asyncio
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.setting import noise_image
from knowgen.core.records import GenerationRequest
from knowgen.engine import ComponentRef
from knowgen.engine.imaging import encode
from knowgen.engine.retry import ContractError
from knowgen.engine.snapshot import snapshot
from knowgen.generators.contract import GeneratedImage
from knowgen.validation.findings import worst
from knowgen.validation.generator import check_generator
from tests.helpers.engine import Bench, generator_handle, png, quick

COUNT = 24
SIZE = (160, 120)
KINDS = ("canvas", "numpy", "path", "lazy", "bytearray", "memoryview", "bytes")
"""What is reused: a PIL image, its array, a file given as a path or opened lazily, a buffer. Bytes are immutable."""


def bmp(words: str) -> bytes:
    """Return an image file of constant length, so that it fits the same buffer each time."""
    buffer = io.BytesIO()
    noise_image(words, SIZE).save(buffer, "BMP")
    return buffer.getvalue()


class Reuses:
    """Overwrite the same object for every image.

    Args:
        kinds: Which of `KINDS`; by turns where there are several.
        wrap: `bare` for the image alone, `fresh` for a new `GeneratedImage` around each, `reused` for one around all.
        folder: For the output file.
    """

    revision = "1"
    batch_size = 8

    def __init__(self, kinds: Sequence[str], wrap: str, folder: str) -> None:
        self.kinds, self.wrap, self.file = list(kinds), wrap, Path(folder) / "out.png"
        self.calls = 0
        self.canvas = Image.new("RGB", SIZE)
        self.pixels = np.full((SIZE[1], SIZE[0], 4), 255, dtype=np.uint8)
        self.buffer = bytearray(bmp(""))
        self.settings: dict[str, Any] = {"nested": {}}
        self.result = GeneratedImage(settings=self.settings)

    def image(self, words: str) -> Any:
        kind = self.kinds[self.calls % len(self.kinds)]
        self.calls += 1
        if kind == "canvas":
            self.canvas.paste(noise_image(words, SIZE))
            return self.canvas
        if kind == "numpy":
            self.pixels[..., :3] = np.asarray(noise_image(words, SIZE))
            return Image.frombuffer("RGBA", SIZE, self.pixels, "raw", "RGBA", 0, 1)  # shares the array's memory
        if kind in {"path", "lazy"}:
            self.file.write_bytes(bmp(words))
            return self.file if kind == "path" else Image.open(self.file)
        if kind == "bytes":
            return bmp(words)
        self.buffer[:] = bmp(words)
        return self.buffer if kind == "bytearray" else memoryview(self.buffer)

    def answer(self, words: str, name: str = "") -> Any:
        image = self.image(words)
        if self.wrap == "bare":
            return image
        if self.wrap == "fresh":
            return GeneratedImage(
                image=image, request_id=name, used_prompt=words, settings={"nested": {"words": words}}
            )
        self.settings["nested"]["words"] = words
        self.result.image, self.result.request_id, self.result.used_prompt = image, name, words
        return self.result


class Synchronous(Reuses):
    def draw(self, prompt: str, references: object, seed: int) -> Any:
        return self.answer(prompt)


class Generates(Reuses):
    async def generate(self, request: GenerationRequest) -> Any:
        await asyncio.sleep(0)  # several calls run concurrently and share all objects
        return self.answer(request.prompt)


class Batches(Reuses):
    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[Any]:
        for request in requests:
            yield self.answer(request.prompt, request.id)


class Singles(Batches):
    """Returns batches of one, whose images need no id."""

    batch_size = 1


SHAPES = {"draw": Synchronous, "generate": Generates, "generate_batch": Batches, "batches of one": Singles}


def assert_each_shows_its_own_prompt(bench: Bench, count: int = COUNT, *, noted: bool = False) -> None:
    generations = bench.generations()
    assert [one.reason for one in generations.values() if one.image is None] == []
    assert len(generations) == count
    wrong = []
    for (name, _), generation in generations.items():
        assert generation.image is not None
        words = f"Draw number {name[1:]}."
        if generation.image.open().convert("RGB").tobytes() != noise_image(words, SIZE).tobytes():
            wrong.append(name)
        if noted:
            assert generation.used_prompt == words
            assert generation.settings == {"nested": {"words": words}}
    assert wrong == []


CASES = [(shape, wrap) for shape in SHAPES for wrap in ("bare", "fresh", "reused")]
CASES.remove(("generate_batch", "bare"))  # an image alone carries no id, which a batch of several needs


@pytest.mark.parametrize(("shape", "wrap"), CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_reused_objects_are_copied_before_the_next_call(tmp_path: Path, shape: str, kind: str, wrap: str) -> None:
    bench = Bench(tmp_path / "run")
    bench.run(COUNT, SHAPES[shape]([kind], wrap, str(tmp_path)))
    assert_each_shows_its_own_prompt(bench, noted=wrap != "bare")


@pytest.mark.parametrize("shape", ["draw", "generate", "generate_batch"])
def test_the_result_is_the_same_in_a_worker_process(tmp_path: Path, shape: str) -> None:
    kind = SHAPES[shape]
    args = {"kinds": list(KINDS), "wrap": "reused", "folder": str(tmp_path)}
    component_ref = ComponentRef("generators", f"tests.engine.test_snapshot:{kind.__name__}", args)
    bench = Bench(tmp_path / "run")
    bench.run(COUNT, generator_handle(kind, component_ref=component_ref), options=quick(workers=1))
    assert_each_shows_its_own_prompt(bench, noted=True)


def test_an_image_closed_after_it_was_yielded_is_stored(tmp_path: Path) -> None:
    """A path is read before the iterator continues, so the file may be removed afterwards."""

    class Sweeps:
        batch_size = 8

        def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
            for request in requests:
                with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
                    file = Path(folder) / "image.png"
                    file.write_bytes(png(request.prompt, SIZE))
                    yield GeneratedImage(image=file, request_id=request.id)

    bench = Bench(tmp_path / "run")
    bench.run(COUNT, Sweeps())
    assert_each_shows_its_own_prompt(bench)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_check_of_a_generator_compares_the_right_images(tmp_path: Path, shape: str, kind: str) -> None:
    def build() -> Reuses:
        return SHAPES[shape]([kind], "fresh", str(tmp_path))

    findings = check_generator(generator_handle(SHAPES[shape], build=build), timeout=20.0, device="cpu")
    assert worst(findings) != "fail", [str(finding) for finding in findings]


def test_one_canvas_for_a_whole_batch_is_reported_by_the_check() -> None:
    """A generator that generates everything before it returns overwrites its images; the check reports it."""

    class Lists:
        batch_size = 4

        def __init__(self) -> None:
            self.canvas = Image.new("RGB", SIZE)

        def generate_batch(self, requests: Sequence[GenerationRequest]) -> list[GeneratedImage]:
            images = []
            for request in requests:
                self.canvas.paste(noise_image(f"{request.prompt} {request.seed}", SIZE))
                images.append(GeneratedImage(image=self.canvas, request_id=request.id))
            return images

    findings = check_generator(generator_handle(Lists, build=Lists), timeout=20.0, device="cpu")
    assert [one.what for one in findings if one.level == "fail" and one.check == "several"] == [
        "results are mixed up: a request got the image of another one"
    ]


class Loses:
    """Returns a missing file for the third image, and for another one an image that raises when it is loaded."""

    batch_size = 8
    calls = 0

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        type(self).calls += 1
        for request in requests:
            image: Any = noise_image(request.prompt, SIZE)
            if "number 2." in request.prompt:
                image = Path("nowhere.png")
            elif "number 4." in request.prompt:
                image = Exits.of(image)
            yield GeneratedImage(image=image, request_id=request.id)


class Exits(Image.Image):
    """An image that calls sys.exit when it is loaded."""

    @classmethod
    def of(cls, image: Image.Image) -> Exits:
        exits = cls()
        exits.im, exits._mode, exits._size = image.im, image.mode, image.size
        return exits

    def load(self) -> Any:
        raise SystemExit("no licence")


def test_an_image_that_cannot_be_copied_fails_its_own_sample_only(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    Loses.calls = 0
    bench.run(8, Loses())
    generations = {name: generation for (name, _), generation in bench.generations().items()}
    assert Loses.calls == 1  # the others of its batch are not requested again
    assert {name for name, generation in generations.items() if generation.status == "failed"} == {"s2", "s4"}
    assert "nowhere.png cannot be read" in generations["s2"].reason
    assert "no licence" in generations["s4"].reason


@pytest.mark.parametrize("place", ["pipe", "folder", "/dev/zero"])
def test_a_path_that_is_not_a_regular_file_is_rejected_without_reading_it(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    if place == "pipe":
        os.mkfifo(path)
    elif place == "folder":
        path.mkdir()

    class Gives:
        def draw(self, prompt: str, references: object, seed: int) -> Path:
            return path

    bench = Bench(tmp_path / "run")
    bench.run(1, Gives(), options=quick(timeout=20.0))
    (generation,) = bench.generations().values()
    assert generation.status == "failed" and "not a regular file" in generation.reason


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "CMYK", "RGBA", "RGBX", "I;16", "F"])
def test_a_snapshot_encodes_as_its_original_did(mode: str) -> None:
    image = Image.new(mode, (20, 20)) if mode in {"PA", "I;16", "F"} else noise_image("x", (20, 20)).convert(mode)
    if mode == "P":
        image.info["transparency"] = image.getpixel((0, 0))
    expected = encode(image)
    taken = snapshot(image).image
    image.paste(1 if len(image.getbands()) == 1 else (1,) * len(image.getbands()), (0, 0, 20, 20))
    assert encode(taken) == expected


def test_a_copy_loses_neither_orientation_nor_colour_profile(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    noise_image("x").save(tmp_path / "a.jpg", exif=exif, icc_profile=b"a profile")
    with Image.open(tmp_path / "a.jpg") as opened:
        taken = snapshot(opened).image
    assert isinstance(taken, Image.Image)
    assert taken.getexif()[0x0112] == 6 and taken.info["icc_profile"] == b"a profile"


def test_metadata_that_contains_itself_is_left_for_the_check_of_plain_data() -> None:
    cycle: dict[str, Any] = {}
    cycle["again"] = cycle
    assert snapshot(GeneratedImage(image=png("x"), settings=cycle)).settings is cycle


def test_a_custom_result_class_that_raises_fails_its_own_request() -> None:
    class Strange(GeneratedImage):
        @property
        def reason(self) -> str:
            raise SystemExit("gone")

        @reason.setter
        def reason(self, value: str) -> None:
            """Accept what the constructor sets."""

    with pytest.raises(ContractError, match="gone"):
        encode(snapshot(Strange(image=png("x"))).image)


@pytest.mark.parametrize("value", [None, "a.png", 7, [1]])
def test_a_value_that_is_not_an_image_is_rejected_when_it_is_encoded(value: Any) -> None:
    with pytest.raises(ContractError, match="the generator returned|a.png cannot be read: the file is missing"):
        encode(snapshot(value).image)
