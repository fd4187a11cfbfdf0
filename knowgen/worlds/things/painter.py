"""The image model `things_painter`: draws the colour that the prompt says."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from knowgen.tasks.things_words import COLOURS
from knowgen.worlds.things.world import RECIPE_VERSION, draw_thing

if TYPE_CHECKING:
    from PIL.Image import Image

_COLOUR = re.compile(rf"\b({'|'.join(COLOURS)})\b", re.IGNORECASE)


def stated_colours(prompt: str) -> list[str]:
    """Return the colours that a prompt names, each once, in order.

    Example:
        >>> stated_colours("a Red thing beside a blue one, red again")
        ['red', 'blue']
    """
    return list(dict.fromkeys(word.lower() for word in _COLOUR.findall(prompt)))


class ThingsPainter:
    """Draws one shape in the first colour that the prompt names, or in any of them where it names none.

    It takes reference images, which come with an agent's answer, and does not look at them: what is drawn right is what
    the agent has read from a picture and written down.
    """

    revision = f"things-{RECIPE_VERSION}"
    references = True
    concurrency = 8

    def draw(self, prompt: str, references: Sequence[Image], seed: int) -> Image:
        """Return an RGB image of 64 x 64 pixels; the same for the same prompt and seed."""
        rng = random.Random(f"things/{RECIPE_VERSION}/paint/{seed}/{prompt}")
        stated = stated_colours(prompt)
        return draw_thing(stated[0] if stated else rng.choice(list(COLOURS)), rng)
