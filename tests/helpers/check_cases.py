"""Composed samples with their truths, for the tests of the check."""

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
from knowgen.worlds.check import WorldCheck
from knowgen.worlds.drawing.compose import compose
from knowgen.worlds.drawing.looks import KINDS, Look, look_alike, random_look
from knowgen.worlds.drawing.scenes import SCENES
from knowgen.worlds.drawing.signs import SURFACES

TEXTS = (("Oruvane", "1931"), ("Quiet Lantern", "412"), ("Bero Taskund",), ("Mabadale", "1874", "Paper Trumpet"))


@dataclass(frozen=True)
class Case:
    """What an image is to show, and what its subjects are easily taken for."""

    seed: int
    scene: str
    surface: str
    looks: tuple[Look, ...]
    alikes: tuple[Look, ...]
    texts: tuple[str, ...]

    @property
    def truth(self) -> GroundTruth:
        subjects = tuple(
            {"name": f"Thing {number}", "look": look.to_dict(), "look_alike": alike.to_dict()}
            for number, (look, alike) in enumerate(zip(self.looks, self.alikes, strict=True))
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
        looks: Sequence[Look | Image.Image] | None = None,
        texts: Sequence[str] | None = None,
        scene: str | None = None,
    ) -> Image.Image:
        """Draws the case, or one in which something else stands."""
        return compose(
            scene or self.scene,
            self.looks if looks is None else looks,
            self.texts if texts is None else texts,
            self.surface,
            layouts="painter",
            seed=self.seed,
            scene_seed=self.seed,
        ).image


def make_case(seed: int, *, subjects: int = 1, text: bool = True) -> Case:
    rng = random.Random(f"check/{seed}")
    looks = tuple(random_look(KINDS[(seed + 5 * number) % len(KINDS)], rng) for number in range(subjects))
    return Case(
        seed=seed,
        scene=SCENES[seed % len(SCENES)],
        surface=SURFACES[seed % len(SURFACES)],
        looks=looks,
        alikes=tuple(look_alike(look, rng) for look in looks),
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
    """Scores an image through the scorer, as the engine would."""
    ref = image if isinstance(image, ImageRef) else save(image, folder)
    generation = Generation(sample_id=case.truth.sample_id, status=GenerationStatus.OK, image=ref)
    sample = Sample(id=case.truth.sample_id, prompt="a prompt", text_required=bool(case.texts))
    (found,) = WorldCheck().score_batch([(sample, case.truth, generation)])
    return found
