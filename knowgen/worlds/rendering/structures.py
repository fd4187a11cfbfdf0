"""Drawing of buildings and shrines."""

from __future__ import annotations

from knowgen.worlds.rendering.brush import Brush
from knowgen.worlds.rendering.colours import LAMPLIGHT, Colour, mix, rgb
from knowgen.worlds.rendering.shapes import Outline, both_sides, ellipse, rectangle, smooth_curve

_DOME, _SPIRE, _BATTLEMENTS, _PAGODA = range(4)
_LANTERN: Colour = rgb("ff9f4a")
_DOORWAY: Colour = rgb("ffd980")


def draw_building(brush: Brush) -> None:
    """Draw a tower of two to four storeys with a dome, a spire, battlements or pagoda roofs, and perhaps two wings."""
    if brush.choice(2, 2):
        _draw_wings(brush)
    top, half = _draw_storeys(brush, roof=brush.choice(0, 4))
    _draw_roof(brush, brush.choice(0, 4), top, half)
    brush.part(rectangle(42, 78, 58, 96, 8), brush.ink, shade=0)
    brush.emblem(50, 72, 5.5, brush.light)


def _draw_wings(brush: Brush) -> None:
    for wall in both_sides(rectangle(66, 58, 90, 96, 1)):
        brush.part(wall, brush.second)
    for roof in both_sides([(63, 58), (78, 44), (93, 58)]):
        brush.part(roof, brush.accent)
    for window in both_sides(rectangle(74, 66, 82, 78, 4)):
        brush.inset(window, brush.light)


def _draw_storeys(brush: Brush, roof: int) -> tuple[float, float]:
    """Draw the storeys from the ground up and return the top of the last one and half its width."""
    storeys = 2 + brush.choice(1, 3)
    windows = 2 + brush.choice(3, 2)
    taper = (5, 3, 6)[brush.choice(4, 3)]
    height = 64 / storeys
    half, floor = 25.0, 96.0
    for storey in range(storeys):
        ceiling = floor - height
        wall = mix(brush.main, brush.light, 0.3) if storey % 2 else brush.main
        outline: Outline = [(50 - half, floor), (52 - half, ceiling), (48 + half, ceiling), (50 + half, floor)]
        brush.part(outline, wall, marks=None if storey == 1 else brush.second)
        if roof == _PAGODA:
            eaves: Outline = [
                *((42 - half, ceiling + 1), (54 - half, ceiling - 5), (46 + half, ceiling - 5)),
                *((58 + half, ceiling + 1), (50, ceiling + 2)),
            ]
            brush.part(smooth_curve(eaves), brush.accent)
        else:
            brush.part(rectangle(49 - half, ceiling - 2, 51 + half, ceiling + 2, 1), brush.light)
        for index in range(windows if storey else 0):
            x = 50 + (index - (windows - 1) / 2) * half * 1.5 / windows
            pane = rectangle(x - 3.2, floor - height * 0.75, x + 3.2, floor - height * 0.25, 3)
            brush.inset(pane, LAMPLIGHT)
        floor, half = ceiling, half - taper
    return floor, half


def _draw_roof(brush: Brush, roof: int, top: float, half: float) -> None:
    if roof == _DOME:
        brush.part(ellipse(50, top, half - 1, half * 0.95, start=180, end=360), brush.accent, shine=0.3)
    elif roof == _BATTLEMENTS:
        for offset in (0, 1.1, 2.15):
            left = 50 - half + offset * half * 0.72
            brush.part(rectangle(left, top - 6, left + half * 0.45, top, 1), brush.accent)
    else:
        brush.part([(50 - half, top), (50, top - 24), (50 + half, top)], brush.accent)
    foot = top - (4 if roof == _BATTLEMENTS else 22)
    brush.line([(50, foot), (50, max(4, top - 30))], brush.ink, 1.5)
    pennant: Outline = [(50, max(3, top - 31)), (62, max(6, top - 28)), (50, max(9, top - 25))]
    brush.part(pennant, brush.second if brush.choice(5, 2) else brush.accent)


def draw_shrine(brush: Brush) -> None:
    """Draw a columned shrine with a gable, a dome or two curved roofs."""
    brush.part(rectangle(10, 88, 90, 96, 1), brush.light)
    brush.part(rectangle(16, 81, 84, 88, 1), mix(brush.light, brush.second, 0.4))
    brush.flat(rectangle(26, 46, 74, 81, 1), mix(brush.ink, brush.main, 0.5))
    brush.inset(rectangle(42, 56, 58, 81, 8), _DOORWAY)
    spaces = 2 + brush.choice(0, 3)
    for index in range(spaces + 1):
        x = 22 + 56 * index / spaces
        brush.part(rectangle(x - 4, 44, x + 4, 81, 1), brush.main, marks=brush.second)
    match brush.choice(1, 3):
        case 0:
            brush.part([(8, 46), (50, 14), (92, 46)], brush.accent)
            brush.emblem(50, 35, 8, brush.light)
        case 1:
            brush.part(rectangle(14, 38, 86, 46, 1), brush.second)
            dome = ellipse(50, 38, 28, 29, start=180, end=360)
            ribs = "bars" if brush.choice(3, 2) else "plain"
            brush.part(dome, brush.accent, marks=brush.light, pattern=ribs, shine=0.25)
            brush.emblem(50, 25, 8, brush.light)
        case _:
            for half, eaves, colour in ((46, 46, brush.accent), (34, 30, brush.second)):
                brush.part(smooth_curve(_curved_roof(half, eaves)), colour)
            brush.emblem(50, 40, 6, brush.light)
    ropes = both_sides([(88, 48), (88, 58)])
    lanterns = both_sides(ellipse(88, 64, 6, 7))
    for rope, lantern in list(zip(ropes, lanterns, strict=True))[: brush.choice(2, 3)]:
        brush.line(rope, brush.ink, 1.2)
        brush.part(lantern, _LANTERN)


def _curved_roof(half: float, eaves: float) -> Outline:
    return [
        *((50 - half, eaves - 4), (50 - half * 0.6, eaves - 8), (50, eaves - 15), (50 + half * 0.6, eaves - 8)),
        *((50 + half, eaves - 4), (50 + half * 0.8, eaves + 1), (50 - half * 0.8, eaves + 1)),
    ]
