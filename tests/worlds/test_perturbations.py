"""Perturbations of ground truths: each changes what it describes and nothing else."""

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
from knowgen.workflows.resolve import resolve_generator
from knowgen.worlds.checker.ocr import read_lines
from knowgen.worlds.checker.text import find_texts
from knowgen.worlds.content.prompts import HEADINGS
from knowgen.worlds.perturbations import PERTURBATIONS, PerturbedImages, PerturbedTask, make_perturbed_task
from knowgen.worlds.perturbations.apply import perturbation_stream, render_perturbation, turn_hue
from knowgen.worlds.perturbations.kinds import (
    BLUR,
    COLOUR,
    DIGIT,
    INSTRUCTION,
    LAYOUT,
    MISSING,
    NAME,
    PROMPT_INSTRUCTION,
    SWAPPED,
    UNCHANGED,
    Perturbation,
)
from knowgen.worlds.perturbations.originals import OriginalSample, read_original
from knowgen.worlds.perturbations.task import PerturbedImage
from knowgen.worlds.perturbations.text_edits import wrong_digit, wrong_name
from knowgen.worlds.rendering.layouts import Box
from tests.helpers.built_world import BuiltWorld

SEED = 0


@pytest.fixture(scope="module")
def task(built_world: BuiltWorld) -> PerturbedTask:
    """Perturbations of six samples of a small world."""
    return make_perturbed_task(built_world.task, list(built_world.task.samples()), 6, SEED)


@pytest.fixture(scope="module")
def originals(built_world: BuiltWorld) -> list[OriginalSample]:
    """All samples of a small world."""
    return [read_original(sample, built_world.task.truth(sample.id)) for sample in built_world.task.samples()]


def of(task: PerturbedTask, perturbation: Perturbation) -> list[PerturbedImage]:
    images = [perturbed for perturbed in task.images.values() if perturbed.perturbation is perturbation]
    assert images
    return images


def pixels(perturbed: Image.Image) -> NDArray[np.int16]:
    return np.asarray(perturbed.convert("RGB"), np.int16)


def changed_box(original: OriginalSample, perturbed: Image.Image) -> Box | None:
    """Return the smallest box around all pixels that differ from the stored ground truth."""
    rows, columns = np.nonzero((pixels(original.open_stored_image()) != pixels(perturbed)).any(axis=2))
    if not len(rows):
        return None
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def lies_in(inner: Box, outer: Box) -> bool:
    return inner[0] >= outer[0] and inner[1] >= outer[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def test_every_perturbation_names_the_dimensions_that_must_fall() -> None:
    assert PERTURBATIONS[0] is UNCHANGED and len({perturbation.name for perturbation in PERTURBATIONS}) == len(
        PERTURBATIONS
    )
    for perturbation in PERTURBATIONS:
        assert set(perturbation.must_fall) | set(perturbation.may_fall) <= set(DIMENSIONS)
        assert not set(perturbation.must_fall) & set(perturbation.may_fall)
        assert bool(perturbation.may_fall) == bool(perturbation.may_fall_reason)
    assert {perturbation.name for perturbation in PERTURBATIONS if not perturbation.must_fall} == {"nothing", "layout"}


def test_the_unchanged_image_has_the_pixels_of_the_ground_truth_in_another_file(task: PerturbedTask) -> None:
    for perturbed in of(task, UNCHANGED):
        assert changed_box(perturbed.original, perturbed.render()) is None
        truth = perturbed.original.truth.image
        assert truth is not None and truth.path is not None
        assert encode(perturbed.render()).data != truth.path.read_bytes()


@pytest.mark.parametrize("perturbation", [DIGIT, NAME], ids=lambda perturbation: perturbation.name)
def test_a_wrong_text_changes_only_its_row_of_the_sign(task: PerturbedTask, perturbation: Perturbation) -> None:
    for perturbed in of(task, perturbation):
        sign = perturbed.original.compose().sign_box
        box = changed_box(perturbed.original, perturbed.render())
        assert sign is not None and box is not None and lies_in(box, sign)
        assert box[3] - box[1] <= 46, "higher than one row of the largest letters"


@pytest.mark.parametrize("perturbation", [DIGIT, NAME], ids=lambda perturbation: perturbation.name)
def test_text_recognition_reads_the_wrong_text_in_place_of_the_right_one(
    task: PerturbedTask, perturbation: Perturbation
) -> None:
    finder = wrong_digit if perturbation is DIGIT else wrong_name
    for perturbed in of(task, perturbation):
        edit = finder(perturbed.original, perturbation_stream(perturbed.original, perturbation, SEED))
        assert edit is not None and f'"{edit.right}" is written "{edit.wrong}"' == perturbed.summary
        lines = read_lines(np.asarray(perturbed.render(), np.uint8))
        required = perturbed.original.truth.required_text
        assert find_texts(required, lines).missing == (edit.right,)
        assert find_texts([edit.wrong], lines).recognised == (edit.wrong,)


def test_a_wrong_digit_is_one_digit_and_a_wrong_name_one_word(originals: list[OriginalSample]) -> None:
    digits = names = 0
    for original in originals:
        if edit := wrong_digit(original, perturbation_stream(original, DIGIT, SEED)):
            digits += 1
            differing = [(a, b) for a, b in zip(edit.right, edit.wrong, strict=True) if a != b]
            assert len(differing) == 1 and all(map(str.isdigit, differing[0]))
            assert edit.right[0].isdigit() <= (edit.wrong[0] != "0")
            assert edit.wrong not in original.truth.required_text
        if edit := wrong_name(original, perturbation_stream(original, NAME, SEED)):
            names += 1
            right, wrong = edit.right.split(), edit.wrong.split()
            assert right[:-1] == wrong[:-1] and right[-1] != wrong[-1]
    texts = [[text for text in one.truth.required_text if text not in HEADINGS] for one in originals]
    assert digits == sum(any(any(map(str.isdigit, text)) for text in one) for one in texts)
    assert names >= 0.8 * sum(any(text.isalpha() for text in one) for one in texts) > 20


def test_a_sample_without_text_has_no_text_perturbation(originals: list[OriginalSample]) -> None:
    bare = [original for original in originals if not original.lines]
    assert bare
    for original in bare:
        assert wrong_digit(original, perturbation_stream(original, DIGIT, SEED)) is None
        assert wrong_name(original, perturbation_stream(original, NAME, SEED)) is None


def test_a_text_that_appears_twice_is_not_changed(originals: list[OriginalSample]) -> None:
    """With one of two copies changed, the required text would still be readable."""
    original = next(one for one in originals if any(text.isdigit() for text in one.truth.required_text))
    year = next(text for text in original.truth.required_text if text.isdigit())
    truth = original.truth.model_copy(update={"required_text": (year,)})
    twice = OriginalSample(**{**vars(original), "truth": truth, "lines": (year, f"since {year}")})
    assert wrong_digit(twice, perturbation_stream(twice, DIGIT, SEED)) is None


def test_a_swapped_subject_changes_only_its_own_region(task: PerturbedTask) -> None:
    for perturbed in of(task, SWAPPED):
        original = perturbed.original
        place = perturbation_stream(original, SWAPPED, SEED).randrange(len(original.appearances))
        assert original.names[place] in perturbed.summary
        appearances = list(original.appearances)
        appearances[place] = original.distractors[place]
        before, after = (
            original.compose(subjects=tuple(each)).subject_boxes for each in (original.appearances, appearances)
        )
        assert [a == b for a, b in zip(before, after, strict=True) if a != b] == [] or before[place] != after[place]
        one, other = before[place], after[place]
        room = (min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3]))
        shadow = (room[2] - room[0]) // 8 + 8
        box = changed_box(original, perturbed.render())
        assert box is not None and lies_in(box, (room[0], room[1], room[2], room[3] + shadow))


def test_a_missing_subject_is_replaced_by_the_background(originals: list[OriginalSample]) -> None:
    """Every pixel is that of the ground truth or that of the scene and sign without subjects and shadows."""
    for original in originals[:12]:
        clear = (Image.new("RGBA", (1, 1)),) * len(original.appearances)
        empty = pixels(original.compose(subjects=clear, floating=(True,) * len(clear)).image)
        changed, truth = pixels(render_perturbation(original, MISSING, SEED)), pixels(original.open_stored_image())
        place = perturbation_stream(original, MISSING, SEED).randrange(len(original.appearances))
        boxes = original.compose().subject_boxes
        left, top, right, bottom = boxes[place]
        assert (changed[top:bottom, left:right] == empty[top:bottom, left:right]).all()
        below = slice(bottom, None), slice(left, right)
        assert (changed[below] == empty[below]).all(), "a shadow is left"
        outside = np.ones(changed.shape[:2], bool)
        outside[top:, left:right] = False
        assert (changed[outside] == truth[outside]).all()
        assert (changed != truth).any()


def test_a_blur_widens_every_edge_to_more_than_ten_pixels_and_the_text_stays_legible(task: PerturbedTask) -> None:
    for perturbed in of(task, BLUR):
        sharp, soft = (
            pixels(each).astype(float) for each in (perturbed.original.open_stored_image(), perturbed.render())
        )
        steepest = [np.abs(np.diff(each.mean(axis=2), axis=1)).max() for each in (sharp, soft)]
        # the steepest slope of a step of height h under a Gaussian is h / (sigma sqrt(2 pi)), an eighth at 3.2 pixels
        assert steepest[1] < steepest[0] / 5
        assert soft.mean() == pytest.approx(sharp.mean(), abs=1.0)
        if perturbed.original.lines:
            assert sum(map(str.isalnum, "".join(line.text for line in read_lines(soft.round().astype(np.uint8))))) >= 3


def test_three_hue_rotations_of_120_degrees_give_the_original() -> None:
    band = Image.new("RGB", (3, 1))
    for place, colour in enumerate(((255, 0, 0), (0, 255, 0), (90, 90, 90))):
        band.putpixel((place, 0), colour)
    turned = pixels(turn_hue(band, 120))[0]
    assert np.abs(turned - [(0, 255, 0), (0, 0, 255), (90, 90, 90)]).max() <= 6
    thrice = pixels(turn_hue(turn_hue(turn_hue(band, 120), 120), 120))
    assert np.abs(thrice - pixels(band)).max() <= 8


def test_a_colour_shift_keeps_brightness_and_letters(task: PerturbedTask) -> None:
    for perturbed in of(task, COLOUR)[:3]:
        before, after = (
            np.asarray(each.convert("HSV"), np.int16)
            for each in (perturbed.original.open_stored_image(), perturbed.render())
        )
        assert np.abs(before[..., 2] - after[..., 2]).max() <= 2
        lines = read_lines(np.asarray(perturbed.render(), np.uint8))
        assert not find_texts(perturbed.original.truth.required_text, lines).missing


def test_another_layout_shows_the_same_texts_in_another_position(task: PerturbedTask) -> None:
    for perturbed in of(task, LAYOUT)[:3]:
        lines = read_lines(np.asarray(perturbed.render(), np.uint8))
        required = perturbed.original.truth.required_text
        assert not find_texts(required, lines).missing
        at, before = (
            {line.text: line.box for line in side}
            for side in (lines, read_lines(np.asarray(perturbed.original.open_stored_image(), np.uint8)))
        )
        shared = at.keys() & before.keys()
        assert shared and all(at[text] != before[text] for text in shared)


def test_perturbed_images_depend_on_the_seed_alone(built_world: BuiltWorld) -> None:
    samples = list(built_world.task.samples())

    def rendered(seed: int) -> dict[str, bytes]:
        images = make_perturbed_task(built_world.task, samples, 2, seed).images.values()
        return {f"{one.original.sample.id} {one.perturbation.name}": one.render().tobytes() for one in images}

    assert rendered(3) == rendered(3)
    ids = [set(make_perturbed_task(built_world.task, samples, 2, seed).images) for seed in (3, 4)]
    assert not ids[0] & ids[1]


def test_the_judge_input_does_not_name_the_perturbation(task: PerturbedTask) -> None:
    description = (
        {perturbation.name for perturbation in PERTURBATIONS}
        | {perturbation.name.split()[0] for perturbation in PERTURBATIONS}
        | {"~"}
    )
    for perturbed in task.images.values():
        sample = next(one for one in task.samples() if one.id == perturbed.id)
        truth = task.truth(perturbed.id)
        original = perturbed.original
        note = f" {INSTRUCTION}" if perturbed.perturbation is PROMPT_INSTRUCTION else ""
        expected = {"id": perturbed.id, "prompt": original.sample.prompt + note}
        assert sample == original.sample.model_copy(update=expected)
        assert truth == original.truth.model_copy(update={"sample_id": perturbed.id})
        assert not [word for word in description if word in perturbed.id] and original.sample.id not in perturbed.id
        assert len(perturbed.id) == 16 and set(perturbed.id) <= set("0123456789abcdef")


def test_samples_are_spread_over_categories_and_a_smaller_count_selects_a_subset(built_world: BuiltWorld) -> None:
    samples = list(built_world.task.samples())
    large = make_perturbed_task(built_world.task, samples, 24, SEED)
    picked = {perturbed.original.sample.id: perturbed.original.sample for perturbed in large.images.values()}
    assert set(Counter(sample.category for sample in picked.values()).values()) == {1}
    small = make_perturbed_task(built_world.task, samples, 5, SEED)
    assert list(small.images) == list(large.images)[: len(small)]
    assert small.version == large.version
    assert make_perturbed_task(built_world.task, samples, 24, SEED + 1).version != large.version
    everything = make_perturbed_task(built_world.task, samples, 999, SEED)
    assert len({perturbed.original.sample.id for perturbed in everything.images.values()}) == len(samples)


def test_the_generator_renders_the_requested_image(task: PerturbedTask) -> None:
    perturbed = of(task, MISSING)[0]
    generator = PerturbedImages(task)
    result = asyncio.run(generator.generate(GenerationRequest(id=request_id(perturbed.id, 0), prompt="unread")))
    assert isinstance(result.image, Image.Image)
    assert result.image.tobytes() == perturbed.render().tobytes()
    assert generator.privileged


def test_a_ground_truth_from_another_task_is_an_error() -> None:
    sample = Sample(id="x", prompt="a lighthouse")
    with pytest.raises(DataError, match="world build"):
        read_original(sample, GroundTruth(sample_id="x", required_text=("Teld",)))


def test_a_world_rendered_by_another_version_is_an_error_before_rendering(built_world: BuiltWorld) -> None:
    """If the stored image differs from the rendered one, the perturbation is not the only difference."""

    class Moved:
        name, version = "moved", "1"

        def truth(self, sample_id: str) -> GroundTruth:
            truth = built_world.task.truth(sample_id)
            scene = "desert" if truth.extra["scene"] != "desert" else "museum"
            return truth.model_copy(update={"extra": {**truth.extra, "scene": scene}})

    with pytest.raises(DataError, match="differs from the rendered one"):
        make_perturbed_task(Moved(), list(built_world.task.samples()), 1, SEED)  # type: ignore[arg-type]


def test_an_empty_selection_is_an_error(built_world: BuiltWorld) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        make_perturbed_task(built_world.task, [], 3, SEED)


def test_the_ground_truth_of_an_unknown_image_is_an_error(task: PerturbedTask) -> None:
    with pytest.raises(DataError, match="unknown perturbed image"):
        task.truth("nobody")


def test_the_key_of_the_generator_does_not_depend_on_where_its_class_is_defined(built_world: BuiltWorld) -> None:
    task = make_perturbed_task(built_world.task, list(built_world.task.samples()), 1, 0)
    handle = resolve_generator(PerturbedImages(task), {}, task)
    assert handle.spec.name == "knowgen.worlds.changes.task:ChangedPictures"
