"""The baseline painter: cutting out subjects, reading scene, surface and kinds of a prompt, and pasting."""

from __future__ import annotations

import ast
import itertools
import random
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from knowgen.core.errors import DataError
from knowgen.worlds.baselines import painter
from knowgen.worlds.baselines.painter import cut_out, named_kinds, paint
from knowgen.worlds.rendering.appearance import (
    FLOATING_KINDS,
    KIND_NOUNS,
    KINDS,
    Appearance,
    draw_appearance,
    plain_backdrop,
    random_appearance,
)
from knowgen.worlds.rendering.compose import compose
from knowgen.worlds.rendering.scenes import SCENE_WORDS, SCENES, TINT_COUNT, draw_scene
from knowgen.worlds.rendering.signs import SURFACE_WORDS

SIZE, LOOK_SIZE, PLACE = 256, 216, (17, 23)


def shown(appearance: Appearance, seed: int) -> tuple[Image.Image, Image.Image]:
    """Return an appearance on a plain backdrop, and alone on a transparent background of the same size."""
    backdrop = plain_backdrop(appearance, random.Random(seed))
    alone = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
    cut = draw_appearance(appearance, LOOK_SIZE)
    alone.paste(cut, PLACE)
    image = Image.new("RGB", (SIZE, SIZE), backdrop)
    image.paste(alone, (0, 0), alone)
    return image, alone


def best_overlap(cut: Image.Image, alone: Image.Image) -> float:
    """Return the intersection over union of a cut-out with the known mask, at the best shift within two pixels."""
    known = np.asarray(alone)[..., 3] > 127
    freed = np.asarray(cut)[..., 3] > 127
    rows, columns = np.nonzero(known)
    best = 0.0
    for right, down in itertools.product(range(-2, 3), repeat=2):
        placed = np.zeros((SIZE + 8, SIZE + 8), bool)
        top, left = rows.min() + down, columns.min() + right
        placed[top : top + freed.shape[0], left : left + freed.shape[1]] = freed
        within = placed[:SIZE, :SIZE]
        best = max(best, float((within & known).sum() / (within | known).sum()))
    return best


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_out_equals_the_pasted_appearance(kind: str) -> None:
    for seed in range(4):
        image, alone = shown(random_appearance(kind, random.Random(seed)), seed)
        cut = cut_out(image)
        assert cut is not None
        assert cut.mode == "RGBA"
        assert best_overlap(cut, alone) > 0.97


def test_a_cut_out_survives_jpeg() -> None:
    for seed, kind in enumerate(("vase", "robot", "flag", "planet")):
        image, alone = shown(random_appearance(kind, random.Random(seed)), seed)
        stored = BytesIO()
        image.save(stored, "JPEG", quality=85)
        cut = cut_out(Image.open(stored))
        assert cut is not None
        assert best_overlap(cut, alone) > 0.88


@pytest.mark.parametrize("kind", ["person", "flag", "planet", "device"])
def test_the_edge_has_no_backdrop_colour(kind: str) -> None:
    image, _ = shown(random_appearance(kind, random.Random(3)), 3)
    backdrop = np.asarray(image)[0, 0].astype(int)
    cut = cut_out(image)
    assert cut is not None
    pixels = np.asarray(cut).astype(int)
    opaque = pixels[..., 3] > 140
    like_the_backdrop = np.abs(pixels[..., :3] - backdrop).max(axis=2) < 25
    assert (opaque & like_the_backdrop).sum() < 0.002 * opaque.sum()


@pytest.mark.parametrize("scene", SCENES)
def test_a_view_in_a_scene_is_not_cut_out(scene: str) -> None:
    image = draw_scene(scene, 1, (SIZE, SIZE))
    subject = draw_appearance(random_appearance("vase", random.Random(1)), 170)
    image.paste(subject, (43, 78), subject)
    assert cut_out(image) is None


@pytest.mark.parametrize("image", [Image.new("RGB", (200, 200), (200, 210, 220)), Image.new("L", (8, 8), 9)])
def test_an_empty_image_is_not_cut_out(image: Image.Image) -> None:
    assert cut_out(image) is None


def test_a_gap_enclosed_by_the_subject_is_cleared() -> None:
    image = Image.new("RGB", (120, 120), (230, 240, 250))
    image.paste((200, 30, 30), (30, 30, 90, 90))
    image.paste((230, 240, 250), (45, 45, 75, 75))
    cut = cut_out(image)
    assert cut is not None
    alpha = np.asarray(cut)[..., 3]
    assert alpha.shape == (60, 60)
    assert alpha[30, 30] == 0 and alpha[5, 5] == 255


# ---- reading prompts

A_SIGN = SURFACE_WORDS["placard"]


@pytest.mark.parametrize("noun", sorted(KIND_NOUNS))
def test_every_noun_names_its_kind(noun: str) -> None:
    prompt = f"In a {SCENE_WORDS['garden']}, a {A_SIGN} shows the year; near it stands the {noun} Oruvane."
    assert named_kinds(prompt) == [KIND_NOUNS[noun]]


@pytest.mark.parametrize(
    ("prompt", "kinds"),
    [
        (
            "the game mascot that the designer Tentik is best known for, and a placard shows the name of the mascot",
            ["creature"],
        ),
        (
            "the arcade monster drawn by Worow and the arcade robot created by Drost stand side by side",
            ["creature", "robot"],
        ),
        ("a poster: a screen presents the name of the mask, and the festival mask carved by Ola stands", ["mask"]),
        ("the mountain island charted by Nim Aro", ["island"]),
        ("A quiet picture of a tower.", ["building"]),
        ('In a flower garden, under the words "The Old Ship", stands the temple Shesono', ["shrine"]),
        ("two ships that left at dawn", ["ship", "ship"]),
        ("nothing in particular", []),
    ],
)
def test_subjects_are_distinguished_from_words_on_the_sign(prompt: str, kinds: list[str]) -> None:
    assert named_kinds(prompt) == kinds


def closest_scene(image: Image.Image) -> str:
    """Return the scene whose upper strip and corners, over all tints, are closest to the image."""

    def signature(image: Image.Image) -> np.ndarray:
        small = np.asarray(image.resize((24, 16), Image.Resampling.BOX)).astype(float)
        return np.concatenate([small[:, :2].ravel(), small[:, -2:].ravel(), small[-2:].ravel()])

    seen = signature(image)
    distances = {
        scene: min(
            np.abs(signature(draw_scene(scene, 0, (192, 128), tint=tint)) - seen).mean() for tint in range(TINT_COUNT)
        )
        for scene in SCENES
    }
    return min(distances, key=lambda scene: float(distances[scene]))


@pytest.mark.parametrize("scene", SCENES)
def test_the_scene_is_the_one_in_the_prompt(scene: str) -> None:
    image = paint(f"A vase stands in a {SCENE_WORDS[scene].capitalize()}.", [], [], 1)
    assert image.size == (768, 512) and image.mode == "RGB"
    assert closest_scene(image) == scene


def test_the_surface_is_the_one_in_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    question_match: list[str] = []

    def watched(*args: object, **settings: object) -> object:
        question_match.append(str(args[3]))
        return compose(*args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(painter, "compose", watched)
    for words in SURFACE_WORDS.values():
        paint(f"A {words} in a museum hall beside a vase", [], ["Ola"], 1)
    assert question_match == list(SURFACE_WORDS)


# ---- painting


@pytest.mark.parametrize("kind", KINDS)
def test_without_references_the_named_kind_is_rendered(kind: str) -> None:
    noun = next(noun for noun, named in KIND_NOUNS.items() if named == kind)
    prompt = f"In a museum hall stands the {noun} Oruvane."
    image = np.asarray(paint(prompt, [], [], 5)).astype(int)
    other = np.asarray(paint(prompt, [], [], 6)).astype(int)
    assert (np.abs(image - other).max(axis=2) > 40).mean() > 0.02, "stand-ins vary with the seed"
    kinds = []

    def remember(appearance: Appearance, size: int) -> Image.Image:
        kinds.append(appearance.kind)
        return draw_appearance(appearance, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("knowgen.worlds.rendering.compose.draw_appearance", remember)
        paint(prompt, [], [], 5)
    assert set(kinds) == {kind}


def test_references_are_pasted_and_can_be_matched() -> None:
    appearance = random_appearance("crest", random.Random(4))
    reference, _ = shown(appearance, 4)
    image = paint("In a snowy valley stands the crest Oruvane.", [reference], [], 2)
    import cv2

    subject = cut_out(reference)
    assert subject is not None
    scene = np.asarray(image.convert("L"))
    best = 0.0
    for size in range(200, 360, 4):
        scale = size / max(subject.size)
        small = subject.resize((round(subject.width * scale), round(subject.height * scale)), Image.Resampling.LANCZOS)
        template = np.asarray(small.convert("RGB").convert("L"))
        mask = np.asarray(small)[..., 3]
        best = max(best, float(cv2.matchTemplate(scene, template, cv2.TM_CCORR_NORMED, mask=mask).max()))
    assert best > 0.97


def test_a_reference_in_a_scene_is_pasted_as_a_card() -> None:
    reference = draw_scene("harbour", 3, (SIZE, SIZE))
    image = paint("In a museum hall stands the ship Oruvane.", [reference], [], 2)
    colours = image.getcolors(768 * 512)
    assert colours is not None
    counts = {colour: number for number, colour in colours}
    assert counts.get((255, 252, 244), 0) > 2000


def test_floating_references_have_no_shadow() -> None:
    for kind in sorted(FLOATING_KINDS):
        reference, _ = shown(random_appearance(kind, random.Random(1)), 1)
        prompts = (f"the {kind} Oruvane in a desert at dawn", "the vase Oruvane in a desert at dawn")
        for prompt, shadow in zip(prompts, (False, True), strict=True):
            floors = []
            for seed in range(6):
                empty = draw_scene("desert", f"paint/{seed}/{prompt}")
                pixels = np.asarray(paint(prompt, [reference], [], seed)).astype(int)
                changed = np.abs(pixels - np.asarray(empty).astype(int)).max(axis=2) > 0
                floors.append(np.nonzero(changed.any(axis=1))[0].max())
            assert (max(floors) >= 470) == shadow


def test_each_of_several_references_floats_or_stands_as_its_noun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    question_match: list[object] = []

    def watched(*args: object, **settings: object) -> object:
        question_match.append(settings["floating"])
        return compose(*args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(painter, "compose", watched)
    pair = [shown(random_appearance(kind, random.Random(1)), 1)[0] for kind in ("airship", "robot")]
    paint("the rescue airship Ovar and the rescue robot Bilo in an old town street", pair, [], 1)
    paint("the rescue robot Bilo and the rescue airship Ovar in an old town street", pair, [], 1)
    paint("the planet Ovar and nothing else", pair, [], 1)
    assert question_match == [[True, False], [False, True], [True, True]]


def test_at_most_four_references_are_used() -> None:
    references = [shown(random_appearance(kind, random.Random(1)), 1)[0] for kind in KINDS[:6]]
    assert paint("Six things", references, [], 1).tobytes() == paint("Six things", references[:4], [], 1).tobytes()


def test_the_image_depends_on_prompt_and_seed() -> None:
    first = paint("the robot Ovar in a tall library", [], ["Ovar"], 1)
    assert first.tobytes() == paint("the robot Ovar in a tall library", [], ["Ovar"], 1).tobytes()
    assert first.tobytes() != paint("the robot Ovar in a tall library", [], ["Ovar"], 2).tobytes()
    assert first.tobytes() != paint("the robot Ovar in a tall library.", [], ["Ovar"], 1).tobytes()


def test_text_that_does_not_fit_on_a_sign_is_an_error() -> None:
    with pytest.raises(DataError, match="does not fit"):
        paint("the robot Ovar in a tall library", [], ["many words " * 200], 1)


def test_the_painter_imports_only_rendering() -> None:
    tree = ast.parse(Path(painter.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    ours = {name for name in imported if name.startswith("knowgen")}
    assert ours
    assert all(name.startswith("knowgen.worlds.rendering.") for name in ours)
