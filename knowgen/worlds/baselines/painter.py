"""Painter of the baseline systems: pastes reference images into a scene and writes text on a sign.

It replaces an image model. It knows the words for scenes, surfaces and kinds, and nothing of any ground truth: its only
inputs are a prompt, images and texts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from knowgen.worlds.rendering.appearance import FLOATING_KINDS, KIND_NOUNS, KINDS, Appearance, random_appearance
from knowgen.worlds.rendering.compose import compose
from knowgen.worlds.rendering.layouts import MAX_SUBJECTS
from knowgen.worlds.rendering.scenes import SCENE_WORDS, SCENES
from knowgen.worlds.rendering.signs import SURFACE_WORDS, SURFACES

_PixelArray = NDArray[np.uint8]

_TOLERANCE = 10
"""Maximum difference of a backdrop pixel from the backdrop colour, per channel, 0-255."""

_PLAIN_SHARE = 0.85
"""Minimum share of the image border that must have the backdrop colour."""

_ENCLOSED_TOLERANCE = 2
_SMALLEST_HOLE = 12
_SMALLEST_PATCH = 12
_SMALLEST_SUBJECT = 0.006
_LARGEST_SUBJECT = 0.97
_RIM = 3
_CARD_MARGIN = 12
_CARD: tuple[int, int, int, int] = (255, 252, 244, 255)
_KERNEL: _PixelArray = np.ones((3, 3), np.uint8)

_NOUN = re.compile(r"\b(" + "|".join(sorted(KIND_NOUNS, key=len, reverse=True)) + r")(s?)\b", re.IGNORECASE)
_DESCRIBED = re.compile(
    r" (?:[A-Z]|(?:that|which|who|whose|by|from|with|called|first|put|brought|built|drawn|made|[a-z]+ed)\b)"
)
"""Pattern after a noun that is a subject: a name, a clause or a participle."""

_ASKED_FOR = re.compile(r"\b(?:names?|title|full name) of (?:the|each|its|her|his)(?: [a-z]+)* $")
"""Pattern before a noun that only says which text to write."""


def cut_out(image: Image.Image) -> Image.Image | None:
    """Cut out a subject from a plain backdrop.

    The backdrop is the region of the border's median colour that is connected to the border. Gaps enclosed by the
    subject are cleared if they have exactly that colour.

    Args:
        image: An image of any mode.

    Returns:
        An RGBA image cropped to the subject; None if the backdrop is not plain or has nothing on it.
    """
    pixels: _PixelArray = np.asarray(image.convert("RGB"))
    height, width = pixels.shape[:2]
    if min(height, width) < 4 * _RIM:
        return None
    sides = (pixels[:_RIM], pixels[-_RIM:], pixels[:, :_RIM], pixels[:, -_RIM:])
    rim = np.concatenate([side.reshape(-1, 3) for side in sides])
    backdrop = np.median(rim, axis=0).astype(np.uint8)
    if (np.abs(rim.astype(np.int16) - backdrop).max(axis=1) <= _TOLERANCE).mean() < _PLAIN_SHARE:
        return None
    distance = _distance(pixels, backdrop)
    subject: _PixelArray = np.uint8(255) - _backdrop_mask(pixels, backdrop, distance)
    subject[_small_patches(subject, _SMALLEST_PATCH)] = 0
    share = float(np.count_nonzero(subject)) / subject.size
    if not _SMALLEST_SUBJECT <= share <= _LARGEST_SUBJECT:
        return None
    subject_image = Image.fromarray(_cut_edge(pixels, backdrop, distance, subject))
    return subject_image.crop(Image.fromarray(subject).getbbox())


def _distance(pixels: _PixelArray, backdrop: _PixelArray) -> _PixelArray:
    """Return the largest channel difference of each pixel from the backdrop colour, height x width."""
    difference = cv2.absdiff(pixels, np.broadcast_to(backdrop, pixels.shape).copy())
    red, green, blue = cv2.split(difference)
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)


def _backdrop_mask(pixels: _PixelArray, backdrop: _PixelArray, distance: _PixelArray) -> _PixelArray:
    """Return a mask of the backdrop, 255 or 0, height x width."""
    height, width = distance.shape
    framed = np.empty((height + 2, width + 2, 3), np.uint8)
    framed[:] = backdrop
    framed[1:-1, 1:-1] = pixels
    mask = np.zeros((height + 4, width + 4), np.uint8)
    reach = (_TOLERANCE,) * 3
    flags = 4 | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY | (255 << 8)
    cv2.floodFill(framed, mask, (0, 0), (0, 0, 0), reach, reach, flags)
    outside: _PixelArray = mask[2:-2, 2:-2].copy()
    enclosed = ((distance <= _ENCLOSED_TOLERANCE) & (outside == 0)).astype(np.uint8)
    outside[(enclosed > 0) & ~_small_patches(enclosed, _SMALLEST_HOLE)] = 255
    return outside


def _small_patches(mask: _PixelArray, least: int) -> NDArray[np.bool_]:
    """Return the mask of the marked pixels in patches of fewer than `least` pixels."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    small = np.zeros(count, bool)
    small[1:] = stats[1:, cv2.CC_STAT_AREA] < least
    marked: NDArray[np.bool_] = small[labels]
    return marked


def _cut_edge(pixels: _PixelArray, backdrop: _PixelArray, distance: _PixelArray, subject: _PixelArray) -> _PixelArray:
    """Return the subject as RGBA pixels, with the backdrop colour removed from its edge.

    An edge pixel is modelled as a mixture of backdrop and subject. Its opacity is its distance from the backdrop colour
    divided by that of the most distant neighbour; the colour of the subject follows from it.
    """
    edge = (cv2.dilate(255 - subject, _KERNEL) > 0) & (subject > 0)
    farthest = np.maximum(cv2.dilate(distance, _KERNEL)[edge], 1).astype(np.float32)
    cover = np.clip(distance[edge] / farthest, 1 / 255, 1.0)
    base = backdrop.astype(np.float32)
    unmixed = base + (pixels[edge] - base) / cover[:, None]
    result = np.dstack([pixels, subject])
    result[edge, :3] = np.clip(unmixed, 0, 255).round().astype(np.uint8)
    result[edge, 3] = (cover * 255).round().astype(np.uint8)
    return result


def paint(prompt: str, references: Sequence[Image.Image], texts: Sequence[str], seed: int) -> Image.Image:
    """Paint an image for a prompt.

    Scene and surface are chosen by their words in the prompt. References on plain backdrops are cut out and others are
    pasted as cards; at most four are used. Without references, random appearances of the kinds named in the prompt are
    used.

    Args:
        prompt: Prompt.
        references: Images of the subjects, from left to right.
        texts: Lines of the sign; empty for an image without text.
        seed: Seed of layout, tints and random appearances; the same arguments give the same image in every process.

    Returns:
        An RGB image of 768 x 512.

    Raises:
        DataError: If the texts do not fit on a sign.
    """
    rng = random.Random(f"paint/{seed}/{prompt}")
    scene = _first_named(prompt, SCENE_WORDS) or rng.choice(SCENES)
    surface = _first_named(prompt, SURFACE_WORDS) or rng.choice(SURFACES)
    kinds = named_kinds(prompt) or [rng.choice(KINDS)]
    subjects: list[Appearance | Image.Image]
    if references:
        subjects = [cut_out(image) or _card(image) for image in references[:MAX_SUBJECTS]]
        one_each = len(kinds) == len(subjects)
        shared = all(kind in FLOATING_KINDS for kind in kinds)
        floating = [kind in FLOATING_KINDS for kind in kinds] if one_each else [shared] * len(subjects)
    else:
        appearances = [random_appearance(kind, rng) for kind in kinds]
        subjects, floating = list(appearances), [appearance.floats for appearance in appearances]
    key = f"{seed}/{prompt}"
    return compose(
        scene, subjects, texts, surface, layouts="painter", seed=key, scene_seed=f"paint/{key}", floating=floating
    ).image


def named_kinds(prompt: str) -> list[str]:
    """Return the kinds that a prompt names, one per subject, at most four.

    Nouns with a description (`the tower that ...`, `the tower built by ...`, `the tower Ovar`) are subjects; if there
    are none, the first noun is. A plural counts twice. Words of scenes and surfaces and quoted texts are ignored.

    Example:
        >>> named_kinds("In a garden stands the bell tower Ovar.")
        ['building']
    """
    text = re.sub(r'"[^"]*"|“[^”]*”', " ", prompt)
    for words in (*SCENE_WORDS.values(), *SURFACE_WORDS.values()):
        text = re.sub(re.escape(words), " ", text, flags=re.IGNORECASE)
    nouns = [noun for noun in _NOUN.finditer(text) if not _ASKED_FOR.search(text[: noun.start()])]
    described = [noun for noun in nouns if _DESCRIBED.match(text, noun.end())]
    kinds: list[str] = []
    for noun in described or nouns[:1]:
        kinds += [KIND_NOUNS[noun.group(1).lower()]] * (2 if noun.group(2) else 1)
    return kinds[:MAX_SUBJECTS]


def _first_named(prompt: str, words: Mapping[str, str]) -> str | None:
    """Return the key whose words appear first in the prompt; None if none does."""
    lowered = prompt.lower()
    places = {key: lowered.find(phrase) for key, phrase in words.items() if phrase in lowered}
    return min(places, key=lambda key: places[key]) if places else None


def _card(image: Image.Image) -> Image.Image:
    """Return the image on a pale card with a margin."""
    size = (image.width + 2 * _CARD_MARGIN, image.height + 2 * _CARD_MARGIN)
    card = Image.new("RGBA", size, _CARD)
    card.paste(image.convert("RGB"), (_CARD_MARGIN, _CARD_MARGIN))
    return card
