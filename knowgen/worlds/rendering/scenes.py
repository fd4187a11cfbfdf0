"""The twelve scenes of images."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from types import MappingProxyType

from PIL import Image

from knowgen.core.errors import DataError
from knowgen.worlds.rendering import indoors, outdoors
from knowgen.worlds.rendering.backdrop import SCENE_HEIGHT, SCENE_WIDTH, ScenePainter, Tint
from knowgen.worlds.rendering.canvas import Canvas
from knowgen.worlds.rendering.colours import PALETTES

_SCENE_DRAWERS: Mapping[str, ScenePainter] = MappingProxyType(
    {
        "museum": indoors.draw_museum,
        "observatory": outdoors.draw_observatory,
        "harbour": outdoors.draw_harbour,
        "garden": outdoors.draw_garden,
        "stadium": outdoors.draw_stadium,
        "laboratory": indoors.draw_laboratory,
        "street": outdoors.draw_street,
        "stage": indoors.draw_stage,
        "library": indoors.draw_library,
        "snowfield": outdoors.draw_snowfield,
        "desert": outdoors.draw_desert,
        "workshop": indoors.draw_workshop,
    }
)

SCENES: tuple[str, ...] = tuple(_SCENE_DRAWERS)
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
"""Phrase for each scene in prompts; none contains another."""

SCENE_PREPOSITIONS: Mapping[str, str] = MappingProxyType(
    {name: "on" if name in ("stage", "observatory", "street") else "in" for name in SCENES}
)
"""Preposition (`in` or `on`) before the phrase of each scene."""

TINT_COUNT = len(PALETTES)
"""Number of tints of a scene."""


def draw_scene(
    name: str, seed: str | int, size: tuple[int, int] = (768, 512), *, tint: int | None = None
) -> Image.Image:
    """Draw a scene.

    Args:
        name: One of `SCENES`.
        seed: Seed of tint and details such as stars, houses and books.
        size: Width and height in pixels; if the aspect ratio is not 3:2, the middle of the scene is shown.
        tint: Index of the tint, 0 to `TINT_COUNT` - 1; derived from the seed if None.

    Returns:
        An RGB image, identical in every process.

    Raises:
        DataError: If the scene or the tint is unknown.

    Example:
        >>> draw_scene("harbour", seed=1, size=(150, 100)).size
        (150, 100)
    """
    if name not in _SCENE_DRAWERS:
        raise DataError(f"unknown scene {name!r}", where="draw_scene", fix="use one of " + ", ".join(SCENES))
    if tint is not None and not 0 <= tint < TINT_COUNT:
        raise DataError(f"tint is {tint}", where="draw_scene", fix=f"use 0 to {TINT_COUNT - 1}")
    rng = random.Random(f"scene/{name}/{seed}")
    seed_tint = rng.randrange(TINT_COUNT)
    palette = PALETTES[seed_tint if tint is None else tint]
    width, height = size
    unit = max(width / SCENE_WIDTH, height / SCENE_HEIGHT)
    whole = (math.ceil(SCENE_WIDTH * unit), math.ceil(SCENE_HEIGHT * unit))
    canvas = Canvas(whole, unit, "RGB")
    _SCENE_DRAWERS[name](canvas, rng, Tint(palette.main, palette.second))
    image = canvas.finish()
    left, top = (whole[0] - width) // 2, whole[1] - height
    return image.crop((left, top, left + width, top + height))
