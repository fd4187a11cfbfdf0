"""The scorer `pixels`: SSIM against plain loops, histograms against their definitions, and what fails."""

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
    LAB_BINS,
    SIDE,
    colour,
    colour_histogram,
    common,
    edge_histogram,
    edges,
    luminance,
    structure,
)
from knowgen.scorers.similarity.pixels import PixelSimilarity
from tests.helpers.images import path_of
from tests.helpers.similarity_models import item, reference, save_blocks

GREY = nps.arrays(np.float64, (16, 16), elements=st.integers(0, 255).map(float))
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


def test_ssim_is_what_the_definition_gives() -> None:
    rng = np.random.default_rng(3)
    first = luminance(scene(1))[:40, :30]
    for second in (first + rng.normal(0, 12, first.shape), luminance(scene(2))[:40, :30], first * 0.5 + 40):
        expected = ssim_by_loops(first, second)
        assert structure(first, second) == pytest.approx(max(0.0, expected), abs=1e-9)
    assert ssim_by_loops(first, 255 - first) < 0
    assert structure(first, 255 - first) == 0.0


@settings(max_examples=40, deadline=None)
@given(GREY, GREY)
def test_structure_and_edges_are_symmetric_and_within_0_and_1(first: np.ndarray, second: np.ndarray) -> None:
    for measure in (structure, edges):
        assert measure(first, first) == pytest.approx(1.0, abs=1e-9)
        assert 0.0 <= measure(first, second) <= 1.0
        assert measure(first, second) == pytest.approx(measure(second, first), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(RGB, RGB)
def test_colour_counts_the_pixels_two_images_share(first: np.ndarray, second: np.ndarray) -> None:
    assert colour(first, first) == pytest.approx(1.0)
    assert 0.0 <= colour(first, second) <= 1.0
    assert colour(first, second) == pytest.approx(colour(second, first))
    shuffled = first.reshape(-1, 3)[::-1].reshape(first.shape)
    assert colour(first, shuffled) == pytest.approx(1.0)  # where the colours are does not matter
    assert colour_histogram(first).sum() == pytest.approx(1.0)
    assert colour_histogram(first).shape == LAB_BINS


def test_every_measure_falls_as_noise_grows() -> None:
    rng, first = np.random.default_rng(0), scene()
    noise = rng.normal(0, 1, first.shape)
    found = []
    for strength in (0, 5, 15, 40, 90):
        second = np.clip(first + strength * noise, 0, 255)
        grey, other = luminance(first), luminance(second)
        found.append((structure(grey, other), colour(first, second), edges(grey, other)))
    for column in zip(*found, strict=True):
        assert list(column) == sorted(column, reverse=True)
        assert column[0] == pytest.approx(1.0)
        assert column[-1] < 0.8


def test_a_quarter_recoloured_leaves_three_quarters_of_the_colour() -> None:
    red, blue = np.array([200.0, 20, 20]), np.array([20.0, 20, 200])
    first = np.tile(red, (16, 16, 1))
    second = first.copy()
    second[:8, :8] = blue
    assert colour(first, second) == pytest.approx(0.75)


def test_edges_know_directions_and_places() -> None:
    upright = np.zeros((64, 64))
    upright[:, ::8] = 255
    level, moved = upright.T, np.roll(upright, 1, axis=1)
    assert edges(upright, level) < 0.05
    assert edges(upright, moved) > 0.9
    left, right = upright.copy(), upright.copy()
    left[:, 32:], right[:, :32] = 0, 0
    assert edges(left, right) == pytest.approx(1 / 8)  # one of the eight flanks lies across the border
    flat = np.full((64, 64), 90.0)
    assert (edges(flat, flat + 50), edges(flat, upright)) == (1.0, 0.0)
    assert edge_histogram(upright).sum() == pytest.approx(1.0)


def scores(*batch: Item) -> list[Score]:
    return list(PixelSimilarity().score_batch(batch))


def test_an_image_beside_itself_is_1_and_size_does_not_matter(tmp_path: Path) -> None:
    with Image.open(path_of(save_blocks(tmp_path, 1, (400, 300)))) as opened:
        opened.resize((800, 600), Image.Resampling.BICUBIC).save(tmp_path / "large.png")
        opened.filter(ImageFilter.GaussianBlur(25)).save(tmp_path / "blurred.png")
    same = save_blocks(tmp_path, 1, (400, 300))
    large, blurred = reference(tmp_path / "large.png", (800, 600)), reference(tmp_path / "blurred.png", (400, 300))
    found = scores(item("same", same, same), item("large", large, same), item("blurred", blurred, same))
    assert found[0].strict.values == pytest.approx({"structure": 1.0, "colour": 1.0, "edges": 1.0})
    assert min(found[1].strict.values.values()) > 0.95
    assert all(found[2].strict.values[name] < value for name, value in found[1].strict.values.items())
    assert found[2].strict.values["colour"] < 0.7
    assert found[1].details == {"side": SIDE, "generated": [800, 600], "truth": [400, 300]}
    assert found[0].image == same.sha256


def test_the_common_size_keeps_an_image_of_that_size(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    assert np.array_equal(common(Image.fromarray(pixels)), pixels.astype(float))


def test_transparent_pixels_count_as_white(tmp_path: Path) -> None:
    Image.new("RGBA", (50, 40), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (50, 40), "white").save(tmp_path / "white.png")
    (score,) = scores(item("a", reference(tmp_path / "clear.png"), reference(tmp_path / "white.png")))
    assert score.strict.values == pytest.approx({"structure": 1.0, "colour": 1.0, "edges": 1.0})


def test_an_image_that_does_not_open_fails_alone(tmp_path: Path) -> None:
    good, torn = save_blocks(tmp_path, 1), tmp_path / "torn.png"
    torn.write_bytes(path_of(good).read_bytes()[:150])
    found = scores(
        item("torn", reference(torn), good), item("truth", good, reference(torn)), item("none", good, None),
        item("good", good, good),
    )  # fmt: skip
    assert [str(score.status) for score in found] == ["failed", "failed", "not_applicable", "ok"]
    assert found[0].strict.reason.startswith("the generated picture does not open: ")
    assert found[1].strict.reason.startswith("the ground truth does not open: ")
    assert str(tmp_path) not in found[0].strict.reason
    assert "truth_image" in found[2].strict.reason


def test_what_it_declares() -> None:
    traits = scorer_capabilities(PixelSimilarity)
    assert traits.dimensions == ("structure", "colour", "edges")
    assert (traits.version, traits.local) == ("pixels-1", False)
    assert "not a judgement" in traits.note
