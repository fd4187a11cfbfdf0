"""The scorer `world_check`: four dimensions measured against a made-up world's truth."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec

from knowgen.core.errors import DataError, MissingDependencyError
from knowgen.core.images import UnreadableImageError, opened_image
from knowgen.core.records import DIMENSIONS, TEXT, Generation, GroundTruth, ParsedScore, Score, ScoreStatus
from knowgen.scorers.contract import Item, failed_score, missing_needs, not_applicable_score

NAME = "world_check"

_PACKAGES = {"cv2": "opencv-python-headless", "rapidocr": "rapidocr", "onnxruntime": "onnxruntime"}


class WorldCheck:
    """Scores pictures of made-up worlds by reading and comparing; no model is asked for an opinion.

    It fits drawings made of the world's own pictures. A model that redraws its references loses the match of
    subjects at shape drifts of a few per cent, so the figures compare pipelines and agents, never image models.

    Raises:
        MissingDependencyError: OpenCV, RapidOCR or ONNX Runtime is not installed.
    """

    needs = frozenset({"image", "required_text", "subjects"})
    dimensions = DIMENSIONS
    version = "2"
    note = "world check, not a VLM judge"
    concurrency = 4

    def __init__(self) -> None:
        missing = [name for name in _PACKAGES if find_spec(name) is None]
        if missing:
            raise MissingDependencyError(
                f"needs {', '.join(missing)}, which is not installed",
                where=f"scorer {NAME!r}",
                fix=f"pip install {' '.join(_PACKAGES[name] for name in missing)}",
            )

    def score_batch(self, items: Sequence[Item]) -> Iterator[Score]:
        """Yields one score an item, in order; a picture or truth that cannot be read gives a failed score."""
        _one_thread()
        for sample, truth, generation in items:
            started = time.perf_counter()
            lacking = missing_needs(self.needs, truth, generation)
            if lacking:
                reason = f"there is no {' and no '.join(lacking)}"
                yield not_applicable_score(sample.id, generation.repeat, NAME, reason)
                continue
            score = _score(sample.id, truth, generation)
            yield score.model_copy(update={"seconds": round(time.perf_counter() - started, 3)})


@cache
def _one_thread() -> None:
    """Keeps OpenCV to one thread: there is one worker process a core."""
    import cv2

    cv2.setNumThreads(1)


def _score(sample_id: str, truth: GroundTruth, generation: Generation) -> Score:
    from knowgen.worlds.check.judgement import judge
    from knowgen.worlds.check.sight import open_pixels
    from knowgen.worlds.check.wanted import read_wanted

    image = generation.image
    if image is None:
        raise ValueError("missing_needs lets no generation without a picture pass")
    try:
        wanted = read_wanted(truth)
    except DataError as error:
        return failed_score(sample_id, generation.repeat, NAME, str(error), image=image.sha256)
    try:
        if image.path is None:
            raise UnreadableImageError("no file on this machine")
        with opened_image(image.path) as opened:
            pixels = open_pixels(opened)
    except UnreadableImageError as error:
        reason = f"the generated image does not open: {error.what}"
        return failed_score(sample_id, generation.repeat, NAME, reason, image=image.sha256)
    judgement = judge(pixels, wanted)
    values = judgement.values
    reading = ParsedScore(
        status=ScoreStatus.OK,
        values=values,
        na=() if TEXT in values else (TEXT,),
        rationale=judgement.rationale,
    )
    return Score(
        sample_id=sample_id,
        repeat=generation.repeat,
        scorer=NAME,
        status=ScoreStatus.OK,
        strict=reading,
        image=image.sha256,
        details=judgement.details,
    )
