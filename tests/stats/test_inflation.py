"""The test of claimed against repeated scores: its level, its power, and what it says it could have found."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from knowgen.stats.compare.inflation import inflation_test


def test_the_p_value_is_the_share_of_all_sign_flips() -> None:
    differences = np.array([0.5, -0.25, 0.75, 0.0, 0.125])
    flips = itertools.product((1, -1), repeat=5)
    share = np.mean([np.dot(signs, differences) >= differences.sum() - 1e-12 for signs in flips])
    assert inflation_test(differences).p == pytest.approx(share, abs=1e-12)


def test_random_flips_agree_with_all_of_them() -> None:
    differences = np.array([0.5] * 12 + [-0.5] * 8)  # 20 differ, so that flips are drawn
    exact = binom.sf(11, 20, 0.5)  # at least 12 of 20 positive
    assert inflation_test(differences).p == pytest.approx(exact, abs=0.01)


def test_lower_claims_and_equal_ones_are_never_refuted() -> None:
    assert inflation_test(np.full(40, -0.5)).p == pytest.approx(1.0)
    same = inflation_test(np.zeros(40))
    assert (same.p, same.mean, same.low, same.detectable, same.refuted) == (1.0, 0.0, None, None, False)
    assert not inflation_test(np.zeros(0)).refuted
    assert inflation_test(np.array([math.nan, 0.5, math.nan])).n == 1


def test_the_share_that_would_be_found_is_that_of_the_binomial_distribution() -> None:
    share = inflation_test(np.zeros(40)).share
    assert binom.sf(6, 40, share) == pytest.approx(0.8, abs=1e-6)  # 7 equal signs are needed at level 0.01
    assert inflation_test(np.zeros(40), needed=1).share == pytest.approx(1 - 0.2 ** (1 / 40), abs=1e-9)
    assert math.isinf(inflation_test(np.zeros(5)).share)


def judge(quality: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return scores of a noisy judge on a grid: the quality of each image, or a neighbour of it."""
    moved = rng.choice((-0.5, 0.0, 0.5), size=quality.shape, p=(0.15, 0.7, 0.15))
    scores: np.ndarray = np.clip(quality + moved, 0, 1)
    return scores


def rates(images: int, inflation: float, trials: int) -> tuple[float, float]:
    """Return the share of simulated submissions that are refuted, and the mean inflation that was said to be found."""
    rng = np.random.default_rng(7)
    refuted, found = [], []
    for _ in range(trials):
        quality = rng.choice((0.0, 0.5, 1.0), size=images)
        claimed, again = judge(quality, rng), judge(quality, rng)
        raised = rng.random(images) < inflation
        test = inflation_test(np.where(raised, 1.0, claimed) - again)
        refuted.append(test.refuted)
        found.append(test.detectable or 0.0)
    return float(np.mean(refuted)), float(np.mean(found))


def test_few_honest_submissions_are_accused() -> None:
    rate, _ = rates(30, 0.0, 200)
    assert rate <= 0.04  # the level is 0.01; more than 8 of 200 have a probability below 0.0003


@pytest.mark.slow
@pytest.mark.parametrize("images", [8, 20, 60])
def test_the_rate_of_false_accusations_is_at_most_the_level(images: int) -> None:
    rate, _ = rates(images, 0.0, 4000)
    assert rate <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / 4000)


@pytest.mark.slow
def test_an_inflation_of_the_stated_size_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(8)
    detected = []
    for _ in range(1500):
        quality = rng.choice((0.0, 0.5, 1.0), size=60)
        honest = judge(quality, rng) - judge(quality, rng)
        stated = inflation_test(honest).detectable
        assert stated is not None
        other = judge(quality, rng) - judge(quality, rng)
        detected.append(inflation_test(other + stated).refuted)
    assert 0.7 <= float(np.mean(detected)) <= 0.9
