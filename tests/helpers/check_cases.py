"""Composed samples with their ground truths, for the tests of the check."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from knowgen.core.records import Generation, GenerationStatus, GroundTruth, ImageRef, Sample, Score
from knowgen.worlds.checker import WorldCheck
from knowgen.worlds.rendering.appearance import KINDS, Appearance, make_distractor, random_appearance
from knowgen.worlds.rendering.compose import compose
from knowgen.worlds.rendering.scenes import SCENES
from knowgen.worlds.rendering.signs import SURFACES

TEXTS = (("Oruvane", "1931"), ("Quiet Lantern", "412"), ("Bero Taskund",), ("Mabadale", "1874", "Paper Trumpet"))


@dataclass(frozen=True)
class Case:
    """Content of an image, and the distractors of its subjects."""

    seed: int
    scene: str
    surface: str
    appearances: tuple[Appearance, ...]
    distractors: tuple[Appearance, ...]
    texts: tuple[str, ...]

    @property
    def truth(self) -> GroundTruth:
        subjects = tuple(
            {"name": f"Thing {number}", "look": appearance.to_dict(), "look_alike": alike.to_dict()}
            for number, (appearance, alike) in enumerate(zip(self.appearances, self.distractors, strict=True))
        )
        return GroundTruth(
            sample_id=str(self.seed),
            required_text=self.texts,
            subjects=subjects,
            text_required=bool(self.texts),
            extra={"scene": self.scene, "surface": self.surface},
        )

    def draw(
        self,
        appearances: Sequence[Appearance | Image.Image] | None = None,
        texts: Sequence[str] | None = None,
        scene: str | None = None,
    ) -> Image.Image:
        """Render the case, optionally with parts replaced."""
        return compose(
            scene or self.scene,
            self.appearances if appearances is None else appearances,
            self.texts if texts is None else texts,
            self.surface,
            layouts="painter",
            seed=self.seed,
            scene_seed=self.seed,
        ).image


def make_case(seed: int, *, subjects: int = 1, text: bool = True) -> Case:
    rng = random.Random(f"check/{seed}")
    appearances = tuple(random_appearance(KINDS[(seed + 5 * number) % len(KINDS)], rng) for number in range(subjects))
    return Case(
        seed=seed,
        scene=SCENES[seed % len(SCENES)],
        surface=SURFACES[seed % len(SURFACES)],
        appearances=appearances,
        distractors=tuple(make_distractor(appearance, rng) for appearance in appearances),
        texts=TEXTS[seed % len(TEXTS)] if text else (),
    )


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))


def save(image: Image.Image, folder: Path, format: str = "PNG") -> ImageRef:
    buffer = io.BytesIO()
    image.save(buffer, format)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    path = folder / f"{digest}.{format.lower()}"
    path.write_bytes(buffer.getvalue())
    return ImageRef(sha256=digest, width=image.width, height=image.height, format=format, path=path)


def score(case: Case, image: Image.Image | ImageRef, folder: Path) -> Score:
    """Score an image with the scorer, as the engine does."""
    ref = image if isinstance(image, ImageRef) else save(image, folder)
    generation = Generation(sample_id=case.truth.sample_id, status=GenerationStatus.OK, image=ref)
    sample = Sample(id=case.truth.sample_id, prompt="a prompt", text_required=bool(case.texts))
    (result,) = WorldCheck().score_batch([(sample, case.truth, generation)])
    return result
