"""Draws a changed picture: the ground truth, and in it what was changed and nothing else."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageFilter

from knowgen.worlds.perturbations import text_edits
from knowgen.worlds.perturbations.kinds import (
    BLUR,
    COLOUR,
    DIGIT,
    LAYOUT,
    MISSING,
    NAME,
    NOTHING,
    SWAPPED,
    Change,
)
from knowgen.worlds.perturbations.originals import Original
from knowgen.worlds.rendering.layouts import Box

BLUR_SHARE = 1 / 160
"""Standard deviation of the blur, as a share of the picture's shorter side: 3.2 pixels of 512. Every edge is smeared
over more than ten pixels, which nobody takes for sharp, and still the letters can be read: more would change what is
shown, and not only how well."""

HUE_TURN = 120
"""Degrees of the colour circle: red becomes green, green blue, blue red."""

_SHADOW_BELOW = 8
"""A shadow reaches below its subject by less than the subject's width over this, and the rounding below."""


def pick(original: Original, change: Change, seed: int) -> random.Random:
    """Returns the random stream of one change to one sample, the same in every process."""
    return random.Random(f"changes/{seed}/{original.sample.id}/{change.name}")


def what_changes(original: Original, change: Change, seed: int) -> str | None:
    """Says what a change does to a sample, in a few words; None where it cannot be made."""
    rng = pick(original, change, seed)
    if change in (DIGIT, NAME):
        edit = _edit(original, change, rng)
        return None if edit is None else f'"{edit.right}" is written "{edit.wrong}"'
    if change in (SWAPPED, MISSING):
        name = original.names[_subject(original, rng)]
        return f"{name} is drawn as its look-alike" if change is SWAPPED else f"{name} is left out"
    return change.words


def draw_change(original: Original, change: Change, seed: int) -> Image.Image:
    """Draws a sample's ground truth with a change.

    Args:
        original: The sample.
        change: One of the changes; `what_changes` says whether it can be made.
        seed: Decides which digit, name or subject is changed, and how.

    Returns:
        An RGB picture of the size of the truth, the same for the same arguments in every process.

    Raises:
        DataError: The stored picture is missing, or is not what its record draws.
        ValueError: The change cannot be made to this sample.
    """
    rng = pick(original, change, seed)
    if change is NOTHING:
        return original.stored()
    if change is BLUR:
        picture = original.stored()
        return picture.filter(ImageFilter.GaussianBlur(min(picture.size) * BLUR_SHARE))
    if change is COLOUR:
        return turn_hue(original.stored(), HUE_TURN)
    drawn = original.redrawn()
    if change in (DIGIT, NAME):
        edit = _edit(original, change, rng)
        if edit is None:
            raise ValueError(f"sample {original.sample.id} has no text for {change.name!r}")
        return original.compose(lines=edit.lines).image
    if change is LAYOUT:
        return original.compose(layouts="painter", layout_seed=f"changes/{seed}/{original.sample.id}").image
    position = _subject(original, rng)
    if change is SWAPPED:
        looks = list(original.looks)
        looks[position] = original.look_alikes[position]
        return original.compose(subjects=tuple(looks)).image
    if change is MISSING:
        return _without(original, drawn.image, drawn.subject_boxes[position])
    raise ValueError(f"unknown change {change.name!r}")


def turn_hue(picture: Image.Image, degrees: float) -> Image.Image:
    """Turns every colour of a picture round the colour circle; brightness (HSV value) and saturation stay."""
    hue, saturation, value = picture.convert("HSV").split()
    turned = (np.asarray(hue, np.int16) + round(degrees / 360 * 256)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")


def _edit(original: Original, change: Change, rng: random.Random) -> text_edits.Edit | None:
    return text_edits.wrong_digit(original, rng) if change is DIGIT else text_edits.wrong_name(original, rng)


def _subject(original: Original, rng: random.Random) -> int:
    return rng.randrange(len(original.looks))


def _without(original: Original, picture: Image.Image, box: Box) -> Image.Image:
    """Returns the picture with a subject and its shadow taken out, the place behind it in its stead."""
    clear = Image.new("RGBA", (1, 1))
    count = len(original.looks)
    # what hangs in the air casts no shadow, so this is the place and the sign alone
    empty = original.compose(subjects=(clear,) * count, floating=(True,) * count).image
    left, top, right, bottom = box
    below = bottom + (right - left) // _SHADOW_BELOW + _SHADOW_BELOW
    region = (left, top, right, min(below, picture.height))
    result = picture.copy()
    result.paste(empty.crop(region), region[:2])
    return result
