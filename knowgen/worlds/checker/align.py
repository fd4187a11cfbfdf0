"""Align a template with an image: inverse compositional alignment of colours under an affine map.

Method: Baker and Matthews (2004), "Lucas-Kanade 20 years on". The template is linearised once, so a step costs one warp
and one small matrix product. Only pixels of the appearance are used. The mean of each channel is subtracted and the
luminance is fitted up to a gain, so that exposure does not matter. Alignment goes from small to large templates: small
ones do not resolve fine patterns, which could otherwise lock the map in a wrong phase.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from knowgen.worlds.checker.image_features import FloatArray, ImageFeatures
from knowgen.worlds.checker.templates import TEMPLATE_SIDE, appearance_template
from knowgen.worlds.rendering.appearance import Appearance

Matrix = NDArray[np.float64]
"""Affine map, 2 x 3, from template pixels to image pixels."""

SMALL, MIDDLE, LARGE = 36, 72, 144
"""Side lengths of the templates, in pixels."""

SCALES = (0.4, 4.5)
"""Range of accepted scales, in image pixels per template pixel."""

_GAIN = (0.7, 1.4)
_DAMPING = 1e-3
_STILL = 0.02
_MAX_STRETCH = 1.8


@dataclass(frozen=True)
class _Linearised:
    """A linearised template of one size.

    Attributes:
        pick: Indices of the appearance's n pixels in the flattened template.
        colours: Their colours, n x 3, each channel minus its mean.
        steepest: Derivative of the colours by the six parameters of the map, 3n x 6.
        solver: Linear map from colour residuals to a step, 6 x 3n.
    """

    pick: NDArray[np.intp]
    colours: FloatArray
    steepest: FloatArray
    solver: FloatArray


@lru_cache(maxsize=384)
def _linearise(appearance: Appearance, mirrored: bool, side: int) -> _Linearised:
    template = appearance_template(appearance, mirrored)
    scaled_copy = cv2.resize(template.lab, (side, side), interpolation=cv2.INTER_AREA)
    coverage = cv2.resize(template.mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    pick = np.flatnonzero(cv2.erode((coverage > 0.99).astype(np.uint8), np.ones((3, 3), np.uint8)))
    lab = np.asarray(cv2.GaussianBlur(scaled_copy, (3, 3), 0), np.float32)
    across = np.asarray(cv2.Sobel(lab, cv2.CV_32F, 1, 0, scale=1 / 8), np.float32).reshape(-1, 3)[pick]
    down = np.asarray(cv2.Sobel(lab, cv2.CV_32F, 0, 1, scale=1 / 8), np.float32).reshape(-1, 3)[pick]
    rows, columns = (each.astype(np.float32)[:, None] for each in np.divmod(pick, side))
    steps = (across * columns, across * rows, across, down * columns, down * rows, down)
    steepest = np.stack(steps, axis=2).reshape(-1, 6)
    colours = lab.reshape(-1, 3)[pick]
    hessian = steepest.T @ steepest
    damped = hessian + _DAMPING * np.diag(np.diag(hessian)) + 1e-6 * np.eye(6, dtype=np.float32)
    solver = np.linalg.solve(damped.astype(np.float64), steepest.T.astype(np.float64)).astype(np.float32)
    return _Linearised(pick, colours - colours.mean(axis=0), steepest, solver)


def align(
    features: ImageFeatures, appearance: Appearance, matrix: Matrix, *, mirrored: bool, side: int, steps: int
) -> tuple[Matrix, float]:
    """Refine a map from a template onto the image.

    Args:
        features: Features of the image.
        appearance: Appearance to align.
        matrix: Initial map, for a template of side `TEMPLATE_SIDE`.
        mirrored: Whether to use the mirrored template.
        side: Side length of the template to align, in pixels.
        steps: Maximum number of steps.

    Returns:
        The best map, and the share of the template's colour variance that the image explains there: 1 for a perfect
        copy, about 0 or below without a match.
    """
    level = _linearise(appearance, mirrored, side)
    if len(level.pick) < 32:
        return matrix, 0.0
    total = float((level.colours**2).sum()) + 1e-6
    ratio = TEMPLATE_SIDE / side
    shrink = np.array([[ratio, 0, (ratio - 1) / 2], [0, ratio, (ratio - 1) / 2], [0, 0, 1]])
    current = (np.vstack([matrix, [0, 0, 1]]) @ shrink)[:2]
    best, best_share = current, -1.0
    for step in range(steps + 1):
        residual = _residual(features, level, current, side)
        share = 1 - float((residual**2).sum()) / total
        if share > best_share:
            best, best_share = current, share
        if step == steps:
            break
        change = (level.solver @ residual.reshape(-1)).astype(np.float64).reshape(2, 3)
        displacement = np.abs(change @ np.array([side / 2, side / 2, 1.0])).max() + side * np.abs(change[:, :2]).max()
        increment = np.vstack([change, [0, 0, 0]]) + np.eye(3)
        if abs(np.linalg.det(increment)) < 0.1:
            break
        current = (np.vstack([current, [0, 0, 1]]) @ np.linalg.inv(increment))[:2]
        if not _is_plausible(current, ratio) or displacement < _STILL:
            break
    return (np.vstack([best, [0, 0, 1]]) @ np.linalg.inv(shrink))[:2], best_share


def _is_plausible(matrix: Matrix, ratio: float) -> bool:
    """Return whether a map has an accepted scale and stretch."""
    stretches = np.linalg.svd(matrix[:, :2] / ratio, compute_uv=False)
    return bool(SCALES[0] < stretches[1] and stretches[0] < min(SCALES[1], _MAX_STRETCH * stretches[1]))


def _residual(features: ImageFeatures, level: _Linearised, matrix: Matrix, side: int) -> FloatArray:
    """Return the n x 3 colour differences, image minus template, each channel minus its mean."""
    part = cv2.GaussianBlur(features.sample_patch(matrix, side), (3, 3), 0)
    observed = np.asarray(part, np.float32).reshape(-1, 3)[level.pick]
    observed = observed - observed.mean(axis=0)
    light = observed[:, 0]
    energy = float(light @ light)
    if energy > 1:
        observed[:, 0] *= np.float32(np.clip(float(light @ level.colours[:, 0]) / energy, *_GAIN))
    return np.asarray(observed - level.colours, np.float32)
