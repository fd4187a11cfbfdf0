"""A picture made ready to be looked at: one size for all, perceptual colours, and its distinctive points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

PixelSimilarity = NDArray[np.uint8]
Floats = NDArray[np.float32]

SIDE = 768
"""Longer side of every picture that is looked at, in pixels."""

POINT_SIDE = 448
"""Longer side at which distinctive points are sought."""

_HALVINGS = 3
_MOST_POINTS = 500
_POINT_CONTRAST = 0.03


def open_pixels(picture: Image.Image) -> PixelSimilarity:
    """Returns a picture of any mode as RGB values, transparent parts over white."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        clear = picture.convert("RGBA")
        ground = Image.new("RGBA", clear.size, "white")
        picture = Image.alpha_composite(ground, clear)
    return np.asarray(picture.convert("RGB"), dtype=np.uint8)


def scaled(pixels: PixelSimilarity, longest: int) -> PixelSimilarity:
    """Returns a picture whose longer side has a given length in pixels."""
    height, width = pixels.shape[:2]
    scale = longest / max(height, width)
    if scale == 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=how), np.uint8)


def to_lab(pixels: PixelSimilarity) -> Floats:
    """Returns RGB values as CIE Lab in OpenCV's 8-bit scaling, as floats."""
    return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2LAB).astype(np.float32)


@dataclass(frozen=True)
class Points:
    """Distinctive points (SIFT).

    Attributes:
        places: n x 2, x and y in pixels of the picture they belong to.
        marks: n x 128 descriptors.
    """

    places: Floats
    marks: Floats

    def __len__(self) -> int:
        return len(self.places)

    def chosen(self, keep: NDArray[np.bool_]) -> Points:
        """Returns the points for which `keep` is true."""
        return Points(self.places[keep], self.marks[keep])


def find_points(luminance: PixelSimilarity, mask: PixelSimilarity | None = None, scale: float = 1.0) -> Points:
    """Finds distinctive points.

    Args:
        luminance: Height x width.
        mask: Where to look, None for everywhere.
        scale: The luminance's size over that of the picture; places are given in the picture's pixels.
    """
    detector = cv2.SIFT.create(_MOST_POINTS, contrastThreshold=_POINT_CONTRAST)
    found, marks = detector.detectAndCompute(luminance, mask)
    if marks is None:
        return Points(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    places = np.array([point.pt for point in found], np.float32) / np.float32(scale)
    return Points(places, np.asarray(marks, np.float32))


class Shrunk(NamedTuple):
    """A small copy of a picture: its colours, each channel by itself, and the squared length of every colour."""

    lab: Floats
    planes: Sequence[Floats]
    energy: Floats


@dataclass(frozen=True)
class Sight:
    """A picture as the matcher sees it.

    Attributes:
        lab: Height x width x 3, the longer side `SIDE`.
        points: Its distinctive points.
    """

    lab: Floats
    points: Points

    @classmethod
    def of(cls, pixels: PixelSimilarity) -> Sight:
        """Prepares RGB values of any size."""
        lab = to_lab(scaled(pixels, SIDE))
        small = scaled(np.ascontiguousarray(lab[..., 0].astype(np.uint8)), POINT_SIDE)
        return cls(lab, find_points(small, scale=POINT_SIDE / SIDE))

    @cached_property
    def halvings(self) -> tuple[Floats, ...]:
        """The picture at full, half, quarter and eighth size."""
        levels = [self.lab]
        for _ in range(_HALVINGS):
            height, width = levels[-1].shape[:2]
            size = (max(1, width // 2), max(1, height // 2))
            levels.append(np.asarray(cv2.resize(levels[-1], size, interpolation=cv2.INTER_AREA), np.float32))
        return tuple(levels)

    def sampled(self, matrix: NDArray[np.float64], side: int) -> Floats:
        """Returns the part of the picture that a map covers, smoothed to the size it is sampled at.

        Args:
            matrix: 2 x 3, from pixels of the part to pixels of the picture.
            side: Width and height of the part.

        Returns:
            side x side x 3; what lies outside the picture repeats its edge.
        """
        scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        level = int(np.clip(np.floor(np.log2(max(scale, 1e-6)) + 0.5), 0, _HALVINGS))
        picture = self.halvings[level]
        fit = np.array(picture.shape[1::-1]) / np.array(self.lab.shape[1::-1])
        halved = matrix * fit[:, None]
        halved[:, 2] += (fit - 1) / 2
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        part = cv2.warpAffine(picture, halved, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(part, np.float32)

    @cached_property
    def _shrunk(self) -> dict[float, Shrunk]:
        return {}

    def shrunk(self, scale: float) -> Shrunk:
        """Returns the picture at a scale below 1."""
        if scale not in self._shrunk:
            height, width = self.lab.shape[:2]
            source = self.halvings[min(_HALVINGS, max(0, int(-np.log2(scale))))]
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            lab = np.asarray(cv2.resize(source, size, interpolation=cv2.INTER_AREA), np.float32)
            energy = np.ascontiguousarray((lab**2).sum(axis=2))
            self._shrunk[scale] = Shrunk(lab, [np.ascontiguousarray(lab[..., channel]) for channel in range(3)], energy)
        return self._shrunk[scale]

    def without(self, area: NDArray[np.bool_]) -> Sight:
        """Returns the picture with an area (height x width) drowned in noise and its points dropped.

        Noise is like nothing; a flat patch would be like any plain thing of that outline.
        """
        lab = self.lab.copy()
        lab[area] = np.random.default_rng(0).integers(0, 256, (int(area.sum()), 3))
        columns, rows = (self.points.places + 0.5).astype(int).T
        inside = area[np.clip(rows, 0, area.shape[0] - 1), np.clip(columns, 0, area.shape[1] - 1)]
        return Sight(lab, self.points.chosen(~inside))
