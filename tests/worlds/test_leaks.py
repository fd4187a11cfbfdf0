"""Ground truth cannot leak: `open_book` knows only the pages, and collecting everything does not score higher."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from knowgen.core.errors import DataError
from knowgen.core.records import GenerationRequest, request_id
from knowgen.search.contract import Hit, ImageHit, Page
from knowgen.worlds.baselines.systems import Painter
from knowgen.worlds.search import WorldSearch
from tests.helpers.adversary import Sprayer, k_score
from tests.helpers.built_world import BuiltWorld, open_book, rows_of

SEARCHED = ("pages.jsonl", "pictures.jsonl", "pictures")


class EmptySearch:
    """A backend without any pages or images."""

    version = "empty"

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        return []

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        return []

    async def open(self, url: str) -> Page:
        raise DataError("page not found", where=url)


def pixels(image: object) -> np.ndarray:
    assert isinstance(image, Image.Image)
    return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def expected_pixels(built_world: BuiltWorld) -> dict[str, np.ndarray]:
    return {sample.id: pixels(open_book(built_world.search, sample.prompt)[1]) for sample in built_world.task.samples()}


def copy_searched(world: BuiltWorld, to: Path) -> Path:
    for name in SEARCHED:
        source = world.folder / "search" / name
        if source.is_dir():
            shutil.copytree(source, to / name)
        else:
            shutil.copy(source, to / name)
    return to


def test_requests_contain_nothing_but_the_prompt(built_world: BuiltWorld) -> None:
    assert set(GenerationRequest.model_fields) == {"id", "prompt", "repeat", "seed", "references", "truth"}
    for sample in built_world.task.samples():
        names = {request_id(sample.id, 0), sample.id}
        assert all(re.fullmatch(r"[0-9a-f]{16}", name) for name in names) and len(names) == 2


def test_open_book_paints_the_same_pixels_without_the_ground_truth_files(
    built_world: BuiltWorld, expected_pixels: dict[str, np.ndarray], tmp_path: Path
) -> None:
    bare = WorldSearch(str(copy_searched(built_world, tmp_path)))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(SEARCHED)
    for sample in built_world.task.samples():
        assert np.array_equal(pixels(open_book(bare, sample.prompt)[1]), expected_pixels[sample.id])


def test_open_book_opens_no_other_file_of_the_world(built_world: BuiltWorld, tmp_path: Path) -> None:
    """An audit hook sees every file that the process opens."""
    prompts = [sample.prompt for sample in list(built_world.task.samples())[:8]]
    script = tmp_path / "watched.py"
    script.write_text(
        "import asyncio, json, sys\n"
        "from knowgen.core.records import GenerationRequest\n"
        "from knowgen.worlds.baselines.systems import OpenBook\n"
        "folder, prompts, opened = sys.argv[1], json.loads(sys.argv[2]), set()\n"
        "def watch(event, args):\n"
        "    if event == 'open' and str(args[0]).startswith(folder):\n"
        "        opened.add(str(args[0])[len(folder) + 1:].split('/')[0])\n"
        "sys.addaudithook(watch)\n"
        "system = OpenBook('world:' + folder)\n"
        "for prompt in prompts:\n"
        "    asyncio.run(system.answer(GenerationRequest(id='x', prompt=prompt)))\n"
        "print(json.dumps(sorted(opened)))\n"
    )
    command = [sys.executable, str(script), str(built_world.folder / "search"), json.dumps(prompts)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["pages.jsonl", "pictures", "pictures.jsonl"]


def test_the_id_of_a_request_has_no_effect(built_world: BuiltWorld, expected_pixels: dict[str, np.ndarray]) -> None:
    for sample in list(built_world.task.samples())[:6]:
        _, image = open_book(built_world.search, sample.prompt, name=sample.category)
        assert np.array_equal(pixels(image), expected_pixels[sample.id])


def test_with_an_empty_search_open_book_paints_the_prompt_alone(
    built_world: BuiltWorld, expected_pixels: dict[str, np.ndarray]
) -> None:
    differing = 0
    for sample in built_world.task.samples():
        empty, image = open_book(EmptySearch(), sample.prompt)
        assert np.array_equal(pixels(image), pixels(Painter().draw(sample.prompt, [], 0)))
        assert not empty.references and not empty.evidence
        differing += not np.array_equal(pixels(image), expected_pixels[sample.id])
    assert differing >= 46, "what it looks up shows"


def written(image: object) -> str:
    """Return the text of an image, read with the OCR of the check."""
    from knowgen.worlds.checker.ocr import read_lines

    assert isinstance(image, Image.Image)
    return "\n".join(line.text for line in read_lines(np.asarray(image.convert("RGB"))))


def test_the_painted_text_follows_a_changed_fact_on_a_page(
    built_world: BuiltWorld, expected_pixels: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """Only the year on the article of some samples' subjects is replaced."""
    copy_searched(built_world, tmp_path)
    changed: dict[str, tuple[str, str]] = {}
    pages = {row["url"]: row for row in rows_of(tmp_path / "pages.jsonl")}
    for sample in built_world.task.samples():
        truth = built_world.task.truth(sample.id)
        own = pages[f"https://atlas.example/{truth.subjects[0]['name'].lower()}"]
        years = [text for text in truth.required_text if re.fullmatch(r"\d{4}", text) and own["text"].count(text) == 1]
        if sample.difficulty == "easy" and years and "year in which" in sample.prompt and len(truth.subjects) == 1:
            new = str(int(years[0]) - 111)
            own["text"] = own["text"].replace(years[0], new)
            changed[sample.id] = (years[0], new)
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pages.values()))
    assert len(changed) >= 2
    search = WorldSearch(str(tmp_path))
    followed = 0
    for sample in built_world.task.samples():
        if sample.id not in changed:
            continue
        old, new = changed[sample.id]
        before, after = (
            written(Image.fromarray(expected_pixels[sample.id])),
            written(open_book(search, sample.prompt)[1]),
        )
        if old in before:
            followed += 1
            assert new in after and old not in after
    assert followed >= 2


@pytest.mark.slow
def test_writing_every_name_and_tiling_every_image_scores_below_open_book(
    built_world: BuiltWorld, tmp_path: Path
) -> None:
    samples = list(built_world.task.samples())[:24]
    honest = {sample.id: open_book(built_world.search, sample.prompt)[1] for sample in samples}
    target = k_score(built_world, honest, tmp_path / "open_book")
    for manner in ("tiles", "sign", "page"):
        sprayer = Sprayer(built_world.search, manner)
        sprayed = {sample.id: asyncio.run(sprayer.draw(sample.prompt)) for sample in samples}
        assert k_score(built_world, sprayed, tmp_path / manner) < target - 0.1, manner
