"""Layouts of subjects and sign in an image, in two disjoint families.

The ground truth uses one family and the baseline painter the other, so that no image matches by its layout alone.
Within a layout the sign and the cells of the subjects never overlap.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

WIDTH, HEIGHT = 768, 512
"""Size of every composition, in pixels."""

MAX_SUBJECTS = 4

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are exclusive."""

Support = Literal["cords", "posts", "podium", "none"]
"""Support of a sign: cords from above, posts on the ground, a podium with the sign on its front, or none."""

_EDGE = 18
_GAP = 14
_GROUND = 488
_CEILING = 44


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Positions in one image.

    Attributes:
        cells: Box of each subject, from left to right; a subject stands on its lower edge.
        sign: Box of the sign; None without a sign.
        support: Support of the sign.
        plinths: Whether each subject stands on a plinth below its cell.
    """

    cells: tuple[Box, ...]
    sign: Box | None = None
    support: Support = "none"
    plinths: bool = False


@dataclass(frozen=True, slots=True)
class SignLayout:
    """A layout with a sign.

    Attributes:
        name: Its name.
        max_subjects: Maximum number of subjects.
        limit: Function from the number of subjects to the maximum size of the sign.
        arrange: Function that positions the subjects and a sign of a given size.
        min_subjects: Minimum number of subjects.
    """

    name: str
    max_subjects: int
    limit: Callable[[int], tuple[int, int]]
    arrange: Callable[[int, tuple[int, int], random.Random], Arrangement]
    min_subjects: int = 1


@dataclass(frozen=True, slots=True)
class BareLayout:
    """A layout without a sign, which positions a number of subjects."""

    name: str
    arrange: Callable[[int, random.Random], Arrangement]


def _columns(left: int, right: int, top: int, bottom: int, count: int) -> list[Box]:
    """Return equal columns with gaps between them."""
    width = (right - left - _GAP * (count - 1)) / count
    starts = [left + round(index * (width + _GAP)) for index in range(count)]
    return [(start, top, start + int(width), bottom) for start in starts]


def _raise_cell(cell: Box, by: int) -> Box:
    """Return the cell with its lower edge raised."""
    return cell[0], cell[1], cell[2], cell[3] - by


def _sign_beside(
    count: int, size: tuple[int, int], top: int, *, sign_left: bool, cells_top: int = _CEILING
) -> tuple[Box, tuple[Box, ...]]:
    """Return a sign at one side with its upper edge at `top`, and cells for the subjects in the remaining space."""
    if sign_left:
        sign = (_EDGE + 8, top, _EDGE + 8 + size[0], top + size[1])
        left, right = sign[2] + _GAP, WIDTH - _EDGE
    else:
        sign = (WIDTH - _EDGE - 8 - size[0], top, WIDTH - _EDGE - 8, top + size[1])
        left, right = _EDGE, sign[0] - _GAP
    return sign, tuple(_columns(left, right, cells_top, _GROUND, count))


def _board_limit(count: int) -> tuple[int, int]:
    return (340 if count == 1 else 280), 310


def _high_board(sign_left: bool) -> Callable[[int, tuple[int, int], random.Random], Arrangement]:
    """Return the arrangement with a board on posts, in the upper part at one side."""

    def arrange(count: int, size: tuple[int, int], rng: random.Random) -> Arrangement:
        sign, cells = _sign_beside(count, size, rng.randrange(46, 100), sign_left=sign_left)
        return Arrangement(cells, sign, "posts")

    return arrange


def _low_board(sign_left: bool) -> Callable[[int, tuple[int, int], random.Random], Arrangement]:
    """Return the arrangement with a low board on short posts at one side, lower than any high board of its size."""

    def arrange(count: int, size: tuple[int, int], rng: random.Random) -> Arrangement:
        top = _GROUND - rng.randrange(24, 44) - size[1]
        sign, cells = _sign_beside(count, size, top, sign_left=sign_left)
        return Arrangement(cells, sign, "posts")

    return arrange


def _overhead(count: int, size: tuple[int, int], rng: random.Random) -> Arrangement:
    """Arrange a sign that hangs from above in the middle, and the subjects in a row below."""
    left = (WIDTH - size[0]) // 2 + rng.randrange(-14, 15)
    top = rng.randrange(18, 30)
    sign = (left, top, left + size[0], top + size[1])
    return Arrangement(tuple(_columns(_EDGE, WIDTH - _EDGE, sign[3] + 8, _GROUND + 6, count)), sign, "cords")


def _podium(count: int, size: tuple[int, int], rng: random.Random) -> Arrangement:
    """Arrange a podium with the subjects on it and the sign on its front."""
    left = (WIDTH - size[0]) // 2
    bottom = HEIGHT - rng.randrange(10, 22)
    sign = (left, bottom - size[1], left + size[0], bottom)
    floor = sign[1] - 20
    reach = 130 + 70 * count
    middle = WIDTH // 2
    cells = _columns(max(_EDGE, middle - reach), min(WIDTH - _EDGE, middle + reach), 20, floor, count)
    return Arrangement(tuple(cells), sign, "podium")


def _corner(count: int, size: tuple[int, int], rng: random.Random) -> Arrangement:
    """Arrange a sign in an upper corner, and the subjects below, rising from that side to the other."""
    at_left = rng.random() < 0.5
    left = _EDGE if at_left else WIDTH - _EDGE - size[0]
    sign = (left, 16, left + size[0], 16 + size[1])
    if count == 1:
        shift = 150 if at_left else 0
        cells = [(_EDGE + shift, sign[3] + 10, WIDTH - _EDGE - 150 + shift, _GROUND)]
    else:
        cells = _columns(_EDGE, WIDTH - _EDGE, sign[3] + 8, _GROUND + 8, count)
    rise = [8 * (index if at_left else len(cells) - 1 - index) for index in range(len(cells))]
    return Arrangement(tuple(_raise_cell(cell, by) for cell, by in zip(cells, rise, strict=True)), sign, "cords")


def _between(_count: int, size: tuple[int, int], rng: random.Random) -> Arrangement:
    """Arrange a sign on posts between two subjects."""
    left = (WIDTH - size[0]) // 2
    top = rng.randrange(110, 150)
    sign = (left, top, left + size[0], top + size[1])
    cells = ((_EDGE, 60, left - _GAP, _GROUND), (sign[2] + _GAP, 60, WIDTH - _EDGE, _GROUND))
    return Arrangement(cells, sign, "posts")


def _plinths_below(count: int, size: tuple[int, int], rng: random.Random) -> Arrangement:
    """Arrange a sign at the top in the middle, and each subject below on a plinth of its own height."""
    left = (WIDTH - size[0]) // 2
    sign = (left, 14, left + size[0], 14 + size[1])
    cells = _columns(_EDGE + 10, WIDTH - _EDGE - 10, sign[3] + 8, HEIGHT - 12, count)
    raised = [_raise_cell(cell, rng.randrange(34, 52)) for cell in cells]
    return Arrangement(tuple(raised), sign, "none", plinths=True)


def _row(count: int, _rng: random.Random) -> Arrangement:
    """Arrange all subjects on the same ground."""
    return Arrangement(tuple(_columns(_EDGE + 30, WIDTH - _EDGE - 30, 70, _GROUND, count)))


def _arc(count: int, rng: random.Random) -> Arrangement:
    """Arrange the subjects in an arc, with the middle ones further back."""
    depth = rng.randrange(18, 34)
    cells = _columns(_EDGE + 10, WIDTH - _EDGE - 10, 60, _GROUND + 6, count)
    middle = (count - 1) / 2
    lifts = [round(depth * (1 - abs(index - middle) / max(middle, 1))) for index in range(count)]
    return Arrangement(tuple(_raise_cell(cell, by) for cell, by in zip(cells, lifts, strict=True)))


def _plinth_row(count: int, rng: random.Random) -> Arrangement:
    """Arrange each subject on a plinth of its own height."""
    cells = _columns(_EDGE + 16, WIDTH - _EDGE - 16, 40, HEIGHT - 12, count)
    return Arrangement(tuple(_raise_cell(cell, rng.randrange(44, 84)) for cell in cells), plinths=True)


def _slope(count: int, rng: random.Random) -> Arrangement:
    """Arrange each subject further back than its neighbour; a single subject is at one side."""
    rising = rng.random() < 0.5
    if count == 1:
        left = _EDGE if rising else WIDTH // 2 - 40
        return Arrangement(((left, 60, left + WIDTH // 2, _GROUND - 4),))
    cells = _columns(_EDGE, WIDTH - _EDGE, 60, _GROUND + 10, count)
    step = rng.randrange(13, 18)
    lifts = [step * (index if rising else count - 1 - index) for index in range(count)]
    return Arrangement(tuple(_raise_cell(cell, by) for cell, by in zip(cells, lifts, strict=True)))


def _overhead_limit(_count: int) -> tuple[int, int]:
    return 640, 200


def _podium_limit(_count: int) -> tuple[int, int]:
    return 660, 180


def _between_limit(_count: int) -> tuple[int, int]:
    return 270, 300


TRUTH_LAYOUTS: tuple[SignLayout, ...] = (
    SignLayout("high board at the left", 2, _board_limit, _high_board(sign_left=True)),
    SignLayout("high board at the right", 2, _board_limit, _high_board(sign_left=False)),
    SignLayout("overhead", MAX_SUBJECTS, _overhead_limit, _overhead),
    SignLayout("podium", MAX_SUBJECTS, _podium_limit, _podium),
)
"""Layouts of the ground truth, for images with text."""

PAINTER_LAYOUTS: tuple[SignLayout, ...] = (
    SignLayout("low board at the left", 2, _board_limit, _low_board(sign_left=True)),
    SignLayout("low board at the right", 2, _board_limit, _low_board(sign_left=False)),
    SignLayout("between", 2, _between_limit, _between, min_subjects=2),
    SignLayout("corner", MAX_SUBJECTS, lambda _count: (600, 190), _corner),
    SignLayout("plinths below", MAX_SUBJECTS, lambda _count: (640, 180), _plinths_below),
)
"""Layouts of the baseline painter, for images with text."""

TRUTH_BARE: tuple[BareLayout, ...] = (BareLayout("row", _row), BareLayout("arc", _arc))
"""Layouts of the ground truth, for images without text."""

PAINTER_BARE: tuple[BareLayout, ...] = (BareLayout("plinth row", _plinth_row), BareLayout("slope", _slope))
"""Layouts of the baseline painter, for images without text."""
