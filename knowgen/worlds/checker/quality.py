"""Image statistics that distinguish an illustration from noise, an empty image or blur.

They replace the aesthetics score of a judge in a limited way: any clean illustration gets the full score.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

GRAIN_MOST = 9.0
COLOUR_RANGE = (14.0, 135.0)
EDGE_RANGE = (0.006, 0.22)
CONTRAST_LEAST = 22.0

_EDGE_STRENGTH = 40


@dataclass(frozen=True, slots=True)
class ImageQuality:
    """Statistics of an image.

    Attributes:
        grain: Median absolute Laplacian of the brightness (0..255): high for noise.
        colour: Colourfulness after Hasler and Suesstrunk (2003), "Measuring colourfulness in natural images".
        edges: Share of pixels with a strong Laplacian, 0..1.
        contrast: Standard deviation of the brightness, 0..128.
        faults: Names of the statistics that are out of range.
        value: 1 without faults, 0.5 with one, 0 with more.
    """

    grain: float
    colour: float
    edges: float
    contrast: float
    faults: tuple[str, ...]
    value: float


def measure_quality(image: NDArray[np.uint8]) -> ImageQuality:
    """Return the statistics of an image.

    Args:
        image: RGB, height x width x 3, values 0..255; use one size for all images, since grain and edges
            depend on it.
    """
    values = image.astype(np.float32)
    brightness = values.mean(axis=2)
    second = np.abs(cv2.Laplacian(brightness, cv2.CV_32F))
    red, green, blue = values[..., 0], values[..., 1], values[..., 2]
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    offset = np.hypot(red_green.mean(), yellow_blue.mean())
    grain, colour = float(np.median(second)), float(spread + 0.3 * offset)
    edges, contrast = float((second > _EDGE_STRENGTH).mean()), float(brightness.std())
    out_of_range = {
        "grain": grain > GRAIN_MOST,
        "colour": not COLOUR_RANGE[0] < colour < COLOUR_RANGE[1],
        "edges": not EDGE_RANGE[0] < edges < EDGE_RANGE[1],
        "contrast": contrast < CONTRAST_LEAST,
    }
    faults = tuple(name for name, wrong in out_of_range.items() if wrong)
    return ImageQuality(grain, colour, edges, contrast, faults, (1.0, 0.5, 0.0)[min(2, len(faults))])
