"""Candidate poses of an appearance in an image, from keypoints and from colours, and their refinement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from knowgen.worlds.checker.align import LARGE, MIDDLE, SCALES, SMALL, Matrix, align
from knowgen.worlds.checker.image_features import FloatArray, ImageFeatures, ScaledImage
from knowgen.worlds.checker.templates import TEMPLATE_SIDE, appearance_template
from knowgen.worlds.rendering.appearance import Appearance

ENOUGH_POINTS = 9
"""Number of agreeing keypoints from which a pose with good agreement is accepted without a search by colours."""

_DISTINCT = 0.82
_FULL_AFFINE_FROM = 8
_MIN_PAIRS = 4
_MAX_REPROJECTION_ERROR = 6.0
_COARSE_SIDE = 20
_SIZES = tuple(float(size) for size in np.geomspace(64, 400, 13))
_NOISE_FLOOR = 60.0
_ALIGNED_COUNT, _YIELDED_COUNT = 6, 1
_WORTH_MORE = 0.15


@dataclass(frozen=True)
class Pose:
    """A possible position, size and orientation of an appearance in an image.

    Attributes:
        matrix: Affine map, 2 x 3, from template pixels to image pixels.
        mirrored: Whether the template is mirrored.
        points: Number of agreeing keypoints; 0 for a candidate from colours.
        strength: Rank among candidates of the same source; after alignment, the share of colour variance explained.
    """

    matrix: Matrix
    mirrored: bool
    points: int
    strength: float

    @property
    def scale(self) -> float:
        """Image pixels per template pixel."""
        return float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))


def poses_by_points(features: ImageFeatures, appearance: Appearance) -> Iterator[Pose]:
    """Yield the best pose by keypoints, upright and mirrored; nothing if there are too few keypoints."""
    for mirrored in (False, True):
        yield from _keypoint_candidates(features, appearance, mirrored)


def poses_by_colours(features: ImageFeatures, appearance: Appearance) -> Iterator[Pose]:
    """Yield the best pose by colours, then the best of the next ones after a short alignment."""
    by_colours = _colour_candidates(features, appearance)
    yield from by_colours[:1]
    aligned = [_align_pose(features, appearance, pose, SMALL, 10) for pose in by_colours[:_ALIGNED_COUNT]]
    yield from (pose for pose in sorted(aligned, key=lambda pose: -pose.strength)[:_YIELDED_COUNT] if pose.strength > 0)


def refine(features: ImageFeatures, appearance: Appearance, pose: Pose) -> Pose:
    """Align a pose with the image; the fine step runs only if the coarse one explains enough variance."""
    roughly = _align_pose(features, appearance, pose, MIDDLE, 10)
    return roughly if roughly.strength < _WORTH_MORE else _align_pose(features, appearance, roughly, LARGE, 4)


def _align_pose(features: ImageFeatures, appearance: Appearance, pose: Pose, side: int, steps: int) -> Pose:
    matrix, share = align(features, appearance, pose.matrix, mirrored=pose.mirrored, side=side, steps=steps)
    return replace(pose, matrix=matrix, strength=share)


def _keypoint_candidates(features: ImageFeatures, appearance: Appearance, mirrored: bool) -> Iterator[Pose]:
    """Fit an affine map to matching keypoints with RANSAC; with few matches, fit a similarity."""
    points = appearance_template(appearance, mirrored).points
    if min(len(points), len(features.points)) < _MIN_PAIRS:
        return
    nearest = cv2.BFMatcher().knnMatch(points.descriptors, features.points.descriptors, k=2)
    pairs = [two[0] for two in nearest if len(two) == 2 and two[0].distance < _DISTINCT * two[1].distance]
    if len(pairs) < _MIN_PAIRS:
        return
    start = points.positions[[pair.queryIdx for pair in pairs]]
    end = features.points.positions[[pair.trainIdx for pair in pairs]]
    fit = cv2.estimateAffinePartial2D if len(pairs) < _FULL_AFFINE_FROM else cv2.estimateAffine2D
    matrix, agreeing = fit(start, end, ransacReprojThreshold=_MAX_REPROJECTION_ERROR, maxIters=1500)
    if matrix is not None:
        count = int(agreeing.sum())
        pose = Pose(matrix.astype(np.float64), mirrored, count, float(count))
        if SCALES[0] < pose.scale < SCALES[1]:
            yield pose


def _colour_candidates(features: ImageFeatures, appearance: Appearance) -> list[Pose]:
    """Correlate the colours of an appearance with the image at many sizes; the best position of each is a candidate.

    The appearance is always scaled to 20 pixels and the image accordingly, so that patterns average out.
    """
    poses = []
    for mirrored in (False,) if appearance_template(appearance).symmetric else (False, True):
        template = appearance_template(appearance, mirrored)
        left, top, right, bottom = template.box
        shrink = _COARSE_SIDE / max(right - left, bottom - top)
        size = (max(6, round((right - left) * shrink)), max(6, round((bottom - top) * shrink)))
        colours = cv2.resize(template.lab[top:bottom, left:right], size, interpolation=cv2.INTER_AREA)
        coverage = template.mask[top:bottom, left:right].astype(np.float32)
        mask = (cv2.resize(coverage, size, interpolation=cv2.INTER_AREA) > 0.6).astype(np.float32)
        if mask.sum() < 16:
            continue
        for longest in _SIZES:
            scale = _COARSE_SIDE / longest
            image = features.scaled_copy(scale)
            if size[0] >= image.lab.shape[1] or size[1] >= image.lab.shape[0]:
                continue
            value, (x, y) = _correlate(image, np.asarray(colours, np.float32), mask)
            zoom = shrink / scale
            matrix = np.array([[zoom, 0, x / scale - zoom * left], [0, zoom, y / scale - zoom * top]])
            poses.append(Pose(matrix, mirrored, 0, value))
    return sorted(poses, key=lambda pose: -pose.strength)


def _correlate(image: ScaledImage, colours: FloatArray, mask: FloatArray) -> tuple[float, tuple[int, int]]:
    """Return the highest correlation, -1 to 1, of masked colours with an image, and its position.

    The masked, zero-mean, normalised correlation is computed from unmasked ones, which are much faster: with
    template t minus its mean on the mask m of n pixels and image I, it is
    sum(I t) / sqrt((sum(I^2 m) - sum(I m)^2 / n) sum(t^2)).
    """
    count = float(mask.sum())
    mean = (colours * mask[..., None]).sum(axis=(0, 1)) / count
    pattern = np.ascontiguousarray((colours - mean) * mask[..., None], dtype=np.float32)
    product = cv2.matchTemplate(image.lab, pattern, cv2.TM_CCORR)
    spread = np.asarray(cv2.matchTemplate(image.energy, mask, cv2.TM_CCORR), np.float32)
    for plane in image.planes:
        spread -= np.asarray(cv2.matchTemplate(plane, mask, cv2.TM_CCORR), np.float32) ** 2 / count
    norm = np.maximum(spread, count * _NOISE_FLOOR) * max(float((pattern**2).sum()), 1.0)
    _, value, _, (x, y) = cv2.minMaxLoc(product / np.sqrt(norm))
    return float(value), (int(x), int(y))


def pose_patch(features: ImageFeatures, pose: Pose) -> FloatArray:
    """Return the image part that a pose covers, in the coordinates of the upright template."""
    patch = features.sample_patch(pose.matrix, TEMPLATE_SIDE)
    return np.ascontiguousarray(patch[:, ::-1] if pose.mirrored else patch)


def pose_mask(features: ImageFeatures, appearance: Appearance, pose: Pose) -> NDArray[np.bool_]:
    """Return the mask (height x width) of an appearance in this pose, with a small margin."""
    height, width = features.lab.shape[:2]
    mask = appearance_template(appearance, pose.mirrored).mask.astype(np.uint8)
    area = cv2.warpAffine(mask, pose.matrix, (width, height), flags=cv2.INTER_NEAREST)
    return np.asarray(cv2.dilate(area, np.ones((9, 9), np.uint8)) > 0)


def pose_box(features: ImageFeatures, appearance: Appearance, pose: Pose) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of an appearance in this pose, as fractions (0-1) of the image size."""
    left, top, right, bottom = appearance_template(appearance, pose.mirrored).box
    corners = np.array([[left, right, left, right], [top, top, bottom, bottom], [1, 1, 1, 1]])
    across, down = pose.matrix @ corners / np.array(features.lab.shape[1::-1])[:, None]
    edges = np.clip([across.min(), down.min(), across.max(), down.max()], 0, 1)
    return float(edges[0]), float(edges[1]), float(edges[2]), float(edges[3])
