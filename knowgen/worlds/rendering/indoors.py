"""Drawing of the indoor scenes."""

from __future__ import annotations

import math
import random

from knowgen.worlds.rendering.backdrop import SCENE_WIDTH, Tint, box, gradient, light_cone
from knowgen.worlds.rendering.canvas import Canvas
from knowgen.worlds.rendering.colours import WHITE, mix, rgb
from knowgen.worlds.rendering.shapes import Outline, ellipse, rectangle


def draw_museum(canvas: Canvas, rng: random.Random, tint: Tint) -> None:
    """Draw a museum hall with two columns and two cones of light on a tinted wall."""
    wall = mix(tint.first, rgb("f3ead9"), 0.25)
    gradient(canvas, 0, 76, wall, mix(wall, tint.second, 0.35))
    box(canvas, 0, 76, SCENE_WIDTH, 100, mix(tint.second, rgb("8a6f5a"), 0.6))
    box(canvas, 0, 75, SCENE_WIDTH, 77.5, mix(wall, WHITE, 0.6))
    for seam in range(-6, 7):
        far, near = 75 + seam * 15.0, 75 + seam * 24.0
        line = [(near - 0.5, 100.0), (far - 0.3, 77.5), (far + 0.3, 77.5), (near + 0.5, 100.0)]
        canvas.fill(line, mix(tint.second, rgb("70584a"), 0.75))
    for x in (8, 134):
        canvas.fill(rectangle(x, 8, x + 9, 76), mix(wall, WHITE, 0.45), shade=0.1)
        box(canvas, x - 2, 6, x + 11, 10, mix(wall, WHITE, 0.6))
        box(canvas, x - 2, 72, x + 11, 77, mix(wall, WHITE, 0.6))
    for x in (50, 100):
        light_cone(canvas, x, 76, 24, mix(wall, rgb("fff6d8"), 0.22))


def draw_laboratory(canvas: Canvas, rng: random.Random, tint: Tint) -> None:
    """Draw a tiled laboratory with two shelves of flasks and a row of cupboards."""
    gradient(canvas, 0, 72, rgb("e6f1f3"), rgb("cfe3e6"))
    for x in range(0, int(SCENE_WIDTH), 15):
        box(canvas, x, 0, x + 0.5, 72, rgb("c1d9dd"))
    for y in range(0, 72, 12):
        box(canvas, 0, y, SCENE_WIDTH, y + 0.5, rgb("c1d9dd"))
    for y in (18, 40):
        for left in (4, 110):
            box(canvas, left, y, left + 36, y + 2, rgb("8fa6ad"))
            for x in range(left + 3, left + 34, 8):
                flask: Outline = [
                    *((x, y), (x + 5, y), (x + 3.4, y - 5), (x + 3.4, y - 9)),
                    *((x + 1.6, y - 9), (x + 1.6, y - 5)),
                ]
                canvas.fill(flask, rng.choice((tint.first, tint.second, rgb("ff9f80"), rgb("9ad0c2"))), shade=0.15)
    box(canvas, 0, 72, SCENE_WIDTH, 77, rgb("5b7f8a"))
    box(canvas, 0, 77, SCENE_WIDTH, 100, rgb("8fb0b8"))
    for x in (4, 40, 76, 112):
        box(canvas, x, 80, x + 32, 97, rgb("a5c2c9"), 1)


def draw_stage(canvas: Canvas, rng: random.Random, tint: Tint) -> None:
    """Draw a theatre stage between red curtains, with spotlights and footlights."""
    back = mix(tint.first, rgb("5a0f2e"), 0.55)
    gradient(canvas, 0, 84, mix(back, (0, 0, 16), 0.35), back)
    for x in (30, 75, 120):
        light_cone(canvas, x, 80, 20, mix(back, rgb("fff2c8"), 0.2))
    for fold in range(5):
        cloth = mix(rgb("b3203f"), rgb("4a0c22"), (fold % 2) * 0.5)
        for left in (fold * 4.2, SCENE_WIDTH - (fold + 1) * 4.2):
            box(canvas, left, 0, left + 4.3, 80, cloth)
    hem = [(float(x), 7 + 3 * abs(math.sin(x / 8))) for x in range(0, 152, 2)]
    canvas.fill([(-2, 0), *hem, (SCENE_WIDTH + 2, 0)], rgb("d9a441"))
    box(canvas, 0, 80, SCENE_WIDTH, 100, rgb("7a4a2b"))
    for board in range(5):
        box(canvas, 0, 80 + board * 4, SCENE_WIDTH, 80.6 + board * 4, rgb("5d3620"))
    for x in range(8, int(SCENE_WIDTH), 15):
        canvas.fill(ellipse(x, 97, 2.4, 1.8), rgb("fff0b5"))


def draw_library(canvas: Canvas, rng: random.Random, tint: Tint) -> None:
    """Draw a tall library: four shelves of books above a floor with a carpet."""
    box(canvas, 0, 0, SCENE_WIDTH, 80, rgb("6b4630"))
    spines = (tint.first, tint.second, rgb("b5543c"), rgb("d9b66a"), rgb("50727a"))
    for shelf in (3, 22, 41, 60):
        box(canvas, 0, shelf, SCENE_WIDTH, shelf + 17, rgb("4a2f20"))
        left = 1.0
        while left < SCENE_WIDTH - 1:
            width, height = rng.choice((2.0, 2.6, 3.4)), rng.choice((12.0, 13.5, 15.0))
            box(
                canvas,
                left,
                shelf + 17 - height,
                left + width,
                shelf + 17,
                mix(rng.choice(spines), rgb("5d4030"), 0.38),
            )
            left += width + 0.3
    box(canvas, 0, 80, SCENE_WIDTH, 100, rgb("9c6b45"))
    box(canvas, 0, 79, SCENE_WIDTH, 81.5, rgb("b8845a"))
    carpet = mix(tint.first, rgb("7a2f3a"), 0.5)
    canvas.fill(ellipse(75, 92, 52, 6), carpet, outline=rgb("e2c58a"), outline_width=0.7)


def draw_workshop(canvas: Canvas, rng: random.Random, tint: Tint) -> None:
    """Draw a sunlit workshop: a board of tools, a window and a plank floor."""
    gradient(canvas, 0, 76, mix(rgb("f0d3a6"), tint.first, 0.08), rgb("dfb682"))
    box(canvas, 6, 8, 60, 40, rgb("c49a68"), 1)
    for tool in range(7):
        x, length = 11 + tool * 7, rng.randrange(11, 18)
        box(canvas, x, 14, x + 1.6, 14 + length, rgb("6b4b34"), 0.5)
        box(canvas, x - 1.6, 12, x + 3.2, 17, mix(rgb("8fa0a8"), tint.second, 0.25), 1)
    box(canvas, 92, 8, 140, 46, rgb("bfe3ee"))
    for x in (92, 115, 139):
        box(canvas, x, 8, x + 1.5, 46, rgb("8a5f3d"))
    box(canvas, 90, 46, 142, 49, rgb("8a5f3d"))
    box(canvas, 92, 26, 140, 27.5, rgb("8a5f3d"))
    box(canvas, 0, 76, SCENE_WIDTH, 100, rgb("9a6a43"))
    box(canvas, 0, 75, SCENE_WIDTH, 79, rgb("b9855a"))
    for x in range(0, int(SCENE_WIDTH), 12):
        box(canvas, x, 79, x + 0.6, 100, rgb("7d5334"))
