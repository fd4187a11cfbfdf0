"""Whatever path an image takes, the same upright pixels are stored, judged, compared, checked and shown."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from knowgen.clients.chat.image_encoding import ImageEncoding, encode_bytes
from knowgen.core.records import Generation, GenerationRequest, GenerationStatus, GroundTruth, ImageRef, Sample
from knowgen.engine.executors.concurrency import InvocationEvent
from knowgen.engine.executors.invoke import invoke
from knowgen.engine.imaging import encode
from knowgen.generators.hosted.images import ReferenceLimits, load_references
from knowgen.generators.http.generator import HttpGenerator
from knowgen.report.image_files import make_images
from knowgen.scorers.similarity.pixels import PixelSimilarity
from knowgen.validation.probe import ProbedImage, probed_image
from knowgen.worlds.checker.scorer import WorldCheck
from tests.helpers.image_forms import FORMS, ImageForm, Pixels, distance, picture, plain_pixels, saved

LOSSY = 6.0
"""Mean difference in levels that the WebP of a page may add."""


def reference(form: ImageForm, folder: Path) -> ImageRef:
    path = folder / "an image"
    path.write_bytes(form.data)
    height, width = form.shown.shape[:2]
    with Image.open(path) as opened:
        kind = str(opened.format)
    digest = hashlib.sha256(form.data).hexdigest()
    return ImageRef(sha256=digest, width=width, height=height, format=kind, path=path)


def generation(image: ImageRef) -> Generation:
    return Generation(sample_id="a", status=GenerationStatus.OK, image=image)


def stored(form: ImageForm, folder: Path, _: pytest.MonkeyPatch) -> Pixels:
    """What a generator returned as a file: kept as it is, or written as a plain PNG."""
    result = encode(reference(form, folder).path)
    assert (result.data == form.data) == form.kept
    assert (result.height, result.width) == form.shown.shape[:2]
    (folder / "stored").write_bytes(result.data)
    if not form.kept:
        return plain_pixels(result.data)
    return np.asarray(reference(form, folder).open())


def stored_as_object(form: ImageForm, folder: Path, _: pytest.MonkeyPatch) -> Pixels:
    """What a generator returned as an image that Pillow has opened."""
    return plain_pixels(encode(Image.open(io.BytesIO(form.data))).data)


def judged(form: ImageForm, folder: Path, _: pytest.MonkeyPatch) -> Pixels:
    data, width, height = encode_bytes(Path(str(reference(form, folder).path)), "it", ImageEncoding())
    assert (height, width) == form.shown.shape[:2]
    return plain_pixels(data)


def checked_in_a_world(form: ImageForm, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Pixels:
    """The pixels that the world checker assesses."""
    seen: list[Pixels] = []

    class Done(Exception):
        """Ends the scoring after its pixels are known."""

    def assess(pixels: Pixels, _: Any) -> None:
        seen.append(pixels)
        raise Done

    monkeypatch.setattr("knowgen.worlds.checker.assessment.assess_image", assess)
    monkeypatch.setattr("knowgen.worlds.checker.requirements.read_requirements", lambda truth: None)
    truth = GroundTruth(sample_id="a", required_text=("x",), subjects=({"name": "x"},))
    with pytest.raises(Done):
        list(WorldCheck().score_batch([(Sample(id="a", prompt="p"), truth, generation(reference(form, folder)))]))
    return seen[0]


def shown_small(form: ImageForm, folder: Path, _: pytest.MonkeyPatch) -> Pixels:
    return _shown(form, folder, "small")


def shown_large(form: ImageForm, folder: Path, _: pytest.MonkeyPatch) -> Pixels:
    return _shown(form, folder, "large")


def _shown(form: ImageForm, folder: Path, which: str) -> Pixels:
    """What a browser shows on the page: it reads PNG, JPEG and WebP, and is trusted with nothing but plain pixels."""
    image = reference(form, folder)
    (folder / "img").mkdir(exist_ok=True)
    files = make_images([(image, image.path)], folder / "img")[image.sha256]
    assert files.fault == "" and (files.height, files.width) == form.shown.shape[:2]
    with Image.open(folder / "img" / getattr(files, which)) as opened:
        assert opened.format in {"PNG", "JPEG", "WEBP"} and not getattr(opened, "is_animated", False)
        return np.asarray(opened.convert("RGB"))


def probed(form: ImageForm, folder: Path, _: pytest.MonkeyPatch) -> Pixels:
    """What `knowgen check generator` looks at."""
    image = probed_image(reference(form, folder).path)
    assert isinstance(image, ProbedImage)
    return image.pixels


def drawn_with(form: ImageForm, folder: Path, _: pytest.MonkeyPatch) -> Pixels:
    """The reference image that a `draw` generator is given."""
    seen: list[Image.Image] = []

    class Draws:
        def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
            seen.extend(references)
            return Image.new("RGB", (20, 20))

    events: list[InvocationEvent] = []
    request = GenerationRequest(id="a", prompt="p", references=(reference(form, folder),))
    invoke("draw", Draws(), [request], events.append)
    assert [event.kind for event in events] == ["result", "end"]
    return np.asarray(seen[0])


def sent_to_a_service(form: ImageForm, folder: Path, _: pytest.MonkeyPatch) -> Pixels:
    """A reference image as a hosted service reads it."""
    (sent,), _settings = load_references([reference(form, folder)], ReferenceLimits(1, 10**7, 10**7))
    with Image.open(io.BytesIO(sent.data)) as opened:
        return np.asarray(opened.convert("RGB"))


def sent_over_http(form: ImageForm, folder: Path, _: pytest.MonkeyPatch) -> Pixels:
    """A reference image as a server of the `/generate` API reads it."""
    import base64

    generator = HttpGenerator("http://127.0.0.1:1")
    (url,) = generator._body(GenerationRequest(id="a", prompt="p", references=(reference(form, folder),)))["image_urls"]
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as opened:
        return np.asarray(opened.convert("RGB"))


PATHS: dict[Callable[[ImageForm, Path, pytest.MonkeyPatch], Pixels], float] = {
    stored: 0.0,
    stored_as_object: 0.0,
    judged: 2.5,
    checked_in_a_world: 0.0,
    shown_small: LOSSY,
    shown_large: LOSSY,
    probed: 0.0,
    drawn_with: 0.0,
    sent_to_a_service: 0.0,
    sent_over_http: 0.0,
}
"""Ways to pixels, each with the mean difference in levels that its own encoding may add."""


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_every_form_keeps_its_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Callable[[ImageForm, Path, pytest.MonkeyPatch], Pixels]
) -> None:
    wrong = {}
    for number, (name, form) in enumerate(FORMS.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        off = distance(path(form, folder, monkeypatch), form.shown)
        if off > form.tolerance + PATHS[path]:
            wrong[name] = off
    assert wrong == {}


def test_a_file_is_as_similar_to_what_it_shows_as_a_plain_png(tmp_path: Path) -> None:
    wrong = {}
    for number, (name, form) in enumerate(list(FORMS.items())[::4]):
        folder = tmp_path / str(number)
        folder.mkdir()
        plain = folder / "plain.png"
        Image.fromarray(form.shown).save(plain)
        digest = hashlib.sha256(plain.read_bytes()).hexdigest()
        truth = ImageRef(sha256=digest, width=1, height=1, format="PNG", path=plain)
        item = (
            Sample(id="a", prompt="p"),
            GroundTruth(sample_id="a", image=truth),
            generation(reference(form, folder)),
        )
        (score,) = PixelSimilarity().score_batch([item])
        if min(score.strict.values.values()) < 0.75:
            wrong[name] = score.strict.values
    assert wrong == {}


def test_what_is_sent_byte_for_byte_and_what_is_not(tmp_path: Path) -> None:
    """A file that a service might read otherwise than a judge is sent as a plain PNG, and this is recorded."""
    limits = ReferenceLimits(1, 10**7, 10**7)
    (sent,), settings = load_references([reference(FORMS["RGB JPEG"], tmp_path)], limits)
    assert sent.data == FORMS["RGB JPEG"].data and "references_changed" not in settings
    (sent,), settings = load_references([reference(FORMS["RGB turned 6 JPEG"], tmp_path)], limits)
    assert sent.mime == "image/png"
    assert settings["references_changed"] == ["1: JPEG sent as PNG; turned upright (EXIF orientation 6)"]


def test_large_images_and_a_small_side_limit_agree_too(tmp_path: Path) -> None:
    image = Image.fromarray(picture()).resize((256, 192), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "big.webp"
    path.write_bytes(saved(image, "WEBP", lossless=True, exif=exif.tobytes()))
    data, width, height = encode_bytes(path, "it", ImageEncoding(max_side=64))
    assert (width, height) == (48, 64)
    assert distance(plain_pixels(data), np.rot90(picture(), -1)) < 4
