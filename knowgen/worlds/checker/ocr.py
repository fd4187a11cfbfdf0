"""Text recognition in an image with a small model that runs on the CPU."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from knowgen.core.errors import MissingDependencyError

DETECTION_SIDE = 512
"""Longer side, in pixels, at which lines are detected; they are recognised at full size."""

MIN_CONFIDENCE = 0.6
"""Minimum confidence (0-1) of a line."""

CERTAIN = 0.9
"""Minimum confidence of a line that is read only in a sharpened image, or where a subject is."""

LARGEST_SIDE = 1536
"""Maximum longer side, in pixels; larger images are scaled down before recognition."""

_SHARPENING, _SHARPENED_WIDTH = 3.0, 1 / 128
"""Strength of sharpening, and the standard deviation of the blur that it takes back, as a share of the shorter side."""

_READABLE = re.compile(r"[A-Za-z0-9].*[A-Za-z0-9]")
_ROUND = re.compile(r"[oO0\W]*")


@dataclass(frozen=True, slots=True)
class TextLine:
    """A recognised line of text.

    Attributes:
        text: Its text.
        score: Confidence of the recogniser, 0-1.
        box: Left, top, right and bottom, as fractions (0-1) of the image's width and height.
    """

    text: str
    score: float
    box: tuple[float, float, float, float]

    def is_within(self, boxes: Sequence[tuple[float, float, float, float]]) -> bool:
        """Return whether the centre of the line is within one of the boxes."""
        across, down = (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2
        return any(left < across < right and top < down < bottom for left, top, right, bottom in boxes)


@cache
def _engine() -> Any:
    """Load the recogniser once per process, with one thread: worker processes share the cores."""
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise MissingDependencyError(
            f"needs the package {error.name or 'rapidocr'!r}, which is not installed",
            where="scorer 'world_check'",
            fix="pip install rapidocr onnxruntime",
        ) from error
    engine = RapidOCR(
        params={
            "Global.use_cls": False,
            "Global.max_side_len": LARGEST_SIDE,
            "Global.log_level": "critical",
            "Det.limit_type": "max",
            "Det.limit_side_len": DETECTION_SIDE,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
    logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)  # it logs a warning for every image without text
    return engine


def read_faint_lines(image: NDArray[np.uint8], known: Sequence[TextLine]) -> tuple[TextLine, ...]:
    """Recognise lines that `read_lines` overlooked, thin or blurred ones, in a sharpened copy of an image.

    A line where another was already read is left out, so that no reading is replaced by a second attempt.

    Args:
        image: RGB, height x width x 3, values 0..255.
        known: Lines that were read.

    Raises:
        MissingDependencyError: If the recogniser is not installed.
    """
    boxes = [line.box for line in known]
    return tuple(
        line
        for line in read_lines(_sharpened(image))
        if line.score >= CERTAIN and not line.is_within(boxes) and not any(each.is_within([line.box]) for each in known)
    )


def _sharpened(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image with unsharp masking."""
    values = image.astype(np.float32)
    smooth = cv2.GaussianBlur(values, (0, 0), min(image.shape[:2]) * _SHARPENED_WIDTH)
    return np.asarray(np.clip(values + _SHARPENING * (values - smooth), 0, 255), np.uint8)


def read_lines(image: NDArray[np.uint8]) -> tuple[TextLine, ...]:
    """Recognise the lines of text in an image.

    The recogniser reads some flat shapes as stars or Chinese characters and rows of windows as zeros. Therefore a line
    counts only if its confidence is high enough, it has two Latin letters or digits, and it is not only zeros.

    Args:
        image: RGB, height x width x 3, values 0..255.

    Returns:
        The lines, from top to bottom.

    Raises:
        MissingDependencyError: If the recogniser is not installed.
    """
    height, width = image.shape[:2]
    result = _engine()(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), use_cls=False)
    if result.boxes is None or result.txts is None:
        return ()
    lines = []
    for corners, text, score in zip(result.boxes, result.txts, result.scores, strict=True):
        if score < MIN_CONFIDENCE or not _READABLE.search(text) or _ROUND.fullmatch(text):
            continue
        (left, top), (right, bottom) = np.min(corners, axis=0), np.max(corners, axis=0)
        box = (float(left) / width, float(top) / height, float(right) / width, float(bottom) / height)
        lines.append(TextLine(str(text), float(score), box))
    return tuple(sorted(lines, key=lambda line: (line.box[1], line.box[0])))
