"""Colours and shapes of systems: the same system looks the same in every figure of a page.

A system is told apart by colour, by shape and by its name, so that nobody depends on colour alone. The colours are
kept apart under the common kinds of colour blindness and reach a contrast of 3:1 against the page, light and dark;
the values themselves live in `static/report.css` as `--system-0` and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = 8
"""Colours there are; `static/report.css` defines each of them once."""

SHAPES: tuple[tuple[str, str], ...] = (
    ("circle", "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z"),
    ("square", "M-4 -4h8v8h-8z"),
    ("triangle", "M0 -5.2L5 3.8H-5z"),
    ("diamond", "M0 -5.6L5.6 0L0 5.6L-5.6 0z"),
    ("wedge", "M0 5.2L5 -3.8H-5z"),
    ("cross", "M-1.6 -5h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4v-3.2h3.4z"),
    ("pentagon", "M0 -5.2L5 -1.6L3.1 4.2H-3.1L-5 -1.6z"),
    ("hourglass", "M-4.6 -4.8h9.2L1.4 0L4.6 4.8h-9.2L-1.4 0z"),
)
"""Name and SVG outline of each shape, centred on the origin, about 10 units wide."""


@dataclass(frozen=True)
class Mark:
    """How a system is drawn.

    Attributes:
        colour: Index of its colour, 0 <= colour < COLOURS.
        shape: Name of its shape.
        outline: SVG path of the shape.
    """

    colour: int
    shape: str
    outline: str


def marks(labels: Sequence[str]) -> list[Mark]:
    """Returns a mark for each system, in order; 64 systems are told apart before a pair repeats."""
    found = []
    for position in range(len(labels)):
        shape, outline = SHAPES[(position + position // COLOURS) % len(SHAPES)]
        found.append(Mark(position % COLOURS, shape, outline))
    return found
