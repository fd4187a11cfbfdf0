"""Decide whether a subject is in the image, and whether it is the right one or its distractor.

A pose is searched for the appearance and for its distractor. The agreement of the image with the appearance there
decides whether such a subject is present; the pixels in which the two differ decide which of them it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import cv2
import numpy as np

from knowgen.worlds.checker.image_features import FloatArray, ImageFeatures
from knowgen.worlds.checker.poses import (
    ENOUGH_POINTS,
    Pose,
    pose_box,
    pose_mask,
    pose_patch,
    poses_by_colours,
    poses_by_points,
    refine,
)
from knowgen.worlds.checker.templates import appearance_template
from knowgen.worlds.rendering.appearance import Appearance

PRESENT = 0.58
"""Minimum mean agreement (0-1) of a subject that is present."""

PRESENT_THROUGHOUT = 0.27
"""Minimum agreement of the worst fifth of the cells: one part in other colours means another subject."""

CLEAR = 0.05
"""Minimum lead (-1 to 1) of the right appearance over its distractor."""

_CERTAIN_AGREEMENT, _CERTAIN_LEAD = 0.8, 0.3
_HEDGE_AGREEMENT, _HEDGE_LEAD = 0.52, 0.2
_SHARED_MOST = 0.25
_CELLS = 9
_CELL_FILLED = 0.3
_FREE_DISTANCE, _FADING_DISTANCE = 7.0, 26.0
_FARTHEST, _OUTSIDE = 60.0, 30.0
_DIFFERENT = 14.0
_GAIN, _OFFSET = (0.75, 1.33), 35.0


class SubjectVerdict(StrEnum):
    """Outcome of matching a subject; the values are stored in score details."""

    RIGHT = "right"
    DISTRACTOR = "look-alike"
    HEDGED = "hedged"
    ABSENT = "absent"


POINTS = {
    SubjectVerdict.RIGHT: 1.0,
    SubjectVerdict.DISTRACTOR: 0.5,
    SubjectVerdict.HEDGED: 0.5,
    SubjectVerdict.ABSENT: 0.0,
}
"""Points per verdict."""


@dataclass(frozen=True, slots=True)
class SubjectMatch:
    """Match of one subject.

    Attributes:
        verdict: Outcome.
        agreement: Mean agreement with the right appearance, 0-1.
        lead: Difference of the distances to the distractor and to the right appearance, about -1 to 1; positive means
            nearer to the right appearance.
        points: Number of keypoints that agree on the pose; 0 if it was found by colours.
        box: Left, top, right and bottom, as fractions (0-1) of the image size; None if it is absent.
    """

    verdict: SubjectVerdict
    agreement: float
    lead: float
    points: int
    box: tuple[float, float, float, float] | None = None


class _PatchAgreement(NamedTuple):
    mean: float
    lowest: float
    distance: FloatArray

    @property
    def is_sufficient(self) -> bool:
        """Whether the agreement is high enough for the subject to be present."""
        return self.mean >= PRESENT and self.lowest >= PRESENT_THROUGHOUT


@dataclass(frozen=True, slots=True)
class _Placement:
    """A pose of an appearance, the image patch there, and their agreement."""

    appearance: Appearance
    pose: Pose
    patch: FloatArray
    agreement: float
    fit: float
    certain: bool


def match_subject(features: ImageFeatures, appearance: Appearance, distractor: Appearance) -> SubjectMatch:
    """Match a subject in an image.

    Args:
        features: Features of the image.
        appearance: Appearance of the subject.
        distractor: Appearance of its distractor.
    """
    place = _best_placement(features, appearance, distractor)
    if place is None or not place.certain:
        other = _best_placement(features, distractor, appearance)
        if other is not None and (place is None or other.fit > place.fit):
            place = other
    if place is None:
        return SubjectMatch(SubjectVerdict.ABSENT, 0.0, 0.0, 0)
    lead = _lead(place.patch, appearance, distractor)
    agreement = _compare(place.patch, appearance)
    verdict = SubjectVerdict.ABSENT
    if agreement.is_sufficient and lead >= CLEAR:
        hedged = _present_elsewhere(features, place, distractor, appearance)
        verdict = SubjectVerdict.HEDGED if hedged else SubjectVerdict.RIGHT
    elif agreement.is_sufficient or _compare(place.patch, distractor).is_sufficient:
        verdict = SubjectVerdict.DISTRACTOR
    box = None if verdict is SubjectVerdict.ABSENT else pose_box(features, place.appearance, place.pose)
    return SubjectMatch(verdict, agreement.mean, lead, place.pose.points, box)


def _best_placement(features: ImageFeatures, appearance: Appearance, other: Appearance) -> _Placement | None:
    """Return the placement where the image agrees best with an appearance; None without any candidate.

    The search stops at a placement that certainly shows the appearance and not the other. Keypoints alone do not
    suffice: subjects of one kind share parts, and many keypoints may agree on the wrong one.
    """
    best: _Placement | None = None
    for search in (poses_by_points, poses_by_colours):
        for candidate in search(features, appearance):
            best = _better_placement(best, _placement_at(features, appearance, other, candidate))
            if best.certain:
                return best
        if best is not None and best.pose.points >= ENOUGH_POINTS and best.agreement >= PRESENT:
            return best
    return best


def _placement_at(features: ImageFeatures, appearance: Appearance, other: Appearance, pose: Pose) -> _Placement:
    refined = refine(features, appearance, pose)
    patch = pose_patch(features, refined)
    agreement = _compare(patch, appearance)
    certain = agreement.mean >= _CERTAIN_AGREEMENT and _lead(patch, appearance, other) >= _CERTAIN_LEAD
    return _Placement(appearance, refined, patch, agreement.mean, agreement.mean + agreement.lowest, certain)


def _better_placement(one: _Placement | None, other: _Placement) -> _Placement:
    return other if one is None or other.fit > one.fit else one


def _present_elsewhere(features: ImageFeatures, place: _Placement, expected: Appearance, other: Appearance) -> bool:
    """Return whether the distractor is also in the image, outside the area of the match."""
    occupied = pose_mask(features, place.appearance, place.pose)
    second = _best_placement(features.without_area(occupied), expected, other)
    if second is None or second.agreement < _HEDGE_AGREEMENT or _lead(second.patch, expected, other) < _HEDGE_LEAD:
        return False
    area = pose_mask(features, expected, second.pose)
    return bool((area & occupied).sum() < _SHARED_MOST * area.sum())


def _compare(patch: FloatArray, appearance: Appearance) -> _PatchAgreement:
    """Compare a patch with an appearance, cell by cell, after fitting gain and offset of the luminance.

    Returns:
        Mean agreement (0-1) over the cells that the appearance fills, mean of the lowest fifth of them, and the colour
        distance of every pixel.
    """
    template = appearance_template(appearance)
    inner, template_colours = template.inner, template.softened
    colours = np.asarray(cv2.blur(patch, (3, 3)), np.float32)
    light, expected = colours[..., 0][inner], template_colours[..., 0][inner]
    gain = 1.0
    if light.std() > 5:
        gain = float(np.clip(((light - light.mean()) * (expected - expected.mean())).mean() / light.var(), *_GAIN))
    offset = float(np.clip((expected - gain * light).mean(), -_OFFSET, _OFFSET))
    colours[..., 0] = gain * colours[..., 0] + offset
    distance = np.asarray(
        cv2.sqrt(cv2.transform((colours - template_colours) ** 2, np.ones((1, 3), np.float32))), np.float32
    )
    likeness = np.exp(np.maximum(distance - _FREE_DISTANCE, 0) / -_FADING_DISTANCE) * inner
    cells, filled = _cell_sums(likeness), _cell_sums(inner.astype(np.float32))
    values = np.sort((cells / np.maximum(filled, 1))[filled > _CELL_FILLED * filled.max()])
    if len(values) == 0:
        return _PatchAgreement(0.0, 0.0, distance)
    return _PatchAgreement(float(values.mean()), float(values[: max(1, len(values) // 5)].mean()), distance)


def _cell_sums(values: FloatArray) -> FloatArray:
    """Return the sums of a square array over `_CELLS` x `_CELLS` equal cells."""
    side = len(values) // _CELLS
    trimmed = values[: side * _CELLS, : side * _CELLS]
    return np.asarray(trimmed.reshape(_CELLS, side, _CELLS, side).sum(axis=(1, 3)), np.float32)


def _lead(patch: FloatArray, appearance: Appearance, other: Appearance) -> float:
    """Return how much nearer a patch is to an appearance than to the other, on the pixels in which they differ.

    This is the mean of the distance to the other minus the distance to the appearance, divided by 30 Lab units. Where
    only one of them is drawn, the distance to the other is 30 and the pixel has weight 0.5. Positive values favour the
    appearance.
    """
    one, two = appearance_template(appearance), appearance_template(other)
    to_one, to_two = (np.minimum(_compare(patch, each).distance, _FARTHEST) for each in (appearance, other))
    apart = np.sqrt(((one.lab - two.lab) ** 2).sum(axis=2)) > _DIFFERENT
    both, only_one, only_two = one.mask & two.mask & apart, one.mask & ~two.mask, two.mask & ~one.mask
    total = float((to_two - to_one)[both].sum())
    total += 0.5 * float((_OUTSIDE - to_one)[only_one].sum() + (to_two - _OUTSIDE)[only_two].sum())
    weight = max(1.0, both.sum() + 0.5 * (only_one.sum() + only_two.sum()))
    return total / _OUTSIDE / float(weight)
