"""Measures of two pictures without a model: structure, colours and edges, each in [0, 1], 1 for equal pictures.

All take float arrays of the common size that `common` gives. They are symmetric: the order of the two does not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Floats = NDArray[np.float64]

SIDE = 256
"""Pixels of the square both pictures are scaled to: the scale at which SSIM agrees with viewers (see `structure`)."""

WINDOW, SIGMA = 11, 1.5
"""Pixels of the Gaussian window of SSIM, and its standard deviation."""

K1, K2, RANGE = 0.01, 0.03, 255.0
"""Constants of SSIM, and the range of its values."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in luminance (ITU-R BT.601)."""

LAB_BINS = (8, 16, 16)
"""Bins of lightness, a and b: steps of 12.5, 16 and 16."""

LAB_RANGES = ((0.0, 100.0), (-128.0, 128.0), (-128.0, 128.0))

CELLS, ORIENTATIONS = 4, 8
"""Cells a side, and bins of the direction of an edge over 180 degrees."""

NO_EDGES = 1e-3
"""A picture whose mean gradient, in grey values a pixel, is below this has no edges at all."""


def common(picture: Image) -> Floats:
    """Scales an RGB picture to the common size, its proportions not kept.

    Returns:
        Shape (SIDE, SIDE, 3), in [0, 255].
    """
    from PIL import Image

    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64)


def luminance(pixels: Floats) -> Floats:
    """Returns shape (H, W), in [0, 255], of shape (H, W, 3)."""
    grey: Floats = pixels @ np.array(LUMA)
    return grey


def structure(first: Floats, second: Floats) -> float:
    """Returns structural similarity of luminance, max(0, SSIM).

    Formula (Wang, Bovik, Sheikh, Simoncelli 2004, IEEE TIP 13(4), eq. 13): the mean over all places of
    (2 m1 m2 + C1)(2 s12 + C2) / ((m1^2 + m2^2 + C1)(s1^2 + s2^2 + C2)), with means, variances and covariance under a
    Gaussian window of 11 x 11 pixels and sigma 1.5, C1 = (.01 * 255)^2, C2 = (.03 * 255)^2. Only places where the
    window lies wholly inside count. SSIM lies in [-1, 1]; below 0 structures are inverted, which counts 0.

    Args:
        first: Luminance, shape (H, W), in [0, 255].
        second: The same shape.
    """
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    m1, m2 = _smoothed(first), _smoothed(second)
    s1, s2 = _smoothed(first * first) - m1 * m1, _smoothed(second * second) - m2 * m2
    s12 = _smoothed(first * second) - m1 * m2
    places = (2 * m1 * m2 + c1) * (2 * s12 + c2) / ((m1 * m1 + m2 * m2 + c1) * (s1 + s2 + c2))
    return min(1.0, max(0.0, float(places.mean())))


def _smoothed(values: Floats) -> Floats:
    """Averages under the Gaussian window; shape (H - 10, W - 10)."""
    import cv2

    kernel = cv2.getGaussianKernel(WINDOW, SIGMA)
    edge = WINDOW // 2
    whole = np.asarray(cv2.sepFilter2D(values, cv2.CV_64F, kernel, kernel), dtype=np.float64)
    return whole[edge:-edge, edge:-edge]


def colour(first: Floats, second: Floats) -> float:
    """Returns the intersection of two colour histograms in CIELAB.

    Formula (Swain and Ballard 1991, IJCV 7(1)): the sum over bins of min(h1, h2), each histogram adding up to 1, over
    8 x 16 x 16 bins of L, a and b (sRGB, D65). Where the colours lie in the picture does not matter.

    Args:
        first: RGB, shape (H, W, 3), in [0, 255].
        second: The same shape.
    """
    return intersection(colour_histogram(first), colour_histogram(second))


def colour_histogram(pixels: Floats) -> Floats:
    """Returns the share of pixels in each bin of CIELAB, shape `LAB_BINS`."""
    import cv2

    lab = cv2.cvtColor((pixels / RANGE).astype(np.float32), cv2.COLOR_RGB2LAB).reshape(-1, 3)
    low, high = np.array(LAB_RANGES).T
    counts, _ = np.histogramdd(np.clip(lab, low, high), bins=LAB_BINS, range=LAB_RANGES)
    shares: Floats = counts / len(lab)
    return shares


def edges(first: Floats, second: Floats) -> float:
    """Returns the intersection of two histograms of edge directions, cell by cell.

    Formula: gradients of luminance by Sobel; their directions, without sign, in 8 bins of 22.5 degrees, weighted by
    their lengths, in each of 4 x 4 cells (after Dalal and Triggs 2005, CVPR); the whole adding up to 1; then the sum
    of min(h1, h2) as in `colour`. Two pictures without any edge are alike (1), one with and one without are not (0).

    Args:
        first: Luminance, shape (H, W), in [0, 255].
        second: The same shape.
    """
    one, other = edge_histogram(first), edge_histogram(second)
    if not one.any() or not other.any():
        return 1.0 if one.any() == other.any() else 0.0
    return intersection(one, other)


def edge_histogram(grey: Floats) -> Floats:
    """Returns the share of edges by cell and direction, shape (CELLS, CELLS, ORIENTATIONS); 0 where there are none."""
    import cv2

    # an eighth makes Sobel's sum a difference in grey values a pixel
    across = cv2.Sobel(grey, cv2.CV_64F, 1, 0, ksize=3, scale=1 / 8)
    down = cv2.Sobel(grey, cv2.CV_64F, 0, 1, ksize=3, scale=1 / 8)
    length = np.hypot(across, down)
    shape = (CELLS, CELLS, ORIENTATIONS)
    if length.mean() < NO_EDGES:
        return np.zeros(shape)
    step = np.pi / ORIENTATIONS
    # bins are centred on 0, 22.5, ... degrees, so that level and upright edges do not fall between two
    direction = np.floor(np.arctan2(down, across) / step + 0.5).astype(np.int64) % ORIENTATIONS
    row = np.arange(grey.shape[0])[:, None] * CELLS // grey.shape[0]
    column = np.arange(grey.shape[1])[None, :] * CELLS // grey.shape[1]
    place = (row * CELLS + column) * ORIENTATIONS + direction
    sums = np.bincount(place.ravel(), weights=length.ravel(), minlength=CELLS * CELLS * ORIENTATIONS)
    shares: Floats = (sums / sums.sum()).reshape(shape)
    return shares


def intersection(first: Floats, second: Floats) -> float:
    """Returns the sum of the smaller of each pair; 1 for equal histograms that add up to 1."""
    return min(1.0, float(np.minimum(first, second).sum()))
