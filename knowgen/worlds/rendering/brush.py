"""A canvas with the colours, pattern, symbol and features of one appearance, and parts that many kinds share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from knowgen.worlds.rendering.canvas import Canvas
from knowgen.worlds.rendering.colours import WHITE, Colour, mix
from knowgen.worlds.rendering.shapes import Outline, Point, ellipse, smooth_curve, star

APPEARANCE_MARGIN = 3.0
"""Margin in units around the square of 100 units of an appearance, for ears and lines that extend beyond it."""

APPEARANCE_SPAN = 100.0 + 2 * APPEARANCE_MARGIN
"""Width and height of an appearance with its margins, in units."""

_PUPIL: Colour = (30, 20, 50)
_FINE = 1.0


class Brush:
    """Draws the parts of one appearance on a square of 100 units.

    Args:
        canvas: Canvas to draw on.
        main: First colour of the appearance.
        second: Second colour; also the colour of the pattern's marks.
        accent: Third colour.
        light: A pale colour.
        ink: A dark colour for lines.
        pattern: Name of the pattern of the main surface.
        symbol: Name of the symbol.
        features: Integers that select the variants of the parts.
    """

    def __init__(
        self,
        canvas: Canvas,
        *,
        main: Colour,
        second: Colour,
        accent: Colour,
        light: Colour,
        ink: Colour,
        pattern: str,
        symbol: str,
        features: Sequence[int],
    ) -> None:
        self.canvas = canvas
        self.main, self.second, self.accent, self.light, self.ink = main, second, accent, light, ink
        self.pattern = pattern
        self.symbol = symbol
        self._features = features

    def choice(self, feature: int, variants: int) -> int:
        """Return the variant (0 to variants - 1) that a feature selects."""
        return self._features[feature] % variants

    def part(
        self,
        points: Sequence[Point],
        colour: Colour,
        *,
        marks: Colour | None = None,
        pattern: str | None = None,
        shade: float = 0.2,
        shine: float = 0.0,
        outline: Colour | None = None,
        width: float = 1.3,
    ) -> None:
        """Draw a solid part with an ink line around it; with `marks`, in its own or the given pattern."""
        self.canvas.fill(
            points,
            colour,
            marks=marks,
            pattern=self.pattern if pattern is None else pattern,
            shade=shade,
            shine=shine,
            outline=self.ink if outline is None else outline,
            outline_width=width,
        )

    def flat(self, points: Sequence[Point], colour: Colour) -> None:
        """Draw an area of one colour without line and shade."""
        self.canvas.fill(points, colour)

    def inset(self, points: Sequence[Point], colour: Colour, width: float = 1.3) -> None:
        """Draw an unshaded area with an ink line."""
        self.canvas.fill(points, colour, outline=self.ink, outline_width=width)

    def line(self, points: Sequence[Point], colour: Colour, width: float = 1.3) -> None:
        """Draw a line."""
        self.canvas.line(points, colour, width)

    def tube(self, points: Sequence[Point], colour: Colour, width: float, rim: float = 0.9) -> None:
        """Draw a line of the given width with ink of width `rim` on either side."""
        self.canvas.line(points, self.ink, width + 2 * rim)
        self.canvas.line(points, colour, width)

    def emblem(self, x: float, y: float, radius: float, colour: Colour, *, outlined: bool = True) -> None:
        """Draw the symbol around a point."""
        draw_symbol(self.canvas, self.symbol, x, y, radius, colour, self.ink if outlined else None)

    def eyes(self, x: float, y: float, gap: float, radius: float, iris: Colour, count: int = 2) -> None:
        """Draw `count` eyes in a row around a point, `gap` units from centre to centre."""
        for index in range(count):
            centre = x + (index - (count - 1) / 2) * gap
            self.inset(ellipse(centre, y, radius * 0.85, radius * 1.1), WHITE, 0.9)
            self.flat(ellipse(centre, y + radius * 0.12, radius * 0.58, radius * 0.82), iris)
            self.flat(ellipse(centre, y + radius * 0.2, radius * 0.3, radius * 0.5), self.ink)
            self.flat(ellipse(centre - radius * 0.22, y - radius * 0.35, radius * 0.24), WHITE)


def _moon(x: float, y: float, r: float) -> Outline:
    outer = ellipse(x, y, r, start=50, end=310)
    return outer + ellipse(x + r * 0.42, y, r * 0.75, start=290, end=70)


def _drop(x: float, y: float, r: float) -> Outline:
    return smooth_curve([(x, y - r * 1.1), (x + r * 0.62, y + r * 0.2), (x, y + r), (x - r * 0.62, y + r * 0.2)])


def _bolt(x: float, y: float, r: float) -> Outline:
    corners = ((0.2, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.25, 1), (0.6, -0.2), (0.05, -0.2))
    return [(x + r * dx, y + r * dy) for dx, dy in corners]


def _leaf(x: float, y: float, r: float) -> Outline:
    right = ellipse(x - r * 0.3, y, r * 1.05, r, start=-58, end=58)
    return right + ellipse(x + r * 0.3, y, r * 1.05, r, start=122, end=238)


def _gem(x: float, y: float, r: float) -> Outline:
    corners = ((0, 1), (-1, -0.25), (-0.55, -0.8), (0.55, -0.8), (1, -0.25))
    return [(x + r * dx, y + r * dy) for dx, dy in corners]


def _crown(x: float, y: float, r: float) -> Outline:
    corners = ((-1, 0.7), (-1, -0.6), (-0.5, 0), (0, -0.9), (0.5, 0), (1, -0.6), (1, 0.7))
    return [(x + r * dx, y + r * dy) for dx, dy in corners]


def _eye(x: float, y: float, r: float) -> Outline:
    upper = ellipse(x, y + r * 0.55, r, r * 1.1, start=200, end=340)
    return upper + ellipse(x, y - r * 0.55, r, r * 1.1, start=20, end=160)


def _heart(x: float, y: float, r: float) -> Outline:
    corners = ((0, -0.45), (0.55, -0.85), (1, -0.2), (0, 1), (-1, -0.2), (-0.55, -0.85))
    return smooth_curve([(x + r * dx, y + r * dy) for dx, dy in corners])


_SYMBOL_OUTLINES: Mapping[str, Callable[[float, float, float], Outline]] = MappingProxyType(
    {
        "star": star,
        "sun": lambda x, y, r: star(x, y, r, 12, 0.68),
        "moon": _moon,
        "drop": _drop,
        "bolt": _bolt,
        "leaf": _leaf,
        "gem": _gem,
        "crown": _crown,
        "eye": _eye,
        "heart": _heart,
        "cog": lambda x, y, r: star(x, y, r, 8, 0.75),
    }
)

SYMBOLS: tuple[str, ...] = (*_SYMBOL_OUTLINES, "wave")
"""Names of the symbols."""


def draw_symbol(
    canvas: Canvas, name: str, x: float, y: float, radius: float, colour: Colour, outline: Colour | None = None
) -> None:
    """Draw one of `SYMBOLS` around a point, with an outline if its colour is given."""
    if name == "wave":
        for row in (-0.55, 0.05, 0.65):
            crest = [
                (x + radius * (step / 8 - 1), y + radius * row + radius * 0.2 * math.sin(step * 0.8))
                for step in range(17)
            ]
            canvas.line(crest, colour, radius * 0.26)
        return
    canvas.fill(_SYMBOL_OUTLINES[name](x, y, radius), colour, outline=outline, outline_width=_FINE)
    if name == "sun":
        canvas.fill(ellipse(x, y, radius * 0.42), mix(colour, WHITE, 0.45))
    elif name == "eye":
        canvas.fill(ellipse(x, y, radius * 0.32), _PUPIL)
    elif name == "cog":
        canvas.fill(ellipse(x, y, radius * 0.35), mix(colour, (0, 0, 0), 0.5))
