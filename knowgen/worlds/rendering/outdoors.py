"""Drawing of the outdoor scenes."""

from __future__ import annotations

import random

from knowgen.worlds.rendering.backdrop import SCENE_WIDTH, Tint, box, gradient, rolling_ground
from knowgen.worlds.rendering.canvas import Canvas
from knowgen.worlds.rendering.colours import WHITE, Colour, mix, rgb
from knowgen.worlds.rendering.shapes import Outline, ellipse, rectangle, star

_CREAM = rgb("fff3d0")


def draw_observatory(canvas: Canvas, rng: random.Random, tint: Tint) -> None:
    """Draw a starry night above hills, with a small observatory dome on the right."""
    gradient(canvas, 0, 92, rgb("0f1440"), mix(rgb("4a3f86"), tint.first, 0.3))
    for _ in range(70):
        x, y, radius = rng.random() * SCENE_WIDTH, rng.random() * 70, rng.choice((0.25, 0.35, 0.5))
        canvas.fill(ellipse(x, y, radius, steps=8), rgb("fff4d6"))
    for _ in range(6):
        canvas.fill(star(rng.random() * SCENE_WIDTH, rng.random() * 50, 1.6, 4, 0.25), WHITE)
    rolling_ground(canvas, 80, rgb("231d4f"), swell=5, stretch=17, phase=1)
    rolling_ground(canvas, 90, rgb("17123a"), swell=3, stretch=11)
    canvas.fill(ellipse(128, 82, 13, start=180, end=360), rgb("3d3a78"), shade=0.2)
    box(canvas, 115, 82, 141, 92, rgb("34306b"))
    canvas.fill([(126, 70), (131, 70), (136, 82), (130, 82)], rgb("ffe08a"))


def draw_harbour(canvas: Canvas, rng: random.Random, tint: Tint) -> None:
    """Draw a harbour at sunset: sun, headland, water and a plank quay."""
    gradient(canvas, 0, 62, mix(rgb("ffb88a"), tint.first, 0.1), rgb("ffe6c2"))
    canvas.fill(ellipse(112, 50, 12), _CREAM)
    for left, top in ((20, 16), (66, 10), (126, 20)):
        canvas.fill(ellipse(left, top, 12, 2.6), rgb("fff1e0"))
        canvas.fill(ellipse(left + 7, top - 2, 8, 2.4), rgb("fff1e0"))
    canvas.fill([(0, 62), (0, 52), (22, 44), (40, 54), (62, 48), (80, 62)], rgb("b9788a"))
    gradient(canvas, 60, 86, rgb("5fa8b8"), rgb("2f6f86"))
    for _ in range(16):
        x, y = rng.random() * SCENE_WIDTH, 63 + rng.random() * 20
        canvas.line([(x, y), (x + 7, y)], rgb("a9dbe0"), 0.5)
    box(canvas, 0, 85, SCENE_WIDTH, 100, rgb("8b5e3c"))
    for plank in range(3):
        box(canvas, 0, 85 + plank * 5, SCENE_WIDTH, 85.7 + plank * 5, rgb("6d472b"))
    for x in (6, 72, 140):
        box(canvas, x, 80, x + 4, 90, rgb("6d472b"), 1)


def draw_garden(canvas: Canvas, rng: random.Random, tint: Tint) -> None:
    """Draw a flower garden with round bushes and a path that narrows into the distance."""
    gradient(canvas, 0, 66, rgb("a9dcf2"), rgb("f2fbff"))
    for index, (left, top, breadth) in enumerate(((10, 60, 22), (45, 64, 26), (90, 62, 24), (136, 60, 26))):
        green = mix(rgb("7cb87b"), tint.first, 0.12 + 0.05 * (index % 2))
        canvas.fill(ellipse(left, top, breadth, breadth * 0.75), green)
    rolling_ground(canvas, 65, rgb("8fcf7a"), swell=3, stretch=21)
    canvas.fill([(64, 66), (84, 66), (112, 100), (38, 100)], rgb("f0e2bd"))
    petals = (rgb("ff8fa3"), rgb("fff3b0"), rgb("c8a2ff"))
    for _ in range(34):
        x, y = rng.random() * SCENE_WIDTH, 70 + rng.random() * 28
        canvas.fill(star(x, y, 1.7, 5, 0.6), rng.choice(petals))


def draw_stadium(canvas: Canvas, rng: random.Random, tint: Tint) -> None:
    """Draw a stadium: a stand full of spectators behind a pitch with its markings, under floodlights."""
    gradient(canvas, 0, 40, rgb("7cc4f0"), rgb("d8f0ff"))
    box(canvas, 0, 26, SCENE_WIDTH, 66, rgb("586a86"))
    shirts = (tint.first, tint.second, rgb("f4f1e8"), rgb("e9b872"))
    for row in range(6):
        for seat in range(50):
            x, y = 1.5 + seat * 3 + (row % 2) * 1.5, 31 + row * 5.4
            canvas.fill(ellipse(x, y, 1.2, steps=8), rng.choice(shirts))
    box(canvas, 0, 62, SCENE_WIDTH, 67, rgb("f6f3ea"))
    gradient(canvas, 67, 100, rgb("5aa84f"), rgb("3f8a3c"), 6)
    canvas.line(ellipse(75, 84, 26, 7), rgb("eaf6e4"), 0.6)
    canvas.line([(0, 84), (SCENE_WIDTH, 84)], rgb("eaf6e4"), 0.6)
    for x in (10, 140):
        box(canvas, x - 0.8, 6, x + 0.8, 30, rgb("3f4a60"))
        box(canvas, x - 6, 2, x + 6, 9, rgb("fff7c9"), 1)


def draw_street(canvas: Canvas, rng: random.Random, tint: Tint) -> None:
    """Draw an old town street: a row of gabled and flat houses behind a pavement."""
    gradient(canvas, 0, 78, rgb("f9d9a8"), rgb("fbeed2"))
    x = -4
    while x < SCENE_WIDTH:
        width, height = rng.randrange(16, 27), rng.randrange(28, 56)
        front = rng.choice((tint.first, tint.second, rgb("d98f7a"), rgb("88a9b8")))
        _draw_house(canvas, x, width, height, mix(front, rgb("fff0dc"), 0.5))
        x += width
    box(canvas, 0, 80, SCENE_WIDTH, 100, rgb("b9aa9a"))
    box(canvas, 0, 80, SCENE_WIDTH, 83, rgb("d8cbbb"))
    for dash in range(8):
        left = dash * 22.0
        canvas.fill([(left, 91), (left + 10, 91), (left + 8, 93), (left - 2, 93)], rgb("e9dfd0"))


def _draw_house(canvas: Canvas, left: int, width: int, height: int, front: Colour) -> None:
    eaves = 80 - height
    box(canvas, left, eaves, left + width, 80, front)
    for y in range(eaves + 5, 74, 9):
        for x in range(left + 3, left + width - 3, 6):
            box(canvas, x, y, x + 3, y + 5, mix(front, rgb("3b3f5c"), 0.45), 0.6)
    roof = mix(front, rgb("5c3d3d"), 0.5)
    if width % 2:
        canvas.fill([(left - 1, eaves), (left + width / 2, eaves - 7), (left + width + 1, eaves)], roof)
    else:
        box(canvas, left - 1, eaves - 1.5, left + width + 1, eaves + 0.5, roof)


def draw_snowfield(canvas: Canvas, rng: random.Random, tint: Tint) -> None:
    """Draw a snowy valley with peaks, firs and falling flakes."""
    gradient(canvas, 0, 82, mix(rgb("8fb8dd"), tint.first, 0.08), rgb("eaf5fc"))
    peaks: Outline = [(0, 72), (20, 36), (40, 58), (66, 26), (92, 60), (118, 38), (150, 72)]
    canvas.fill(peaks, rgb("9db7cf"))
    canvas.fill([(20, 36), (27, 44), (20, 47), (14, 46)], WHITE)
    canvas.fill([(66, 26), (75, 38), (66, 42), (56, 39)], WHITE)
    canvas.fill([(118, 38), (126, 46.5), (118, 50), (110, 44.8)], WHITE)
    rolling_ground(canvas, 70, rgb("f7fcff"), swell=4, stretch=23)
    for x in (5, 16, 132, 144):
        for tier in range(3):
            foot = 74 - tier * 7
            canvas.fill([(x - 6 + tier, foot), (x, foot - 14), (x + 6 - tier, foot)], rgb("3f7a6d"), shade=0.1)
    for _ in range(50):
        canvas.fill(ellipse(rng.random() * SCENE_WIDTH, rng.random() * 100, 0.55, steps=8), WHITE)


def draw_desert(canvas: Canvas, rng: random.Random, tint: Tint) -> None:
    """Draw dunes at dawn between two cacti."""
    gradient(canvas, 0, 78, mix(rgb("f6a56b"), tint.first, 0.12), rgb("ffe2b0"))
    canvas.fill(ellipse(24 + rng.random() * 30, 30, 11), rgb("fff0c4"))
    for level, colour, stretch in ((60, "e8a867", 19), (70, "dd9450", 27), (84, "c97f40", 15)):
        rolling_ground(canvas, level, rgb(colour), swell=5, stretch=stretch, phase=level + rng.random())
    for x in (12, 138):
        canvas.fill(rectangle(x - 2, 52, x + 2, 78, 2), rgb("5e8c5a"), shade=0.15)
        box(canvas, x + 2, 60, x + 8, 63, rgb("5e8c5a"), 1)
        box(canvas, x + 5, 54, x + 8, 63, rgb("5e8c5a"), 1)
