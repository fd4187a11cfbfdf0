"""Ground truths of made-up worlds, read so that they can be drawn again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from knowgen.core.errors import DataError
from knowgen.core.records import GroundTruth, Sample
from knowgen.worlds.drawing.compose import Composition, LayoutFamily, compose
from knowgen.worlds.drawing.looks import Look
from knowgen.worlds.drawing.scenes import SCENES
from knowgen.worlds.drawing.signs import SURFACES

MADE_HERE = "name a task made by `knowgen world build`"

LARGEST_DRIFT = 1.0
"""Mean difference per channel of 255 up to which a redrawn truth counts as the stored one; other versions of the font
library set letters a fraction of a pixel apart."""


@dataclass(frozen=True)
class Original:
    """A sample of a world with all that its picture is drawn from.

    Attributes:
        sample: What is public.
        truth: The ground truth.
        looks: How each subject looks, from left to right.
        look_alikes: What each is easily taken for.
        names: What each is called.
        scene: Name of the place.
        surface: Name of the sign's surface.
        lines: Lines of the sign; none without writing.
    """

    sample: Sample
    truth: GroundTruth
    looks: tuple[Look, ...]
    look_alikes: tuple[Look, ...]
    names: tuple[str, ...]
    scene: str
    surface: str
    lines: tuple[str, ...]

    def compose(
        self,
        *,
        subjects: tuple[Look | Image.Image, ...] | None = None,
        lines: tuple[str, ...] | None = None,
        layouts: LayoutFamily = "truth",
        floating: tuple[bool, ...] | None = None,
        layout_seed: str = "",
    ) -> Composition:
        """Draws the truth anew, or with something in it exchanged.

        Args:
            subjects: What stands in place of the subjects.
            lines: What the sign says instead.
            layouts: The family of layouts.
            floating: For each subject whether it hangs in the air; by its look when left out.
            layout_seed: Another seed of the layout; the truth's own when empty.
        """
        key = f"truth/{self.truth_id}"
        return compose(
            self.scene,
            self.looks if subjects is None else subjects,
            self.lines if lines is None else lines,
            self.surface,
            layouts=layouts,
            seed=layout_seed or key,
            scene_seed=key,
            floating=floating,
        )

    @property
    def truth_id(self) -> str:
        """The id under which the world drew the truth."""
        return self.sample.id

    def stored(self) -> Image.Image:
        """Opens the ground-truth picture.

        Raises:
            DataError: There is none, or it does not open.
        """
        where = f"truth of sample {self.sample.id!r}"
        if self.truth.image is None:
            raise DataError("has no picture", where=where, fix=MADE_HERE)
        try:
            return self.truth.image.open().convert("RGB")
        except (OSError, ValueError) as error:
            raise DataError(f"its picture cannot be read: {error}", where=where, fix="build the world again") from error

    def redrawn(self) -> Composition:
        """Draws the truth again and makes sure that it is the stored picture.

        Raises:
            DataError: It is not, so that a change could not be told from a difference in drawing.
        """
        drawn, stored = self.compose(), self.stored()
        where = f"truth of sample {self.sample.id!r}"
        if drawn.image.size == stored.size:
            pixels = (np.asarray(picture, np.int16) for picture in (drawn.image, stored))
            drift = float(np.abs(next(pixels) - next(pixels)).mean())
            if drift <= LARGEST_DRIFT:
                return drawn
        raise DataError(
            "its picture is not what its record draws", where=where, fix="build the world again with this version"
        )


def read_original(sample: Sample, truth: GroundTruth) -> Original:
    """Reads a truth.

    Raises:
        DataError: It is no truth of a world, so that its picture cannot be drawn again.
    """
    where, extra = f"truth of sample {sample.id!r}", truth.extra
    scene, surface, lines = extra.get("scene"), extra.get("surface"), extra.get("lines")
    drawable = scene in SCENES and surface in SURFACES and isinstance(lines, list | tuple) and truth.subjects
    if not drawable or not all({"look", "look_alike"} <= subject.keys() for subject in truth.subjects):
        raise DataError("holds no scene, sign and looks to draw it from", where=where, fix=MADE_HERE)
    return Original(
        sample=sample,
        truth=truth,
        looks=tuple(Look.from_dict(subject["look"]) for subject in truth.subjects),
        look_alikes=tuple(Look.from_dict(subject["look_alike"]) for subject in truth.subjects),
        names=tuple(str(subject.get("name", "")) for subject in truth.subjects),
        scene=str(scene),
        surface=str(surface),
        lines=tuple(str(line) for line in lines or ()),
    )
