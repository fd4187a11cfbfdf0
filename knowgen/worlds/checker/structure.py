"""Structure of an image: its scene, the number of things in it, and whether there is lettering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from knowgen.worlds.checker.image_features import FloatArray, PixelArray, to_lab
from knowgen.worlds.checker.ocr import TextLine
from knowgen.worlds.rendering.scenes import SCENES, TINT_COUNT, draw_scene

GRID = (48, 32)
"""Width and height, in cells, at which scenes are compared."""

SCENE_FARTHEST = 40.0
"""Maximum mean colour distance (Lab) from the required scene."""

_DRAWN = (96, 64)
_BACKGROUND_SHARE = 0.55
_FOREGROUND = 24.0
_BLOB_CELLS = (22, 600)
_BLOB_HEIGHT = 6
_THING_WIDTH, _WIDE = 13, 20
_SIGN_MARGIN = 2
_MIN_LETTERS = 3


Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as fractions (0-1) of the image size."""


@dataclass(frozen=True, slots=True)
class ImageStructure:
    """Structure of an image.

    Attributes:
        nearest: Name of the scene nearest to the background.
        rank: Rank of the required scene by distance, 0 for the nearest.
        distance: Mean colour distance (Lab) of the background from the required scene.
        things: Number of foreground things, at least the number of recognised subjects.
        lettered: Whether there is lettering.
        scene_right: Whether the required scene is the nearest one and close enough.
        things_right: Whether there are at least as many things as subjects.
        lettering_right: Whether there is lettering if and only if text is required.
        value: 0 for a wrong scene; otherwise 1 if things and lettering are right, 0.5 if one of them is, else 0.
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


def measure_structure(
    pixels: PixelArray,
    lines: Sequence[TextLine],
    *,
    scene: str,
    subjects: int,
    recognised: Sequence[Box],
    text_required: bool,
) -> ImageStructure:
    """Return the structure of an image.

    Args:
        pixels: RGB, height x width x 3, of any size.
        lines: Recognised lines of text.
        scene: Name of the required scene.
        subjects: Number of required subjects.
        recognised: Boxes of the recognised subjects and distractors, as fractions of the image size.
        text_required: Whether text is required.

    Raises:
        ValueError: If the scene is unknown.
    """
    grid = to_lab(_to_grid(Image.fromarray(pixels)))
    distances = {name: _scene_distance(grid, bank) for name, bank in _scene_bank().items()}
    order = sorted(distances, key=lambda name: distances[name])
    rank = order.index(scene)
    things = max(len(recognised), _count_things(grid, _scene_bank()[order[0]], lines))
    scene_right = rank == 0 and distances[scene] <= SCENE_FARTHEST
    lettered = any(_is_lettering(line, recognised) for line in lines)
    things_right, lettering_right = things >= subjects, lettered == text_required
    return ImageStructure(
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


def _is_lettering(line: TextLine, things: Sequence[Box]) -> bool:
    """Return whether a line is lettering, not marks of a recognised subject that were read as letters."""
    return not line.is_within(things) and sum(map(str.isalnum, line.text)) >= _MIN_LETTERS


def _to_grid(image: Image.Image) -> PixelArray:
    return np.asarray(image.resize(GRID, Image.Resampling.BOX), np.uint8)


@cache
def _scene_bank() -> dict[str, FloatArray]:
    """Return the colours of every scene in every tint, tints x rows x columns x 3 each."""
    return {
        name: np.stack(
            [to_lab(_to_grid(draw_scene(name, f"bank/{tint}", _DRAWN, tint=tint))) for tint in range(TINT_COUNT)]
        )
        for name in SCENES
    }


def _scene_distance(grid: FloatArray, bank: FloatArray) -> float:
    """Return the distance from the nearest tint of a scene, over the 55 % of the cells that are nearest to it.

    The other cells may be covered by things and signs.
    """
    distance = np.sqrt(((bank - grid) ** 2).sum(axis=3)).reshape(len(bank), -1)
    cell_count = int(distance.shape[1] * _BACKGROUND_SHARE)
    return float(np.partition(distance, cell_count, axis=1)[:, :cell_count].mean(axis=1).min())


def _count_things(grid: FloatArray, bank: FloatArray, lines: Sequence[TextLine]) -> int:
    """Count connected areas without text that match no tint of the scene; a wide area counts as several."""
    foreground = (np.sqrt(((bank - grid) ** 2).sum(axis=3)).min(axis=0) > _FOREGROUND).astype(np.uint8)
    _clear_podium(foreground, lines)
    for line in lines:
        left, right = (round(share * GRID[0]) for share in (line.box[0], line.box[2]))
        top, bottom = (round(share * GRID[1]) for share in (line.box[1], line.box[3]))
        rows = slice(max(0, top - _SIGN_MARGIN), bottom + _SIGN_MARGIN + 1)
        foreground[rows, max(0, left - _SIGN_MARGIN) : right + _SIGN_MARGIN + 1] = 0
    opened = cv2.morphologyEx(foreground, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    count, _, boxes, _ = cv2.connectedComponentsWithStats(opened)
    return sum(_thing_count(boxes[number]) for number in range(1, count))


def _clear_podium(foreground: NDArray[np.uint8], lines: Sequence[TextLine]) -> None:
    """Remove a podium with a sign on its front, which is not a thing, from the foreground.

    It reaches the lower edge and extends beyond the lettering in the lower half on both sides; what is above the
    lettering stays.
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


def _thing_count(box: NDArray[np.int32]) -> int:
    width, height, cells = (int(box[field]) for field in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA))
    if height < _BLOB_HEIGHT or not _BLOB_CELLS[0] < cells < _BLOB_CELLS[1]:
        return 0
    return max(1, round(width / _THING_WIDTH)) if width > _WIDE else 1
