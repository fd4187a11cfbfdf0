"""Drawing of creatures, robots and masks."""

from __future__ import annotations

from knowgen.worlds.rendering.brush import Brush
from knowgen.worlds.rendering.colours import WHITE, Colour, mix
from knowgen.worlds.rendering.shapes import Outline, both_sides, ellipse, point_on_circle, rectangle, smooth_curve

_TONGUE: Colour = (255, 123, 137)


def draw_creature(brush: Brush) -> None:
    """Draw a round, friendly creature with ears, a tail or wings, and one to three eyes."""
    girth = (28, 23, 32)[brush.choice(1, 3)]
    crown = (34, 24, 42)[brush.choice(1, 3)]
    _draw_tail(brush)
    _draw_ears(brush, crown)
    for foot in both_sides(ellipse(62, 92, 9, 5.5)):
        brush.part(foot, brush.second)
    right = [(50 + girth * 0.8, crown + 10), (50 + girth, 72), (50 + girth * 0.7, 92)]
    left = [(50 - girth * 0.7, 92), (50 - girth, 72), (50 - girth * 0.8, crown + 10)]
    brush.part(smooth_curve([(50, crown), *right, (50, 94), *left]), brush.main, marks=brush.second, shine=0.14)
    if brush.choice(3, 3):
        brush.inset(ellipse(50, 80, girth * 0.58, 12.5), brush.light, 1)
    if brush.choice(3, 3) == 2:
        brush.emblem(50, 79, 7, brush.accent)
    _draw_creature_face(brush, crown + 20, girth)


def _draw_tail(brush: Brush) -> None:
    match brush.choice(2, 3):
        case 0:
            tail: Outline = [(70, 78), (88, 76), (94, 54), (86, 50), (80, 66), (68, 66)]
            brush.part(smooth_curve(tail), brush.second)
        case 1:
            wing: Outline = [(70, 56), (84, 36), (97, 40), (92, 56), (95, 66), (84, 68)]
            for side in both_sides(smooth_curve(wing)):
                pattern = "bars" if brush.choice(3, 2) else "plain"
                brush.part(side, brush.accent, marks=brush.second, pattern=pattern)
        case _:
            brush.tube([(72, 80), (84, 76), (86, 64), (94, 58)], brush.main, 2.2, rim=1.1)
            brush.emblem(93, 55, 6, brush.accent)


def _draw_ears(brush: Brush, crown: float) -> None:
    match brush.choice(0, 5):
        case 0:
            for ear in both_sides([(56, crown + 6), (74, crown - 20), (78, crown + 16)]):
                brush.part(ear, brush.main)
            for inside in both_sides([(63, crown + 2), (72, crown - 11), (74, crown + 8)]):
                brush.flat(inside, brush.accent)
        case 1:
            ears = smooth_curve([(56, crown + 6), (60, crown - 24), (70, crown - 26), (70, crown + 8)])
            for ear in both_sides(ears):
                brush.part(ear, brush.main)
            for inside in both_sides(ellipse(64.5, crown - 9, 2.8, 10)):
                brush.flat(inside, brush.accent)
        case 2:
            horn = [(60, crown + 6), (66, crown - 8), (80, crown - 18), (76, crown + 2), (70, crown + 10)]
            for side in both_sides(smooth_curve(horn)):
                brush.part(side, brush.light)
        case 3:
            for feeler in both_sides([(56, crown + 4), (62, crown - 12), (68, crown - 14)]):
                brush.line(feeler, brush.ink, 1.8)
            for bulb in both_sides(ellipse(69, crown - 15, 4.4)):
                brush.part(bulb, brush.accent)
        case _:
            for ear in both_sides(ellipse(73, crown + 6, 9.5)):
                brush.part(ear, brush.main)
            for inside in both_sides(ellipse(73, crown + 6, 5)):
                brush.flat(inside, brush.accent)


def _draw_creature_face(brush: Brush, eye_line: float, girth: float) -> None:
    count = (2, 2, 1, 3)[brush.choice(4, 4)]
    brush.eyes(50, eye_line, 18 if count == 2 else 14, 7.5 if count == 1 else 6.2, brush.accent, count)
    if brush.choice(5, 2):
        brush.line(ellipse(50, eye_line + 10, 5, 3.4, start=15, end=165, steps=8), brush.ink, 1.2)
    else:
        brush.flat(smooth_curve([(44, eye_line + 9), (56, eye_line + 9), (50, eye_line + 16)]), brush.ink)
        brush.flat(ellipse(50, eye_line + 13, 2.6, 1.6), _TONGUE)
    for side in (-1, 1):
        cheek = ellipse(50 + side * girth * 0.62, eye_line + 9, 3.4, 2.2)
        brush.flat(cheek, mix(brush.main, (255, 110, 130), 0.5))


def draw_robot(brush: Brush) -> None:
    """Draw a robot on legs, tracks or a jet, with a window in its chest."""
    _draw_drive(brush)
    arms = both_sides([(70, 58), (84, 64), (84, 76)])
    hands = both_sides(ellipse(84, 78, 6))
    for arm, hand in zip(arms, hands, strict=True):
        brush.tube(arm, brush.second, 4.6, rim=1.2)
        brush.part(hand, brush.accent)
    corner = (4, 12, 20)[brush.choice(1, 3)]
    brush.part(rectangle(28, 48, 72, 84, corner), brush.main, marks=brush.second)
    brush.part(rectangle(38, 56, 62, 76, 4), brush.light)
    brush.emblem(50, 66, 7, brush.accent)
    _draw_robot_head(brush)
    for x in ((50,), (36, 64), ())[brush.choice(4, 3)]:
        brush.line([(x, 16), (x, 5)], brush.ink, 1.8)
        brush.part(ellipse(x, 5, 4), brush.accent)


def _draw_drive(brush: Brush) -> None:
    match brush.choice(0, 3):
        case 0:
            for x in (38, 62):
                brush.part(rectangle(x - 6, 80, x + 6, 97, 3), brush.second)
        case 1:
            brush.part(rectangle(24, 82, 76, 97, 8), brush.ink)
            for x in (33, 50, 67):
                brush.part(ellipse(x, 89.5, 5.4), brush.light)
        case _:
            brush.part([(38, 82), (62, 82), (56, 92), (44, 92)], brush.second)
            brush.flat(ellipse(50, 94, 17, 3.6), brush.accent)


def _draw_robot_head(brush: Brush) -> None:
    heads: tuple[Outline, ...] = (
        rectangle(28, 16, 72, 46, 7),
        ellipse(50, 32, 24, 17),
        [(34, 14), (66, 14), (74, 46), (26, 46)],
    )
    brush.part(heads[brush.choice(2, 3)], brush.main, shine=0.25)
    brush.flat(rectangle(33, 24, 67, 40, 6), brush.ink)
    glow = mix(brush.accent, WHITE, 0.35)
    match brush.choice(3, 3):
        case 0:
            for x in (42, 58):
                brush.flat(ellipse(x, 32, 4.6), glow)
        case 1:
            brush.flat(ellipse(50, 32, 6.6), glow)
            brush.flat(ellipse(50, 32, 2.6), brush.ink)
        case _:
            for x in (42, 58):
                brush.flat(rectangle(x - 4, 29, x + 4, 35, 1), glow)


def draw_mask(brush: Brush) -> None:
    """Draw a carnival mask with feathers, horns or ears."""
    feathers = (0, 5, 7)[brush.choice(0, 3)]
    spread = 24 if feathers == 5 else 18
    for index in range(feathers):
        angle = -90 + (index - (feathers - 1) / 2) * spread
        x, y = point_on_circle(50, 50, 36, angle)
        brush.part(ellipse(x, y, 13, 5.5, tilt=angle), (brush.second, brush.accent)[index % 2])
    match brush.choice(1, 3):
        case 1:
            for horn in both_sides(smooth_curve([(66, 26), (74, 6), (92, 4), (84, 18), (80, 36)])):
                brush.part(horn, brush.light)
        case 2:
            for ear in both_sides([(64, 26), (84, 8), (82, 44)]):
                brush.part(ear, brush.accent)
    face: Outline = [(50, 18), (74, 24), (82, 48), (70, 78), (50, 93), (30, 78), (18, 48), (26, 24)]
    brush.part(smooth_curve(face), brush.main, marks=brush.second, shine=0.15)
    if brush.choice(2, 2):
        nose: Outline = [(50, 22), (60, 30), (56, 62), (50, 70), (44, 62), (40, 30)]
        brush.inset(smooth_curve(nose), brush.light, 1)
    else:
        brush.emblem(50, 31, 8, brush.light)
    _draw_mask_features(brush)


def _draw_mask_features(brush: Brush) -> None:
    openings: tuple[Outline, ...] = (
        ellipse(65, 47, 9, 6),
        smooth_curve([(56, 50), (66, 40), (77, 42), (68, 54)]),
        ellipse(65, 47, 7.5),
    )
    for opening in both_sides(openings[brush.choice(3, 3)]):
        brush.part(opening, brush.light)
    for pupil in both_sides(ellipse(65, 47.5, 3.6)):
        brush.flat(pupil, brush.ink)
    painted_cheeks = brush.choice(4, 2) == 1
    if painted_cheeks:
        for cheek in both_sides(ellipse(70, 64, 5)):
            brush.inset(cheek, brush.accent)
    mouths: tuple[Outline, ...] = (
        ellipse(50, 77, 12, 5),
        smooth_curve([(36, 72), (50, 76), (64, 72), (50, 86)]),
        rectangle(40, 73, 60, 81, 2),
    )
    brush.part(mouths[brush.choice(5, 3)], brush.ink if painted_cheeks else brush.accent)
