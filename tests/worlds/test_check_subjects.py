"""Subjects in images: the right ones are found, however placed; look-alikes and hedges never pass for them."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

from knowgen.core.records import GenerationRequest
from knowgen.worlds.check.judgement import judge
from knowgen.worlds.check.matching import Finding, Verdict, match_subject
from knowgen.worlds.check.sight import Sight
from knowgen.worlds.check.wanted import read_wanted
from knowgen.worlds.drawing.looks import KINDS, draw_look, random_look
from knowgen.worlds.systems import Oracle
from knowgen.worlds.task import knowgen_mini
from tests.helpers.check_cases import Case, make_case, pixels_of


def find(case: Case, picture: Image.Image) -> list[Finding]:
    sight = Sight.of(pixels_of(picture))
    return [match_subject(sight, look, alike) for look, alike in zip(case.looks, case.alikes, strict=True)]


def verdicts(case: Case, picture: Image.Image) -> set[Verdict]:
    return {finding.verdict for finding in find(case, picture)}


@pytest.mark.parametrize("seed", range(0, 32, 4))
def test_right_subjects_and_look_alikes_are_distinguished(seed: int) -> None:
    case = make_case(seed, subjects=1 + seed % 3)
    assert verdicts(case, case.draw()) == {Verdict.RIGHT}
    assert verdicts(case, case.draw(case.alikes)) == {Verdict.LOOK_ALIKE}


@pytest.mark.parametrize("seed", [1, 3, 5, 7])
def test_other_things_are_neither(seed: int) -> None:
    case = make_case(seed)
    stranger = random_look(case.looks[0].kind, random.Random(seed + 1000))
    assert verdicts(case, case.draw((stranger,))) == {Verdict.ABSENT}


@pytest.mark.parametrize("seed", [1, 4, 7, 10, 13])
def test_showing_both_is_hedging(seed: int) -> None:
    case = make_case(seed)
    for both in ((*case.looks, *case.alikes), (*case.alikes, *case.looks)):
        assert verdicts(case, case.draw(both)) in ({Verdict.HEDGED}, {Verdict.LOOK_ALIKE})


def jpeg(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=60)
    return Image.open(buffer)


def dimmed(picture: Image.Image) -> Image.Image:
    return Image.fromarray((pixels_of(picture) * 0.85 + 12).astype(np.uint8))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": ImageOps.mirror,
    "smaller": lambda picture: picture.resize((538, 358), Image.Resampling.LANCZOS),
    "larger": lambda picture: picture.resize((998, 666), Image.Resampling.BICUBIC),
    "moved": lambda picture: picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, 37, 0, 1, -21)),
    "cropped": lambda picture: picture.crop((0, 90, 768, 512)),
    "jpeg": jpeg,
    "dimmed": dimmed,
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_the_whole_image_do_no_harm(change: str) -> None:
    for seed in (2, 11):
        case = make_case(seed)
        assert verdicts(case, CHANGES[change](case.draw())) == {Verdict.RIGHT}
        assert verdicts(case, CHANGES[change](case.draw(case.alikes))) == {Verdict.LOOK_ALIKE}


@pytest.mark.parametrize("turn", [-12, 12])
def test_turned_subjects(turn: int) -> None:
    for seed in (0, 9):
        case = make_case(seed)
        for look, verdict in ((case.looks[0], Verdict.RIGHT), (case.alikes[0], Verdict.LOOK_ALIKE)):
            drawn = draw_look(look, 280).rotate(turn, Image.Resampling.BICUBIC, expand=True)
            assert verdicts(case, case.draw((drawn,))) == {verdict}


def test_images_of_any_size_and_shape_can_be_looked_at() -> None:
    case = make_case(0)
    for size in ((1, 1), (3, 700), (2000, 5), (30, 30), (640, 1600)):
        assert verdicts(case, Image.new("RGB", size, "teal")) == {Verdict.ABSENT}


@pytest.mark.slow
def test_no_look_alike_of_any_kind_ever_passes() -> None:
    for seed in range(6 * len(KINDS)):
        case = make_case(seed)
        right, alike = find(case, case.draw())[0], find(case, case.draw(case.alikes))[0]
        assert (right.verdict, alike.verdict) == (Verdict.RIGHT, Verdict.LOOK_ALIKE), (seed, right, alike)
        assert right.lead > 0.3
        assert alike.lead < -0.1


def test_many_points_on_the_wrong_thing_are_not_believed() -> None:
    """Three robots share parts: for one of them, more points agree on a neighbour than on the robot itself."""
    task = knowgen_mini()
    sample = next(sample for sample in task.samples() if sample.id == "7b86c8229766011b")
    truth = task.truth(sample.id)
    request = GenerationRequest(id="r", prompt=sample.prompt, truth=truth)
    image = asyncio.run(Oracle().generate(request)).image
    assert isinstance(image, Image.Image)
    found = judge(np.asarray(image.convert("RGB")), read_wanted(truth))
    assert found.values["visual_correctness"] == 1.0
