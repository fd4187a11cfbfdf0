"""A canvas that fills outlines at twice the final size, with patterns, shade and shine, and scales down at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from knowgen.worlds.rendering.colours import WHITE, Colour
from knowgen.worlds.rendering.shapes import Point

SUPERSAMPLING = 2
"""Supersampling factor per axis, for smooth edges of polygons."""

_SHADE: Colour = (24, 12, 48)
_CoordinateGrid = NDArray[np.float64]
_MarkMask = NDArray[np.bool_]


def _dots(u: _CoordinateGrid, v: _CoordinateGrid) -> _MarkMask:
    shifted = u + 5 * (np.floor(v / 8) % 2)
    marks: _MarkMask = (shifted % 10 - 5) ** 2 + (v % 8 - 4) ** 2 < 6.5
    return marks


def _scales(u: _CoordinateGrid, v: _CoordinateGrid) -> _MarkMask:
    shifted = u + 5 * (np.floor(v / 6) % 2)
    marks: _MarkMask = (shifted % 10 - 5) ** 2 + (v % 6) ** 2 > 22
    return marks


_MARKS: Mapping[str, Callable[[_CoordinateGrid, _CoordinateGrid], _MarkMask]] = MappingProxyType(
    {
        "stripes": lambda u, v: (v % 10) < 4.2,
        "bars": lambda u, v: (u % 9) < 3.6,
        "dots": _dots,
        "checks": lambda u, v: (np.floor(u / 7) + np.floor(v / 7)) % 2 == 0,
        "zigzag": lambda u, v: (v + np.abs((u % 10) - 5)) % 10 < 4,
        "scales": _scales,
        "diagonal": lambda u, v: ((u + v) % 12) < 5,
        "rings": lambda u, v: (np.hypot(u - 50, v - 50) % 9) < 3.8,
    }
)

PATTERNS: tuple[str, ...] = ("plain", *_MARKS)
"""Names of the fill patterns, defined on a grid of 100 units."""


class Canvas:
    """An image with its own coordinate units to draw on.

    Args:
        size: Width and height of the final image, in pixels.
        unit: Pixels of the final image per coordinate unit.
        mode: `RGBA` for parts to be pasted, `RGB` for scenes.
        margin: Distance from the upper left corner to the origin on both axes, in units.
    """

    def __init__(self, size: tuple[int, int], unit: float, mode: str = "RGBA", margin: float = 0.0) -> None:
        background = (0, 0, 0, 0) if mode == "RGBA" else (0, 0, 0)
        self._scale = unit * SUPERSAMPLING
        self._margin = margin
        self._image = Image.new(mode, (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING), background)
        self._draw = ImageDraw.Draw(self._image)

    def finish(self) -> Image.Image:
        """Return the image at its final size."""
        return self._image.reduce(SUPERSAMPLING)

    def fill(
        self,
        points: Sequence[Point],
        colour: Colour,
        *,
        marks: Colour | None = None,
        pattern: str = "plain",
        shade: float = 0.0,
        shine: float = 0.0,
        outline: Colour | None = None,
        outline_width: float = 1.3,
    ) -> None:
        """Fill an outline.

        Args:
            points: The corners, in units.
            colour: Colour of the surface.
            marks: Colour of the pattern; None for a plain surface.
            pattern: One of `PATTERNS`.
            shade: Strength (0-1) of the shaded rim at the lower right.
            shine: Strength (0-1) of the bright rim at the upper left.
            outline: Colour of the line around it; None for no line.
            outline_width: Width of that line, in units.
        """
        corners = self._pixels(points)
        if shade or shine or (marks and pattern != "plain"):
            self._fill_decorated(corners, colour, marks, pattern, shade, shine)
        else:
            self._draw.polygon(corners, fill=colour)
        if outline:
            self.line([*points, *points[:2]], outline, outline_width)

    def line(self, points: Sequence[Point], colour: Colour, width: float = 1.3) -> None:
        """Draw a line with round ends; `width` is in units and at least one supersampled pixel."""
        corners = self._pixels(points)
        self._draw.line(corners, fill=colour, width=max(1, round(width * self._scale)), joint="curve")
        radius = width * self._scale / 2
        for x, y in (corners[0], corners[-1]):
            self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        margin, scale = self._margin, self._scale
        return [((x + margin) * scale, (y + margin) * scale) for x, y in points]

    def _fill_decorated(
        self,
        corners: list[Point],
        colour: Colour,
        marks: Colour | None,
        pattern: str,
        shade: float,
        shine: float,
    ) -> None:
        """Fill through a mask of the size of the shape, so that the cost depends on the shape and not on the image."""
        left = max(0, int(min(x for x, _ in corners)) - 2)
        top = max(0, int(min(y for _, y in corners)) - 2)
        right = min(self._image.width, int(max(x for x, _ in corners)) + 3)
        bottom = min(self._image.height, int(max(y for _, y in corners)) + 3)
        if right <= left or bottom <= top:
            return
        box = (left, top, right, bottom)
        mask = Image.new("L", (right - left, bottom - top), 0)
        ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in corners], fill=255)
        self._image.paste(colour, box, mask)
        if marks and pattern != "plain":
            rows, columns = np.mgrid[top:bottom, left:right] / self._scale - self._margin
            stamp = Image.fromarray(_MARKS[pattern](columns, rows).astype(np.uint8) * 255)
            self._image.paste(marks, box, ImageChops.multiply(mask, stamp))
        depth = max(2, int(min(mask.size) * 0.13))
        if shade:
            self._image.paste(_SHADE, box, _border_mask(mask, -depth, shade))
        if shine:
            self._image.paste(WHITE, box, _border_mask(mask, depth, shine))


def _border_mask(mask: Image.Image, shift: int, strength: float) -> Image.Image:
    """Return the mask minus itself shifted by `shift` pixels on both axes."""
    shifted = Image.new("L", mask.size, 0)
    shifted.paste(mask, (shift, shift))
    return ImageChops.subtract(mask, shifted).point(_scaling_table(strength))


@lru_cache(maxsize=32)
def _scaling_table(strength: float) -> list[int]:
    """Return the lookup table that scales a mask."""
    return [int(value * strength) for value in range(256)]
