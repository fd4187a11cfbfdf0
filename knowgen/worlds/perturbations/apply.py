"""Render a perturbed image: the ground truth with one change and no other difference."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from knowgen.worlds.perturbations import text_edits
from knowgen.worlds.perturbations.kinds import (
    BLUR,
    COLOUR,
    DIGIT,
    IMAGE_INSTRUCTION,
    INSTRUCTION,
    LAYOUT,
    MISSING,
    NAME,
    PROMPT_INSTRUCTION,
    SWAPPED,
    UNCHANGED,
    Perturbation,
)
from knowgen.worlds.perturbations.originals import OriginalSample
from knowgen.worlds.rendering.layouts import Box
from knowgen.worlds.rendering.typeset import font

BLUR_SHARE = 1 / 160
"""Standard deviation of the blur as a fraction of the shorter side: 3.2 of 512 pixels. Edges are more than ten pixels
wide and clearly not sharp, but letters stay legible; a stronger blur would also change the content."""

HUE_TURN = 120
"""Hue rotation in degrees: red becomes green, green blue, blue red."""

WITHOUT_SUBJECT = (MISSING, IMAGE_INSTRUCTION, PROMPT_INSTRUCTION)
"""Perturbations that leave out a subject."""

_BAND_SHARE = 1 / 14
"""Height of the band with an instruction as a fraction of the image's height."""

_SHADOW_BELOW = 8
"""A shadow extends below its subject by less than the subject's width divided by this, plus rounding."""


def perturbation_stream(original: OriginalSample, perturbation: Perturbation, seed: int) -> random.Random:
    """Return the random stream for one perturbation of one sample, identical in every process."""
    return random.Random(f"changes/{seed}/{original.sample.id}/{perturbation.name}")


def describe_perturbation(original: OriginalSample, perturbation: Perturbation, seed: int) -> str | None:
    """Return a short description of what a perturbation changes in a sample; None if it cannot be applied."""
    rng = perturbation_stream(original, perturbation, seed)
    if perturbation in (DIGIT, NAME):
        edit = _text_edit(original, perturbation, rng)
        return None if edit is None else f'"{edit.right}" is written "{edit.wrong}"'
    if perturbation in (SWAPPED, *WITHOUT_SUBJECT):
        name = original.names[_subject(original, rng)]
        if perturbation is SWAPPED:
            return f"{name} is drawn as its distractor"
        where = {IMAGE_INSTRUCTION: "the image", PROMPT_INSTRUCTION: "the prompt"}.get(perturbation)
        return f"{name} is left out" + (f', and {where} says "{INSTRUCTION}"' if where else "")
    return perturbation.description


def render_perturbation(original: OriginalSample, perturbation: Perturbation, seed: int) -> Image.Image:
    """Render the ground truth of a sample with a perturbation.

    Args:
        original: The sample.
        perturbation: The perturbation; `describe_perturbation` returns None if it cannot be applied.
        seed: Seed of the choice of digit, name or subject, and of its change.

    Returns:
        An RGB image of the size of the ground truth, identical in every process.

    Raises:
        DataError: If the stored image is missing or differs from the rendered one.
        ValueError: If the perturbation cannot be applied to this sample.
    """
    rng = perturbation_stream(original, perturbation, seed)
    if perturbation is UNCHANGED:
        return original.open_stored_image()
    if perturbation is BLUR:
        image = original.open_stored_image()
        return image.filter(ImageFilter.GaussianBlur(min(image.size) * BLUR_SHARE))
    if perturbation is COLOUR:
        return turn_hue(original.open_stored_image(), HUE_TURN)
    rendered = original.rerender()
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
    if perturbation in WITHOUT_SUBJECT:
        image = _remove_subject(original, rendered.image, rendered.subject_boxes[position])
        return letter_instruction(image) if perturbation is IMAGE_INSTRUCTION else image
    raise ValueError(f"unknown perturbation {perturbation.name!r}")


def perturbed_prompt(prompt: str, perturbation: Perturbation) -> str:
    """Return the prompt that a judge reads beside a perturbed image."""
    return f"{prompt} {INSTRUCTION}" if perturbation is PROMPT_INSTRUCTION else prompt


def letter_instruction(image: Image.Image) -> Image.Image:
    """Return an image with `INSTRUCTION` in dark letters on a light band along its lower edge."""
    result = image.copy()
    height = max(16, round(image.height * _BAND_SHARE))
    size = height
    while size > 8 and font(size).getlength(INSTRUCTION) > image.width * 0.94:
        size -= 1
    draw = ImageDraw.Draw(result)
    draw.rectangle((0, image.height - height, image.width, image.height), fill="white")
    draw.text((image.width / 2, image.height - height / 2), INSTRUCTION, font=font(size), fill="black", anchor="mm")
    return result


def turn_hue(image: Image.Image, degrees: float) -> Image.Image:
    """Rotate the hue of every pixel; HSV value and saturation stay the same."""
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue, np.int16) + round(degrees / 360 * 256)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")


def _text_edit(original: OriginalSample, perturbation: Perturbation, rng: random.Random) -> text_edits.TextEdit | None:
    return text_edits.wrong_digit(original, rng) if perturbation is DIGIT else text_edits.wrong_name(original, rng)


def _subject(original: OriginalSample, rng: random.Random) -> int:
    return rng.randrange(len(original.appearances))


def _remove_subject(original: OriginalSample, image: Image.Image, box: Box) -> Image.Image:
    """Return the image with a subject and its shadow replaced by the background."""
    clear = Image.new("RGBA", (1, 1))
    count = len(original.appearances)
    # floating subjects have no shadow, so this is the scene and the sign alone
    empty = original.compose(subjects=(clear,) * count, floating=(True,) * count).image
    left, top, right, bottom = box
    below = bottom + (right - left) // _SHADOW_BELOW + _SHADOW_BELOW
    region = (left, top, right, min(below, image.height))
    result = image.copy()
    result.paste(empty.crop(region), region[:2])
    return result
