"""Similarity of two images without a model: SSIM, colour histograms and edge orientations.

Every measure is symmetric and in [0, 1], with 1 for equal images. Arguments are float arrays of one size, as
`to_common_size` returns them.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Floats = NDArray[np.float64]

SIDE = 256
"""Side in pixels of the square to which both images are scaled, the scale the authors of SSIM recommend."""

WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation of the Gaussian window of SSIM, in pixels."""

K1, K2, RANGE = 0.01, 0.03, 255.0
"""Constants of SSIM, and the range of pixel values."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in luminance (ITU-R BT.601)."""

LAB_NODES = (9, 17, 17)
"""Number of nodes of L*, a* and b* in `LAB_RANGES`, both ends included; they are 12.5, 16 and 16 apart."""

LAB_RANGES = ((0.0, 100.0), (-128.0, 128.0), (-128.0, 128.0))
"""Ranges of L*, a* and b*."""

CELLS, ORIENTATIONS = 4, 8
"""Number of cells per side, and number of orientation bins over 180 degrees."""

NO_EDGES = 1e-3
"""Mean gradient, in grey values per pixel, below which an image counts as one without edges."""


def to_common_size(image: Image) -> Floats:
    """Scale an RGB image to the common size, bicubic, without keeping its aspect ratio.

    Returns:
        Array of shape (SIDE, SIDE, 3), values in [0, 255].
    """
    from PIL import Image

    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64)


def luminance(pixels: Floats) -> Floats:
    """Return the luminance of RGB values.

    Args:
        pixels: RGB, shape (H, W, 3), values in [0, 255].

    Returns:
        Array of shape (H, W), values in [0, 255].
    """
    grey: Floats = pixels @ np.array(LUMA)
    return grey


def ssim(first: Floats, second: Floats) -> float:
    """Return the structural similarity of two luminance images, max(0, SSIM).

    Formula: the mean over all window positions inside the image of
    (2 m1 m2 + C1)(2 s12 + C2) / ((m1^2 + m2^2 + C1)(s1^2 + s2^2 + C2)), where m, s^2 and s12 are means, variances and
    covariance under a Gaussian window of 11 x 11 pixels with sigma 1.5, C1 = (.01 * 255)^2 and C2 = (.03 * 255)^2.
    SSIM is in [-1, 1]; negative values, which mean inverted structure, become 0.

    Source: Wang, Bovik, Sheikh and Simoncelli 2004, Image Quality Assessment: From Error Visibility to Structural
    Similarity, IEEE Transactions on Image Processing 13(4), eq. 13.

    Args:
        first: Luminance, shape (H, W) with H, W >= 11, values in [0, 255].
        second: Luminance of the same shape.
    """
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    m1, m2 = _smooth(first), _smooth(second)
    s1, s2 = _smooth(first * first) - m1 * m1, _smooth(second * second) - m2 * m2
    s12 = _smooth(first * second) - m1 * m2
    similarity = (2 * m1 * m2 + c1) * (2 * s12 + c2) / ((m1 * m1 + m2 * m2 + c1) * (s1 + s2 + c2))
    return min(1.0, max(0.0, float(similarity.mean())))


def _smooth(values: Floats) -> Floats:
    """Return weighted means under the Gaussian window, shape (H - 10, W - 10)."""
    import cv2

    kernel = cv2.getGaussianKernel(WINDOW, SIGMA)
    margin = WINDOW // 2
    smoothed = np.asarray(cv2.sepFilter2D(values, cv2.CV_64F, kernel, kernel), dtype=np.float64)
    return smoothed[margin:-margin, margin:-margin]


def lab_histogram_intersection(first: Floats, second: Floats) -> float:
    """Return the intersection of the CIELAB colour histograms of two images.

    Formula: the sum over nodes of min(h1, h2), where h1 and h2 are histograms over 9 x 17 x 17 nodes of L*, a* and b*
    (sRGB, D65) that sum to 1, see `lab_histogram`. The positions of the colours do not matter.

    Source: Swain and Ballard 1991, Color Indexing, International Journal of Computer Vision 7(1), with linear
    interpolation between nodes instead of bins, so that a change of one level never moves all pixels to another bin.

    Args:
        first: RGB, shape (H, W, 3), values in [0, 255].
        second: RGB of the same shape.
    """
    return intersection(lab_histogram(first), lab_histogram(second))


def lab_histogram(pixels: Floats) -> Floats:
    """Return the fraction of pixels at each CIELAB node, shape `LAB_NODES`.

    A pixel between nodes is shared by the eight around it, in proportion to its nearness along each axis. Neutral
    colours are on nodes of a* and b*.

    Args:
        pixels: RGB, shape (H, W, 3), values in [0, 255].
    """
    import cv2

    lab = cv2.cvtColor((pixels / RANGE).astype(np.float32), cv2.COLOR_RGB2LAB).reshape(-1, 3)
    low, high = np.array(LAB_RANGES).T
    last = np.array(LAB_NODES) - 1
    place = (np.clip(lab, low, high) - low) / (high - low) * last
    below = np.minimum(place.astype(np.int64), last - 1)
    above = (place - below).T
    shares = np.stack([1 - above, above])
    node = np.ravel_multi_index(below.T, LAB_NODES)
    counts = np.zeros(math.prod(LAB_NODES))
    for corner in itertools.product((0, 1), repeat=3):
        weights = shares[corner[0], 0] * shares[corner[1], 1] * shares[corner[2], 2]
        counts += np.bincount(node + np.ravel_multi_index(corner, LAB_NODES), weights, len(counts))
    fractions: Floats = counts.reshape(LAB_NODES) / len(lab)
    return fractions


def edge_orientation_similarity(first: Floats, second: Floats) -> float:
    """Return the intersection of the edge orientation histograms of two images.

    Formula: the sum over bins of min(h1, h2), where h1 and h2 are histograms of oriented gradients that sum to 1, see
    `edge_orientation_histogram`. The result is 1 for two images without edges, and 0 where only one has edges.

    Source: the histograms follow Dalal and Triggs 2005, Histograms of Oriented Gradients for Human Detection, CVPR,
    without their block normalisation.

    Args:
        first: Luminance, shape (H, W), values in [0, 255].
        second: Luminance of the same shape.
    """
    first_histogram, second_histogram = edge_orientation_histogram(first), edge_orientation_histogram(second)
    if not first_histogram.any() or not second_histogram.any():
        return 1.0 if first_histogram.any() == second_histogram.any() else 0.0
    return intersection(first_histogram, second_histogram)


def edge_orientation_histogram(grey: Floats) -> Floats:
    """Return the fraction of gradient magnitude by cell and orientation; all 0 for an image without edges.

    Gradients are Sobel derivatives. Their orientations, without sign, fall into 8 bins of 22.5 degrees in each of 4 x 4
    cells, weighted by magnitude.

    Args:
        grey: Luminance, shape (H, W), values in [0, 255].

    Returns:
        Array of shape (CELLS, CELLS, ORIENTATIONS), which sums to 1 or 0.
    """
    import cv2

    # the factor 1/8 turns Sobel's sum into a difference in grey values per pixel
    across = cv2.Sobel(grey, cv2.CV_64F, 1, 0, ksize=3, scale=1 / 8)
    down = cv2.Sobel(grey, cv2.CV_64F, 0, 1, ksize=3, scale=1 / 8)
    magnitude = np.hypot(across, down)
    shape = (CELLS, CELLS, ORIENTATIONS)
    if magnitude.mean() < NO_EDGES:
        return np.zeros(shape)
    step = np.pi / ORIENTATIONS
    # bins are centred on 0, 22.5, ... degrees, so that horizontal and vertical edges are not on a boundary
    orientation = np.floor(np.arctan2(down, across) / step + 0.5).astype(np.int64) % ORIENTATIONS
    row = np.arange(grey.shape[0])[:, None] * CELLS // grey.shape[0]
    column = np.arange(grey.shape[1])[None, :] * CELLS // grey.shape[1]
    bins = (row * CELLS + column) * ORIENTATIONS + orientation
    sums = np.bincount(bins.ravel(), weights=magnitude.ravel(), minlength=CELLS * CELLS * ORIENTATIONS)
    fractions: Floats = (sums / sums.sum()).reshape(shape)
    return fractions


def intersection(first: Floats, second: Floats) -> float:
    """Return the sum over bins of the smaller value, which is 1 for equal histograms that sum to 1."""
    return min(1.0, float(np.minimum(first, second).sum()))
