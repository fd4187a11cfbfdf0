"""The scorer `pixels`: similarity of the generated image and the ground truth as pixels, without a model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

from knowgen.core.images import OPENING_VERSION, UnreadableImageError, open_rgb
from knowgen.core.records import Generation, GroundTruth, ImageRef, Item, ParsedScore, Score, ScoreStatus
from knowgen.scorers.contract import failed_score, missing_needs, not_applicable_score
from knowgen.scorers.similarity.measures import (
    SIDE,
    edge_orientation_similarity,
    lab_histogram_intersection,
    luminance,
    ssim,
    to_common_size,
)

if TYPE_CHECKING:
    from PIL.Image import Image

NAME = "pixels"


class PixelSimilarity:
    """Three measures of the similarity of two images as pixels, each in [0, 1].

    `ssim` is the structural similarity of luminance, `lab_histogram_intersection` compares colours regardless of
    their positions, and `edge_orientation_similarity` compares edge orientations cell by cell. Formulas and sources
    are in `knowgen.scorers.similarity.measures`. Both images are scaled to 256 x 256 pixels first.

    The measures detect copies, crops and colour changes. They say little about what an image shows, so they do not
    replace `similarity`.
    """

    needs = frozenset({"image", "truth_image"})
    dimensions = ("ssim", "lab_histogram_intersection", "edge_orientation_similarity")
    version = f"pixels-3.{OPENING_VERSION}"
    note = "comparison of pixels, not a judgement of content"
    concurrency = 8

    def score_batch(self, items: Sequence[Item]) -> Iterator[Score]:
        """Yield one score per item, in order. An image that cannot be opened gives a failed score."""
        _one_thread()
        for sample, truth, generation in items:
            started = time.perf_counter()
            if missing := missing_needs(self.needs, truth, generation):
                reason = f"no {' and no '.join(missing)}"
                yield not_applicable_score(sample.id, generation.repeat, NAME, reason)
                continue
            score = _score(sample.id, truth, generation)
            yield score.model_copy(update={"seconds": round(time.perf_counter() - started, 4)})


@cache
def _one_thread() -> None:
    """Limit OpenCV to one thread, because there is one worker process per core."""
    import cv2

    cv2.setNumThreads(1)


def _score(sample_id: str, truth: GroundTruth, generation: Generation) -> Score:
    image, true_image = generation.image, truth.image
    assert image is not None and true_image is not None  # checked by `missing_needs`
    try:
        generated = to_common_size(_opened(image, "the generated image"))
        true = to_common_size(_opened(true_image, "the ground truth"))
    except UnreadableImageError as error:
        return failed_score(sample_id, generation.repeat, NAME, str(error), image=image.sha256)
    generated_grey, true_grey = luminance(generated), luminance(true)
    values = {
        "ssim": ssim(generated_grey, true_grey),
        "lab_histogram_intersection": lab_histogram_intersection(generated, true),
        "edge_orientation_similarity": edge_orientation_similarity(generated_grey, true_grey),
    }
    return Score(
        sample_id=sample_id,
        repeat=generation.repeat,
        scorer=NAME,
        status=ScoreStatus.OK,
        strict=ParsedScore(status=ScoreStatus.OK, values=values),
        image=image.sha256,
        details={
            "side": SIDE,
            "generated": [image.width, image.height],
            "truth": [true_image.width, true_image.height],
        },
    )


def _opened(image: ImageRef, what: str) -> Image:
    try:
        return open_rgb(image.path)
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{what} does not open: {error}") from error
