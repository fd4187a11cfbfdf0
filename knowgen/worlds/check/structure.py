"""Does the picture show what was asked for as a whole: the place, enough things in it, lettering or none?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from knowgen.worlds.check.ocr import Line
from knowgen.worlds.check.sight import Floats, PixelSimilarity, to_lab
from knowgen.worlds.drawing.scenes import SCENES, TINT_COUNT, draw_scene

GRID = (48, 32)
"""Width and height, in cells, at which scenes are compared."""

SCENE_FARTHEST = 40.0
"""Mean colour distance (Lab) beyond which even the nearest scene is none."""

_DRAWN = (96, 64)
_BACKGROUND_SHARE = 0.55
_FOREGROUND = 24.0
_BLOB_CELLS = (22, 600)
_BLOB_HEIGHT = 6
_THING_WIDTH, _WIDE = 13, 20
_SIGN_MARGIN = 2
_LEAST_LETTERS = 3


Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as shares (0..1) of the picture's sides."""


@dataclass(frozen=True, slots=True)
class Structure:
    """What was found of the whole.

    Attributes:
        nearest: The scene the background is nearest to.
        rank: Place of the wanted scene among all, 0 for the nearest.
        distance: Mean colour distance (Lab) of the background from the wanted scene.
        things: How many things stand out from the background, at least as many as subjects were recognised.
        lettered: Is there any text?
        scene_right: Is the wanted scene the nearest, and near enough?
        things_right: Are there at least as many things as subjects?
        lettering_right: Is there text just when it is wanted?
        value: 0 in a wrong scene, else 1 when things and lettering are right, 0.5 when one of them is, 0 otherwise.
    """

    nearest: str
    rank: int
    distance: float
    things: int
    lettered: bool
    scene_right: bool
    things_right: bool
    lettering_right: bool
    value: float


def judge_structure(
    pixels: PixelSimilarity,
    lines: Sequence[Line],
    *,
    scene: str,
    subjects: int,
    recognised: Sequence[Box],
    text_wanted: bool,
) -> Structure:
    """Judges a picture as a whole.

    Args:
        pixels: RGB, any size.
        lines: The text in it.
        scene: The wanted scene.
        subjects: How many subjects are wanted.
        recognised: Boxes of those, or of their look-alikes, that were recognised, as shares of the picture's sides.
        text_wanted: Is any text wanted?

    Raises:
        KeyError: There is no such scene.
    """
    grid = to_lab(_shrunk(Image.fromarray(pixels)))
    distances = {name: _scene_distance(grid, bank) for name, bank in _bank().items()}
    order = sorted(distances, key=lambda name: distances[name])
    rank = order.index(scene)
    things = max(len(recognised), _count_things(grid, _bank()[order[0]], lines))
    scene_right = rank == 0 and distances[scene] <= SCENE_FARTHEST
    lettered = any(_is_lettering(line, recognised) for line in lines)
    things_right, lettering_right = things >= subjects, lettered == text_wanted
    return Structure(
        nearest=order[0],
        rank=rank,
        distance=distances[scene],
        things=things,
        lettered=lettered,
        scene_right=scene_right,
        things_right=things_right,
        lettering_right=lettering_right,
        value=(things_right + lettering_right) / 2 if scene_right else 0.0,
    )


def _is_lettering(line: Line, things: Sequence[Box]) -> bool:
    """Tells lettering from marks of a recognised thing, such as a row of teeth, that were taken for letters."""
    across, down = (line.box[0] + line.box[2]) / 2, (line.box[1] + line.box[3]) / 2
    within = any(left < across < right and top < down < bottom for left, top, right, bottom in things)
    return not within and sum(map(str.isalnum, line.text)) >= _LEAST_LETTERS


def _shrunk(picture: Image.Image) -> PixelSimilarity:
    return np.asarray(picture.resize(GRID, Image.Resampling.BOX), np.uint8)


@cache
def _bank() -> dict[str, Floats]:
    """Draws every scene once in every tint: tints x rows x columns x 3 each."""
    return {
        name: np.stack(
            [to_lab(_shrunk(draw_scene(name, f"bank/{tint}", _DRAWN, tint=tint))) for tint in range(TINT_COUNT)]
        )
        for name in SCENES
    }


def _scene_distance(grid: Floats, bank: Floats) -> float:
    """Returns the distance from the nearest tint of a scene, over the cells that are nearest to it.

    Things and signs cover part of a scene; the farther 45 % of the cells are left to them.
    """
    distance = np.sqrt(((bank - grid) ** 2).sum(axis=3)).reshape(len(bank), -1)
    kept = int(distance.shape[1] * _BACKGROUND_SHARE)
    return float(np.partition(distance, kept, axis=1)[:, :kept].mean(axis=1).min())


def _count_things(grid: Floats, bank: Floats, lines: Sequence[Line]) -> int:
    """Counts connected areas, away from text, that no tint of the scene explains; a wide one counts as several."""
    foreground = (np.sqrt(((bank - grid) ** 2).sum(axis=3)).min(axis=0) > _FOREGROUND).astype(np.uint8)
    _clear_podium(foreground, lines)
    for line in lines:
        left, right = (round(share * GRID[0]) for share in (line.box[0], line.box[2]))
        top, bottom = (round(share * GRID[1]) for share in (line.box[1], line.box[3]))
        rows = slice(max(0, top - _SIGN_MARGIN), bottom + _SIGN_MARGIN + 1)
        foreground[rows, max(0, left - _SIGN_MARGIN) : right + _SIGN_MARGIN + 1] = 0
    opened = cv2.morphologyEx(foreground, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    count, _, boxes, _ = cv2.connectedComponentsWithStats(opened)
    return sum(_things_in(boxes[number]) for number in range(1, count))


def _clear_podium(foreground: NDArray[np.uint8], lines: Sequence[Line]) -> None:
    """Clears the body that bears a sign on its front, which is no thing of its own.

    It reaches the lower edge and stands out on both sides of lettering in the lower half; what stands behind it, above
    the lettering, is left.
    """
    if not lines:
        return
    left, right = min(line.box[0] for line in lines) * GRID[0], max(line.box[2] for line in lines) * GRID[0]
    top = min(line.box[1] for line in lines) * GRID[1]
    if top < GRID[1] / 2:
        return
    first = max(0, int(top) - 2 * _SIGN_MARGIN)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(foreground)
    for number in range(1, count):
        x, y, width, height = (int(edge) for edge in boxes[number][:4])
        if y + height >= GRID[1] - 1 and x <= left and x + width >= right:
            foreground[first:][labels[first:] == number] = 0


def _things_in(box: NDArray[np.int32]) -> int:
    width, height, cells = (int(box[field]) for field in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA))
    if height < _BLOB_HEIGHT or not _BLOB_CELLS[0] < cells < _BLOB_CELLS[1]:
        return 0
    return max(1, round(width / _THING_WIDTH)) if width > _WIDE else 1
