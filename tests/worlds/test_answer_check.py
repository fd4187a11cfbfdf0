"""The answer check of synthetic worlds: what a right answer is worth, what a wrong one, and what does not pay."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import UnscorableError
from knowgen.core.records import Generation, GroundTruth, Sample
from knowgen.search.blank import BlankSearch
from knowgen.search.shuffled import ShuffledSearch
from knowgen.training.rewards import text_reward
from knowgen.worlds.answer_check import WorldAnswer, check_answer
from knowgen.worlds.content.search_images import SearchImage, render_search_image
from knowgen.worlds.rendering.appearance import Appearance
from knowgen.worlds.search import WorldSearch
from knowgen.worlds.task import knowgen_mini
from knowgen.worlds.things.task import ThingsTask
from tests.helpers.built_world import open_book

PROMPT = 'In a garden stands the tower built by Orda Pell; a sign headed "On Loan" gives its name and its year.'
TRUTH = {"sample_id": "a", "text_required": True, "required_text": ("On Loan", "Ovar", "1926")}


def reference(look: dict[str, Any], view: str, folder: Path) -> dict[str, Any]:
    """Return a reference image of an appearance, as a generation records it."""
    path = folder / f"{view}-{abs(hash(str(look)))}.png"
    image = SearchImage(path.stem, "", "", Appearance.from_dict(look), view, "museum")  # type: ignore[arg-type]
    render_search_image(image).save(path)
    return {"img_id": "IMG_001", "title": "", "note": "", "sha256": path.stem, "path": str(path)}


def right_prompt(sample: Sample, truth: GroundTruth) -> str:
    """Return a prompt with all names and texts that a sample asks for."""
    names = ", ".join(str(subject["name"]) for subject in truth.subjects)
    quoted = ", ".join(f'"{line}"' for line in truth.extra["lines"])
    return f"{sample.prompt} It shows {names}. The lettering reads {quoted}."


SEARCH = f"world:{knowgen_mini().path / 'search'}"
"""Search backend of the bundled world."""


def bundled(difficulty: str, count: int) -> list[tuple[Sample, GroundTruth]]:
    """Return the first samples of a difficulty of the bundled world, with their ground truths."""
    task = knowgen_mini()
    chosen = [each for each in task.samples() if each.difficulty == difficulty][:count]
    assert len(chosen) == count
    return [(each, task.truth(each.id)) for each in chosen]


def test_names_facts_and_references_that_are_right_are_worth_1(tmp_path: Path) -> None:
    samples = [each for difficulty in ("easy", "medium", "hard") for each in bundled(difficulty, 2)]
    for number, (sample, truth) in enumerate(samples):
        view = ("plain", "turned", "scene")[number % 3]
        references = [reference(subject["look"], view, tmp_path) for subject in truth.subjects]
        parts = check_answer(sample, truth, right_prompt(sample, truth), references)
        assert parts.value == 1.0, (sample.prompt, parts)


def test_a_reference_of_the_look_alike_is_worth_nothing(tmp_path: Path) -> None:
    for sample, truth in bundled("medium", 3):
        wrong = [reference(subject["look_alike"], "plain", tmp_path) for subject in truth.subjects]
        parts = check_answer(sample, truth, right_prompt(sample, truth), wrong)
        assert parts.shown[0] == 0 and parts.named[0] == parts.named[1] and parts.facts[0] == parts.facts[1]
        applies = any(parts.named) or any(parts.facts)
        assert (0.0 < parts.value < 1.0) if applies else parts.value == 0.0


def test_further_references_lower_the_value(tmp_path: Path) -> None:
    sample, truth = bundled("hard", 1)[0]
    look, other = truth.subjects[0]["look"], truth.subjects[0]["look_alike"]
    both = [reference(look, "plain", tmp_path), reference(other, "plain", tmp_path)]
    assert check_answer(sample, truth, right_prompt(sample, truth), both).shown == (1, 2)
    twice = [reference(look, "plain", tmp_path), reference(look, "turned", tmp_path)]
    assert check_answer(sample, truth, right_prompt(sample, truth), twice).shown == (1, 2), "one would have sufficed"


def as_generation(sample: Sample, prompt: str, references: Sequence[dict[str, Any]] = ()) -> Generation:
    return Generation(sample_id=sample.id, status="ok", used_prompt=prompt, references=tuple(references))


def scripted(search: Any, samples: Sequence[tuple[Sample, GroundTruth]]) -> list[float]:
    """Return what the answers of the rules of `open_book` are worth."""
    values = []
    for sample, truth in samples:
        answer, _ = open_book(search, sample.prompt)
        references = [
            {**note, "path": str(image.path)}
            for note, image in zip(answer.reference_notes, answer.references, strict=True)
        ]
        score = WorldAnswer().score(sample, truth, as_generation(sample, answer.prompt, references))
        values.append(text_reward(score).value or 0.0)
    return values


def test_a_search_of_other_queries_leaves_nothing() -> None:
    samples = bundled("easy", 4)
    assert sum(scripted(WorldSearch(SEARCH.removeprefix("world:")), samples)) / len(samples) > 0.7
    assert scripted(ShuffledSearch(SEARCH), samples) == [0.0] * len(samples)


def test_blank_images_leave_the_facts_alone() -> None:
    search = BlankSearch(SEARCH)
    sample, truth = bundled("easy", 1)[0]
    hits = asyncio.run(search.image_search(str(truth.subjects[0]["name"])))
    images = [hit.image.sha256 for hit in hits if hit.image is not None]
    assert len(images) > 1 and len(set(images)) == len(images), "an agent takes equal files for one image"
    assert check_answer(sample, truth, sample.prompt, [{"path": str(hits[0].image.path)}]).shown == (0, 1)  # type: ignore[union-attr]


def parts_of(gen_prompt: str, **truth: Any) -> Any:
    """Return what a prompt is worth without references, for the tower Ovar of 1926."""
    subject = {"name": "Ovar", "look": {}, "look_alike": {}}
    full = GroundTruth(**{**TRUTH, "subjects": (subject,), **truth})
    return check_answer(Sample(id="a", prompt=PROMPT), full, gen_prompt, [])


def test_what_the_prompt_says_itself_earns_nothing() -> None:
    parts = parts_of(PROMPT)
    assert (parts.named, parts.facts, parts.value) == ((0, 1), (0, 2), 0.0)
    assert parts_of("").value == 0.0
    assert check_answer(
        Sample(id="a", prompt="The tower Ovar, please."),
        GroundTruth(sample_id="a", text_required=False, subjects=({"name": "Ovar", "look": {}, "look_alike": {}},)),
        "The tower Ovar.",
        [],
    ).named == (0, 0)


@pytest.mark.parametrize(
    ("gen_prompt", "facts"),
    [
        ('The tower Ovar with a sign: "On Loan", "Ovar", "1926".', 2),
        ("the tower OVAR, built in 1926", 2),
        ("The tower Ovar, built in 1927", 1),
        ("The tower Ovarium of 19260", 0),
        ("The tower Ovar, built in 1926 or 1927", 1),
        ("The tower Ovar, built in 1926, 12 metres high", 2),
        ('Signs: "Ovar", "1926", "Teles", "Marn", "Ubar", "Kolm"', 0),
        ("The tower Ovar of 1926. " + "So it is. " * 500, 0),
    ],
)
def test_a_fact_counts_as_whole_words_and_not_beside_others_of_its_kind(gen_prompt: str, facts: int) -> None:
    assert parts_of(gen_prompt).facts == (facts, 2)


def test_a_name_counts_in_the_note_of_a_reference_too(tmp_path: Path) -> None:
    sample, truth = bundled("easy", 1)[0]
    picture = reference(truth.subjects[0]["look"], "plain", tmp_path) | {"note": f"shows {truth.subjects[0]['name']}"}
    asked = sample.model_copy(update={"prompt": "What is it?"})
    assert check_answer(asked, truth, "A picture.", [picture]).named[0] == 1
    assert check_answer(asked, truth, "A picture.", []).named[0] == 0


def test_a_thing_is_right_with_its_name_its_colour_alone_and_a_picture_of_it() -> None:
    task = ThingsTask("40:5")
    by_colour = {task.truth(one.id).subjects[0]["colour"]: one for one in task.samples()}
    sample = by_colour["gold"]
    truth, pink = task.truth(sample.id), task.truth(by_colour["pink"].id)
    name = truth.subjects[0]["name"]
    assert truth.image is not None and pink.image is not None
    right, wrong = ({"path": str(image.path)} for image in (truth.image, pink.image))
    for prompt, references, value in (
        (f"gold {name}", [right], 1.0),
        (f"gold {name}", [], 0.5),
        (f"gold {name}", [wrong], 0.5),
        (f"gold {name}", [right, wrong], 0.75),
        (f"pink {name}", [right], 0.5),
        (f"gold pink {name}", [], 0.0),
        ("gold thing", [], 0.0),
        (f"draw a {name}", [wrong], 0.0),
        ("", [], 0.0),
    ):
        assert check_answer(sample, truth, prompt, references).value == value, (prompt, len(references))


def test_a_score_says_what_is_missing_and_is_a_text_reward() -> None:
    task = ThingsTask("1:4")
    (sample,) = task.samples()
    score = WorldAnswer().score(sample, task.truth(sample.id), as_generation(sample, "a thing"))
    assert score.strict.values == {"answer": 0.0} and "is not named" in score.strict.rationale
    assert score.details["facts"] == [0, 1]
    assert text_reward(score).value == 0.0


def test_what_cannot_be_checked_is_not_worth_0(tmp_path: Path) -> None:
    task = ThingsTask("1:4")
    (sample,) = task.samples()
    truth = task.truth(sample.id)
    with pytest.raises(UnscorableError, match="the file of reference 1 is not known"):
        check_answer(sample, truth, "gold thing", [{"sha256": "ab"}])
    with pytest.raises(UnscorableError, match="does not open"):
        check_answer(sample, truth, "gold thing", [{"path": str(tmp_path / "gone.png")}])
    with pytest.raises(UnscorableError, match="is not from a world"):
        check_answer(sample, GroundTruth(sample_id="a", subjects=({"name": "Ovar"},)), "Ovar", [])
