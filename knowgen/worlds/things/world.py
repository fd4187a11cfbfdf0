"""The things of a seed, and what they look like."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from knowgen.tasks.things_words import COLOURS, SYLLABLES

if TYPE_CHECKING:
    from PIL.Image import Image

RECIPE_VERSION = "1"
"""Version of names, colours and pictures. Increment it with any change to what a seed gives."""

SIDE = 64
"""Width and height of a picture in pixels."""

_COLOUR_SHIFT = 28
_LIGHT = (185, 255)
_BACKDROP_DISTANCE = 45.0
_FARTHEST = 70.0
_SMALLEST_SHARE = 0.05


@lru_cache(maxsize=16)
def things_of(seed: int) -> Mapping[str, str]:
    """Return the colours of the things of a seed by name, in the order of its samples.

    An even and an odd seed have no name in common, so that a model can be tested on names that it was not trained on.

    Example:
        >>> sorted(set(things_of(0)) & set(things_of(1)))
        []
        >>> set(things_of(0)) == set(things_of(2)) and things_of(0) != things_of(2)
        True
    """
    rng = random.Random(f"things/{RECIPE_VERSION}/{seed}")
    names = [name for name in _names() if _half(name) == seed % 2]
    rng.shuffle(names)
    colours = list(COLOURS)
    return {name: rng.choice(colours) for name in names}


def _names() -> list[str]:
    return [f"{first} {second}" for first in SYLLABLES for second in SYLLABLES]


def _half(name: str) -> int:
    return hashlib.sha256(name.encode()).digest()[0] % 2


def draw_thing(colour: str, rng: random.Random) -> Image:
    """Return a picture of a thing: one shape in its colour on a light backdrop, both slightly varied.

    Args:
        colour: One of `COLOURS`.
        rng: Source of shape, place, size and shades.

    Returns:
        An RGB image of `SIDE` x `SIDE` pixels.
    """
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (SIDE, SIDE), _triple(rng, (0, 0, 0), *_LIGHT))
    fill = _triple(rng, COLOURS[colour], -_COLOUR_SHIFT, _COLOUR_SHIFT)
    left, top, size = rng.randint(2, 16), rng.randint(2, 16), rng.randint(34, 46)
    right, bottom = left + size, top + size
    draw = ImageDraw.Draw(image)
    shape = rng.choice(("ellipse", "rectangle", "triangle"))
    if shape == "ellipse":
        draw.ellipse((left, top, right, bottom), fill=fill)
    elif shape == "rectangle":
        draw.rectangle((left, top, right, bottom), fill=fill)
    else:
        draw.polygon([(left + size // 2, top), (right, bottom), (left, bottom)], fill=fill)
    return image


def _triple(rng: random.Random, base: tuple[int, int, int], low: int, high: int) -> tuple[int, int, int]:
    """Return a colour with a random number added to each channel."""
    red, green, blue = (max(0, min(255, value + rng.randint(low, high))) for value in base)
    return red, green, blue


def colour_of(image: Image) -> str | None:
    """Return the colour of what stands out from the backdrop of an image, from its pixels alone.

    The backdrop is the median colour of the border. The colour is the nearest of `COLOURS`; None where nothing stands
    out, or none of them is near.

    Example:
        >>> colour_of(draw_thing("gold", random.Random(0)))
        'gold'
        >>> from PIL import Image
        >>> print(colour_of(Image.new("RGB", (64, 64), "white")))
        None
    """
    import numpy as np

    pixels = np.asarray(image.convert("RGB"), np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    stands_out = np.linalg.norm(pixels - np.median(border, axis=0), axis=2) > _BACKDROP_DISTANCE
    if stands_out.mean() < _SMALLEST_SHARE:
        return None
    shown = np.median(pixels[stands_out], axis=0)
    distances = {name: float(np.linalg.norm(shown - np.array(value))) for name, value in COLOURS.items()}
    nearest = min(distances, key=lambda name: distances[name])
    return nearest if distances[nearest] <= _FARTHEST else None
