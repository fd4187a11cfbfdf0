"""Known changes to ground truths: each changes what it says and nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import DIMENSIONS, GenerationRequest, GroundTruth, Sample, request_id
from knowgen.engine.imaging import encode
from knowgen.worlds.changes import CHANGES, ChangedPictures, ChangedTask, make_changed_task
from knowgen.worlds.changes.edits import wrong_digit, wrong_name
from knowgen.worlds.changes.kinds import BLUR, COLOUR, DIGIT, LAYOUT, MISSING, NAME, NOTHING, SWAPPED, Change
from knowgen.worlds.changes.originals import Original, read_original
from knowgen.worlds.changes.redraw import draw_change, pick, turn_hue
from knowgen.worlds.changes.task import ChangedPicture
from knowgen.worlds.check.ocr import read_lines
from knowgen.worlds.check.text import find_texts
from knowgen.worlds.drawing.layouts import Box
from knowgen.worlds.prompts import HEADINGS
from tests.helpers.built_world import BuiltWorld

SEED = 0


@pytest.fixture(scope="module")
def task(built_world: BuiltWorld) -> ChangedTask:
    """Changes to six samples of a small world."""
    return make_changed_task(built_world.task, list(built_world.task.samples()), 6, SEED)


@pytest.fixture(scope="module")
def originals(built_world: BuiltWorld) -> list[Original]:
    """All samples of a small world."""
    return [read_original(sample, built_world.task.truth(sample.id)) for sample in built_world.task.samples()]


def of(task: ChangedTask, change: Change) -> list[ChangedPicture]:
    found = [picture for picture in task.pictures.values() if picture.change is change]
    assert found
    return found


def pixels(picture: Image.Image) -> NDArray[np.int16]:
    return np.asarray(picture.convert("RGB"), np.int16)


def changed_box(original: Original, picture: Image.Image) -> Box | None:
    """The smallest box that holds every pixel that differs from the stored truth."""
    rows, columns = np.nonzero((pixels(original.stored()) != pixels(picture)).any(axis=2))
    if not len(rows):
        return None
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def lies_in(inner: Box, outer: Box) -> bool:
    return inner[0] >= outer[0] and inner[1] >= outer[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def test_every_change_says_what_must_fall_out_of_the_four_dimensions() -> None:
    assert CHANGES[0] is NOTHING and len({change.name for change in CHANGES}) == len(CHANGES)
    for change in CHANGES:
        assert set(change.falls) | set(change.may) <= set(DIMENSIONS)
        assert not set(change.falls) & set(change.may)
        assert bool(change.may) == bool(change.why_may)
    assert {change.name for change in CHANGES if not change.falls} == {"nothing", "layout"}


def test_nothing_is_the_truth_to_the_pixel_in_another_file(task: ChangedTask) -> None:
    for picture in of(task, NOTHING):
        assert changed_box(picture.original, picture.draw()) is None
        truth = picture.original.truth.image
        assert truth is not None and truth.path is not None
        assert encode(picture.draw()).data != truth.path.read_bytes()


@pytest.mark.parametrize("change", [DIGIT, NAME], ids=lambda change: change.name)
def test_a_wrong_text_changes_its_own_row_of_the_sign_and_nothing_else(task: ChangedTask, change: Change) -> None:
    for picture in of(task, change):
        sign = picture.original.compose().sign_box
        box = changed_box(picture.original, picture.draw())
        assert sign is not None and box is not None and lies_in(box, sign)
        assert box[3] - box[1] <= 46, "higher than one row of the largest letters"


@pytest.mark.parametrize("change", [DIGIT, NAME], ids=lambda change: change.name)
def test_a_reader_finds_the_wrong_text_where_the_right_one_stood(task: ChangedTask, change: Change) -> None:
    finder = wrong_digit if change is DIGIT else wrong_name
    for picture in of(task, change):
        edit = finder(picture.original, pick(picture.original, change, SEED))
        assert edit is not None and f'"{edit.right}" is written "{edit.wrong}"' == picture.what
        lines = read_lines(np.asarray(picture.draw(), np.uint8))
        required = picture.original.truth.required_text
        assert find_texts(required, lines).missing == (edit.right,)
        assert find_texts([edit.wrong], lines).found == (edit.wrong,)


def test_a_wrong_digit_is_one_digit_and_a_wrong_name_one_word(originals: list[Original]) -> None:
    digits = names = 0
    for original in originals:
        if edit := wrong_digit(original, pick(original, DIGIT, SEED)):
            digits += 1
            differing = [(a, b) for a, b in zip(edit.right, edit.wrong, strict=True) if a != b]
            assert len(differing) == 1 and all(map(str.isdigit, differing[0]))
            assert edit.right[0].isdigit() <= (edit.wrong[0] != "0")
            assert edit.wrong not in original.truth.required_text
        if edit := wrong_name(original, pick(original, NAME, SEED)):
            names += 1
            right, wrong = edit.right.split(), edit.wrong.split()
            assert right[:-1] == wrong[:-1] and right[-1] != wrong[-1]
    texts = [[text for text in one.truth.required_text if text not in HEADINGS] for one in originals]
    assert digits == sum(any(any(map(str.isdigit, text)) for text in one) for one in texts)
    assert names >= 0.8 * sum(any(text.isalpha() for text in one) for one in texts) > 20


def test_a_sample_without_writing_takes_part_in_no_change_of_writing(originals: list[Original]) -> None:
    bare = [original for original in originals if not original.lines]
    assert bare
    for original in bare:
        assert wrong_digit(original, pick(original, DIGIT, SEED)) is None
        assert wrong_name(original, pick(original, NAME, SEED)) is None


def test_a_text_that_stands_twice_is_left_alone(originals: list[Original]) -> None:
    """One wrong copy of two would leave the required text readable."""
    original = next(one for one in originals if any(text.isdigit() for text in one.truth.required_text))
    year = next(text for text in original.truth.required_text if text.isdigit())
    truth = original.truth.model_copy(update={"required_text": (year,)})
    twice = Original(**{**vars(original), "truth": truth, "lines": (year, f"since {year}")})
    assert wrong_digit(twice, pick(twice, DIGIT, SEED)) is None


def test_a_swapped_subject_changes_its_own_place_only(task: ChangedTask) -> None:
    for picture in of(task, SWAPPED):
        original = picture.original
        place = pick(original, SWAPPED, SEED).randrange(len(original.looks))
        assert original.names[place] in picture.what
        looks = list(original.looks)
        looks[place] = original.look_alikes[place]
        before, after = (original.compose(subjects=tuple(each)).subject_boxes for each in (original.looks, looks))
        assert [a == b for a, b in zip(before, after, strict=True) if a != b] == [] or before[place] != after[place]
        one, other = before[place], after[place]
        room = (min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3]))
        shadow = (room[2] - room[0]) // 8 + 8
        box = changed_box(original, picture.draw())
        assert box is not None and lies_in(box, (room[0], room[1], room[2], room[3] + shadow))


def test_a_missing_subject_leaves_the_place_as_it_is_without_it(originals: list[Original]) -> None:
    """Every pixel is that of the truth or that of the place with its sign and without any subject or shadow."""
    for original in originals[:12]:
        clear = (Image.new("RGBA", (1, 1)),) * len(original.looks)
        empty = pixels(original.compose(subjects=clear, floating=(True,) * len(clear)).image)
        drawn, truth = pixels(draw_change(original, MISSING, SEED)), pixels(original.stored())
        place = pick(original, MISSING, SEED).randrange(len(original.looks))
        boxes = original.compose().subject_boxes
        left, top, right, bottom = boxes[place]
        assert (drawn[top:bottom, left:right] == empty[top:bottom, left:right]).all()
        below = slice(bottom, None), slice(left, right)
        assert (drawn[below] == empty[below]).all(), "a shadow is left"
        outside = np.ones(drawn.shape[:2], bool)
        outside[top:, left:right] = False
        assert (drawn[outside] == truth[outside]).all()
        assert (drawn != truth).any()


def test_a_blur_smears_every_edge_over_more_than_ten_pixels_and_leaves_the_text_readable(task: ChangedTask) -> None:
    for picture in of(task, BLUR):
        sharp, soft = (pixels(each).astype(float) for each in (picture.original.stored(), picture.draw()))
        steepest = [np.abs(np.diff(each.mean(axis=2), axis=1)).max() for each in (sharp, soft)]
        # the steepest slope of a step of height h under a Gaussian is h / (sigma sqrt(2 pi)), an eighth at 3.2 pixels
        assert steepest[1] < steepest[0] / 5
        assert soft.mean() == pytest.approx(sharp.mean(), abs=1.0)
        if picture.original.lines:
            assert sum(map(str.isalnum, "".join(line.text for line in read_lines(soft.round().astype(np.uint8))))) >= 3


def test_a_turned_hue_goes_round_and_comes_back() -> None:
    band = Image.new("RGB", (3, 1))
    for place, colour in enumerate(((255, 0, 0), (0, 255, 0), (90, 90, 90))):
        band.putpixel((place, 0), colour)
    turned = pixels(turn_hue(band, 120))[0]
    assert np.abs(turned - [(0, 255, 0), (0, 0, 255), (90, 90, 90)]).max() <= 6
    thrice = pixels(turn_hue(turn_hue(turn_hue(band, 120), 120), 120))
    assert np.abs(thrice - pixels(band)).max() <= 8


def test_a_colour_shift_leaves_brightness_and_letters(task: ChangedTask) -> None:
    for picture in of(task, COLOUR)[:3]:
        before, after = (
            np.asarray(each.convert("HSV"), np.int16) for each in (picture.original.stored(), picture.draw())
        )
        assert np.abs(before[..., 2] - after[..., 2]).max() <= 2
        lines = read_lines(np.asarray(picture.draw(), np.uint8))
        assert not find_texts(picture.original.truth.required_text, lines).missing


def test_another_layout_holds_the_same_texts_in_another_place(task: ChangedTask) -> None:
    for picture in of(task, LAYOUT)[:3]:
        lines = read_lines(np.asarray(picture.draw(), np.uint8))
        required = picture.original.truth.required_text
        assert not find_texts(required, lines).missing
        at, before = (
            {line.text: line.box for line in found}
            for found in (lines, read_lines(np.asarray(picture.original.stored(), np.uint8)))
        )
        shared = at.keys() & before.keys()
        assert shared and all(at[text] != before[text] for text in shared)


def test_the_same_seed_gives_the_same_images_and_another_seed_others(built_world: BuiltWorld) -> None:
    samples = list(built_world.task.samples())

    def made(seed: int) -> dict[str, bytes]:
        found = make_changed_task(built_world.task, samples, 2, seed).pictures.values()
        return {f"{one.original.sample.id} {one.change.name}": one.draw().tobytes() for one in found}

    assert made(3) == made(3)
    ids = [set(make_changed_task(built_world.task, samples, 2, seed).pictures) for seed in (3, 4)]
    assert not ids[0] & ids[1]


def test_nothing_that_a_judge_sees_names_the_change(task: ChangedTask) -> None:
    words = {change.name for change in CHANGES} | {change.name.split()[0] for change in CHANGES} | {"~"}
    for picture in task.pictures.values():
        sample = next(one for one in task.samples() if one.id == picture.id)
        truth = task.truth(picture.id)
        original = picture.original
        assert sample == original.sample.model_copy(update={"id": picture.id})
        assert truth == original.truth.model_copy(update={"sample_id": picture.id})
        assert not [word for word in words if word in picture.id] and original.sample.id not in picture.id
        assert len(picture.id) == 16 and set(picture.id) <= set("0123456789abcdef")


def test_samples_are_spread_over_categories_and_a_smaller_pick_is_part_of_a_larger(built_world: BuiltWorld) -> None:
    samples = list(built_world.task.samples())
    large = make_changed_task(built_world.task, samples, 24, SEED)
    picked = {picture.original.sample.id: picture.original.sample for picture in large.pictures.values()}
    assert set(Counter(sample.category for sample in picked.values()).values()) == {1}
    small = make_changed_task(built_world.task, samples, 5, SEED)
    assert list(small.pictures) == list(large.pictures)[: len(small)]
    assert small.version == large.version
    assert make_changed_task(built_world.task, samples, 24, SEED + 1).version != large.version
    everything = make_changed_task(built_world.task, samples, 999, SEED)
    assert len({picture.original.sample.id for picture in everything.pictures.values()}) == len(samples)


def test_the_generator_generates_what_it_is_asked_for(task: ChangedTask) -> None:
    picture = of(task, MISSING)[0]
    generator = ChangedPictures(task)
    drawing = asyncio.run(generator.generate(GenerationRequest(id=request_id(picture.id, 0), prompt="unread")))
    assert isinstance(drawing.image, Image.Image)
    assert drawing.image.tobytes() == picture.draw().tobytes()
    assert generator.privileged


def test_a_truth_that_is_not_of_a_world_is_refused() -> None:
    sample = Sample(id="x", prompt="a lighthouse")
    with pytest.raises(DataError, match="world build"):
        read_original(sample, GroundTruth(sample_id="x", required_text=("Teld",)))


def test_a_world_rendered_otherwise_is_refused_before_anything_is_generated(built_world: BuiltWorld) -> None:
    """Where the stored image is not what the record draws, a change could not be told from the difference."""

    class Moved:
        name, version = "moved", "1"

        def truth(self, sample_id: str) -> GroundTruth:
            found = built_world.task.truth(sample_id)
            scene = "desert" if found.extra["scene"] != "desert" else "museum"
            return found.model_copy(update={"extra": {**found.extra, "scene": scene}})

    with pytest.raises(DataError, match="not what its record draws"):
        make_changed_task(Moved(), list(built_world.task.samples()), 1, SEED)  # type: ignore[arg-type]


def test_no_samples_are_refused(built_world: BuiltWorld) -> None:
    with pytest.raises(UsageError, match="one or more"):
        make_changed_task(built_world.task, [], 3, SEED)


def test_an_unknown_changed_image_has_no_truth(task: ChangedTask) -> None:
    with pytest.raises(DataError, match="no changed picture"):
        task.truth("nobody")
