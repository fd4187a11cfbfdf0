"""The check on all ground truths of a world: full scores, and texts recognised after common image changes."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from knowgen.worlds.checker.assessment import assess_image
from knowgen.worlds.checker.ocr import read_lines
from knowgen.worlds.checker.requirements import read_requirements
from knowgen.worlds.checker.text import find_texts
from tests.helpers.built_world import BuiltWorld


def packed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return Image.open(buffer)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "moved": lambda image: image.transform(image.size, Image.Transform.AFFINE, (1, 0, 17, 0, 1, -12)),
    "smaller": lambda image: image.resize((538, 358), Image.Resampling.BICUBIC),
    "larger": lambda image: image.resize((998, 666), Image.Resampling.BICUBIC),
    "packed": packed,
}


@pytest.mark.slow
def test_every_ground_truth_gets_full_scores(built_world: BuiltWorld) -> None:
    for sample in built_world.task.samples():
        truth = built_world.task.truth(sample.id)
        assert truth.image is not None
        assessment = assess_image(np.asarray(truth.image.open()), read_requirements(truth))
        assert set(assessment.values.values()) == {1.0}, (sample.id, assessment.rationale)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_texts_are_recognised_after_common_image_changes(built_world: BuiltWorld, change: str) -> None:
    read = missed = 0
    for sample in built_world.task.samples():
        truth = built_world.task.truth(sample.id)
        assert truth.image is not None
        changed = CHANGES[change](truth.image.open())
        match = find_texts(truth.required_text, read_lines(np.asarray(changed)))
        read, missed = read + len(match.recognised), missed + len(match.missing)
    assert read > 80
    assert read / (read + missed) >= 0.98
