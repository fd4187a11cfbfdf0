"""The scorer `world_check`: four dimensions measured against the ground truth of a synthetic world."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec

from knowgen.core.errors import DataError, MissingDependencyError
from knowgen.core.images import OPENING_VERSION, UnreadableImageError, open_rgb
from knowgen.core.records import DIMENSIONS, TEXT, Generation, GroundTruth, Item, ParsedScore, Score, ScoreStatus
from knowgen.scorers.contract import failed_score, missing_needs, not_applicable_score

NAME = "world_check"

_PACKAGES = {"cv2": "opencv-python-headless", "rapidocr": "rapidocr", "onnxruntime": "onnxruntime"}


class WorldCheck:
    """Scores images of synthetic worlds by text recognition and template matching, without a judge model.

    It is made for images that paste the world's own images. If a model redraws its references, subjects no longer
    match at shape changes of a few per cent, so scores compare pipelines and agents, not image models.

    Raises:
        MissingDependencyError: If OpenCV, RapidOCR or ONNX Runtime is not installed.
    """

    needs = frozenset({"image", "required_text", "subjects"})
    dimensions = DIMENSIONS
    version = f"3.{OPENING_VERSION}"
    note = "world check, not a VLM judge"
    concurrency = 4

    def __init__(self) -> None:
        missing = [name for name in _PACKAGES if find_spec(name) is None]
        if missing:
            raise MissingDependencyError(
                f"needs {', '.join(missing)}, not installed",
                where=f"scorer {NAME!r}",
                fix=f"pip install {' '.join(_PACKAGES[name] for name in missing)}",
            )

    def score_batch(self, items: Sequence[Item]) -> Iterator[Score]:
        """Yield one score per item, in order; an unreadable image or ground truth gives a failed score."""
        _limit_threads()
        for sample, truth, generation in items:
            started = time.perf_counter()
            lacking = missing_needs(self.needs, truth, generation)
            if lacking:
                reason = f"not available: {', '.join(lacking)}"
                yield not_applicable_score(sample.id, generation.repeat, NAME, reason)
                continue
            score = _score(sample.id, truth, generation)
            yield score.model_copy(update={"seconds": round(time.perf_counter() - started, 3)})


@cache
def _limit_threads() -> None:
    """Limit OpenCV to one thread, since there is one worker process per core."""
    import cv2

    cv2.setNumThreads(1)


def _score(sample_id: str, truth: GroundTruth, generation: Generation) -> Score:
    import numpy as np

    from knowgen.worlds.checker.assessment import assess_image
    from knowgen.worlds.checker.requirements import read_requirements

    image = generation.image
    if image is None:
        raise ValueError("a generation without an image must not pass missing_needs")
    try:
        requirements = read_requirements(truth)
    except DataError as error:
        return failed_score(sample_id, generation.repeat, NAME, str(error), image=image.sha256)
    try:
        pixels = np.asarray(open_rgb(image.path))
    except UnreadableImageError as error:
        reason = f"the generated image does not open: {error.what}"
        return failed_score(sample_id, generation.repeat, NAME, reason, image=image.sha256)
    assessment = assess_image(pixels, requirements)
    values = assessment.values
    reading = ParsedScore(
        status=ScoreStatus.OK,
        values=values,
        na=() if TEXT in values else (TEXT,),
        rationale=assessment.rationale,
    )
    return Score(
        sample_id=sample_id,
        repeat=generation.repeat,
        scorer=NAME,
        status=ScoreStatus.OK,
        strict=reading,
        image=image.sha256,
        details=assessment.details,
    )
