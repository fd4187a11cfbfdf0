"""A picture made ready to be looked at: one size for all, perceptual colours, and its distinctive points."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

SIDE = 768
"""Longer side of every picture that is looked at, in pixels."""

POINT_SIDE = 512
"""Longer side at which distinctive points are sought."""

COARSE = 0.25
"""Scale of the small copy that colour correlation searches."""

_MOST_POINTS = 500
_POINT_CONTRAST = 0.03


def open_pixels(picture: Image.Image) -> Pixels:
    """Returns a picture of any mode as RGB values, transparent parts over white."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        clear = picture.convert("RGBA")
        ground = Image.new("RGBA", clear.size, "white")
        picture = Image.alpha_composite(ground, clear)
    return np.asarray(picture.convert("RGB"), dtype=np.uint8)


def scaled(pixels: Pixels, longest: int) -> Pixels:
    """Returns a picture whose longer side has a given length in pixels."""
    height, width = pixels.shape[:2]
    scale = longest / max(height, width)
    if scale == 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=how), np.uint8)


def to_lab(pixels: Pixels) -> Floats:
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


def find_points(luminance: Pixels, mask: Pixels | None = None, scale: float = 1.0) -> Points:
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
    def of(cls, pixels: Pixels) -> Sight:
        """Prepares RGB values of any size."""
        lab = to_lab(scaled(pixels, SIDE))
        small = scaled(np.ascontiguousarray(lab[..., 0].astype(np.uint8)), POINT_SIDE)
        return cls(lab, find_points(small, scale=POINT_SIDE / SIDE))

    @cached_property
    def coarse(self) -> Floats:
        """The small copy for colour correlation."""
        height, width = self.lab.shape[:2]
        size = (max(1, int(width * COARSE)), max(1, int(height * COARSE)))
        return np.asarray(cv2.resize(self.lab, size, interpolation=cv2.INTER_AREA), np.float32)

    @cached_property
    def coarse_energy(self) -> Floats:
        """Squared length of every colour of the small copy."""
        return np.asarray((self.coarse**2).sum(axis=2), np.float32)

    @cached_property
    def _blurred(self) -> dict[int, Floats]:
        return {}

    def luminance_at(self, scale: float) -> Floats:
        """Returns the luminance blurred as if the picture were `scale` times smaller."""
        step = round(2 * scale)
        if step not in self._blurred:
            self._blurred[step] = np.asarray(
                cv2.GaussianBlur(np.ascontiguousarray(self.lab[..., 0]), (0, 0), max(0.7, step * 0.4)), np.float32
            )
        return self._blurred[step]

    def without(self, area: NDArray[np.bool_]) -> Sight:
        """Returns the picture with an area (height x width) painted over and its points dropped."""
        lab = self.lab.copy()
        lab[area] = self.lab.mean(axis=(0, 1))
        columns, rows = (self.points.places + 0.5).astype(int).T if len(self.points) else (np.zeros(0, int),) * 2
        inside = area[np.clip(rows, 0, area.shape[0] - 1), np.clip(columns, 0, area.shape[1] - 1)]
        return replace(self, lab=lab, points=self.points.chosen(~inside))
