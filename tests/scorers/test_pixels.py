"""The scorer `pixels`: SSIM against loops over windows, histograms against their definitions, and failures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from PIL import Image, ImageFilter

from knowgen.core.records import Item, Score
from knowgen.scorers.contract import scorer_capabilities
from knowgen.scorers.similarity.measures import (
    LAB_NODES,
    SIDE,
    edge_orientation_histogram,
    edge_orientation_similarity,
    lab_histogram,
    lab_histogram_intersection,
    luminance,
    ssim,
    to_common_size,
)
from knowgen.scorers.similarity.pixels import PixelSimilarity
from tests.helpers.images import path_of
from tests.helpers.similarity_models import item, reference, save_blocks

GREY = nps.arrays(np.float64, (16, 16), elements=st.integers(0, 255).map(float))
IDENTICAL = {"ssim": 1.0, "lab_histogram_intersection": 1.0, "edge_orientation_similarity": 1.0}
RGB = nps.arrays(np.float64, (12, 12, 3), elements=st.integers(0, 255).map(float))


def ssim_by_loops(first: np.ndarray, second: np.ndarray) -> float:
    """SSIM as the paper defines it, one window at a time."""
    window = np.array([[math.exp(-(x * x + y * y) / (2 * 1.5**2)) for x in range(-5, 6)] for y in range(-5, 6)])
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top in range(first.shape[0] - 10):
        for left in range(first.shape[1] - 10):
            x, y = first[top : top + 11, left : left + 11], second[top : top + 11, left : left + 11]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(values))


def scene(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    blocks = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return np.asarray(blocks.resize((64, 64), Image.Resampling.BICUBIC), dtype=np.float64)


def test_ssim_agrees_with_its_definition() -> None:
    rng = np.random.default_rng(3)
    first = luminance(scene(1))[:40, :30]
    for second in (first + rng.normal(0, 12, first.shape), luminance(scene(2))[:40, :30], first * 0.5 + 40):
        expected = ssim_by_loops(first, second)
        assert ssim(first, second) == pytest.approx(max(0.0, expected), abs=1e-9)
    assert ssim_by_loops(first, 255 - first) < 0
    assert ssim(first, 255 - first) == 0.0


@settings(max_examples=40, deadline=None)
@given(GREY, GREY)
def test_ssim_and_edge_similarity_are_symmetric_and_between_0_and_1(first: np.ndarray, second: np.ndarray) -> None:
    for measure in (ssim, edge_orientation_similarity):
        assert measure(first, first) == pytest.approx(1.0, abs=1e-9)
        assert 0.0 <= measure(first, second) <= 1.0
        assert measure(first, second) == pytest.approx(measure(second, first), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(RGB, RGB)
def test_histogram_intersection_counts_the_colours_two_images_share(first: np.ndarray, second: np.ndarray) -> None:
    assert lab_histogram_intersection(first, first) == pytest.approx(1.0)
    assert 0.0 <= lab_histogram_intersection(first, second) <= 1.0
    assert lab_histogram_intersection(first, second) == pytest.approx(lab_histogram_intersection(second, first))
    shuffled = first.reshape(-1, 3)[::-1].reshape(first.shape)
    assert lab_histogram_intersection(first, shuffled) == pytest.approx(1.0)  # positions do not matter
    assert lab_histogram(first).sum() == pytest.approx(1.0)
    assert lab_histogram(first).shape == LAB_NODES


def test_every_measure_decreases_with_noise() -> None:
    rng, first = np.random.default_rng(0), scene()
    noise = rng.normal(0, 1, first.shape)
    results = []
    for strength in (0, 5, 15, 40, 90):
        second = np.clip(first + strength * noise, 0, 255)
        grey, other = luminance(first), luminance(second)
        results.append(
            (ssim(grey, other), lab_histogram_intersection(first, second), edge_orientation_similarity(grey, other))
        )
    for column in zip(*results, strict=True):
        assert list(column) == sorted(column, reverse=True)
        assert column[0] == pytest.approx(1.0)
        assert column[-1] < 0.8


def test_recolouring_a_quarter_lowers_the_intersection_by_a_quarter() -> None:
    red, blue = np.array([200.0, 20, 20]), np.array([20.0, 20, 200])
    first = np.tile(red, (16, 16, 1))
    second = first.copy()
    second[:8, :8] = blue
    assert lab_histogram_intersection(first, second) == pytest.approx(0.75)


def test_edge_similarity_depends_on_orientation_and_cell() -> None:
    upright = np.zeros((64, 64))
    upright[:, ::8] = 255
    level, moved = upright.T, np.roll(upright, 1, axis=1)
    assert edge_orientation_similarity(upright, level) < 0.05
    assert edge_orientation_similarity(upright, moved) > 0.9
    left, right = upright.copy(), upright.copy()
    left[:, 32:], right[:, :32] = 0, 0
    assert edge_orientation_similarity(left, right) == pytest.approx(
        1 / 8
    )  # one of the eight flanks crosses the border
    flat = np.full((64, 64), 90.0)
    assert (edge_orientation_similarity(flat, flat + 50), edge_orientation_similarity(flat, upright)) == (1.0, 0.0)
    assert edge_orientation_histogram(upright).sum() == pytest.approx(1.0)


def scores(*batch: Item) -> list[Score]:
    return list(PixelSimilarity().score_batch(batch))


def test_an_image_scores_1_against_itself_in_any_size(tmp_path: Path) -> None:
    with Image.open(path_of(save_blocks(tmp_path, 1, (400, 300)))) as opened:
        opened.resize((800, 600), Image.Resampling.BICUBIC).save(tmp_path / "large.png")
        opened.filter(ImageFilter.GaussianBlur(25)).save(tmp_path / "blurred.png")
    same = save_blocks(tmp_path, 1, (400, 300))
    large, blurred = reference(tmp_path / "large.png", (800, 600)), reference(tmp_path / "blurred.png", (400, 300))
    results = scores(item("same", same, same), item("large", large, same), item("blurred", blurred, same))
    assert results[0].strict.values == pytest.approx(IDENTICAL)
    assert min(results[1].strict.values.values()) > 0.95
    assert all(results[2].strict.values[name] < value for name, value in results[1].strict.values.items())
    assert results[2].strict.values["lab_histogram_intersection"] < 0.7
    assert results[1].details == {"side": SIDE, "generated": [800, 600], "truth": [400, 300]}
    assert results[0].image == same.sha256


def test_an_image_of_the_common_size_is_unchanged(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    assert np.array_equal(to_common_size(Image.fromarray(pixels)), pixels.astype(float))


def test_transparent_pixels_count_as_white(tmp_path: Path) -> None:
    Image.new("RGBA", (50, 40), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (50, 40), "white").save(tmp_path / "white.png")
    (score,) = scores(item("a", reference(tmp_path / "clear.png"), reference(tmp_path / "white.png")))
    assert score.strict.values == pytest.approx(IDENTICAL)


def test_an_unreadable_image_fails_only_its_own_score(tmp_path: Path) -> None:
    good, truncated = save_blocks(tmp_path, 1), tmp_path / "truncated.png"
    truncated.write_bytes(path_of(good).read_bytes()[:150])
    results = scores(
        item("truncated", reference(truncated), good), item("truth", good, reference(truncated)),
        item("none", good, None), item("good", good, good),
    )  # fmt: skip
    assert [str(score.status) for score in results] == ["failed", "failed", "not_applicable", "ok"]
    assert results[0].strict.reason.startswith("the generated image does not open: ")
    assert results[1].strict.reason.startswith("the ground truth does not open: ")
    assert str(tmp_path) not in results[0].strict.reason
    assert "truth_image" in results[2].strict.reason


def test_the_declared_capabilities() -> None:
    capabilities = scorer_capabilities(PixelSimilarity)
    assert capabilities.dimensions == ("ssim", "lab_histogram_intersection", "edge_orientation_similarity")
    assert (capabilities.version, capabilities.local) == ("pixels-3.3", False)
    assert "not a judgement" in capabilities.note


def test_one_level_of_255_changes_the_colours_of_flat_images_a_little() -> None:
    """Neutral greys differ from their neighbours by less than a tenth of the scale, whichever channel changes."""
    for level in range(0, 255, 3):
        flat = np.full((4, 4, 3), float(level))
        for step in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)):
            assert lab_histogram_intersection(flat, flat + np.array(step)) > 0.88, (level, step)
    white = np.full((4, 4, 3), 255.0)
    assert lab_histogram_intersection(white, white - np.array((0, 0, 1))) > 0.88


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(1, 254)] * 3), st.tuples(*[st.sampled_from((-1, 0, 1))] * 3))
def test_no_flat_colour_is_far_from_its_neighbour(colour: tuple[int, ...], step: tuple[int, ...]) -> None:
    flat = np.tile(np.array(colour, float), (4, 4, 1))
    assert lab_histogram_intersection(flat, flat + np.array(step)) > 0.6


def test_opposite_colours_share_nothing() -> None:
    red, blue = np.tile(np.array([255.0, 0, 0]), (4, 4, 1)), np.tile(np.array([0.0, 0, 255]), (4, 4, 1))
    assert lab_histogram_intersection(red, blue) == 0.0
