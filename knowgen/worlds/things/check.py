"""The scorer `things_check`: has the image the colour of the thing?"""

from __future__ import annotations

from knowgen.core.errors import UnscorableError
from knowgen.core.images import OPENING_VERSION, open_rgb
from knowgen.core.records import Generation, GroundTruth, Sample
from knowgen.worlds.things.world import RECIPE_VERSION, colour_of


class ThingsCheck:
    """Measures the colour of what an image of the task `things` shows, from its pixels: 1 if it is right, else 0."""

    needs = frozenset({"image", "subjects"})
    dimensions = ("colour",)
    version = f"things-{RECIPE_VERSION}.{OPENING_VERSION}"
    note = "colour of the task things, not a judgement of an image"
    concurrency = 64
    workers = 1

    def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> float:
        """Return 1 if the image shows the thing's colour, else 0.

        Raises:
            UnscorableError: The ground truth has no colour, or the image does not open.
        """
        colour = truth.subjects[0].get("colour")
        if colour is None or generation.image is None:
            raise UnscorableError(f"the ground truth of {sample.id!r} has no colour: not a sample of the task things")
        return float(colour_of(open_rgb(generation.image.path)) == colour)
