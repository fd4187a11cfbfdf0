"""Reading the text in a picture with a small recogniser that runs on the processor."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from knowgen.core.errors import MissingDependencyError

DETECTION_SIDE = 512
"""Longer side, in pixels, at which lines are looked for; they are then read from the picture at full size."""

SURE_ENOUGH = 0.6
"""Lines the recogniser is less sure of (0..1) are dropped."""

LARGEST_SIDE = 1536
"""Pictures with a longer side, in pixels, are scaled down to it before they are read."""

_READABLE = re.compile(r"[A-Za-z0-9].*[A-Za-z0-9]")
_ROUND = re.compile(r"[oO0\W]*")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text as it was read.

    Attributes:
        text: What it says.
        score: How sure the recogniser is, 0..1.
        box: Left, top, right and bottom, as shares (0..1) of the picture's width and height.
    """

    text: str
    score: float
    box: tuple[float, float, float, float]


@cache
def _engine() -> Any:
    """Loads the recogniser once a process, on one thread: worker processes share the cores between them."""
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
    logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)  # it warns of every picture without text
    return engine


def read_lines(picture: NDArray[np.uint8]) -> tuple[Line, ...]:
    """Reads the lines of text in a picture.

    Flat shapes are at times taken for stars or for Chinese signs, so lines count only when the recogniser is sure
    of them and they hold two Latin letters or digits; rows of windows are taken for zeros, so lines of nothing else
    do not count.

    Args:
        picture: RGB, height x width x 3, values 0..255.

    Returns:
        The lines, from top to bottom.

    Raises:
        MissingDependencyError: The recogniser is not installed.
    """
    height, width = picture.shape[:2]
    result = _engine()(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), use_cls=False)
    if result.boxes is None or result.txts is None:
        return ()
    lines = []
    for corners, text, score in zip(result.boxes, result.txts, result.scores, strict=True):
        if score < SURE_ENOUGH or not _READABLE.search(text) or _ROUND.fullmatch(text):
            continue
        (left, top), (right, bottom) = np.min(corners, axis=0), np.max(corners, axis=0)
        box = (float(left) / width, float(top) / height, float(right) / width, float(bottom) / height)
        lines.append(Line(str(text), float(score), box))
    return tuple(sorted(lines, key=lambda line: (line.box[1], line.box[0])))
