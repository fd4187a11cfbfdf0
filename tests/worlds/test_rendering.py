"""Rendering of appearances, scenes, signs and compositions: content, positions and determinism."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from knowgen.core.errors import DataError
from knowgen.worlds.rendering.appearance import (
    FAMILIES,
    FLOATING_KINDS,
    KIND_NOUNS,
    KINDS,
    Appearance,
    draw_appearance,
    make_distractor,
    plain_backdrop,
    random_appearance,
)
from knowgen.worlds.rendering.brush import SYMBOLS
from knowgen.worlds.rendering.canvas import PATTERNS
from knowgen.worlds.rendering.colours import PALETTES
from knowgen.worlds.rendering.compose import HEIGHT, WIDTH, Box, Composition, LayoutFamily, compose
from knowgen.worlds.rendering.layouts import (
    PAINTER_BARE,
    PAINTER_LAYOUTS,
    TRUTH_BARE,
    TRUTH_LAYOUTS,
    Arrangement,
    SignLayout,
)
from knowgen.worlds.rendering.scenes import SCENE_PREPOSITIONS, SCENE_WORDS, SCENES, draw_scene
from knowgen.worlds.rendering.signs import SURFACE_WORDS, SURFACES, draw_sign, sign_size, text_space
from knowgen.worlds.rendering.typeset import fit_text, font, unsupported_letters

LINES = ["Oruvane", "1931", "Ilka Torren", "12 470 crowns"]
FAMILIES_OF_LAYOUTS: tuple[LayoutFamily, ...] = get_args(LayoutFamily)
LONG_LINES = ["The Silver Lantern of Merin", "Ravenna Ottoline Drosk", "Please Do Not Touch", "9800 passengers"]

DIGEST_PROGRAM = """
import hashlib, random
from knowgen.worlds.rendering.compose import compose
from knowgen.worlds.rendering.appearance import KINDS, draw_appearance, make_distractor, random_appearance
from knowgen.worlds.rendering.scenes import SCENES
digest = hashlib.sha256()
appearances = [random_appearance(kind, random.Random(kind)) for kind in KINDS]
for index, appearance in enumerate(appearances):
    digest.update(repr(make_distractor(appearance, random.Random(index))).encode())
    digest.update(draw_appearance(appearance, 64).tobytes())
for index, scene in enumerate(SCENES):
    family = ("truth", "painter")[index % 2]
    pair = appearances[index : index + 2]
    whole = compose(scene, pair, ["One", "Two"], "banner", layouts=family, seed=index, scene_seed=1)
    digest.update(whole.image.tobytes() + repr((whole.subject_boxes, whole.sign_box)).encode())
print(digest.hexdigest())
"""


def an_appearance(kind: str, seed: object) -> Appearance:
    return random_appearance(kind, random.Random(f"{kind}/{seed}"))


def some_appearances(seed: int, count: int) -> list[Appearance]:
    rng = random.Random(f"some/{seed}")
    return [random_appearance(rng.choice(KINDS), rng) for _ in range(count)]


def overlap(one: Box, other: Box) -> int:
    """Return the common area of two boxes by counting rows and columns."""
    columns = set(range(one[0], one[2])) & set(range(other[0], other[2]))
    rows = set(range(one[1], one[3])) & set(range(other[1], other[3]))
    return len(columns) * len(rows)


def changed_share(first: Appearance, second: Appearance, size: int) -> float:
    """Return the share of opaque pixels that differ clearly, counted pixel by pixel in plain Python."""
    pixels = [list(draw_appearance(appearance, size).get_flattened_data()) for appearance in (first, second)]
    opaque = changed = 0
    for one, other in zip(*pixels, strict=True):
        if one[3] > 128 or other[3] > 128:
            opaque += 1
            changed += any(abs(a - b) > 40 for a, b in zip(one, other, strict=True))
    return changed / opaque


# ---- appearances


def test_there_are_sixteen_kinds_in_at_least_four_families() -> None:
    assert len(KINDS) == len(set(KINDS)) == 16
    assert len(FAMILIES) >= 4
    assert set(itertools.chain.from_iterable(FAMILIES.values())) == set(KINDS)


def test_every_kind_has_a_noun_and_every_noun_a_kind() -> None:
    assert set(KIND_NOUNS.values()) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_rendered_completely_on_a_transparent_background(kind: str) -> None:
    for seed in range(12):
        alpha = np.asarray(draw_appearance(an_appearance(kind, seed), 120))[..., 3]
        assert 0.12 < (alpha > 128).mean() < 0.9
        rim = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
        assert rim.max() == 0, "cut off at the edge"


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_kinds_share_an_outline(kind: str) -> None:
    mine = np.asarray(draw_appearance(an_appearance(kind, 0), 60))[..., 3] > 128
    for other in KINDS:
        if other != kind:
            theirs = np.asarray(draw_appearance(an_appearance(other, 0), 60))[..., 3] > 128
            assert (mine ^ theirs).sum() > 0.05 * (mine | theirs).sum()


def test_each_value_of_an_appearance_is_visible() -> None:
    appearance = Appearance("vase", 3, 0, "stripes", "moon", (0, 0, 0, 0, 0, 0))
    plain = draw_appearance(appearance, 90).tobytes()
    variants = [
        Appearance("mask", 3, 0, "stripes", "moon", appearance.features),
        Appearance("vase", 4, 0, "stripes", "moon", appearance.features),
        Appearance("vase", 3, 1, "stripes", "moon", appearance.features),
        Appearance("vase", 3, 0, "checks", "moon", appearance.features),
        Appearance("vase", 3, 0, "stripes", "heart", appearance.features),
        Appearance("vase", 3, 0, "stripes", "moon", (1, 0, 0, 0, 0, 0)),
    ]
    renderings = {draw_appearance(variant, 90).tobytes() for variant in variants}
    assert len(renderings) == len(variants)
    assert plain not in renderings


def test_every_pattern_and_every_symbol_looks_different() -> None:
    for field, values in (("pattern", PATTERNS), ("symbol", SYMBOLS)):
        images = set()
        for value in values:
            fields = {**an_appearance("crest", 1).to_dict(), field: value, "features": [0, 0, 0, 0, 0, 0]}
            images.add(draw_appearance(Appearance.from_dict(fields), 90).tobytes())
        assert len(images) == len(values)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.integers())
def test_an_appearance_survives_a_round_trip_through_plain_values(kind: str, seed: int) -> None:
    appearance = an_appearance(kind, seed)
    assert Appearance.from_dict(appearance.to_dict()) == appearance


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "dragon"),
        ("kind", 3),
        ("palette", len(PALETTES)),
        ("palette", -1),
        ("palette", True),
        ("palette", "4"),
        ("rotation", 3),
        ("pattern", "tartan"),
        ("symbol", None),
        ("features", [1, 2, 3]),
        ("features", [1, 2, 3, 4, 5, -6]),
        ("features", [1, 2, 3, 4, 5, 1.5]),
        ("features", "123456"),
    ],
)
def test_a_bad_value_is_named(field: str, value: object) -> None:
    data = {**an_appearance("robot", 1).to_dict(), field: value}
    with pytest.raises(DataError) as caught:
        Appearance.from_dict(data)
    assert field in str(caught.value)


def test_missing_and_unknown_fields_are_named() -> None:
    data = an_appearance("robot", 1).to_dict()
    del data["symbol"]
    data["colour"] = 2
    with pytest.raises(DataError, match="colour, symbol"):
        Appearance.from_dict(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_distractor_is_visibly_different_but_similar(kind: str) -> None:
    for seed in range(5):
        appearance = an_appearance(kind, seed)
        distractor = make_distractor(appearance, random.Random(seed))
        assert (distractor.kind, distractor.palette) == (appearance.kind, appearance.palette)
        for size in (96, 144):
            assert 0.07 <= changed_share(appearance, distractor, size) <= 0.70


@pytest.mark.parametrize("palette", range(len(PALETTES)))
def test_a_plain_backdrop_differs_from_every_colour_of_the_appearance(palette: int) -> None:
    appearance = Appearance("person", palette, 0, "plain", "star", (0,) * 6)
    backdrop = plain_backdrop(appearance, random.Random(palette))
    for colour in PALETTES[palette]:
        assert max(abs(a - b) for a, b in zip(backdrop, colour, strict=True)) > 20


# ---- scenes


def test_scenes_have_words_and_prepositions() -> None:
    assert len(SCENES) == 12
    assert set(SCENE_WORDS) == set(SCENE_PREPOSITIONS) == set(SCENES)
    phrases = [*SCENE_WORDS.values(), *SURFACE_WORDS.values()]
    assert len(phrases) == len(set(phrases))
    assert not any(one in other for one, other in itertools.permutations(phrases, 2))


@pytest.mark.parametrize("scene", SCENES)
def test_every_scene_fills_its_image_and_varies_with_the_seed(scene: str) -> None:
    images = [draw_scene(scene, seed) for seed in range(3)]
    assert all(image.size == (WIDTH, HEIGHT) and image.mode == "RGB" for image in images)
    assert len({image.tobytes() for image in images}) == 3
    rim = np.concatenate([np.asarray(images[0])[0], np.asarray(images[0])[-1]])
    assert (rim.sum(axis=1) > 0).all(), "unpainted pixels"


def test_scenes_differ_from_each_other() -> None:
    small = {scene: np.asarray(draw_scene(scene, 1, (96, 64))).astype(float) for scene in SCENES}
    for one, other in itertools.combinations(SCENES, 2):
        assert np.abs(small[one] - small[other]).mean() > 8


@pytest.mark.parametrize("size", [(256, 256), (300, 100), (90, 200), (1, 1)])
def test_a_scene_can_have_another_shape(size: tuple[int, int]) -> None:
    assert draw_scene("harbour", 1, size).size == size


def test_an_unknown_scene_or_tint_is_named() -> None:
    with pytest.raises(DataError, match="moonbase"):
        draw_scene("moonbase", 1)
    with pytest.raises(DataError, match="tint"):
        draw_scene("street", 1, tint=99)


# ---- text and signs


def rows_needed(lines: list[str], width: int) -> float:
    """Return the number of rows at 12 pixels with greedy wrapping; infinite if a word does not fit."""
    rows = 0.0
    for line in lines:
        left = 0.0
        for word in line.split():
            length = font(12).getlength(word)
            if length > width:
                return float("inf")
            if left < length:
                rows, left = rows + 1, float(width)
            left -= length + font(12).getlength(" ")
    return rows


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("abcdefgh ABC0123", min_size=1, max_size=34), min_size=1, max_size=5),
    st.integers(160, 640),
    st.integers(60, 300),
)
def test_typeset_text_keeps_every_word_and_stays_inside(lines: list[str], width: int, height: int) -> None:
    tidy = [" ".join(line.split()) or "x" for line in lines]
    block = fit_text(tidy, width, height)
    if block is None:
        assert rows_needed(tidy, width) * 12 * 1.34 > height
        return
    assert " ".join(row.text for row in block.rows).split() == " ".join(tidy).split()
    assert all(font(row.size).getlength(row.text) <= width for row in block.rows)
    assert sum(row.size for row in block.rows) < block.height <= height
    assert len({row.size for row in block.rows if row.heading}) == 1
    assert len({row.size for row in block.rows if not row.heading}) <= 1


def test_a_smaller_size_is_tried_before_wrapping() -> None:
    block = fit_text(["The Silver Lantern"], 310, 100)
    assert block is not None
    assert len(block.rows) == 1
    assert block.rows[0].size < 46


def test_a_wrapped_heading_has_one_size_and_even_rows() -> None:
    block = fit_text(["The Silver Lantern of the Merry Makers of Merin", "1931"], 300, 260)
    assert block is not None
    heading = [row for row in block.rows if row.heading]
    assert len(heading) >= 2
    assert len({row.size for row in heading}) == 1
    widths = [font(row.size).getlength(row.text) for row in heading]
    assert min(widths) > 0.45 * max(widths)


def test_letters_that_the_font_lacks_are_reported() -> None:
    assert unsupported_letters("Ilka Torren, 12 % \u201cyes\u201d") == ""
    assert unsupported_letters("caf\u00e9 \u0416\u4e2d \u0416") == "\u00e9\u0416\u4e2d"


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("lines", [LINES[:1], LINES, LONG_LINES])
def test_text_is_within_its_sign(surface: str, lines: list[str]) -> None:
    limit = (560, 230)
    block = fit_text(lines, *text_space(surface, limit))
    assert block is not None
    size = sign_size(surface, block)
    assert size[0] <= limit[0] and size[1] <= limit[1]
    empty = fit_text(["."], 100, 100)
    assert empty is not None
    written, blank = (np.asarray(draw_sign(surface, text, size, random.Random(1))) for text in (block, empty))
    rows, columns = np.nonzero(np.abs(written.astype(int) - blank.astype(int)).max(axis=2) > 30)
    assert columns.min() > 8 and columns.max() < size[0] - 8
    assert rows.min() > 8 and rows.max() < size[1] - 8
    assert written[rows[0], columns[0], 3] == 255


# ---- compositions


def check_places(whole: Composition, count: int, with_sign: bool) -> None:
    assert whole.image.size == (WIDTH, HEIGHT) and whole.image.mode == "RGB"
    assert len(whole.subject_boxes) == count
    assert (whole.sign_box is not None) == with_sign
    boxes: list[Box] = [*whole.subject_boxes, *([whole.sign_box] if whole.sign_box else [])]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= WIDTH and 0 <= top < bottom <= HEIGHT
    for one, other in itertools.combinations(boxes, 2):
        assert overlap(one, other) == 0
    lefts = [box[0] for box in whole.subject_boxes]
    assert lefts == sorted(lefts)
    assert all(max(box[2] - box[0], box[3] - box[1]) >= 110 for box in whole.subject_boxes)


@pytest.mark.parametrize("family", FAMILIES_OF_LAYOUTS)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("line_count", [0, 1, 2, 3, 4])
def test_subjects_and_sign_never_overlap(family: LayoutFamily, count: int, line_count: int) -> None:
    for seed in range(6):
        lines = (LINES, LONG_LINES)[seed % 2][:line_count]
        surface = SURFACES[(seed + count) % len(SURFACES)]
        whole = compose(
            "desert", some_appearances(seed, count), lines, surface,
            layouts=family, seed=seed, scene_seed=1,
        )  # fmt: skip
        check_places(whole, count, line_count > 0)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 4), st.lists(st.text("abcXYZ 019", max_size=30), max_size=4),
    st.sampled_from(SURFACES), st.sampled_from(FAMILIES_OF_LAYOUTS),
)  # fmt: skip
def test_any_text_and_any_appearances_can_be_composed(
    seed: int, count: int, lines: list[str], surface: str, family: LayoutFamily
) -> None:
    whole = compose(
        "stage", some_appearances(seed, count), lines, surface,
        layouts=family, seed=seed, scene_seed=seed,
    )  # fmt: skip
    check_places(whole, count, any(line.strip() for line in lines))


def test_a_subject_is_inside_its_box() -> None:
    appearances = some_appearances(5, 3)
    for family in FAMILIES_OF_LAYOUTS:
        whole = compose(
            "library",
            appearances,
            LINES[:2],
            "scroll",
            layouts=family,
            seed=9,
            scene_seed=2,
        )
        pixels = np.asarray(whole.image).astype(int)
        for appearance, (left, top, right, bottom) in zip(appearances, whole.subject_boxes, strict=True):
            alone = draw_appearance(appearance, 400)
            fitted = alone.crop(alone.getbbox()).resize((right - left, bottom - top), Image.Resampling.BOX)
            expected = np.asarray(fitted).astype(int)
            inside = expected[..., 3] > 250
            error = np.abs(pixels[top:bottom, left:right] - expected[..., :3]).mean(axis=2)[inside]
            assert np.median(error) < 12


@pytest.mark.parametrize("kind", sorted(FLOATING_KINDS))
def test_floating_subjects_are_above_the_ground_without_a_shadow(kind: str) -> None:
    bare = draw_scene("snowfield", 1)
    for seed in range(8):
        whole = compose(
            "snowfield", [an_appearance(kind, seed)], [], "banner", layouts="truth", seed=seed, scene_seed=1
        )
        (left, top, right, bottom) = whole.subject_boxes[0]
        assert bottom < HEIGHT - 30
        difference = np.abs(np.asarray(whole.image).astype(int) - np.asarray(bare).astype(int)).max(axis=2)
        difference[top:bottom, left:right] = 0
        assert difference.max() == 0


def test_standing_subjects_have_a_shadow() -> None:
    bare = draw_scene("snowfield", 1)
    whole = compose("snowfield", [an_appearance("robot", 1)], [], "banner", layouts="truth", seed=1, scene_seed=1)
    left, top, right, bottom = whole.subject_boxes[0]
    difference = np.abs(np.asarray(whole.image).astype(int) - np.asarray(bare).astype(int)).max(axis=2)
    difference[top:bottom, left:right] = 0
    assert difference[bottom : bottom + 20].max() > 20


def test_ground_truth_and_painter_have_no_common_layout() -> None:
    truth = {*(layout.name for layout in TRUTH_LAYOUTS), *(layout.name for layout in TRUTH_BARE)}
    painter = {*(layout.name for layout in PAINTER_LAYOUTS), *(layout.name for layout in PAINTER_BARE)}
    assert not truth & painter
    assert len(truth) > 4 and len(painter) > 4


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("lines", [[], LINES[:2]])
def test_the_painter_never_uses_a_layout_of_the_ground_truth(count: int, lines: list[str]) -> None:
    appearances = some_appearances(count, count)
    seen: list[set[tuple[object, ...]]] = []
    for family in FAMILIES_OF_LAYOUTS:
        wholes = [
            compose(
                "street",
                appearances,
                lines,
                "tablet",
                layouts=family,
                seed=seed,
                scene_seed=1,
            )
            for seed in range(8)
        ]
        seen.append({(whole.subject_boxes, whole.sign_box) for whole in wholes})
    assert not seen[0] & seen[1]
    assert all(len(places) >= 6 for places in seen)


@pytest.mark.parametrize("family", FAMILIES_OF_LAYOUTS)
def test_every_layout_is_used(family: LayoutFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[str] = set()
    layouts = TRUTH_LAYOUTS if family == "truth" else PAINTER_LAYOUTS

    def watched(layout: SignLayout) -> SignLayout:
        def arrange(count: int, size: tuple[int, int], rng: random.Random) -> Arrangement:
            used.add(layout.name)
            return layout.arrange(count, size, rng)

        return replace(layout, arrange=arrange)

    name = f"knowgen.worlds.rendering.compose.{family.upper()}_LAYOUTS"
    monkeypatch.setattr(name, tuple(watched(layout) for layout in layouts))
    for seed in range(24):
        compose("museum", some_appearances(2, 2), LINES[:2], "placard", layouts=family, seed=seed, scene_seed=1)
    assert used == {layout.name for layout in layouts}


def test_text_of_the_ground_truth_must_be_drawable_and_fit() -> None:
    appearances = some_appearances(1, 1)
    with pytest.raises(DataError, match="no shape"):
        compose("museum", appearances, ["Стол"], "placard", layouts="truth", seed=1, scene_seed=1)
    with pytest.raises(DataError, match="does not fit"):
        compose("museum", appearances, ["word " * 400], "placard", layouts="painter", seed=1, scene_seed=1)


@pytest.mark.parametrize(("count", "surface"), [(0, "placard"), (5, "placard"), (1, "cloud")])
def test_impossible_compositions_are_errors(count: int, surface: str) -> None:
    with pytest.raises(DataError):
        compose("museum", some_appearances(1, count), ["A"], surface, layouts="truth", seed=1, scene_seed=1)


def test_the_number_of_floating_values_must_match_the_subjects() -> None:
    with pytest.raises(DataError, match="2 values of floating for 1"):
        compose(
            "museum",
            some_appearances(1, 1),
            [],
            "placard",
            layouts="truth",
            seed=1,
            scene_seed=1,
            floating=[True, True],
        )


def run_digest(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", DIGEST_PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_same_seed_gives_the_same_bytes_in_every_process() -> None:
    digests: Sequence[str] = [run_digest(hash_seed) for hash_seed in ("0", "1", "random")]
    assert len(digests[0]) == len(hashlib.sha256().hexdigest())
    assert len(set(digests)) == 1
