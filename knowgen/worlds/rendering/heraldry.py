"""Drawing of crests, flags and vases."""

from __future__ import annotations

import math

from knowgen.worlds.rendering.brush import Brush, draw_symbol
from knowgen.worlds.rendering.colours import GOLD, Colour, rgb
from knowgen.worlds.rendering.shapes import Outline, both_sides, ellipse, mirror, rectangle, smooth_curve, star

_LAUREL: Colour = rgb("7fb069")
_POLE: Colour = rgb("d9a441")
_CLOTH = (13.0, 96.0, 14.0, 72.0)


def draw_crest(brush: Brush) -> None:
    """Draw a coat of arms: a shield with an emblem, perhaps with laurels, a ribbon, stars or a crown."""
    if brush.choice(1, 3) == 1:
        green = _LAUREL if brush.choice(2, 2) else brush.accent
        for step in range(5):
            leaf = ellipse(80 + 5 * math.sin(step * 0.8), 30 + 11 * step, 9, 4.2, tilt=-50 + 14 * step)
            for side in both_sides(leaf):
                brush.part(side, green)
    shields: tuple[Outline, ...] = (
        [(20, 12), (50, 8), (80, 12), *ellipse(50, 40, 30, 52, start=0, end=180)],
        ellipse(50, 50, 37),
        star(50, 50, 45, 6, 0.86),
        [(50, 5), (86, 22), (82, 68), (50, 94), (18, 68), (14, 22)],
    )
    shield = shields[brush.choice(0, 4)]
    brush.part(shield, brush.light)
    field = [(50 + (x - 50) * 0.87, 50 + (y - 50) * 0.87) for x, y in shield]
    brush.part(field, brush.main, marks=brush.second, shine=0.12, width=1)
    charge = brush.choice(3, 3)
    if charge == 1:
        brush.part([(20, 42), (80, 42), (80, 60), (20, 60)], brush.accent)
    elif charge == 2:
        brush.part(ellipse(50, 49, 21), brush.accent)
    brush.emblem(50, 50, 11 if charge == 1 else 14, brush.light)
    _draw_crest_trim(brush)


def _draw_crest_trim(brush: Brush) -> None:
    match brush.choice(4, 3):
        case 1:
            for x in (36, 50, 64):
                brush.part(star(x, 22, 5.4), brush.light, width=0.9)
        case 2:
            draw_symbol(brush.canvas, "crown", 50, 13, 11, GOLD, brush.ink)
    if brush.choice(1, 3) == 2:
        ribbon: Outline = [(8, 76), (92, 76), (86, 83), (92, 91), (8, 91), (14, 83)]
        brush.part(ribbon, brush.accent)


def _wave(x: float) -> float:
    """Return the vertical offset of the cloth of a flag at a position."""
    return 4 * math.sin((x - 12) / 13)


def _cloth(x0: float, x1: float, y0: float, y1: float) -> Outline:
    """Return the outline of a piece of waving cloth between two vertical and two horizontal lines."""
    across = [x0 + (x1 - x0) * step / 17 for step in range(18)]
    upper = [(x, y0 + _wave(x)) for x in across]
    return upper + [(x, y1 + _wave(x)) for x in reversed(across)]


def draw_flag(brush: Brush) -> None:
    """Draw a waving flag on a pole, with one of six divisions and the symbol."""
    brush.tube([(12, 97), (12, 7)], _POLE, 2.6, rim=1)
    brush.part(ellipse(12, 5, 4), GOLD)
    left, right, top, bottom = _CLOTH
    brush.inset(_cloth(*_CLOTH), brush.main)
    division = brush.choice(0, 6)
    thirds = (brush.main, brush.light, brush.second)
    match division:
        case 0:
            for row, colour in enumerate(thirds):
                brush.flat(_cloth(left, right, top + 58 * row / 3, top + 58 * (row + 1) / 3), colour)
        case 1:
            for column, colour in enumerate(thirds):
                brush.flat(_cloth(left + 83 * column / 3, left + 83 * (column + 1) / 3, top, bottom), colour)
        case 2:
            brush.flat(_cloth(left, right, 43, bottom), brush.second)
        case 3:
            brush.flat([(13, 14 + _wave(13)), (52, 43 + _wave(52)), (13, 72 + _wave(13))], brush.accent)
        case 4:
            brush.flat(_cloth(36, 48, top, bottom), brush.light)
            brush.flat(_cloth(left, right, 37, 49), brush.light)
        case _:
            pattern = "diagonal" if brush.pattern == "plain" else brush.pattern
            brush.canvas.fill(_cloth(*_CLOTH), brush.main, marks=brush.second, pattern=pattern)
    _draw_flag_charge(brush, division)
    brush.line([*_cloth(*_CLOTH), (left, top + _wave(left))], brush.ink, 1.4)


def _draw_flag_charge(brush: Brush, division: int) -> None:
    on_disc = brush.choice(1, 2) == 1
    if on_disc:
        brush.part(ellipse(56, 43 + _wave(56), 19), brush.light if division == 3 else brush.accent)
    pale = (on_disc and division != 3) or (not on_disc and division in (2, 5))
    brush.emblem(56 if on_disc else 60, 43 + _wave(56), 13, brush.light if pale else brush.accent)


def draw_vase(brush: Brush) -> None:
    """Draw a painted vase with up to two handles and a medallion."""
    belly = (26, 32, 22)[brush.choice(0, 3)]
    neck = (9, 13, 7)[brush.choice(1, 3)]
    handle = ellipse(50 + belly * 0.7, 40, 16, 17, start=-70, end=80, steps=14)
    for side in both_sides(handle)[: brush.choice(2, 3)]:
        brush.tube(side, brush.accent, 3, rim=1)
    profile: Outline = [
        *((54 + neck, 12), (50 + neck, 18), (50 + neck, 28), (50 + belly, 50)),
        *((50 + belly * 0.9, 70), (50 + belly * 0.5, 90), (50 + belly * 0.55, 96)),
    ]
    body = smooth_curve(profile + mirror(profile)[::-1], 6)
    brush.part(body, brush.main, marks=brush.second, shade=0.26, shine=0.25)
    brush.part(rectangle(45 - neck, 8, 55 + neck, 14, 2), brush.accent)
    brush.part(rectangle(50 - belly * 0.62, 92, 50 + belly * 0.62, 98, 2), brush.accent)
    if brush.choice(3, 3) != 2:
        brush.part(ellipse(50, 56, belly * 0.62, 14), brush.light)
        brush.emblem(50, 56, 9, brush.accent)
    if brush.choice(4, 2):
        brush.inset(rectangle(49.5 - neck, 20, 50.5 + neck, 26, 1), brush.light)
