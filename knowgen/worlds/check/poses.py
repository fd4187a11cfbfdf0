"""Where in a picture might a look be? Candidates from distinctive points and from colours, then refined."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from knowgen.worlds.check.sight import COARSE, Floats, Pixels, Points, Sight, find_points, to_lab
from knowgen.worlds.drawing.looks import Look, draw_look

TEMPLATE_SIDE = 144
"""Width and height of a template, in pixels."""

ENOUGH_POINTS = 9
"""Agreeing points from which on the colours are not searched any more."""

_FLAT_GROUND = 190
_DISTINCT = 0.82
_FULL_AFFINE_FROM = 8
_LEAST_PAIRS = 4
_MOST_OFF = 6.0
_SCALES = (0.5, 4.0)
_COARSE_SIZES = np.geomspace(18, 84, 10)
_NOISE_FLOOR = 60.0
_REFINEMENTS = 20


@dataclass(frozen=True)
class Template:
    """A look as it is compared.

    Attributes:
        lab: `TEMPLATE_SIDE` x `TEMPLATE_SIDE` x 3.
        mask: Where the look is drawn.
    """

    lab: Floats
    mask: NDArray[np.bool_]
    points: Points

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what is drawn; the last two are the first ones outside."""
        rows, columns = np.nonzero(self.mask)
        return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@lru_cache(maxsize=192)
def template_of(look: Look, mirrored: bool = False) -> Template:
    """Draws a look as a template, mirrored left to right if wished."""
    drawn = np.asarray(draw_look(look, TEMPLATE_SIDE))
    if mirrored:
        drawn = np.ascontiguousarray(drawn[:, ::-1])
    lab, mask = to_lab(drawn[..., :3]), drawn[..., 3] > 128
    luminance: Pixels = np.where(mask, lab[..., 0], _FLAT_GROUND).astype(np.uint8)
    return Template(lab, mask, find_points(luminance, mask.astype(np.uint8) * 255))


@dataclass(frozen=True)
class Pose:
    """A way the look may lie in the picture.

    Attributes:
        matrix: 2 x 3, from template pixels to picture pixels.
        mirrored: Is it the mirrored template?
        points: Agreeing distinctive points; 0 for a candidate from colours.
        strength: What candidates of the same source are ranked by.
    """

    matrix: Floats
    mirrored: bool
    points: int
    strength: float

    @property
    def scale(self) -> float:
        """Picture pixels per template pixel."""
        return float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))


def candidate_poses(sight: Sight, look: Look) -> list[Pose]:
    """Returns the likeliest poses of a look: the best by points and, unless that one is sure, two by colours."""
    by_points = _by_points(sight, look)[:1]
    if by_points and by_points[0].points >= ENOUGH_POINTS:
        return by_points
    return by_points + _by_colours(sight, look)[:2]


def _by_points(sight: Sight, look: Look) -> list[Pose]:
    """Fits an affine map to matching points, robustly (RANSAC); a similarity while there are few of them."""
    poses = []
    for mirrored in (False, True):
        points = template_of(look, mirrored).points
        if min(len(points), len(sight.points)) < _LEAST_PAIRS:
            continue
        nearest = cv2.BFMatcher().knnMatch(points.marks, sight.points.marks, k=2)
        pairs = [two[0] for two in nearest if len(two) == 2 and two[0].distance < _DISTINCT * two[1].distance]
        if len(pairs) < _LEAST_PAIRS:
            continue
        start = points.places[[pair.queryIdx for pair in pairs]]
        end = sight.points.places[[pair.trainIdx for pair in pairs]]
        fit = cv2.estimateAffinePartial2D if len(pairs) < _FULL_AFFINE_FROM else cv2.estimateAffine2D
        matrix, agreeing = fit(start, end, ransacReprojThreshold=_MOST_OFF, maxIters=1500)
        if matrix is None:
            continue
        count = int(agreeing.sum())
        pose = Pose(matrix.astype(np.float32), mirrored, count, float(count))
        if _SCALES[0] < pose.scale < _SCALES[1]:
            poses.append(pose)
    return sorted(poses, key=lambda pose: -pose.strength)


def _by_colours(sight: Sight, look: Look) -> list[Pose]:
    """Correlates the colours of the look, each less its mean, with the small copy of the picture at ten sizes.

    The masked, zero-mean, normalised correlation is put together from unmasked ones, which are far faster:
    with template t less its mean on the mask m of n pixels and picture I, it is
    sum(I t) / sqrt((sum(I^2 m) - sum(I m)^2 / n) sum(t^2)).
    """
    poses = []
    picture, energy = sight.coarse, sight.coarse_energy
    channels = [np.ascontiguousarray(picture[..., channel]) for channel in range(3)]
    for mirrored in (False, True):
        template = template_of(look, mirrored)
        left, top, right, bottom = template.box
        lab = template.lab[top:bottom, left:right]
        drawn = template.mask[top:bottom, left:right].astype(np.float32)
        for longest in _COARSE_SIZES:
            shrink = float(longest) / max(drawn.shape)
            size = (max(8, round(drawn.shape[1] * shrink)), max(8, round(drawn.shape[0] * shrink)))
            if size[0] >= picture.shape[1] or size[1] >= picture.shape[0]:
                continue
            mask = (cv2.resize(drawn, size, interpolation=cv2.INTER_AREA) > 0.6).astype(np.float32)
            count = float(mask.sum())
            if count < 16:
                continue
            colours = cv2.resize(lab, size, interpolation=cv2.INTER_AREA)
            mean = (colours * mask[..., None]).sum(axis=(0, 1)) / count
            pattern = np.ascontiguousarray((colours - mean) * mask[..., None])
            product = cv2.matchTemplate(picture, pattern, cv2.TM_CCORR)
            spread = np.asarray(cv2.matchTemplate(energy, mask, cv2.TM_CCORR), np.float32)
            for channel in channels:
                spread -= np.asarray(cv2.matchTemplate(channel, mask, cv2.TM_CCORR), np.float32) ** 2 / count
            norm = np.maximum(spread, count * _NOISE_FLOOR) * max(float((pattern**2).sum()), 1.0)
            _, value, _, (x, y) = cv2.minMaxLoc(product / np.sqrt(norm))
            scale = shrink / COARSE
            matrix = np.array([[scale, 0, x / COARSE - scale * left], [0, scale, y / COARSE - scale * top]], np.float32)
            poses.append(Pose(matrix, mirrored, 0, float(value)))
    return sorted(poses, key=lambda pose: -pose.strength)


def refine(sight: Sight, look: Look, pose: Pose) -> Pose:
    """Aligns the luminance of template and picture (ECC, affine); a pose that does not converge stays as it is."""
    template = template_of(look, pose.mirrored)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _REFINEMENTS, 1e-4)
    try:
        _, matrix = cv2.findTransformECC(
            np.ascontiguousarray(template.lab[..., 0]),
            sight.luminance_at(pose.scale),
            pose.matrix.copy(),
            cv2.MOTION_AFFINE,
            criteria,
            template.mask.astype(np.uint8),
            5,
        )
    except cv2.error:  # it reports a poor start as an error; the start itself is then judged
        return pose
    return Pose(np.asarray(matrix, np.float32), pose.mirrored, pose.points, pose.strength)


def patch_at(sight: Sight, pose: Pose) -> Floats:
    """Returns the part of the picture that a pose covers, as the template would show it, not mirrored."""
    size = (TEMPLATE_SIDE, TEMPLATE_SIDE)
    patch = cv2.warpAffine(sight.lab, pose.matrix, size, flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP)
    return np.ascontiguousarray(patch[:, ::-1] if pose.mirrored else patch)


def area_of(sight: Sight, look: Look, pose: Pose) -> NDArray[np.bool_]:
    """Returns where in the picture (height x width) a look in this pose is drawn, with a small margin."""
    height, width = sight.lab.shape[:2]
    mask = template_of(look, pose.mirrored).mask.astype(np.uint8)
    area = cv2.warpAffine(mask, pose.matrix, (width, height), flags=cv2.INTER_NEAREST)
    return np.asarray(cv2.dilate(area, np.ones((9, 9), np.uint8)) > 0)
