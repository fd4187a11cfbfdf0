"""Ground truths of synthetic worlds with the data to render them again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from knowgen.core.errors import DataError
from knowgen.core.images import UnreadableImageError
from knowgen.core.records import GroundTruth, Sample
from knowgen.worlds.content.seeds import layout_key
from knowgen.worlds.rendering.appearance import Appearance
from knowgen.worlds.rendering.compose import Composition, LayoutFamily, compose
from knowgen.worlds.rendering.scenes import SCENES
from knowgen.worlds.rendering.signs import SURFACES

MADE_HERE = "give a task made by `knowgen world build`"

LARGEST_DRIFT = 1.0
"""Maximum mean difference per channel, 0-255, between the rendered and the stored ground truth; versions of the font
library place letters a fraction of a pixel apart."""


@dataclass(frozen=True)
class OriginalSample:
    """A sample of a world with the data from which its image is rendered.

    Attributes:
        sample: The public sample.
        truth: The ground truth.
        appearances: Appearance of each subject, from left to right.
        distractors: Appearance of each subject's distractor.
        names: Name of each subject.
        scene: Name of the scene.
        surface: Name of the sign's surface.
        lines: Lines of the sign; empty without text.
    """

    sample: Sample
    truth: GroundTruth
    appearances: tuple[Appearance, ...]
    distractors: tuple[Appearance, ...]
    names: tuple[str, ...]
    scene: str
    surface: str
    lines: tuple[str, ...]

    def compose(
        self,
        *,
        subjects: tuple[Appearance | Image.Image, ...] | None = None,
        lines: tuple[str, ...] | None = None,
        layouts: LayoutFamily = "truth",
        floating: tuple[bool, ...] | None = None,
        layout_seed: str = "",
    ) -> Composition:
        """Render the ground truth, optionally with parts replaced.

        Args:
            subjects: Replacement of the subjects.
            lines: Replacement of the lines of the sign.
            layouts: Family of layouts.
            floating: For each subject whether it floats in the air; derived from its appearance if None.
            layout_seed: Seed of the layout; that of the ground truth if empty.
        """
        key = str(self.truth.extra.get("layout") or layout_key(0, self.truth_id))
        return compose(
            self.scene,
            self.appearances if subjects is None else subjects,
            self.lines if lines is None else lines,
            self.surface,
            layouts=layouts,
            seed=layout_seed or key,
            scene_seed=key,
            floating=floating,
        )

    @property
    def truth_id(self) -> str:
        """The id with which the world rendered the ground truth."""
        return self.sample.id

    def open_stored_image(self) -> Image.Image:
        """Return the stored ground-truth image.

        Raises:
            DataError: If there is none or it cannot be read.
        """
        where = f"truth of sample {self.sample.id!r}"
        if self.truth.image is None:
            raise DataError("has no image", where=where, fix=MADE_HERE)
        try:
            return self.truth.image.open()
        except UnreadableImageError as error:
            raise DataError(error.what, where=where, fix="build the world again") from error

    def rerender(self) -> Composition:
        """Render the ground truth and check that it equals the stored image.

        Raises:
            DataError: If it differs, so that a perturbation would not be the only difference.
        """
        rendered, stored = self.compose(), self.open_stored_image()
        where = f"truth of sample {self.sample.id!r}"
        if rendered.image.size == stored.size:
            pixels = (np.asarray(image, np.int16) for image in (rendered.image, stored))
            drift = float(np.abs(next(pixels) - next(pixels)).mean())
            if drift <= LARGEST_DRIFT:
                return rendered
        raise DataError(
            "the stored image differs from the rendered one", where=where, fix="build the world again with this version"
        )


def read_original(sample: Sample, truth: GroundTruth) -> OriginalSample:
    """Return a sample with the data to render its ground truth.

    Raises:
        DataError: If it is not from a world, so that its image cannot be rendered.
    """
    where, extra = f"truth of sample {sample.id!r}", truth.extra
    scene, surface, lines = extra.get("scene"), extra.get("surface"), extra.get("lines")
    drawable = scene in SCENES and surface in SURFACES and isinstance(lines, list | tuple) and truth.subjects
    if not drawable or not all({"look", "look_alike"} <= subject.keys() for subject in truth.subjects):
        raise DataError("no scene, sign and appearances to render it from", where=where, fix=MADE_HERE)
    return OriginalSample(
        sample=sample,
        truth=truth,
        appearances=tuple(Appearance.from_dict(subject["look"]) for subject in truth.subjects),
        distractors=tuple(Appearance.from_dict(subject["look_alike"]) for subject in truth.subjects),
        names=tuple(str(subject.get("name", "")) for subject in truth.subjects),
        scene=str(scene),
        surface=str(surface),
        lines=tuple(str(line) for line in lines or ()),
    )
