"""Sign surfaces with text: placards, banners, screens and others."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from PIL import Image, ImageDraw

from knowgen.worlds.rendering.canvas import Canvas
from knowgen.worlds.rendering.colours import PALETTES, Colour, mix, rgb
from knowgen.worlds.rendering.shapes import rectangle
from knowgen.worlds.rendering.typeset import LEADING, TextBlock, font

_EDGE = rgb("2a1f2d")
_POINT = 16.0
_BOLD_FROM = 26


@dataclass(frozen=True, slots=True)
class _Surface:
    """A kind of sign.

    Attributes:
        words: Phrase for it in prompts.
        margins: Margins around the text at the left, top, right and bottom, in pixels.
        paint: Function that draws the empty sign on a canvas with pixel units and returns the text colour.
    """

    words: str
    margins: tuple[int, int, int, int]
    paint: Callable[[Canvas, float, float, random.Random], Colour]


def _paint_placard(canvas: Canvas, width: float, height: float, rng: random.Random) -> Colour:
    frame = rectangle(1, 1, width - 1, height - 1, 10)
    canvas.fill(frame, rgb("b8862f"), outline=_EDGE, outline_width=2)
    canvas.fill(rectangle(4, 4, width - 4, height - 4, 8), rgb("d2a347"))
    canvas.fill(rectangle(9, 9, width - 9, height - 9, 6), mix(rgb("fbf3dc"), rng.choice(PALETTES).light, 0.3))
    for x in (14.0, width - 14):
        for y in (14.0, height - 14):
            canvas.fill(rectangle(x - 2.5, y - 2.5, x + 2.5, y + 2.5, 2.5), rgb("b8862f"))
    return rgb("2b2118")


def _paint_banner(canvas: Canvas, width: float, height: float, rng: random.Random) -> Colour:
    palette = rng.choice(PALETTES)
    cloth = [(8.0, 5.0), (width - 8, 5.0), (width - 8, height - 2), (width / 2, height - _POINT), (8.0, height - 2)]
    canvas.fill(cloth, mix(palette.ink, palette.main, 0.12), outline=palette.accent, outline_width=4)
    canvas.line([(4, 5), (width - 4, 5)], rgb("7a4a2b"), 8)
    return rgb("fff6e0")


def _paint_billboard(canvas: Canvas, width: float, height: float, rng: random.Random) -> Colour:
    canvas.fill(rectangle(1, 1, width - 1, height - 1, 4), rgb("e8e4da"), outline=_EDGE, outline_width=2)
    panel = mix(rgb("1f2a3d"), rng.choice(PALETTES).ink, 0.5)
    canvas.fill(rectangle(8, 8, width - 8, height - 8, 2), panel)
    return rgb("fdf7e6")


def _paint_screen(canvas: Canvas, width: float, height: float, rng: random.Random) -> Colour:
    glow = rng.choice((rgb("0e3a4a"), rgb("12324f"), rgb("173b36")))
    canvas.fill(rectangle(1, 1, width - 1, height - 1, 14), rgb("23283a"), outline=_EDGE, outline_width=2)
    canvas.fill(rectangle(8, 8, width - 8, height - 8, 8), mix(glow, rgb("c9fbff"), 0.22))
    canvas.fill(rectangle(11, 11, width - 11, height - 11, 7), glow)
    return rgb("c9fbff")


def _paint_scroll(canvas: Canvas, width: float, height: float, _rng: random.Random) -> Colour:
    canvas.fill(rectangle(10, 8, width - 10, height - 8), rgb("f6e3b8"), outline=rgb("a67c45"), outline_width=2)
    for y in (9.0, height - 9):
        roll = rectangle(1, y - 8, width - 1, y + 8, 8)
        canvas.fill(roll, rgb("d9b877"), shade=0.15, outline=rgb("8c6536"), outline_width=2)
    return rgb("3b2712")


def _paint_chalkboard(canvas: Canvas, width: float, height: float, _rng: random.Random) -> Colour:
    canvas.fill(rectangle(1, 1, width - 1, height - 1, 3), rgb("a06c3f"), outline=_EDGE, outline_width=2)
    canvas.fill(rectangle(9, 9, width - 9, height - 9, 2), rgb("2f4a40"), outline=rgb("6d472b"), outline_width=1.5)
    return rgb("f6f6ee")


def _paint_tablet(canvas: Canvas, width: float, height: float, rng: random.Random) -> Colour:
    stone = mix(rgb("c9c3b8"), rng.choice(PALETTES).second, 0.08)
    canvas.fill(rectangle(1, 1, width - 1, height - 1, 18), mix(stone, _EDGE, 0.35), outline=_EDGE, outline_width=2)
    canvas.fill(rectangle(3, 3, width - 5, height - 6, 16), stone)
    canvas.fill(rectangle(12, 12, width - 14, height - 15, 9), mix(stone, _EDGE, 0.18))
    canvas.fill(rectangle(14, 14, width - 14, height - 15, 9), mix(stone, rgb("ffffff"), 0.3))
    return rgb("2d2a33")


_SURFACES: Mapping[str, _Surface] = MappingProxyType(
    {
        "placard": _Surface("brass-framed placard", (26, 18, 26, 18), _paint_placard),
        "banner": _Surface("hanging cloth banner", (26, 18, 26, 24), _paint_banner),
        "billboard": _Surface("dark billboard", (24, 16, 24, 16), _paint_billboard),
        "screen": _Surface("glowing screen", (26, 18, 26, 18), _paint_screen),
        "scroll": _Surface("parchment scroll", (28, 24, 28, 24), _paint_scroll),
        "chalkboard": _Surface("wood-framed chalkboard", (24, 18, 24, 20), _paint_chalkboard),
        "tablet": _Surface("carved stone tablet", (28, 20, 28, 22), _paint_tablet),
    }
)

SURFACES: tuple[str, ...] = tuple(_SURFACES)
"""Names of the surfaces."""

SURFACE_WORDS: Mapping[str, str] = MappingProxyType({name: surface.words for name, surface in _SURFACES.items()})
"""Phrase for each surface in prompts; none contains another."""


def text_space(surface: str, limit: tuple[int, int]) -> tuple[int, int]:
    """Return the width and height available for text on a sign of the given size, in pixels."""
    left, top, right, bottom = _SURFACES[surface].margins
    return limit[0] - left - right, limit[1] - top - bottom


def sign_size(surface: str, block: TextBlock) -> tuple[int, int]:
    """Return the width and height of the smallest sign for a text, in pixels."""
    left, top, right, bottom = _SURFACES[surface].margins
    return math.ceil(block.width) + left + right, math.ceil(block.height) + top + bottom


def draw_sign(surface: str, block: TextBlock, size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Draw a sign with its text in the middle.

    Args:
        surface: One of `SURFACES`.
        block: Text typeset by `fit_text`.
        size: Width and height in pixels, at least `sign_size`.
        rng: Random stream for the tints.

    Returns:
        An RGBA image of that size.
    """
    kind = _SURFACES[surface]
    canvas = Canvas(size, 1)
    ink = kind.paint(canvas, size[0], size[1], rng)
    image = canvas.finish()
    left, top, right, bottom = kind.margins
    draw = ImageDraw.Draw(image)
    middle = (left + size[0] - right) / 2
    y = (top + size[1] - bottom - block.height) / 2
    for row in block.rows:
        bold = row.heading and row.size >= _BOLD_FROM
        place = (middle, y + row.size * LEADING / 2)
        draw.text(place, row.text, font=font(row.size), fill=ink, anchor="mm", stroke_width=1 if bold else 0)
        y += row.size * LEADING
    return image
