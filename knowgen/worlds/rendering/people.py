"""Drawing of a person: body, dress, face, hair and headwear, each in several variants."""

from __future__ import annotations

from knowgen.worlds.rendering.brush import Brush
from knowgen.worlds.rendering.colours import GOLD, HAIR_TONES, SKIN_TONES, Colour, mix, rgb
from knowgen.worlds.rendering.shapes import Outline, both_sides, ellipse, rectangle, smooth_curve

_SKIN, _HAIR, _HAIRSTYLE, _DRESS, _FRONT, _HEADWEAR = range(6)
_LONG_HAIR = (1, 4)
_PIGTAILS, _SPIKES, _BUN = 2, 3, 5

_DRESSES: tuple[Outline, ...] = (
    [(38, 58), (62, 58), (66, 88), (34, 88)],
    [(40, 58), (60, 58), (74, 92), (26, 92)],
    [(38, 58), (62, 58), (63, 74), (70, 90), (30, 90), (37, 74)],
)
_FRINGES: tuple[Outline, ...] = (
    [
        *((27, 40), (25, 24), (36, 14), (50, 12), (64, 14), (75, 24), (73, 40)),
        *((66, 28), (58, 32), (50, 25), (42, 32), (34, 28)),
    ],
    [(27, 44), (24, 26), (40, 13), (60, 13), (76, 26), (73, 44), (68, 32), (50, 30), (32, 32)],
    [(27, 38), (26, 22), (40, 12), (62, 12), (74, 22), (73, 38), (66, 26), (38, 34)],
    [
        *((26, 38), (18, 26), (27, 24), (26, 10), (39, 14), (47, 2), (55, 13), (70, 6), (71, 20)),
        *((82, 24), (74, 38), (64, 27), (50, 31), (36, 27)),
    ],
    [(27, 42), (25, 24), (44, 12), (64, 14), (75, 26), (73, 42), (62, 30), (52, 24), (40, 34)],
    [(27, 34), (28, 22), (42, 15), (58, 15), (72, 22), (73, 34), (60, 24), (40, 24)],
)


def draw_person(brush: Brush) -> None:
    """Draw a person with a large head, in a dress, tunic or coat."""
    skin = SKIN_TONES[brush.choice(_SKIN, len(SKIN_TONES))]
    hair = HAIR_TONES[brush.choice(_HAIR, len(HAIR_TONES))]
    style = brush.choice(_HAIRSTYLE, len(_FRINGES))
    _draw_hair_behind(brush, hair, style)
    _draw_body(brush, skin)
    _draw_front(brush)
    _draw_face(brush, skin)
    fringe = _FRINGES[style] if style == _SPIKES else smooth_curve(_FRINGES[style], 6)
    brush.part(fringe, hair, shine=0.18)
    if style == _BUN:
        brush.part(ellipse(50, 8, 9, 8), hair)
    _draw_headwear(brush, hair)


def _draw_hair_behind(brush: Brush, hair: Colour, style: int) -> None:
    if style in _LONG_HAIR:
        brush.part(
            smooth_curve(
                [
                    *((50, 12), (76, 24), (80, 56), (74, 74), (64, 66), (50, 64)),
                    *((36, 66), (26, 74), (20, 56), (24, 24)),
                ]
            ),
            hair,
        )
    elif style == _PIGTAILS:
        for tail in both_sides(smooth_curve([(70, 26), (84, 30), (88, 52), (80, 64), (76, 48)])):
            brush.part(tail, hair)


def _draw_body(brush: Brush, skin: Colour) -> None:
    boots = brush.ink if brush.choice(_DRESS, 2) else brush.second
    for x in (42, 58):
        brush.part(rectangle(x - 5, 82, x + 5, 97, 3), boots)
    if brush.choice(_DRESS, 4) == 3:
        cape = [(50, 56), (70, 62), (80, 92), (50, 88), (20, 92), (30, 62)]
        brush.part(smooth_curve([(float(x), float(y)) for x, y in cape]), brush.accent)
    arms = both_sides(smooth_curve([(60, 61), (69, 64), (75, 80), (68, 83)]))
    hands = both_sides(ellipse(71.5, 82, 4))
    for arm, hand in zip(arms, hands, strict=True):
        brush.part(arm, brush.main)
        brush.part(hand, skin)
    brush.part(_DRESSES[brush.choice(_DRESS, len(_DRESSES))], brush.main, marks=brush.second)


def _draw_front(brush: Brush) -> None:
    match brush.choice(_FRONT, 4):
        case 0:
            brush.emblem(50, 72, 6.5, brush.light)
        case 1:
            brush.part([(42, 58), (58, 58), (50, 68)], brush.light)
        case 2:
            brush.part([(38, 58), (62, 58), (62, 64), (38, 64)], brush.accent)
            brush.part([(54, 62), (60, 62), (62, 78), (55, 78)], brush.accent)
        case _:
            brush.line([(38, 78), (62, 78)], brush.accent, 4)


def _draw_face(brush: Brush, skin: Colour) -> None:
    brush.part(ellipse(50, 38, 23, 21), skin, shade=0.12)
    irises = (brush.accent, rgb("2a6f97"), rgb("6a994e"), rgb("8d5524"))
    brush.eyes(50, 42, 20, 5.6, irises[brush.choice(_SKIN, len(irises))])
    brush.line(ellipse(50, 50, 4, 2.6, start=20, end=160, steps=8), brush.ink, 1)
    for x in (32, 68):
        brush.flat(ellipse(x, 49.5, 3.4, 2), mix(skin, (240, 90, 100), 0.4))


def _draw_headwear(brush: Brush, hair: Colour) -> None:
    match brush.choice(_HEADWEAR, 7):
        case 0:
            brush.part([(30, 20), (70, 20), (62, 2), (38, 2)], brush.accent)
            brush.part(rectangle(22, 18, 78, 24, 3), brush.accent)
        case 1:
            brush.part([(34, 18), (33, 4), (42, 11), (50, 1), (58, 11), (67, 4), (66, 18)], GOLD)
        case 2:
            for x in (40, 60):
                brush.line(ellipse(x, 42, 8), brush.accent, 1.8)
            brush.line([(48, 42), (52, 42)], brush.accent, 1.8)
        case 3:
            for ear in both_sides([(62, 18), (78, 2), (76, 26)]):
                brush.part(ear, hair)
            for inside in both_sides([(67, 17), (75, 8), (74, 22)]):
                brush.flat(inside, brush.accent)
        case 4:
            brush.line(ellipse(50, 32, 26, start=195, end=345, steps=20), brush.accent, 3.5)
            for x in (25, 75):
                brush.part(rectangle(x - 4, 32, x + 4, 48, 4), brush.accent)
        case 5:
            brush.emblem(68, 20, 7, brush.accent)
        case _:
            brush.line(ellipse(50, 30, 24, 12, start=200, end=340, steps=20), brush.accent, 3)
