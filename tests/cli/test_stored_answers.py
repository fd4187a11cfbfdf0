"""Generation from stored agent answers: one search serves many generators."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import knowgen
from knowgen import api
from knowgen.core.errors import ConfigError, DataError, UsageError
from knowgen.core.records import Generation, GenerationRequest
from knowgen.generators.contract import GeneratedImage
from knowgen.interchange.agent_answers import open_answers
from knowgen.store.run import RunStore


class RecordingGenerator:
    """Records its calls. The image's width follows the prompt's length, its colour that of the first reference."""

    references = True
    revision = "1"
    calls: list[tuple[str, int]] = []  # noqa: RUF012 - prompt and number of references of each call

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        RecordingGenerator.calls.append((prompt, len(references)))
        colour = references[0].convert("RGB").getpixel((0, 0)) if references else (1, 2, 3)
        assert isinstance(colour, tuple)
        return Image.new("RGB", (64 + len(prompt), 64), colour)


class Agent:
    """Rewrites the prompt and returns two references, like an agent."""

    revision = "1"

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Any:
        for number, request in enumerate(requests):
            noted = tuple(
                {"img_id": f"IMG_{k:03d}", "path": f"{self.folder}/{k}.png", "note": "<b>seen</b>"} for k in (0, 1)
            )
            yield GeneratedImage(
                image=Image.new("RGB", (32, 32), "grey"),
                request_id=request.id,
                used_prompt="" if number == 9 else f"{request.prompt} As in the first reference image.",
                references=noted,
                evidence=({"title": "page", "text": "a fact"},),
                trajectory=({"step": 1},),
            )


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "references"
    folder.mkdir()
    for number, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (40, 40), colour).save(folder / f"{number}.png")
    RecordingGenerator.calls = []
    return folder


def generations(path: Path) -> dict[str, Generation]:
    with RunStore.read(path) as store:
        return {generation.sample_id: generation for _, generation in store.generations()}


def first_ids(count: int) -> list[str]:
    return [sample.id for sample in knowgen.load_task("knowgen_mini").samples()][:count]


def answers(folder: Path, count: int = 4) -> Path:
    ids = first_ids(count)
    records: list[dict[str, Any]] = [
        {
            "id": name,
            "prompt": "the original",
            "gen_prompt": f"A rewritten prompt, number {number}.",
            "reference_images": [
                {"img_id": "IMG_001", "local_path": "references/2.png", "note": "n", "title": "t"},
                {"img_id": "IMG_002", "local_path": "references/0.png"},
            ],
        }
        for number, name in enumerate(ids)
    ]
    path = folder / "agent.json"
    path.write_text(json.dumps(records))
    return path


def generate(out: Path, requests: Path, **settings: Any) -> api.Run:
    return knowgen.evaluate(
        "knowgen_mini", RecordingGenerator(), "pixels", out=out, ids=first_ids(4), requests=requests, **settings
    )


def test_an_image_is_generated_from_an_answers_prompt_and_references(tmp_path: Path, image_folder: Path) -> None:
    run = generate(tmp_path / "run", answers(tmp_path))
    assert run.outcome is not None and run.outcome.generated == 4
    assert sorted(RecordingGenerator.calls) == [(f"A rewritten prompt, number {number}.", 2) for number in range(4)]
    for generation in generations(tmp_path / "run").values():
        assert generation.used_prompt.startswith("A rewritten prompt")
        digest = hashlib.sha256((image_folder / "2.png").read_bytes()).hexdigest()
        assert generation.references[0] == {
            "img_id": "IMG_001", "note": "n", "title": "t", "path": str(image_folder / "2.png"), "sha256": digest
        }  # fmt: skip
        assert generation.image is not None and generation.image.open().getpixel((0, 0)) == (0, 0, 255)


def test_a_second_generator_reuses_the_search_of_a_run(tmp_path: Path, image_folder: Path) -> None:
    knowgen.evaluate("knowgen_mini", Agent(str(image_folder)), "pixels", out=tmp_path / "agent", ids=first_ids(4))
    generate(tmp_path / "run", tmp_path / "agent")
    assert {count for _, count in RecordingGenerator.calls} == {2}
    for generation in generations(tmp_path / "run").values():
        assert generation.used_prompt.endswith("As in the first reference image.")
        assert generation.evidence == ({"title": "page", "text": "a fact"},) and generation.trajectory
        assert generation.image is not None and generation.image.open().getpixel((0, 0)) == (255, 0, 0)


def test_without_a_usable_reference_the_samples_own_prompt_is_used(tmp_path: Path, image_folder: Path) -> None:
    path = answers(tmp_path)
    records = json.loads(path.read_text())
    records[0]["reference_images"] = []
    records[1]["reference_images"] = [{"local_path": "references/gone.png"}, {"img_id": "IMG_009"}, "text"]
    records[2]["gen_prompt"] = "  "
    del records[3]
    path.write_text("\n".join(json.dumps(record) for record in records))
    generate(tmp_path / "run", path)
    own = {sample.id: sample.prompt for sample in knowgen.load_task("knowgen_mini").samples()}
    stored = generations(tmp_path / "run")
    assert len(stored) == 4
    assert sorted(RecordingGenerator.calls) == sorted((own[name], 0) for name in stored)
    notes = [stored[name].settings["note"] for name in list(own)[:4]]
    assert ["names none" in notes[0], "gone.png" in notes[1], "returned no prompt" in notes[2]] == [True, True, True]
    assert "has no answer" in notes[3]
    assert not any(generation.used_prompt or generation.references for generation in stored.values())


def test_different_answers_need_another_run_and_equal_ones_do_not(tmp_path: Path, image_folder: Path) -> None:
    path = answers(tmp_path)
    generate(tmp_path / "run", path)
    again = generate(tmp_path / "run", path)
    assert again.outcome is not None and again.outcome.all_cached and len(RecordingGenerator.calls) == 4
    Image.new("RGB", (40, 40), "white").save(image_folder / "2.png")
    with pytest.raises(ConfigError, match="holds another run"):
        generate(tmp_path / "run", path)
    with pytest.raises(ConfigError, match="holds another run"):
        knowgen.evaluate("knowgen_mini", RecordingGenerator(), "pixels", out=tmp_path / "run", limit=4)
    rescored = api.score(tmp_path / "run", "pixels")  # in place: the specification does not change
    assert rescored.spec.requests.startswith("agent ")


def test_a_generator_without_references_is_refused(tmp_path: Path, image_folder: Path) -> None:
    with pytest.raises(UsageError, match="takes no reference images"):
        api.plan("knowgen_mini", "closed_book", config=api.RunConfig(requests=answers(tmp_path)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[{"id": 1}, {"id": "1"}]', "duplicate id"),
        ('[{"gen_prompt": "x"}]', "has no id"),
        ("[1, 2]", "contains no records"),
        ("[]", "contains no records"),
        ('{"id": 1}\n{"id": 2', ":2: invalid JSON"),
        ("[{]", "invalid JSON"),
    ],
)
def test_a_broken_file_is_reported_in_one_line(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=words) as caught:
        open_answers(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_a_path_that_is_neither_run_nor_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(DataError, match="run directory"):
            open_answers(path)
