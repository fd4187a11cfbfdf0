"""Is a subject in the picture, and is it the right one or its look-alike?

A pose is sought for the look and for its look-alike. How well the picture agrees with the look there says whether
anything of the kind is present; which of the two it is, is read only off the pixels in which they differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import cv2
import numpy as np

from knowgen.worlds.check.poses import Pose, area_of, candidate_poses, patch_at, refine, template_of
from knowgen.worlds.check.sight import Floats, Sight
from knowgen.worlds.drawing.looks import Look

PRESENT = 0.58
"""Least mean agreement (0..1) at which a subject counts as present."""

CLEAR = 0.05
"""Least lead (-1..1) of the look over its look-alike."""

_CELLS = 9
_CELL_FILLED = 0.3
_FREE_DISTANCE, _FADING_DISTANCE = 7.0, 26.0
_FARTHEST, _OUTSIDE = 60.0, 30.0
_DIFFERENT = 14.0
_GAIN, _OFFSET = (0.75, 1.33), 35.0


class Verdict(StrEnum):
    """What became of a subject."""

    RIGHT = "right"
    LOOK_ALIKE = "look-alike"
    HEDGED = "hedged"
    ABSENT = "absent"


POINTS = {Verdict.RIGHT: 1.0, Verdict.LOOK_ALIKE: 0.5, Verdict.HEDGED: 0.5, Verdict.ABSENT: 0.0}
"""What each verdict earns."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one subject.

    Attributes:
        verdict: What became of it.
        agreement: Mean agreement with the right look, 0..1.
        lead: How much nearer to the look than to its look-alike the differing pixels are, about -1..1.
        points: Distinctive points of the look that agree on its place.
    """

    verdict: Verdict
    agreement: float
    lead: float
    points: int


class _Agreement(NamedTuple):
    mean: float
    lowest: float
    distance: Floats


def match_subject(sight: Sight, look: Look, look_alike: Look) -> Finding:
    """Looks for a subject.

    Args:
        sight: The picture.
        look: How the subject looks.
        look_alike: What it is easily taken for.
    """
    best: tuple[float, Pose, Look] | None = None
    points = 0
    for wanted in (look, look_alike):
        for pose in candidate_poses(sight, wanted):
            if wanted is look:
                points = max(points, pose.points)
            placed = refine(sight, wanted, pose)
            fit = _agreement(patch_at(sight, placed), wanted)
            if best is None or fit.mean + fit.lowest > best[0]:
                best = (fit.mean + fit.lowest, placed, wanted)
    if best is None:
        return Finding(Verdict.ABSENT, 0.0, 0.0, points)
    patch = patch_at(sight, best[1])
    agreement, lead = _agreement(patch, look).mean, _lead(patch, look, look_alike)
    alike = _agreement(patch, look_alike).mean
    if agreement >= PRESENT and lead >= CLEAR:
        hedged = _stands_elsewhere(sight, best, look_alike, look)
        return Finding(Verdict.HEDGED if hedged else Verdict.RIGHT, agreement, lead, points)
    present = max(agreement, alike) >= PRESENT
    return Finding(Verdict.LOOK_ALIKE if present else Verdict.ABSENT, agreement, lead, points)


def _stands_elsewhere(sight: Sight, place: tuple[float, Pose, Look], wanted: Look, other: Look) -> bool:
    """Tells whether the look-alike is in the picture as well, outside the area of the match."""
    rest = sight.without(area_of(sight, place[2], place[1]))
    for pose in candidate_poses(rest, wanted):
        patch = patch_at(rest, refine(rest, wanted, pose))
        if _agreement(patch, wanted).mean >= PRESENT and _lead(patch, wanted, other) >= CLEAR:
            return True
    return False


def _agreement(patch: Floats, look: Look) -> _Agreement:
    """Compares a patch with a look, cell by cell, after fitting gain and offset of the luminance.

    Returns:
        Mean agreement (0..1) over the cells that the look fills, mean of the lowest fifth of them, and the colour
        distance of every pixel.
    """
    template = template_of(look)
    inner = cv2.erode(template.mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    seen, drawn = cv2.blur(patch, (3, 3)), cv2.blur(template.lab, (3, 3))
    light, wanted = seen[..., 0][inner], drawn[..., 0][inner]
    gain = 1.0
    if light.std() > 5:
        gain = float(np.clip(np.cov(light, wanted)[0, 1] / light.var(), *_GAIN))
    offset = float(np.clip((wanted - gain * light).mean(), -_OFFSET, _OFFSET))
    seen[..., 0] = gain * seen[..., 0] + offset
    distance: Floats = np.sqrt(((seen - drawn) ** 2).sum(axis=2))
    likeness = np.exp(-np.maximum(distance - _FREE_DISTANCE, 0) / _FADING_DISTANCE) * inner
    cells, filled = _cell_sums(likeness), _cell_sums(inner.astype(np.float32))
    side = len(likeness) // _CELLS
    values = np.sort((cells / np.maximum(filled, 1))[filled > _CELL_FILLED * side * side])
    if len(values) == 0:
        return _Agreement(0.0, 0.0, distance)
    return _Agreement(float(values.mean()), float(values[: max(1, len(values) // 5)].mean()), distance)


def _cell_sums(values: Floats) -> Floats:
    """Sums a square array over `_CELLS` x `_CELLS` equal cells."""
    side = len(values) // _CELLS
    trimmed = values[: side * _CELLS, : side * _CELLS]
    return np.asarray(trimmed.reshape(_CELLS, side, _CELLS, side).sum(axis=(1, 3)), np.float32)


def _lead(patch: Floats, look: Look, other: Look) -> float:
    """Returns how much nearer a patch is to one look than to the other, on the pixels in which the two differ.

    The mean of distance to the other less distance to the look, over 30 Lab units; where only one of them is drawn,
    the other's distance is taken as 30 and the pixel counts half. Above 0 speaks for the look.
    """
    one, two = template_of(look), template_of(other)
    to_one, to_two = (np.minimum(_agreement(patch, each).distance, _FARTHEST) for each in (look, other))
    apart = np.sqrt(((one.lab - two.lab) ** 2).sum(axis=2)) > _DIFFERENT
    both, only_one, only_two = one.mask & two.mask & apart, one.mask & ~two.mask, two.mask & ~one.mask
    total = float((to_two - to_one)[both].sum())
    total += 0.5 * float((_OUTSIDE - to_one)[only_one].sum() + (to_two - _OUTSIDE)[only_two].sum())
    weight = max(1.0, both.sum() + 0.5 * (only_one.sum() + only_two.sum()))
    return total / _OUTSIDE / float(weight)
