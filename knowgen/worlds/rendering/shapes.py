"""Outlines as lists of points (x to the right, y downwards), in the units of the caller."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]
Outline = list[Point]


def ellipse(
    cx: float,
    cy: float,
    rx: float,
    ry: float | None = None,
    *,
    start: float = 0,
    end: float = 360,
    steps: int = 48,
    tilt: float = 0,
) -> Outline:
    """Return an ellipse or an arc of one.

    Args:
        cx: Centre, x.
        cy: Centre, y.
        rx: Horizontal radius.
        ry: Vertical radius; `rx` if None.
        start: First angle in degrees, clockwise from the positive x axis.
        end: Last angle in degrees.
        steps: Number of line segments.
        tilt: Clockwise rotation about the centre, in degrees.
    """
    ry = rx if ry is None else ry
    cosine, sine = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    points: Outline = []
    for step in range(steps + 1):
        angle = math.radians(start + (end - start) * step / steps)
        x, y = rx * math.cos(angle), ry * math.sin(angle)
        points.append((cx + x * cosine - y * sine, cy + x * sine + y * cosine))
    return points


def star(cx: float, cy: float, radius: float, points: int = 5, inner: float = 0.45) -> Outline:
    """Return a star with one point up; `inner` is the inner radius as a fraction of the radius."""
    corners: Outline = []
    for corner in range(2 * points):
        angle = math.radians(180 * corner / points - 90)
        reach = radius if corner % 2 == 0 else radius * inner
        corners.append((cx + reach * math.cos(angle), cy + reach * math.sin(angle)))
    return corners


def rectangle(x0: float, y0: float, x1: float, y1: float, radius: float = 0) -> Outline:
    """Return a rectangle with corners rounded by `radius`, at most half of a side."""
    if radius <= 0:
        return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    radius = min(radius, (x1 - x0) / 2, (y1 - y0) / 2)
    points: Outline = []
    for cx, cy, angle in (
        (x1 - radius, y0 + radius, -90),
        (x1 - radius, y1 - radius, 0),
        (x0 + radius, y1 - radius, 90),
        (x0 + radius, y0 + radius, 180),
    ):
        points += ellipse(cx, cy, radius, start=angle, end=angle + 90, steps=8)
    return points


def smooth_curve(points: Sequence[Point], steps: int = 10) -> Outline:
    """Return a closed curve through the points (uniform Catmull-Rom spline, `steps` segments between two points)."""
    curve: Outline = []
    count = len(points)
    for index in range(count):
        before, here, there, after = (points[(index + offset) % count] for offset in (-1, 0, 1, 2))
        for step in range(steps):
            share = step / steps
            x, y = (
                0.5
                * (
                    2 * here[axis]
                    + (there[axis] - before[axis]) * share
                    + (2 * before[axis] - 5 * here[axis] + 4 * there[axis] - after[axis]) * share**2
                    + (3 * here[axis] - before[axis] - 3 * there[axis] + after[axis]) * share**3
                )
                for axis in (0, 1)
            )
            curve.append((x, y))
    return curve


def mirror(points: Sequence[Point], axis: float = 50) -> Outline:
    """Return the outline mirrored at the vertical line x = `axis`.

    Example:
        >>> mirror([(60, 10)])
        [(40, 10)]
    """
    return [(2 * axis - x, y) for x, y in points]


def both_sides(points: Sequence[Point], axis: float = 50) -> tuple[Outline, Outline]:
    """Return the outline and its mirror image."""
    return list(points), mirror(points, axis)


def point_on_circle(cx: float, cy: float, radius: float, degrees: float) -> Point:
    """Return the point at an angle on a circle, clockwise from the positive x axis."""
    return cx + radius * math.cos(math.radians(degrees)), cy + radius * math.sin(math.radians(degrees))
