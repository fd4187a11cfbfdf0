"""Features of an image: perceptual colours at a common size, and keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

PixelArray = NDArray[np.uint8]
FloatArray = NDArray[np.float32]

SIDE = 768
"""Longer side of an image after scaling, in pixels."""

POINT_SIDE = 448
"""Longer side at which keypoints are detected, in pixels."""

_PYRAMID_LEVELS = 3
_MAX_POINTS = 500
_POINT_CONTRAST = 0.03


def resize_longest(pixels: PixelArray, longest: int) -> PixelArray:
    """Return the image scaled to a given length of its longer side, in pixels."""
    height, width = pixels.shape[:2]
    scale = longest / max(height, width)
    if scale == 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=how), np.uint8)


def to_lab(pixels: PixelArray) -> FloatArray:
    """Return RGB values as CIE Lab in OpenCV's 8-bit scaling, as float32."""
    return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2LAB).astype(np.float32)


@dataclass(frozen=True)
class Keypoints:
    """SIFT keypoints.

    Attributes:
        positions: Positions, n x 2, x and y in image pixels.
        descriptors: Descriptors, n x 128.
    """

    positions: FloatArray
    descriptors: FloatArray

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, keep: NDArray[np.bool_]) -> Keypoints:
        """Return the keypoints for which `keep` is true."""
        return Keypoints(self.positions[keep], self.descriptors[keep])


def find_keypoints(luminance: PixelArray, mask: PixelArray | None = None, scale: float = 1.0) -> Keypoints:
    """Detect keypoints.

    Args:
        luminance: Luminance, height x width.
        mask: Region to search; None for the whole image.
        scale: Size of the luminance divided by that of the image; positions are in image pixels.
    """
    detector = cv2.SIFT.create(_MAX_POINTS, contrastThreshold=_POINT_CONTRAST)
    keypoints, descriptors = detector.detectAndCompute(luminance, mask)
    if descriptors is None:
        return Keypoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    positions = np.array([point.pt for point in keypoints], np.float32) / np.float32(scale)
    return Keypoints(positions, np.asarray(descriptors, np.float32))


class ScaledImage(NamedTuple):
    """A scaled copy of an image: its colours, its channels, and the squared norm of every colour."""

    lab: FloatArray
    planes: Sequence[FloatArray]
    energy: FloatArray


@dataclass(frozen=True)
class ImageFeatures:
    """Features of an image for matching.

    Attributes:
        lab: Lab colours, height x width x 3, with a longer side of `SIDE`.
        points: Its keypoints.
    """

    lab: FloatArray
    points: Keypoints

    @classmethod
    def from_pixels(cls, pixels: PixelArray) -> ImageFeatures:
        """Return the features of RGB values of any size."""
        lab = to_lab(resize_longest(pixels, SIDE))
        small = resize_longest(np.ascontiguousarray(lab[..., 0].astype(np.uint8)), POINT_SIDE)
        return cls(lab, find_keypoints(small, scale=POINT_SIDE / SIDE))

    @cached_property
    def pyramid(self) -> tuple[FloatArray, ...]:
        """The image at full, half, quarter and eighth size (an image pyramid)."""
        levels = [self.lab]
        for _ in range(_PYRAMID_LEVELS):
            height, width = levels[-1].shape[:2]
            size = (max(1, width // 2), max(1, height // 2))
            levels.append(np.asarray(cv2.resize(levels[-1], size, interpolation=cv2.INTER_AREA), np.float32))
        return tuple(levels)

    def sample_patch(self, matrix: NDArray[np.float64], side: int) -> FloatArray:
        """Return the part of the image that a map covers, smoothed for its sampling rate.

        Args:
            matrix: Affine map, 2 x 3, from pixels of the part to image pixels.
            side: Width and height of the part, in pixels.

        Returns:
            side x side x 3; beyond the image its edge is repeated.
        """
        scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        level = int(np.clip(np.floor(np.log2(max(scale, 1e-6)) + 0.5), 0, _PYRAMID_LEVELS))
        image = self.pyramid[level]
        fit = np.array(image.shape[1::-1]) / np.array(self.lab.shape[1::-1])
        halved = matrix * fit[:, None]
        halved[:, 2] += (fit - 1) / 2
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        part = cv2.warpAffine(image, halved, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(part, np.float32)

    @cached_property
    def _scaled(self) -> dict[float, ScaledImage]:
        return {}

    def scaled_copy(self, scale: float) -> ScaledImage:
        """Return the image at a scale below 1; results are cached."""
        if scale not in self._scaled:
            height, width = self.lab.shape[:2]
            source = self.pyramid[min(_PYRAMID_LEVELS, max(0, int(-np.log2(scale))))]
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            lab = np.asarray(cv2.resize(source, size, interpolation=cv2.INTER_AREA), np.float32)
            energy = np.ascontiguousarray((lab**2).sum(axis=2))
            self._scaled[scale] = ScaledImage(
                lab, [np.ascontiguousarray(lab[..., channel]) for channel in range(3)], energy
            )
        return self._scaled[scale]

    def without_area(self, area: NDArray[np.bool_]) -> ImageFeatures:
        """Return the features with an area (height x width) replaced by noise and its keypoints removed.

        Noise matches nothing; a flat patch could match a plain subject of that outline.
        """
        lab = self.lab.copy()
        lab[area] = np.random.default_rng(0).integers(0, 256, (int(area.sum()), 3))
        columns, rows = (self.points.positions + 0.5).astype(int).T
        inside = area[np.clip(rows, 0, area.shape[0] - 1), np.clip(columns, 0, area.shape[1] - 1)]
        return ImageFeatures(lab, self.points.select(~inside))
