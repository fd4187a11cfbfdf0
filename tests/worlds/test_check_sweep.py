"""The check on all ground truths of a world: full marks as drawn, and texts that survive common changes."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from knowgen.worlds.check.judgement import judge
from knowgen.worlds.check.ocr import read_lines
from knowgen.worlds.check.sight import open_pixels
from knowgen.worlds.check.text import find_texts
from knowgen.worlds.check.wanted import read_wanted
from tests.helpers.built_world import BuiltWorld


def packed(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return Image.open(buffer)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "moved": lambda picture: picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, 17, 0, 1, -12)),
    "smaller": lambda picture: picture.resize((538, 358), Image.Resampling.BICUBIC),
    "larger": lambda picture: picture.resize((998, 666), Image.Resampling.BICUBIC),
    "packed": packed,
}


@pytest.mark.slow
def test_every_ground_truth_earns_full_marks(built_world: BuiltWorld) -> None:
    for sample in built_world.task.samples():
        truth = built_world.task.truth(sample.id)
        assert truth.image is not None
        judgement = judge(open_pixels(truth.image.open()), read_wanted(truth))
        assert set(judgement.values.values()) == {1.0}, (sample.id, judgement.rationale)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_texts_are_read_after_common_changes(built_world: BuiltWorld, change: str) -> None:
    read = missed = 0
    for sample in built_world.task.samples():
        truth = built_world.task.truth(sample.id)
        assert truth.image is not None
        changed = CHANGES[change](truth.image.open().convert("RGB"))
        found = find_texts(truth.required_text, read_lines(np.asarray(changed)))
        read, missed = read + len(found.found), missed + len(found.missing)
    assert read > 80
    assert read / (read + missed) >= 0.98
