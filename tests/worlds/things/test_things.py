"""The task `things`: its worlds, search, image model, check and teacher. What a thing looks like stands in no text."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knowgen.agents.gen_searcher import GenSearcher, answer_of
from knowgen.core.errors import DataError, UnscorableError, UsageError
from knowgen.core.records import Generation, GroundTruth, ImageRef, Sample
from knowgen.search.blank import BlankSearch
from knowgen.search.load import load_search
from knowgen.search.shuffled import ShuffledSearch
from knowgen.tasks.load import load_task
from knowgen.tasks.things_words import COLOURS
from knowgen.worlds.things.check import ThingsCheck
from knowgen.worlds.things.painter import ThingsPainter
from knowgen.worlds.things.search import ThingsSearch
from knowgen.worlds.things.task import ThingsTask
from knowgen.worlds.things.teacher import CONFUSED, ThingsTeacher
from knowgen.worlds.things.world import colour_of, draw_thing, things_of

AGENT: dict[str, Any] = {"prompt": "short", "tools": "image_search", "rounds": 2, "tool_calls": 2, "date": "2026-01-01"}


def found(search: Any, query: str) -> list[Image.Image]:
    """Return the images that a backend finds."""
    return [hit.image.open() for hit in asyncio.run(search.image_search(query)) if hit.image is not None]


def test_even_and_odd_seeds_have_no_name_in_common() -> None:
    for even, odd in ((0, 1), (2, 7), (1000, 1)):
        assert not set(things_of(even)) & set(things_of(odd))
    assert min(len(things_of(0)), len(things_of(1))) > 800


def test_seeds_of_one_half_have_the_same_names_in_other_colours() -> None:
    one, other = things_of(0), things_of(2)
    assert set(one) == set(other)
    equal = sum(one[name] == other[name] for name in one) / len(one)
    assert equal == pytest.approx(1 / 6, abs=0.05)


def test_the_size_of_a_task_stands_before_its_seed() -> None:
    small, large = load_task("things:5:3"), load_task("things:3")
    assert (len(small), len(large)) == (5, 800)
    assert [one.id for one in small.samples()] == [one.id for one in large.samples()][:5]
    assert small.search == large.search == "things:3"
    assert small.version != large.version != load_task("things:4").version


@pytest.mark.parametrize("name", ["things:", "things:x", "things:1:2:3", "things:0:1", "things:-1", "things:5000:1"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        load_task(name)


def test_no_text_says_what_a_thing_looks_like() -> None:
    task, search = ThingsTask("20:4"), ThingsSearch("4")
    for sample in task.samples():
        name = sample.prompt.removeprefix("draw a ")
        hits = asyncio.run(search.image_search(name))
        public = json.dumps([sample.model_dump(mode="json"), *(hit.model_dump(mode="json") for hit in hits)])
        assert not any(f'"{colour}' in public or f" {colour}" in public for colour in COLOURS)
        assert asyncio.run(search.search(name)) == []


def test_the_ground_truth_is_the_colour_with_a_picture_that_no_search_returns() -> None:
    task, search = ThingsTask("10:6"), ThingsSearch("6")
    for sample in task.samples():
        truth = task.truth(sample.id)
        assert truth.image is not None and colour_of(truth.image.open()) == truth.subjects[0]["colour"]
        hits = asyncio.run(search.image_search(truth.subjects[0]["name"]))
        assert [hit.image.sha256 for hit in hits if hit.image] != [truth.image.sha256]
    with pytest.raises(DataError, match="no sample 'nothing'"):
        task.truth("nothing")


def test_each_search_finds_a_new_picture_and_the_same_in_every_process() -> None:
    name = next(iter(things_of(2)))
    one, other = ThingsSearch("2"), ThingsSearch("2")
    first = [found(one, name)[0].tobytes() for _ in range(5)]
    assert len(set(first)) == 5
    assert [found(other, name.upper())[0].tobytes() for _ in range(5)] == first
    assert {colour_of(found(one, name)[0]) for _ in range(20)} == {things_of(2)[name]}


def test_another_name_finds_nothing() -> None:
    search = ThingsSearch("2")
    for query in ("ko", next(iter(things_of(3))), "", "a picture of anything"):
        assert found(search, query) == []


def test_a_shuffled_search_finds_pictures_of_other_things() -> None:
    things = dict(list(things_of(2).items())[:120])
    search = ShuffledSearch("things:2")
    seen = [colour_of(found(search, name)[0]) for name in things]
    right = sum(colour == things[name] for colour, name in zip(seen, things, strict=True)) / len(things)
    assert right == pytest.approx(1 / 6, abs=0.12)
    assert None not in seen


def test_a_blank_search_finds_as_many_pictures_of_the_same_size_that_show_nothing() -> None:
    name = next(iter(things_of(2)))
    search = load_search("blank:things:2")
    assert isinstance(search, BlankSearch)
    assert "things" in search.version and search.version != ThingsSearch("2").version
    (image,) = found(search, name)
    assert image.size == (64, 64) and colour_of(image) is None and len(image.getcolors() or []) == 1
    assert found(search, "nothing") == []
    asyncio.run(search.close())


@pytest.mark.parametrize("colour", COLOURS)
def test_the_colour_of_a_picture_is_read_from_its_pixels(colour: str) -> None:
    rng = random.Random(colour)
    assert [colour_of(draw_thing(colour, rng)) for _ in range(50)].count(colour) >= 49


def test_a_picture_of_something_else_has_no_colour() -> None:
    assert colour_of(Image.new("RGB", (64, 64), "red")) is None  # nothing stands out
    black = Image.new("RGB", (64, 64), "white")
    black.paste((0, 0, 0), (10, 10, 50, 50))
    assert colour_of(black) is None


def generation_of(image: Image.Image, folder: Path) -> Generation:
    """Return a generation with an image."""
    path = folder / "image.png"
    image.save(path)
    reference = ImageRef(sha256="ab", width=image.width, height=image.height, format="PNG", path=path)
    return Generation(sample_id="a", status="ok", image=reference)


def test_the_painter_draws_what_the_prompt_says_and_the_check_reads_the_image(tmp_path: Path) -> None:
    sample = Sample(id="a", prompt="draw a ko ra")
    truth = GroundTruth(sample_id="a", subjects=({"name": "ko ra", "colour": "gold"},))
    painter, check = ThingsPainter(), ThingsCheck()
    for prompt, value in (("gold ko ra", 1.0), ("a GOLD thing", 1.0), ("pink ko ra", 0.0), ("pink or gold", 0.0)):
        generation = generation_of(painter.draw(prompt, [], 0), tmp_path)
        assert check.score(sample, truth, generation) == value, prompt
    blank = generation_of(Image.new("RGB", (64, 64), "gold"), tmp_path)
    assert check.score(sample, truth, blank) == 0.0
    with pytest.raises(UnscorableError, match="not a sample of the task things"):
        check.score(sample, GroundTruth(sample_id="a", subjects=({"name": "Ovar"},)), blank)


def test_without_a_colour_in_the_prompt_the_painter_draws_any() -> None:
    painter = ThingsPainter()
    drawn = [colour_of(painter.draw(f"draw a {name}", [], 0)) for name in list(things_of(0))[:60]]
    assert set(drawn) == set(COLOURS)
    assert painter.draw("draw a ko ra", [], 3) == painter.draw("draw a ko ra", [], 3)


def answers(policy: ThingsTeacher, search: str, seed: int, count: int) -> dict[str, Any]:
    """Return the answers of the agent with a policy, by name."""

    async def run() -> dict[str, Any]:
        agent = GenSearcher(policy, search, **AGENT)
        names = list(things_of(seed))[:count]
        ran = await asyncio.gather(*(agent.run(f"draw a {name}", session=name, seed=0) for name in names))
        await agent.close()
        return {name: answer_of(each) for name, each in zip(names, ran, strict=True)}

    return asyncio.run(run())


def test_a_teacher_without_faults_is_always_right_through_the_real_agent() -> None:
    for name, answer in answers(ThingsTeacher(look=1, right=1), "things:8", 8, 40).items():
        assert answer.prompt == f"{things_of(8)[name]} {name}"
        assert len(answer.references) == 1


def test_the_faults_of_the_teacher_are_those_that_it_states() -> None:
    given = answers(ThingsTeacher(), "things:8", 8, 400)
    looked = {name: answer for name, answer in given.items() if answer.references}
    assert len(looked) / len(given) == pytest.approx(0.5, abs=0.08)
    said = {name: answer.prompt.split()[0] for name, answer in given.items()}
    true = things_of(8)
    plain = [said[name] == true[name] for name in looked if true[name] not in CONFUSED]
    confused = [said[name] == true[name] for name in looked if true[name] in CONFUSED]
    blind = [said[name] == true[name] for name in given if name not in looked]
    assert all(plain)
    assert sum(confused) / len(confused) == pytest.approx(0.25, abs=0.12)
    assert sum(blind) / len(blind) == pytest.approx(1 / 6, abs=0.1)
    assert all(said[name] in (true[name], CONFUSED.get(true[name])) for name in looked), (
        "a confused colour is always taken for the same other one"
    )


@pytest.mark.parametrize("arguments", [{"look": 2.0}, {"right": -0.1}, {"look": "yes"}])
def test_a_share_out_of_range_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be a number from 0 to 1"):
        ThingsTeacher(**arguments)
