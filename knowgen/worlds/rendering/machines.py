"""Drawing of devices, airships and ships."""

from __future__ import annotations

from knowgen.worlds.rendering.brush import Brush
from knowgen.worlds.rendering.colours import mix
from knowgen.worlds.rendering.shapes import Outline, both_sides, ellipse, point_on_circle, rectangle, smooth_curve, star


def draw_device(brush: Brush) -> None:
    """Draw a scientific instrument: a stand with a dial and, above it, a lens, a coil, an orbit model or a wheel."""
    brush.part([(24, 96), (76, 96), (68, 78), (32, 78)], brush.second)
    brush.part(rectangle(38, 56, 62, 80, 3), brush.main, marks=brush.second)
    brush.part(ellipse(50, 68, 7.5), brush.light)
    brush.line([(50, 68), point_on_circle(50, 68, 6, -150 + 40 * brush.choice(4, 5))], brush.accent, 1.5)
    match brush.choice(0, 4):
        case 0:
            glass = mix(brush.light, brush.second, 0.25)
            brush.part(ellipse(50, 32, 24), glass, marks=brush.accent, pattern="rings", shine=0.4)
            brush.part(ellipse(50, 32, 9), brush.accent)
        case 1:
            for turn in range(5):
                half = 24 - 4 * turn
                plate = rectangle(50 - half, 50 - 9 * turn, 50 + half, 56 - 9 * turn, 3)
                brush.part(plate, (brush.main, brush.accent)[turn % 2])
            brush.part(ellipse(50, 8, 6.5), brush.light)
        case 2:
            for tilt, colour in ((0, brush.main), (60, brush.second), (120, brush.accent)):
                brush.tube(ellipse(50, 32, 30, 11, tilt=tilt), colour, 2.2, rim=0.8)
            brush.part(ellipse(50, 32, 8.5), brush.accent, shine=0.3)
        case _:
            brush.part(star(50, 32, 28, 10 + brush.choice(1, 4), 0.8), brush.main)
            brush.part(ellipse(50, 32, 15), brush.light, marks=brush.second)
            brush.emblem(50, 32, 8, brush.accent)
    levers = both_sides([(66, 86), (86, 84), (88, 60)])
    knobs = both_sides(ellipse(88, 56, 6))
    for lever, knob in list(zip(levers, knobs, strict=True))[: 1 + brush.choice(2, 2)]:
        brush.line(lever, brush.ink, 2)
        brush.part(knob, (brush.accent, brush.light)[brush.choice(3, 2)])


def draw_airship(brush: Brush) -> None:
    """Draw an airship with fins, a gondola and a propeller."""
    for side in (1, -1):
        fin: Outline = [(84, 36 + 8 * side), (98, 36 + 24 * side), (97, 36 + 8 * side)]
        round_fin: Outline = [(80, 36 + 8 * side), (95, 36 + 26 * side), (98, 36 + 9 * side)]
        brush.part(fin if brush.choice(0, 2) else smooth_curve(round_fin), brush.accent)
    for x in (38, 62):
        brush.line([(x - 3, 56), (x, 72)], brush.ink, 1.1)
    height = (19, 24, 27)[brush.choice(1, 3)]
    brush.part(ellipse(49, 36, 45, height), brush.main, marks=brush.second, shine=0.25)
    match brush.choice(2, 3):
        case 0:
            brush.part(ellipse(49, 36, 45, height, start=118, end=242), brush.accent)
        case 1:
            brush.inset(ellipse(49, 36, 45, 5), brush.light)
    brush.emblem(44, 36, 10, brush.light)
    square: Outline = [(30, 70), (70, 70), (64, 84), (36, 84)]
    rounded: Outline = [(26, 70), (74, 70), (66, 86), (34, 86)]
    brush.part(square if brush.choice(3, 2) else smooth_curve(rounded), brush.second)
    portholes = 3 + brush.choice(4, 3)
    for index in range(portholes):
        brush.inset(ellipse(37 + index * 26 / (portholes - 1), 76, 2.6), brush.light, 0.9)
    brush.part(ellipse(78, 77, 2, 10), brush.accent)
    brush.flat(ellipse(75, 77, 4), brush.ink)


def draw_ship(brush: Brush) -> None:
    """Draw a sailing ship with one to three masts."""
    masts = 1 + brush.choice(0, 3)
    width = (26, 17, 13)[masts - 1]
    for index in range(masts):
        x = 50 if masts == 1 else 24 + 52 * index / (masts - 1)
        top = 10 if index == masts // 2 else 20
        cloth = brush.main if index == 1 else brush.light
        brush.line([(x, 74), (x, top - 5)], brush.ink, 2.4)
        square: Outline = [
            *((x - width, top + 6), (x + width, top + 6), (x + width * 1.05, 62)),
            *((x, 58), (x - width * 1.05, 62)),
        ]
        swollen: Outline = [(x - 2, top), (x + width, 58), (x - width * 0.8, 60)]
        sail = square if brush.choice(1, 2) else smooth_curve(swollen, 8)
        brush.part(sail, cloth, marks=brush.second)
        brush.part([(x, top - 6), (x + 12, top - 3), (x, top)], brush.accent)
    for x in (24, 76) if masts == 2 else (50,):
        brush.emblem(x, 44, 6.5 if masts > 1 else 8, brush.accent)
    hull: Outline = [
        *((5, 66), (22, 73), (50, 74), (78, 73), (96, 62)),
        *((86, 86), (70, 94), (30, 94), (14, 86)),
    ]
    brush.part(smooth_curve(hull), brush.main)
    band = ("plain", "bars", "checks")[brush.choice(2, 3)]
    strake: Outline = [(13, 80), (89, 79), (86, 86), (15, 86)]
    brush.part(strake, brush.accent, marks=brush.light, pattern=band, shade=0)
    if brush.choice(3, 2):
        brush.part(star(93, 60, 7, 6, 0.5), brush.accent)
