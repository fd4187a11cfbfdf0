"""The twelve places a picture can be set in."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from types import MappingProxyType

from PIL import Image

from knowgen.core.errors import DataError
from knowgen.worlds.drawing import indoors, outdoors
from knowgen.worlds.drawing.backdrop import SCENE_HEIGHT, SCENE_WIDTH, ScenePainter, Tint
from knowgen.worlds.drawing.colours import PALETTES
from knowgen.worlds.drawing.pen import Pen

_PAINT: Mapping[str, ScenePainter] = MappingProxyType(
    {
        "museum": indoors.paint_museum,
        "observatory": outdoors.paint_observatory,
        "harbour": outdoors.paint_harbour,
        "garden": outdoors.paint_garden,
        "stadium": outdoors.paint_stadium,
        "laboratory": indoors.paint_laboratory,
        "street": outdoors.paint_street,
        "stage": indoors.paint_stage,
        "library": indoors.paint_library,
        "snowfield": outdoors.paint_snowfield,
        "desert": outdoors.paint_desert,
        "workshop": indoors.paint_workshop,
    }
)

SCENES: tuple[str, ...] = tuple(_PAINT)
"""Names of the scenes."""

SCENE_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "museum": "museum hall",
        "observatory": "starry hillside",
        "harbour": "harbour at sunset",
        "garden": "flower garden",
        "stadium": "crowded stadium",
        "laboratory": "tiled laboratory",
        "street": "old town street",
        "stage": "theatre stage",
        "library": "tall library",
        "snowfield": "snowy valley",
        "desert": "desert at dawn",
        "workshop": "sunlit workshop",
    }
)
"""How prompts name each scene; no phrase is part of another."""

SCENE_PREPOSITIONS: Mapping[str, str] = MappingProxyType(
    {name: "on" if name in ("stage", "observatory", "street") else "in" for name in SCENES}
)
"""`in` or `on`, as it stands before a scene's words with their article."""

TINT_COUNT = len(PALETTES)
"""Number of tints a scene can take."""


def draw_scene(
    name: str, seed: str | int, size: tuple[int, int] = (768, 512), *, tint: int | None = None
) -> Image.Image:
    """Paints a scene.

    Args:
        name: One of `SCENES`.
        seed: Decides tint and small things such as stars, houses and books.
        size: Width and height in pixels; another shape than 3:2 shows the middle of the scene.
        tint: Takes this tint, 0 to `TINT_COUNT` - 1, in place of the seed's.

    Returns:
        An RGB picture, the same for the same arguments in every process.

    Raises:
        DataError: The scene or the tint is unknown.
    """
    if name not in _PAINT:
        raise DataError(f"unknown scene {name!r}", where="draw_scene", fix="use one of " + ", ".join(SCENES))
    if tint is not None and not 0 <= tint < TINT_COUNT:
        raise DataError(f"tint is {tint}", where="draw_scene", fix=f"use 0 to {TINT_COUNT - 1}")
    rng = random.Random(f"scene/{name}/{seed}")
    chosen = rng.randrange(TINT_COUNT)
    palette = PALETTES[chosen if tint is None else tint]
    width, height = size
    unit = max(width / SCENE_WIDTH, height / SCENE_HEIGHT)
    whole = (math.ceil(SCENE_WIDTH * unit), math.ceil(SCENE_HEIGHT * unit))
    pen = Pen(whole, unit, "RGB")
    _PAINT[name](pen, rng, Tint(palette.main, palette.second))
    picture = pen.finish()
    left, top = (whole[0] - width) // 2, whole[1] - height
    return picture.crop((left, top, left + width, top + height))
