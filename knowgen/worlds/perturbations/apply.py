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
    SWAPPED,
    UNCHANGED,
    Perturbation,
)
from knowgen.worlds.perturbations.originals import OriginalSample
from knowgen.worlds.rendering.layouts import Box

BLUR_SHARE = 1 / 160
"""Standard deviation of the blur, as a share of the picture's shorter side: 3.2 pixels of 512. Every edge is smeared
over more than ten pixels, which nobody takes for sharp, and still the letters can be read: more would change what is
shown, and not only how well."""

HUE_TURN = 120
"""Degrees of the colour circle: red becomes green, green blue, blue red."""

_SHADOW_BELOW = 8
"""A shadow reaches below its subject by less than the subject's width over this, and the rounding below."""


def random_stream(original: OriginalSample, perturbation: Perturbation, seed: int) -> random.Random:
    """Returns the random stream of one change to one sample, the same in every process."""
    return random.Random(f"changes/{seed}/{original.sample.id}/{perturbation.name}")


def describe_perturbation(original: OriginalSample, perturbation: Perturbation, seed: int) -> str | None:
    """Says what a change does to a sample, in a few words; None where it cannot be made."""
    rng = random_stream(original, perturbation, seed)
    if perturbation in (DIGIT, NAME):
        edit = _text_edit(original, perturbation, rng)
        return None if edit is None else f'"{edit.right}" is written "{edit.wrong}"'
    if perturbation in (SWAPPED, MISSING):
        name = original.names[_subject(original, rng)]
        return f"{name} is drawn as its look-alike" if perturbation is SWAPPED else f"{name} is left out"
    return perturbation.description


def render_perturbation(original: OriginalSample, perturbation: Perturbation, seed: int) -> Image.Image:
    """Draws a sample's ground truth with a change.

    Args:
        original: The sample.
        perturbation: One of the changes; `describe_perturbation` says whether it can be made.
        seed: Decides which digit, name or subject is changed, and how.

    Returns:
        An RGB picture of the size of the truth, the same for the same arguments in every process.

    Raises:
        DataError: The stored picture is missing, or is not what its record draws.
        ValueError: The change cannot be made to this sample.
    """
    rng = random_stream(original, perturbation, seed)
    if perturbation is UNCHANGED:
        return original.open_stored_image()
    if perturbation is BLUR:
        image = original.open_stored_image()
        return image.filter(ImageFilter.GaussianBlur(min(image.size) * BLUR_SHARE))
    if perturbation is COLOUR:
        return turn_hue(original.open_stored_image(), HUE_TURN)
    drawn = original.rerender()
    if perturbation in (DIGIT, NAME):
        edit = _text_edit(original, perturbation, rng)
        if edit is None:
            raise ValueError(f"sample {original.sample.id} has no text for {perturbation.name!r}")
        return original.compose(lines=edit.lines).image
    if perturbation is LAYOUT:
        return original.compose(layouts="painter", layout_seed=f"changes/{seed}/{original.sample.id}").image
    position = _subject(original, rng)
    if perturbation is SWAPPED:
        appearances = list(original.appearances)
        appearances[position] = original.distractors[position]
        return original.compose(subjects=tuple(appearances)).image
    if perturbation is MISSING:
        return _without(original, drawn.image, drawn.subject_boxes[position])
    raise ValueError(f"unknown change {perturbation.name!r}")


def turn_hue(image: Image.Image, degrees: float) -> Image.Image:
    """Turns every colour of a picture round the colour circle; brightness (HSV value) and saturation stay."""
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue, np.int16) + round(degrees / 360 * 256)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")


def _text_edit(original: OriginalSample, perturbation: Perturbation, rng: random.Random) -> text_edits.TextEdit | None:
    return text_edits.wrong_digit(original, rng) if perturbation is DIGIT else text_edits.wrong_name(original, rng)


def _subject(original: OriginalSample, rng: random.Random) -> int:
    return rng.randrange(len(original.appearances))


def _without(original: OriginalSample, image: Image.Image, box: Box) -> Image.Image:
    """Returns the picture with a subject and its shadow taken out, the place behind it in its stead."""
    clear = Image.new("RGBA", (1, 1))
    count = len(original.appearances)
    # what hangs in the air casts no shadow, so this is the place and the sign alone
    empty = original.compose(subjects=(clear,) * count, floating=(True,) * count).image
    left, top, right, bottom = box
    below = bottom + (right - left) // _SHADOW_BELOW + _SHADOW_BELOW
    region = (left, top, right, min(below, image.height))
    result = image.copy()
    result.paste(empty.crop(region), region[:2])
    return result
