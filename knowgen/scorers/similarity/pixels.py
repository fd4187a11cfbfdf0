"""The scorer `pixels`: how alike the generated picture and the ground truth are as pixels; no model is needed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

from knowgen.core.images import UnreadableImageError, open_rgb
from knowgen.core.records import Generation, GroundTruth, ImageRef, Item, ParsedScore, Score, ScoreStatus
from knowgen.scorers.contract import failed_score, missing_needs, not_applicable_score
from knowgen.scorers.similarity.measures import SIDE, colour, common, edges, luminance, structure

if TYPE_CHECKING:
    from PIL.Image import Image

NAME = "pixels"


class PixelSimilarity:
    """Compares pixels: structure (SSIM), colours (CIELAB histogram) and edges (directions by cell), each in [0, 1].

    Both pictures are scaled to 256 x 256 first, so that size does not matter, but proportions and places do. The
    formulas and their sources stand in `similarity_measures`. It tells copies, crops and recolourings apart, and says
    little of what a picture shows: it is no stand-in for `similarity`, and its figures do not compare with others'.
    """

    needs = frozenset({"image", "truth_image"})
    dimensions = ("structure", "colour", "edges")
    version = "pixels-1"
    note = "comparison of pixels, not a judgement of content"
    concurrency = 8

    def score_batch(self, items: Sequence[Item]) -> Iterator[Score]:
        """Yields one score an item, in order; a picture that does not open gives a failed score."""
        _one_thread()
        for sample, truth, generation in items:
            started = time.perf_counter()
            if lacking := missing_needs(self.needs, truth, generation):
                reason = f"there is no {' and no '.join(lacking)}"
                yield not_applicable_score(sample.id, generation.repeat, NAME, reason)
                continue
            score = _score(sample.id, truth, generation)
            yield score.model_copy(update={"seconds": round(time.perf_counter() - started, 4)})


@cache
def _one_thread() -> None:
    """Keeps OpenCV to one thread: there is one worker process a core."""
    import cv2

    cv2.setNumThreads(1)


def _score(sample_id: str, truth: GroundTruth, generation: Generation) -> Score:
    drawn, real = generation.image, truth.image
    assert drawn is not None and real is not None  # `missing_needs` lets none pass
    try:
        first = common(_opened(drawn, "the generated picture"))
        second = common(_opened(real, "the ground truth"))
    except UnreadableImageError as error:
        return failed_score(sample_id, generation.repeat, NAME, str(error), image=drawn.sha256)
    grey, other = luminance(first), luminance(second)
    values = {"structure": structure(grey, other), "colour": colour(first, second), "edges": edges(grey, other)}
    return Score(
        sample_id=sample_id,
        repeat=generation.repeat,
        scorer=NAME,
        status=ScoreStatus.OK,
        strict=ParsedScore(status=ScoreStatus.OK, values=values),
        image=drawn.sha256,
        details={"side": SIDE, "generated": [drawn.width, drawn.height], "truth": [real.width, real.height]},
    )


def _opened(image: ImageRef, what: str) -> Image:
    try:
        return open_rgb(image.path)
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{what} does not open: {error}") from error
