"""Composition of an image: a scene, one to four subjects and a sign with text, without overlap."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw

from knowgen.core.errors import DataError
from knowgen.worlds.rendering.appearance import Appearance, draw_appearance
from knowgen.worlds.rendering.canvas import SUPERSAMPLING
from knowgen.worlds.rendering.colours import PALETTES, Colour, mix, rgb
from knowgen.worlds.rendering.layouts import (
    HEIGHT,
    MAX_SUBJECTS,
    PAINTER_BARE,
    PAINTER_LAYOUTS,
    TRUTH_BARE,
    TRUTH_LAYOUTS,
    WIDTH,
    Arrangement,
    Box,
    SignLayout,
)
from knowgen.worlds.rendering.scenes import draw_scene
from knowgen.worlds.rendering.signs import SURFACES, draw_sign, sign_size, text_space
from knowgen.worlds.rendering.typeset import TextBlock, fit_text, tidy_lines, unsupported_letters

__all__ = ["HEIGHT", "WIDTH", "Box", "Composition", "compose"]

LayoutFamily = Literal["truth", "painter"]

_READABLE = 24
_LARGEST_SUBJECT = 340
_SHADOW: Colour = (20, 14, 40)
_SHADOW_STRENGTH = 76


@dataclass(frozen=True)
class Composition:
    """A composed image and the boxes of its parts.

    Attributes:
        image: RGB, 768 x 512.
        subject_boxes: Box of each subject, from left to right.
        sign_box: Box of the sign; None without text.
    """

    image: Image.Image
    subject_boxes: tuple[Box, ...]
    sign_box: Box | None


def compose(
    scene: str,
    subjects: Sequence[Appearance | Image.Image],
    lines: Sequence[str],
    surface: str,
    *,
    layouts: LayoutFamily,
    seed: str | int,
    scene_seed: str | int,
    floating: Sequence[bool] | None = None,
) -> Composition:
    """Compose an image of a scene, subjects and, if there is text, a sign.

    Args:
        scene: Name of a scene.
        subjects: One to four appearances or cut-out RGBA images, from left to right.
        lines: Lines of the sign from top to bottom, the first as a heading; blank ones are ignored.
        surface: Name of a surface; unused without text.
        layouts: Family of layouts to choose from.
        seed: Seed of layout, sizes and tints of sign and plinths.
        scene_seed: Seed of tint and details of the scene.
        floating: For each subject whether it floats in the air; derived from the appearances if None.

    Returns:
        The composition, identical in every process.

    Raises:
        DataError: If scene or surface is unknown, the number of subjects is out of range, the text does not fit, or,
            for ground truths, the font lacks a letter.
    """
    if not 1 <= len(subjects) <= MAX_SUBJECTS:
        raise DataError(f"{len(subjects)} subjects", where="compose", fix=f"give 1 to {MAX_SUBJECTS}")
    if surface not in SURFACES:
        raise DataError(f"unknown surface {surface!r}", where="compose", fix="use one of " + ", ".join(SURFACES))
    if floating is None:
        floating = [isinstance(subject, Appearance) and subject.floats for subject in subjects]
    if len(floating) != len(subjects):
        raise DataError(
            f"{len(floating)} values of floating for {len(subjects)} subjects", where="compose", fix="give one each"
        )
    rng = random.Random(f"layout/{layouts}/{seed}")
    texts = _validated_lines(lines, layouts)
    image = draw_scene(scene, scene_seed, (WIDTH, HEIGHT))
    stone = mix(rgb("d8d2c8"), rng.choice(PALETTES).second, 0.18)
    if texts:
        arrangement, block = _arrange_with_sign(len(subjects), texts, surface, layouts, rng)
        _draw_support(image, arrangement, stone)
        if arrangement.sign:
            left, top, right, bottom = arrangement.sign
            sign = draw_sign(surface, block, (right - left, bottom - top), rng)
            image.paste(sign, (left, top), sign)
    else:
        bare = rng.choice(TRUTH_BARE if layouts == "truth" else PAINTER_BARE)
        arrangement = bare.arrange(len(subjects), rng)
    boxes = tuple(
        _draw_subject(image, subject, cell, arrangement.plinths, floats, stone, rng)
        for subject, cell, floats in zip(subjects, arrangement.cells, floating, strict=True)
    )
    return Composition(image, boxes, arrangement.sign)


def _validated_lines(lines: Sequence[str], layouts: LayoutFamily) -> list[str]:
    texts = tidy_lines(lines)
    missing = unsupported_letters("".join(texts)) if layouts == "truth" else ""
    if missing:
        raise DataError(f"the font has no shape for {missing!r}", where="compose", fix="use basic Latin letters")
    return texts


def _arrange_with_sign(
    count: int, texts: list[str], surface: str, layouts: LayoutFamily, rng: random.Random
) -> tuple[Arrangement, TextBlock]:
    """Select a random layout in which the text is readable, otherwise the one with the largest text."""
    family = TRUTH_LAYOUTS if layouts == "truth" else PAINTER_LAYOUTS
    fitting: list[tuple[SignLayout, TextBlock]] = []
    for layout in family:
        if layout.min_subjects <= count <= layout.max_subjects:
            block = fit_text(texts, *text_space(surface, layout.limit(count)))
            if block:
                fitting.append((layout, block))
    if not fitting:
        raise DataError("the text does not fit on the sign", where="compose", fix="give fewer or shorter lines")
    best = min(_READABLE, max(block.smallest for _, block in fitting))
    layout, block = rng.choice([choice for choice in fitting if choice[1].smallest >= best])
    preferred = sign_size(surface, block)
    limit = layout.limit(count)
    size = (min(limit[0], max(preferred[0], 200)), min(limit[1], max(preferred[1], 76)))
    return layout.arrange(count, size, rng), block


def _draw_support(image: Image.Image, arrangement: Arrangement, stone: Colour) -> None:
    """Draw the support of the sign."""
    if arrangement.sign is None:
        return
    left, top, right, bottom = arrangement.sign
    draw = ImageDraw.Draw(image)
    if arrangement.support == "cords":
        for x in (left + 40, right - 42):
            draw.rectangle((x, 0, x + 2, top + 8), fill=rgb("3a3240"))
    elif arrangement.support == "posts":
        for x in (left + 26, right - 36):
            draw.rectangle((x, bottom - 6, x + 9, 484), fill=rgb("3f3a46"))
            draw.rectangle((x, bottom - 6, x + 3, 484), fill=rgb("5b5563"))
    elif arrangement.support == "podium":
        floor = arrangement.cells[0][3]
        wide = (min(left, arrangement.cells[0][0]) - 6, max(right, arrangement.cells[-1][2]) + 6)
        _draw_block(image, (wide[0], floor - 8, wide[1], HEIGHT), stone)


def _draw_block(image: Image.Image, box: Box, stone: Colour) -> None:
    """Draw a stone block with a slab on top, seen slightly from above."""
    left, top, right, bottom = box
    draw = ImageDraw.Draw(image)
    line = mix(stone, rgb("2a1f2d"), 0.6)
    draw.rectangle((left + 8, top + 18, right - 9, bottom - 1), fill=mix(stone, rgb("4a4250"), 0.22))
    draw.rectangle((right - 26, top + 18, right - 9, bottom - 1), fill=mix(stone, rgb("4a4250"), 0.36))
    draw.rectangle((left + 8, top + 18, right - 9, top + 22), fill=mix(stone, rgb("4a4250"), 0.42))
    draw.rectangle((left, top + 10, right - 1, top + 18), fill=stone, outline=line)
    draw.polygon(
        [(left + 8, top), (right - 9, top), (right - 1, top + 10), (left, top + 10)],
        fill=mix(stone, (255, 255, 255), 0.45),
    )


def _draw_subject(
    image: Image.Image,
    subject: Appearance | Image.Image,
    cell: Box,
    plinth: bool,
    floats: bool,
    stone: Colour,
    rng: random.Random,
) -> Box:
    """Draw one subject in its cell, with its shadow or plinth, and return its box, which is inside the cell."""
    left, top, right, bottom = cell
    share = rng.uniform(0.9, 1.0)
    available = (right - left, bottom - top)
    limit = (int(min(available[0], _LARGEST_SUBJECT) * share), int(min(available[1], _LARGEST_SUBJECT) * share))
    cutout = _fit_subject(subject, limit)
    slack = available[0] - cutout.width
    x = left + slack // 2 + round(slack * rng.uniform(-0.2, 0.2))
    headroom = available[1] - cutout.height
    rise = round(min(headroom, 90) * rng.uniform(0.5, 0.9)) if floats else 0
    y = bottom - cutout.height - rise
    if not floats:
        if plinth:
            centre, half = x + cutout.width // 2, max(cutout.width // 2, 60)
            _draw_block(image, (max(left, centre - half), bottom - 9, min(right, centre + half), HEIGHT - 6), stone)
        _draw_shadow(image, x, bottom, cutout.width)
    image.paste(cutout, (x, y), cutout)
    return x, y, x + cutout.width, y + cutout.height


def _fit_subject(subject: Appearance | Image.Image, limit: tuple[int, int]) -> Image.Image:
    """Return the subject as an RGBA image cropped to what is drawn, as large as the limit allows.

    An appearance is drawn at its final size, since scaling the image would blur it and add colours.
    """
    if isinstance(subject, Appearance):
        probe = draw_appearance(subject, 100).getbbox()
        if probe is None:
            raise DataError("the appearance has no drawn pixels", where="compose", fix="use another appearance")
        size = int(100 * min(limit[0] / (probe[2] - probe[0] + 1), limit[1] / (probe[3] - probe[1] + 1)))
        cutout = draw_appearance(subject, size)
        return cutout.crop(cutout.getbbox())
    scale = min(limit[0] / subject.width, limit[1] / subject.height)
    new_size = (max(1, int(subject.width * scale)), max(1, int(subject.height * scale)))
    return subject.convert("RGBA").resize(new_size, Image.Resampling.LANCZOS)


def _draw_shadow(image: Image.Image, left: int, ground: int, width: int) -> None:
    """Draw a soft flat ellipse under a subject, not wider than the subject."""
    height = max(8, width // 8)
    mask = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING), 0)
    edge = width * SUPERSAMPLING * 0.06
    ImageDraw.Draw(mask).ellipse((edge, 0, mask.width - edge, mask.height - 1), fill=_SHADOW_STRENGTH)
    mask = mask.reduce(SUPERSAMPLING)
    image.paste(
        _SHADOW, (left, ground - height * 2 // 3, left + mask.width, ground - height * 2 // 3 + mask.height), mask
    )
