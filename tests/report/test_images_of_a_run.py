"""Images of a run on its page: ground truths of any format are shown, and blank or equal images are noted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import knowgen
from benchmarks.setting import noise_image
from knowgen.core.records import image_ref
from knowgen.store.run import RunStore
from knowgen.workflows.image_notes import image_notes
from tests.helpers.engine import Bench
from tests.helpers.image_forms import FORMS, distance

FORMATS = ("several MPO turned 6", "RGB AVIF", "several GIF", "RGB TIFF", "I;16 PNG", "LAB TIFF", "P GIF")
"""Ground truths that a browser cannot show, or shows otherwise than they are scored."""


def make_task(folder: Path) -> Path:
    folder.mkdir()
    samples, truths = [], []
    for number, name in enumerate(FORMATS):
        path = folder / f"{number}.image"
        path.write_bytes(FORMS[name].data)
        samples.append({"id": f"s{number}", "prompt": name, "category": "art", "group": "science_and_knowledge"})
        image = image_ref(path).model_dump(mode="json")
        truths.append({"sample_id": f"s{number}", "image": image, "image_file": path.name})
    (folder / "task.yaml").write_text("name: formats\n")
    for name, rows in (("samples", samples), ("truth", truths)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_page_shows_truths_of_every_format_and_notes_that_all_images_are_black(tmp_path: Path) -> None:
    task = make_task(tmp_path / "task")

    def black(prompt: str) -> Image.Image:
        return Image.new("RGB", (64, 48))

    black.revision = "1"  # type: ignore[attr-defined]
    run = knowgen.evaluate(str(task), black, "pixels", out=str(tmp_path / "run"))
    note = "all 7 images have one colour only (black): a failure should be an error, not a blank image"
    assert note in run.summary.notes
    page = tmp_path / "run" / "report"
    assert note in (page / "index.html").read_text(encoding="utf-8")
    for number, name in enumerate(FORMATS):
        digest = image_ref(task / f"{number}.image").sha256
        files = sorted((page / "img").glob(f"{digest}.*"))
        assert len(files) == 2
        for file in files:
            with Image.open(file) as opened:  # as a browser does: no EXIF turn, no profile
                assert opened.format in {"PNG", "WEBP"}
                assert distance(np.asarray(opened.convert("RGB")), FORMS[name].shown) < 8
    data = "".join(file.read_text(encoding="utf-8") for file in (page / "data").iterdir())
    assert "not a stored image" not in data and "cannot be decoded" not in data


def notes_of(folder: Path, count: int, draw: Any, **fields: Any) -> tuple[str, ...]:
    bench = Bench(folder)
    bench.run(count, type("Draws", (), {"draw": lambda self, prompt, references, seed: draw(prompt, seed)})(), **fields)
    with RunStore.read(folder) as store:
        return image_notes(store)


def number(prompt: str) -> int:
    return int(prompt.rsplit(maxsplit=1)[-1].strip("."))


def test_different_images_need_no_note(tmp_path: Path) -> None:
    assert notes_of(tmp_path / "run", 4, lambda prompt, seed: noise_image(f"{prompt} {seed}"), repeats=2) == ()


def test_one_image_for_every_prompt_is_noted(tmp_path: Path) -> None:
    assert notes_of(tmp_path / "run", 6, lambda prompt, seed: noise_image("x")) == ("all 6 images are the same one",)


def test_one_image_for_some_prompts_is_noted_with_their_number(tmp_path: Path) -> None:
    notes = notes_of(tmp_path / "run", 8, lambda prompt, seed: noise_image(str(max(3, number(prompt)))))
    assert notes == ("the same image was returned for 4 different prompts",)


def test_equal_repeats_are_noted(tmp_path: Path) -> None:
    notes = notes_of(tmp_path / "run", 3, lambda prompt, seed: noise_image(prompt), repeats=2)
    assert notes == ("repeats of 3 samples are the same image, so the seed was not used",)


def test_some_blank_images_are_counted_by_colour(tmp_path: Path) -> None:
    def draw(prompt: str, seed: int) -> Image.Image:
        blank = {1: "#000000", 2: "#000000", 5: "#0a141e"}.get(number(prompt))
        return noise_image(prompt) if blank is None else Image.new("RGB", (40, 40), blank)

    (note,) = notes_of(tmp_path / "run", 7, draw)
    assert note.startswith("3 of 7 images have one colour only (2 black, 1 #0a141e)")


def test_a_failed_generation_is_not_a_blank_image(tmp_path: Path) -> None:
    def draw(prompt: str, seed: int) -> Image.Image:
        if number(prompt) == 0:
            raise ValueError("no")
        return Image.new("RGB", (40, 40), "white")

    (note,) = notes_of(tmp_path / "run", 2, draw)
    assert note.startswith("the only image has one colour only (white)")
