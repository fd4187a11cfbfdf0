"""Looks as they are compared: drawn at one size, with all that comparing needs worked out once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from knowgen.worlds.check.sight import Floats, PixelSimilarity, Points, find_points, to_lab
from knowgen.worlds.drawing.looks import Look, draw_look

TEMPLATE_SIDE = 144
"""Width and height of a template, in pixels."""

_FLAT_GROUND = 190
_SYMMETRIC_DISTANCE = 4.0


@dataclass(frozen=True)
class Template:
    """A look as it is compared.

    Attributes:
        lab: `TEMPLATE_SIDE` x `TEMPLATE_SIDE` x 3.
        mask: Where the look is drawn.
    """

    lab: Floats
    mask: NDArray[np.bool_]

    @cached_property
    def points(self) -> Points:
        """Its distinctive points."""
        luminance: PixelSimilarity = np.where(self.mask, self.lab[..., 0], _FLAT_GROUND).astype(np.uint8)
        return find_points(luminance, self.mask.astype(np.uint8) * 255)

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what is drawn; the last two are the first ones outside."""
        rows, columns = np.nonzero(self.mask)
        return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1

    @cached_property
    def inner(self) -> NDArray[np.bool_]:
        """The mask without its rim, whose colours depend on the background."""
        return np.asarray(cv2.erode(self.mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)

    @cached_property
    def softened(self) -> Floats:
        """The colours, each averaged with its neighbours."""
        return np.asarray(cv2.blur(self.lab, (3, 3)), np.float32)

    @cached_property
    def symmetric(self) -> bool:
        """Does it look much the same when mirrored about the middle of what is drawn?"""
        left, top, right, bottom = self.box
        lab, mask = self.lab[top:bottom, left:right], self.mask[top:bottom, left:right]
        both = mask & mask[:, ::-1]
        distance = np.sqrt(((lab - lab[:, ::-1]) ** 2).sum(axis=2))[both].mean()
        return bool(both.sum() > 0.97 * mask.sum() and distance < _SYMMETRIC_DISTANCE)


@lru_cache(maxsize=192)
def template_of(look: Look, mirrored: bool = False) -> Template:
    """Draws a look as a template, mirrored left to right if wished."""
    if mirrored:
        upright = template_of(look)
        return Template(np.ascontiguousarray(upright.lab[:, ::-1]), np.ascontiguousarray(upright.mask[:, ::-1]))
    drawn = np.asarray(draw_look(look, TEMPLATE_SIDE))
    return Template(to_lab(drawn[..., :3]), drawn[..., 3] > 128)
