"""Templates of appearances: drawn at one size, with cached derived data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from knowgen.worlds.checker.image_features import FloatArray, Keypoints, PixelArray, find_keypoints, to_lab
from knowgen.worlds.rendering.appearance import Appearance, draw_appearance

TEMPLATE_SIDE = 144
"""Width and height of a template, in pixels."""

_FLAT_GROUND = 190
_SYMMETRIC_DISTANCE = 4.0


@dataclass(frozen=True)
class AppearanceTemplate:
    """An appearance as a template.

    Attributes:
        lab: Lab colours, `TEMPLATE_SIDE` x `TEMPLATE_SIDE` x 3.
        mask: Mask of the drawn pixels.
    """

    lab: FloatArray
    mask: NDArray[np.bool_]

    @cached_property
    def points(self) -> Keypoints:
        """Its keypoints."""
        luminance: PixelArray = np.where(self.mask, self.lab[..., 0], _FLAT_GROUND).astype(np.uint8)
        return find_keypoints(luminance, self.mask.astype(np.uint8) * 255)

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the drawn pixels; right and bottom are exclusive."""
        rows, columns = np.nonzero(self.mask)
        return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1

    @cached_property
    def inner(self) -> NDArray[np.bool_]:
        """The mask without its border, whose colours depend on the background."""
        return np.asarray(cv2.erode(self.mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)

    @cached_property
    def softened(self) -> FloatArray:
        """The colours after a 3 x 3 mean filter."""
        return np.asarray(cv2.blur(self.lab, (3, 3)), np.float32)

    @cached_property
    def symmetric(self) -> bool:
        """Whether it is nearly equal to its mirror image about the middle of the drawn pixels."""
        left, top, right, bottom = self.box
        lab, mask = self.lab[top:bottom, left:right], self.mask[top:bottom, left:right]
        both = mask & mask[:, ::-1]
        distance = np.sqrt(((lab - lab[:, ::-1]) ** 2).sum(axis=2))[both].mean()
        return bool(both.sum() > 0.97 * mask.sum() and distance < _SYMMETRIC_DISTANCE)


@lru_cache(maxsize=192)
def appearance_template(appearance: Appearance, mirrored: bool = False) -> AppearanceTemplate:
    """Return the template of an appearance, optionally mirrored left to right."""
    if mirrored:
        upright = appearance_template(appearance)
        return AppearanceTemplate(
            np.ascontiguousarray(upright.lab[:, ::-1]), np.ascontiguousarray(upright.mask[:, ::-1])
        )
    image = np.asarray(draw_appearance(appearance, TEMPLATE_SIDE))
    return AppearanceTemplate(to_lab(image[..., :3]), image[..., 3] > 128)
