"""Matching of subjects: right ones are recognised in any position; distractors and hedges are not accepted."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

from knowgen.core.records import GenerationRequest
from knowgen.worlds.baselines.systems import Oracle
from knowgen.worlds.checker.assessment import assess_image
from knowgen.worlds.checker.image_features import ImageFeatures
from knowgen.worlds.checker.matching import SubjectMatch, SubjectVerdict, match_subject
from knowgen.worlds.checker.requirements import read_requirements
from knowgen.worlds.rendering.appearance import KINDS, draw_appearance, random_appearance
from knowgen.worlds.task import knowgen_mini
from tests.helpers.check_cases import Case, make_case, pixels_of


def find(case: Case, image: Image.Image) -> list[SubjectMatch]:
    features = ImageFeatures.from_pixels(pixels_of(image))
    return [
        match_subject(features, appearance, alike)
        for appearance, alike in zip(case.appearances, case.distractors, strict=True)
    ]


def verdicts(case: Case, image: Image.Image) -> set[SubjectVerdict]:
    return {match.verdict for match in find(case, image)}


@pytest.mark.parametrize("seed", range(0, 32, 4))
def test_right_subjects_and_distractors_are_distinguished(seed: int) -> None:
    case = make_case(seed, subjects=1 + seed % 3)
    assert verdicts(case, case.draw()) == {SubjectVerdict.RIGHT}
    assert verdicts(case, case.draw(case.distractors)) == {SubjectVerdict.DISTRACTOR}


@pytest.mark.parametrize("seed", [1, 3, 5, 7])
def test_other_subjects_are_absent(seed: int) -> None:
    case = make_case(seed)
    stranger = random_appearance(case.appearances[0].kind, random.Random(seed + 1000))
    assert verdicts(case, case.draw((stranger,))) == {SubjectVerdict.ABSENT}


@pytest.mark.parametrize("seed", [1, 4, 7, 10, 13])
def test_an_image_of_both_subject_and_distractor_is_hedged(seed: int) -> None:
    case = make_case(seed)
    for both in ((*case.appearances, *case.distractors), (*case.distractors, *case.appearances)):
        assert verdicts(case, case.draw(both)) in ({SubjectVerdict.HEDGED}, {SubjectVerdict.DISTRACTOR})


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return Image.open(buffer)


def dimmed(image: Image.Image) -> Image.Image:
    return Image.fromarray((pixels_of(image) * 0.85 + 12).astype(np.uint8))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": ImageOps.mirror,
    "smaller": lambda image: image.resize((538, 358), Image.Resampling.LANCZOS),
    "larger": lambda image: image.resize((998, 666), Image.Resampling.BICUBIC),
    "moved": lambda image: image.transform(image.size, Image.Transform.AFFINE, (1, 0, 37, 0, 1, -21)),
    "cropped": lambda image: image.crop((0, 90, 768, 512)),
    "jpeg": jpeg,
    "dimmed": dimmed,
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_the_whole_image_keep_the_verdict(change: str) -> None:
    for seed in (2, 11):
        case = make_case(seed)
        assert verdicts(case, CHANGES[change](case.draw())) == {SubjectVerdict.RIGHT}
        assert verdicts(case, CHANGES[change](case.draw(case.distractors))) == {SubjectVerdict.DISTRACTOR}


@pytest.mark.parametrize("turn", [-12, 12])
def test_rotated_subjects_keep_their_verdict(turn: int) -> None:
    for seed in (0, 9):
        case = make_case(seed)
        for appearance, verdict in (
            (case.appearances[0], SubjectVerdict.RIGHT),
            (case.distractors[0], SubjectVerdict.DISTRACTOR),
        ):
            rotated = draw_appearance(appearance, 280).rotate(turn, Image.Resampling.BICUBIC, expand=True)
            assert verdicts(case, case.draw((rotated,))) == {verdict}


def test_images_of_any_size_and_shape_are_matched() -> None:
    case = make_case(0)
    for size in ((1, 1), (3, 700), (2000, 5), (30, 30), (640, 1600)):
        assert verdicts(case, Image.new("RGB", size, "teal")) == {SubjectVerdict.ABSENT}


@pytest.mark.slow
def test_no_distractor_of_any_kind_passes() -> None:
    for seed in range(6 * len(KINDS)):
        case = make_case(seed)
        right, alike = find(case, case.draw())[0], find(case, case.draw(case.distractors))[0]
        assert (right.verdict, alike.verdict) == (SubjectVerdict.RIGHT, SubjectVerdict.DISTRACTOR), (seed, right, alike)
        assert right.lead > 0.3
        assert alike.lead < -0.1


def test_many_keypoints_on_the_wrong_subject_do_not_decide() -> None:
    """Three robots share parts: for one of them, more keypoints agree on a neighbour than on the robot itself."""
    task = knowgen_mini()
    sample = next(sample for sample in task.samples() if sample.id == "7b86c8229766011b")
    truth = task.truth(sample.id)
    request = GenerationRequest(id="r", prompt=sample.prompt, truth=truth)
    image = asyncio.run(Oracle().generate(request)).image
    assert isinstance(image, Image.Image)
    assessment = assess_image(np.asarray(image.convert("RGB")), read_requirements(truth))
    assert assessment.values["visual_correctness"] == 1.0
