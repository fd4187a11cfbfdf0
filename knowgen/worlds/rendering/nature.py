"""Drawing of planets, plants, crystals and islands."""

from __future__ import annotations

import math

from knowgen.worlds.rendering.brush import Brush
from knowgen.worlds.rendering.colours import WHITE, Colour, mix, rgb
from knowgen.worlds.rendering.shapes import Outline, both_sides, ellipse, point_on_circle, rectangle, smooth_curve, star

_LEAF_GREEN, _DEEP_GREEN, _MEADOW, _SEA = rgb("4c9a54"), rgb("2f7f6d"), rgb("6aa84f"), rgb("5fb7d4")
_RING_TILT = -18.0


def draw_planet(brush: Brush) -> None:
    """Draw a planet, with rings, craters, a storm, a polar cap and up to three moons depending on its features."""
    rings = brush.choice(0, 3)
    if rings:
        brush.tube(ellipse(50, 50, 45, 13, start=180, end=360, tilt=_RING_TILT), brush.accent, 4.4, rim=1.05)
    brush.part(ellipse(50, 50, 30), brush.main, marks=brush.second, shade=0.3, shine=0.22)
    match brush.choice(1, 3):
        case 1:
            for x, y, radius in ((40, 38, 5.0), (60, 62, 6.5), (62, 40, 3.4), (38, 62, 4.0)):
                brush.flat(ellipse(x, y, radius, radius * 0.8), mix(brush.main, brush.ink, 0.35))
        case 2:
            storm = ellipse(58, 58, 11, 7.5)
            brush.part(storm, brush.accent, shade=0, outline=brush.light, width=1.4)
    if brush.choice(2, 3) == 2:
        brush.part(ellipse(50, 50, 30, start=215, end=325), brush.light)
    if rings:
        brush.tube(ellipse(50, 50, 45, 13, start=0, end=180, tilt=_RING_TILT), brush.accent, 4.4, rim=1.05)
    if rings == 2:
        brush.line(ellipse(50, 50, 39, 10, start=4, end=176, tilt=_RING_TILT), brush.light, 1.6)
    moons = (((84, 18), 6.5, brush.light), ((14, 22), 5.5, brush.second), ((18, 86), 4.5, brush.accent))
    for (x, y), radius, colour in moons[: brush.choice(3, 4)]:
        brush.part(ellipse(x, y, radius), colour)


def draw_plant(brush: Brush) -> None:
    """Draw a flowering plant in a pot."""
    green = mix(_LEAF_GREEN, brush.main, 0.2) if brush.choice(0, 2) else _DEEP_GREEN
    brush.tube([(50, 84), (48, 66), (50, 44)], green, 3, rim=1.2)
    for index in range(1 + brush.choice(1, 3)):
        leaf: Outline = [
            (51, 74 - 8 * index),
            (62, 62 - 7 * index),
            (80, 60 - 6 * index),
            (70, 73 - 7 * index),
        ]
        left, right = reversed(both_sides(smooth_curve(leaf)))
        brush.part(right if index % 2 else left, green)
    _draw_petals(brush, 5 + brush.choice(2, 5))
    middle = "dots" if brush.choice(4, 3) else "checks"
    brush.part(ellipse(50, 32, 11), brush.accent, marks=brush.second, pattern=middle)
    if brush.choice(5, 3) == 2:
        brush.eyes(50, 32, 9, 3.4, brush.ink)
    brush.part([(34, 80), (66, 80), (62, 97), (38, 97)], brush.second, marks=brush.accent)
    brush.part(rectangle(31, 77, 69, 83, 2), brush.second)


def _draw_petals(brush: Brush, count: int) -> None:
    long_petals = brush.choice(3, 2) == 1
    pattern = "plain" if brush.choice(4, 2) else "rings"
    for index in range(count):
        angle = 360 * index / count - 90
        if brush.choice(3, 3):
            x, y = point_on_circle(50, 32, 19, angle)
            petal = ellipse(x, y, 13 if long_petals else 10, 8 if long_petals else 9.5, tilt=angle)
        else:
            petal = [
                point_on_circle(50, 32, 8, angle - 90),
                point_on_circle(50, 32, 32, angle),
                point_on_circle(50, 32, 8, angle + 90),
            ]
        brush.part(petal, brush.main, marks=brush.light, pattern=pattern)


def draw_crystal(brush: Brush) -> None:
    """Draw a cluster of three to six crystals on a rock or a plate."""
    spires = (
        (50.0, 8.0, 13.0, brush.main),
        (30.0, 30.0, 10.0, brush.second),
        (71.0, 26.0, 10.0, brush.main),
        (17.0, 52.0, 8.0, brush.accent),
        (84.0, 50.0, 8.0, brush.second),
        (60.0, 44.0, 7.0, brush.accent),
    )[: 3 + brush.choice(0, 4)]
    breadth = (1, 1.25, 0.8)[brush.choice(1, 3)]
    for x, tip, width, colour in sorted(spires, key=lambda spire: spire[1]):
        pattern = brush.pattern if x == 50 else "plain"
        _draw_spire(brush, x, tip, width * breadth, colour, pattern)
    if brush.choice(2, 2):
        brush.part(rectangle(20, 82, 80, 96, 4), mix(brush.ink, brush.second, 0.35))
        brush.emblem(50, 89, 5.4, brush.light, outlined=False)
    else:
        rock: Outline = [(14, 92), (30, 80), (50, 84), (70, 79), (86, 92), (50, 97)]
        brush.part(smooth_curve(rock), mix(brush.ink, brush.main, 0.4))
    for x, y in ((12, 20), (88, 16), (90, 72))[: brush.choice(3, 4)]:
        brush.inset(star(x, y, 7, 4, 0.34), brush.accent, 0.9)


def _draw_spire(brush: Brush, x: float, tip: float, width: float, colour: Colour, pattern: str) -> None:
    foot = x + (50 - x) * 0.62
    left_foot, right_foot = (foot - width * 0.8, 86.0), (foot + width * 0.8, 86.0)
    ridge: Outline = [(x, tip), (x + width * 0.1, tip + 18), (foot, 86)]
    outline: Outline = [(x, tip), (x + width, tip + 13), right_foot, left_foot, (x - width, tip + 13)]
    brush.part(outline, colour, marks=brush.light, pattern=pattern)
    brush.inset([*ridge, left_foot, (x - width, tip + 13)], mix(colour, WHITE, 0.35), 0.9)
    brush.line(ridge, brush.ink, 0.9)


def draw_island(brush: Brush) -> None:
    """Draw an island of one to three snow-capped mountains, with trees and perhaps a sun."""
    if brush.choice(1, 3):
        brush.part(ellipse(74 if brush.choice(1, 3) == 1 else 24, 20, 10), brush.accent)
    peaks = ((50.0, 10.0, 32.0, brush.main), (27.0, 34.0, 22.0, brush.second), (74.0, 30.0, 22.0, brush.main))
    for index, (x, tip, width, colour) in enumerate(peaks[: 1 + brush.choice(0, 3)]):
        pattern = "plain" if index else brush.pattern
        slope: Outline = [(x, tip), (x + width, 80), (x - width, 80)]
        brush.part(slope, colour, marks=mix(colour, brush.ink, 0.3), pattern=pattern, shade=0.26)
        share = 0.3 + 0.08 * brush.choice(2, 3)
        hem, reach = tip + (80 - tip) * share, width * share
        cap: Outline = [
            *((x, tip), (x + reach, hem), (x + reach * 0.4, hem - 4), (x, hem + 4)),
            *((x - reach * 0.4, hem - 4), (x - reach, hem)),
        ]
        brush.part(cap, brush.light, shade=0.1)
    shore: Outline = [(8, 84), (22, 74), (50, 76), (78, 74), (92, 84), (70, 92), (30, 92)]
    brush.part(smooth_curve(shore), mix(_MEADOW, brush.second, 0.35))
    for x in (20, 80, 34, 66, 50)[: 2 + brush.choice(3, 4)]:
        brush.line([(x, 84), (x, 74)], brush.ink, 1.6)
        fir: Outline = [(x - 6, 78), (x, 62), (x + 6, 78)]
        brush.part(fir if brush.choice(4, 2) else ellipse(x, 70, 6, 7), brush.accent)
    surf = [(10 + step * 5.0, 95 + 1.2 * math.sin(step * 1.4)) for step in range(17)]
    brush.line(surf, mix(_SEA, brush.light, 0.2), 2.6)
