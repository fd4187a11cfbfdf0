"""The four baseline systems: their interfaces, their seeds, and the data that each may use."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from knowgen.core import registry
from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.records import AgentAnswer, AnswerStatus, GenerationRequest, GroundTruth
from knowgen.generators.contract import capabilities_of
from knowgen.worlds.baselines.systems import ClosedBook, Noise, OpenBook, Oracle, Painter
from knowgen.worlds.checker.ocr import read_lines
from tests.helpers.built_world import BuiltWorld

PROMPT = (
    "In a flower garden, a dark billboard headed \"On Loan\" gives the year in which it was built; near it stands the "
    "tower Nowhere, drawn with the true colours and markings."
)  # fmt: skip


def pixels(image: object) -> np.ndarray:
    assert isinstance(image, Image.Image)
    return np.asarray(image.convert("RGB"))


def test_the_systems_are_registered_with_their_capabilities() -> None:
    traits = {
        name: capabilities_of(registry.load(registry.resolve("generators", name)))
        for name in ("noise", "closed_book", "open_book", "oracle")
    }
    assert [traits[name].shape for name in traits] == ["draw", "draw", "answer", "generate"]
    assert [name for name in traits if traits[name].privileged] == ["oracle"]
    assert [name for name in traits if traits[name].wants_search] == ["open_book"]
    assert all(traits[name].revision for name in traits)


@pytest.mark.parametrize("system", [Noise(), ClosedBook()])
def test_the_image_of_a_system_depends_on_prompt_and_seed(system: Noise | ClosedBook) -> None:
    first, again, other = (pixels(system.draw(PROMPT, [], seed)) for seed in (5, 5, 6))
    assert first.shape == (512, 768, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, pixels(system.draw(PROMPT.replace("Nowhere", "Elsewhere"), [], 5)))


def open_book_answer(world: BuiltWorld, prompt: str, *, seed: int = 0) -> AgentAnswer:
    request = GenerationRequest(id="any", prompt=prompt, seed=seed)
    return asyncio.run(OpenBook(world.search).answer(request))


def test_open_book_records_evidence_steps_and_references(built_world: BuiltWorld) -> None:
    sample = next(s for s in built_world.task.samples() if s.difficulty == "medium" and s.text_required)
    answer = open_book_answer(built_world, sample.prompt)
    assert (answer.status, answer.ending) == (AnswerStatus.OK, "answer")
    assert answer.prompt.startswith(sample.prompt)
    assert answer.evidence and all(set(page) == {"title", "url", "text"} for page in answer.evidence)
    tools = [call["name"] for step in answer.trajectory for call in step["calls"]]
    assert set(tools) == {"search", "browse", "image_search"} and len(tools) <= 8
    assert len(answer.references) == len(answer.reference_notes) >= 1
    assert {part.part: part.usage.cost for part in answer.usage}["policy"] == 0


def test_open_book_loads_its_backend_by_name(built_world: BuiltWorld) -> None:
    sample = next(built_world.task.samples())
    request = GenerationRequest(id="any", prompt=sample.prompt)
    by_name = asyncio.run(OpenBook(f"world:{built_world.folder / 'search'}").answer(request))
    expected = open_book_answer(built_world, sample.prompt)
    assert (by_name.prompt, by_name.references) == (expected.prompt, expected.references)


def test_open_book_finds_most_subjects_and_is_misled_by_some(built_world: BuiltWorld) -> None:
    correct, total = 0, 0
    for sample in built_world.task.samples():
        answer = open_book_answer(built_world, sample.prompt)
        names = {subject["name"] for subject in built_world.task.truth(sample.id).subjects}
        titles = {note["note"].removeprefix("taken to show ") for note in answer.reference_notes}
        correct, total = correct + len(names & titles), total + len(names)
    assert 0.7 <= correct / total < 1


def test_concurrent_requests_give_the_same_answers_as_single_ones(built_world: BuiltWorld) -> None:
    prompts = [sample.prompt for sample in list(built_world.task.samples())[:6]]

    async def together() -> list[AgentAnswer]:
        system = OpenBook(built_world.search)
        return await asyncio.gather(*(system.answer(GenerationRequest(id=p[:9], prompt=p)) for p in prompts))

    for prompt, answer in zip(prompts, asyncio.run(together()), strict=True):
        alone = open_book_answer(built_world, prompt)
        assert (answer.prompt, answer.references) == (alone.prompt, alone.references)


def test_the_painter_shows_its_references_and_writes_what_is_quoted(built_world: BuiltWorld) -> None:
    hits = asyncio.run(built_world.search.image_search("tower", 5))
    reference = next(hit.image for hit in hits if hit.image is not None).open()
    plain = pixels(Painter().draw(PROMPT, [], 3))
    assert np.array_equal(plain, pixels(Painter().draw(PROMPT, [], 3)))
    assert not np.array_equal(plain, pixels(Painter().draw(PROMPT, [reference], 3)))
    shown = pixels(Painter().draw(f'{PROMPT} It also says "Ferry Times".', [], 3))
    assert {"On Loan", "Ferry Times"} <= {line.text for line in read_lines(shown)}
    silent = pixels(Painter().draw("A tower in a flower garden; leave out all letters.", [], 3))
    assert not read_lines(silent)


def test_the_oracle_needs_the_ground_truth_of_a_world() -> None:
    with pytest.raises(ConfigError, match="no ground truth"):
        asyncio.run(Oracle().generate(GenerationRequest(id="any", prompt=PROMPT)))
    foreign = GroundTruth(sample_id="s", required_text=("Hello",))
    with pytest.raises(UsageError, match="world build"):
        asyncio.run(Oracle().generate(GenerationRequest(id="any", prompt=PROMPT, truth=foreign)))


def test_the_oracle_does_not_copy_the_ground_truth_image(built_world: BuiltWorld) -> None:
    for sample in list(built_world.task.samples())[:6]:
        truth = built_world.task.truth(sample.id)
        request = GenerationRequest(id="any", prompt=sample.prompt, truth=truth)
        image = pixels(asyncio.run(Oracle().generate(request)).image)
        assert truth.image is not None
        shown = pixels(truth.image.open())
        assert image.shape == shown.shape
        assert (np.abs(image.astype(int) - shown).max(axis=2) > 24).mean() > 0.03, "another layout"


def test_importing_the_systems_loads_no_heavy_library() -> None:
    script = (
        "import sys; import knowgen.worlds.baselines.systems; "
        "print([name for name in ('numpy', 'PIL', 'cv2', 'bm25s', 'Stemmer') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
