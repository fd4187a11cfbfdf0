"""Shared parts of scenes: a coordinate field of 150 x 100 units, vertical gradients, rolling ground, boxes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import NamedTuple

from knowgen.worlds.rendering.canvas import Canvas
from knowgen.worlds.rendering.colours import Colour, mix
from knowgen.worlds.rendering.shapes import Outline, rectangle

SCENE_WIDTH, SCENE_HEIGHT = 150.0, 100.0
"""Size of a scene in units; its ground begins between 60 and 85 and extends to the lower edge."""


class Tint(NamedTuple):
    """Two colours that vary a scene from one seed to another."""

    first: Colour
    second: Colour


ScenePainter = Callable[[Canvas, random.Random, Tint], None]


def box(canvas: Canvas, x0: float, y0: float, x1: float, y1: float, colour: Colour, radius: float = 0) -> None:
    """Fill a rectangle, its corners rounded by `radius`."""
    canvas.fill(rectangle(x0, y0, x1, y1, radius), colour)


def gradient(canvas: Canvas, top: float, bottom: float, upper: Colour, lower: Colour, bands: int = 14) -> None:
    """Fill the full width between two levels with bands of a colour gradient."""
    height = (bottom - top) / bands
    for band in range(bands):
        y = top + height * band
        box(canvas, -1, y, SCENE_WIDTH + 1, y + height + 0.3, mix(upper, lower, band / (bands - 1)))


def rolling_ground(
    canvas: Canvas, level: float, colour: Colour, *, swell: float, stretch: float, phase: float = 0.0
) -> None:
    """Fill the area below a wavy line; the line is level + swell * sin(x / stretch + phase)."""
    steps = range(0, int(SCENE_WIDTH) + 1, 3)
    ridge: Outline = [(float(x), level + swell * math.sin(x / stretch + phase)) for x in steps]
    canvas.fill([(0, level), *ridge, (SCENE_WIDTH, SCENE_HEIGHT), (0, SCENE_HEIGHT)], colour)


def light_cone(canvas: Canvas, x: float, floor: float, spread: float, colour: Colour) -> None:
    """Fill the light cone of a lamp above the image, down to a level."""
    canvas.fill([(x - 4, 0), (x + 4, 0), (x + spread, floor), (x - spread, floor)], colour)
