"""Bradley-Terry strengths, compared with two independent fits, and the coverage of their intervals."""

from __future__ import annotations

import random
from collections.abc import Sequence

import choix
import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize

from knowgen.stats.bradley_terry import (
    INFINITE,
    MIN_COMPARISONS,
    MIN_RATERS,
    MIN_SAMPLES,
    NO_SPREAD,
    ONE_SAMPLE_DECIDES,
    Judgement,
    fit,
    information,
    strengths,
)
from knowgen.stats.values import Floats

TRUE = np.array([0.9, 0.2, -0.3, -0.8])


def simulated(
    seed: int, samples: int, per_sample: int = 3, *, ties: float = 0.4, spread: float = 0.0, raters: int = 1
) -> list[Judgement]:
    """Return comparisons of random pairs under Davidson's model (1970) of ties.

    Args:
        seed: Seed.
        samples: Number of samples.
        per_sample: Comparisons of each sample.
        ties: Davidson's parameter of ties.
        spread: Standard deviation of the effects of sample and system, and of rater and system.
        raters: Number of raters, who take turns.
    """
    chance = np.random.default_rng(seed)
    by_rater = chance.normal(0, spread, (raters, len(TRUE))) if raters > 1 else np.zeros((1, len(TRUE)))
    found = []
    for sample in range(samples):
        by_sample = chance.normal(0, spread, len(TRUE))
        for turn in range(per_sample):
            rater = (sample * per_sample + turn) % raters
            one, other = chance.choice(len(TRUE), 2, replace=False)
            worth = np.exp(TRUE + by_sample + by_rater[rater])
            tie = ties * np.sqrt(worth[one] * worth[other])
            outcomes = np.array([worth[one], tie, worth[other]])
            points = (1.0, 0.5, 0.0)[chance.choice(3, p=outcomes / outcomes.sum())]
            found.append(Judgement(f"s{sample}", f"rater {rater}", f"m{one}", f"m{other}", points))
    return found


def fitted(judgements: Sequence[Judgement]) -> Floats:
    """Return the strengths of the systems in the order of their names."""
    found = strengths(judgements)
    assert not found.reason
    return np.array([one.strength for one in sorted(found.systems, key=lambda one: one.system)])


def minus_log_likelihood(free: Floats, judgements: Sequence[Judgement]) -> float:
    """Return the negative log-likelihood with the last strength set to 0, written out comparison by comparison."""
    theta = {f"m{place}": value for place, value in enumerate([*free, 0.0])}
    total = 0.0
    for one in judgements:
        p = 1 / (1 + np.exp(theta[one.second] - theta[one.first]))
        total -= one.points * np.log(p) + (1 - one.points) * np.log(1 - p)
    return total


# -- strengths ---------------------------------------------------------------------------------------------------------


def test_strengths_are_those_of_choix_without_ties() -> None:
    judgements = simulated(1, 150, ties=0.0)
    wins = [
        (int(one.first[1]), int(one.second[1])) if one.points else (int(one.second[1]), int(one.first[1]))
        for one in judgements
    ]
    expected = choix.opt_pairwise(4, wins, alpha=0.0, method="BFGS", tol=1e-9)
    assert fitted(judgements) == pytest.approx(expected - expected.mean(), abs=1e-5)
    iterated = choix.ilsr_pairwise(4, wins, alpha=0.0)
    assert fitted(judgements) == pytest.approx(iterated - iterated.mean(), abs=1e-5)


def test_strengths_are_those_of_a_logistic_regression_with_half_weights_for_ties() -> None:
    from sklearn.linear_model import LogisticRegression

    judgements = simulated(2, 120, ties=0.8)
    assert any(one.points == 0.5 for one in judgements)
    rows, outcomes, weights = [], [], []
    for one in judgements:
        row = np.zeros(4)
        row[int(one.first[1])], row[int(one.second[1])] = 1, -1
        for outcome, weight in ((1, one.points), (0, 1 - one.points)):
            if weight:
                rows.append(row[:-1])
                outcomes.append(outcome)
                weights.append(weight)
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000)
    model.fit(np.array(rows), outcomes, sample_weight=weights)
    expected = np.array([*model.coef_[0], 0.0])
    assert fitted(judgements) == pytest.approx(expected - expected.mean(), abs=1e-4)


def test_strengths_maximise_a_likelihood_that_is_written_out() -> None:
    judgements = simulated(3, 60, ties=0.5)
    best = minimize(minus_log_likelihood, np.zeros(3), args=(judgements,), method="BFGS", options={"gtol": 1e-7})
    expected = np.array([*best.x, 0.0])
    found = fitted(judgements)
    assert found == pytest.approx(expected - expected.mean(), abs=1e-5)
    assert abs(found.mean()) < 1e-12


def test_two_systems_have_the_log_odds_of_their_points() -> None:
    pairs = [Judgement(f"s{place}", "ann", "a", "b", points) for place, points in enumerate([1, 1, 1, 0.5, 0])]
    high, low = strengths(pairs).systems
    assert (high.system, low.system) == ("a", "b")
    assert high.strength == pytest.approx(np.log(3.5 / 1.5) / 2)
    assert (high.wins, high.ties, high.comparisons, high.samples) == (3, 1, 5, 5)


def test_neither_the_order_of_comparisons_nor_that_of_the_images_matters() -> None:
    judgements = simulated(4, 60)
    shuffled = [
        Judgement(one.sample, one.rater, one.second, one.first, 1 - one.points) if place % 2 else one
        for place, one in enumerate(judgements)
    ]
    random.Random(1).shuffle(shuffled)
    for one, other in zip(strengths(judgements).systems, strengths(shuffled).systems, strict=True):
        assert one.system == other.system
        assert one.low == pytest.approx(other.low, abs=1e-9)


def test_strong_differences_converge() -> None:
    points = np.array([[0.0, 9999.0, 0.0], [1.0, 0.0, 5000.0], [0.0, 1.0, 0.0]])
    theta = fit(points)
    assert theta[0] - theta[1] == pytest.approx(np.log(9999))
    assert theta[1] - theta[2] == pytest.approx(np.log(5000))


# -- where there are none ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ([("a", "b", 1)], "a won every comparison with the others, so that its strength would be infinite"),
        ([("a", "b", 1), ("b", "c", 1), ("a", "c", 1)], "a won every comparison"),
        ([("a", "b", 0.5), ("c", "d", 0.5)], "no comparison connects these groups of systems: a, b; c, d"),
    ],
)
def test_infinite_strengths_have_a_reason_and_no_number(pairs: list[tuple[str, str, float]], reason: str) -> None:
    found = strengths([Judgement(f"s{place}", "ann", *pair) for place, pair in enumerate(pairs)])
    assert reason in found.reason
    assert all(one.strength is None and one.low is None and one.best_rank is None for one in found.systems)
    assert sum(one.comparisons for one in found.systems) == 2 * len(pairs)
    assert not found.differences


def test_systems_that_won_or_lost_everything_leave_the_others_their_strengths() -> None:
    judgements = simulated(12, 60)
    names = ("m0", "m1", "m2", "m3")
    best = [Judgement(f"s{k}", "ann", "best", names[k % 4], 1) for k in range(40)]
    worst = [Judgement(f"s{k}", "ann", names[k % 4], "worst", 1) for k in range(40)]
    aside = [Judgement("s1", "ann", "best", "aside", 1)]
    found, inner = strengths([*judgements, *best, *worst, *aside]), strengths(judgements)
    assert not found.reason
    assert [one.system for one in found.systems] == ["best", *(one.system for one in inner.systems), "worst", "aside"]
    assert [one.note for one in found.systems if one.strength is None] == [INFINITE[1], INFINITE[-1], INFINITE[0]]
    for one, alone in zip(found.systems[1:5], inner.systems, strict=True):
        assert (one.strength, one.low, one.high) == (alone.strength, alone.low, alone.high)
        assert (one.best_rank, one.worst_rank) == (alone.best_rank, (alone.worst_rank or 0) + 3)
        assert one.comparisons == alone.comparisons + 20
    assert found.differences == inner.differences


def test_a_tie_is_enough_for_a_finite_strength() -> None:
    found = strengths([Judgement("s1", "ann", "a", "b", 1), Judgement("s2", "ann", "a", "b", 0.5)])
    assert found.systems[0].strength == pytest.approx(np.log(3) / 2)


def test_wrong_comparisons_are_refused() -> None:
    with pytest.raises(ValueError, match="compared with itself"):
        strengths([Judgement("s", "ann", "a", "a", 1)])
    with pytest.raises(ValueError, match="points must be"):
        strengths([Judgement("s", "ann", "a", "b", 0.7)])


# -- intervals and ranks -----------------------------------------------------------------------------------------------


def test_the_information_is_the_second_derivative_of_the_likelihood() -> None:
    judgements = simulated(5, 80)
    points = np.zeros((4, 4))
    for one in judgements:
        points[int(one.first[1]), int(one.second[1])] += one.points
        points[int(one.second[1]), int(one.first[1])] += 1 - one.points
    theta = fit(points)
    free = theta[:-1] - theta[-1]
    hessian = np.array(
        [
            approx_fprime(free, lambda at, k=place: approx_fprime(at, minus_log_likelihood, 1e-5, judgements)[k], 1e-4)
            for place in range(3)
        ]
    )
    assert information(points, theta)[:3, :3] == pytest.approx(hessian, rel=1e-3, abs=5e-3)


def test_intervals_are_those_of_the_inverse_fisher_information_where_the_model_holds() -> None:
    judgements = simulated(6, 3000, per_sample=1, ties=0.0)
    found = sorted(strengths(judgements).systems, key=lambda one: one.system)
    rows = np.zeros((len(judgements), 4))
    for place, one in enumerate(judgements):
        rows[place, int(one.first[1])], rows[place, int(one.second[1])] = 1, -1
    theta = np.array([one.strength for one in found])
    chance = 1 / (1 + np.exp(-rows @ theta))
    covariance = np.linalg.pinv(rows.T @ (rows * (chance * (1 - chance))[:, None]))
    for place, system in enumerate(found):
        assert system.low is not None
        assert system.high is not None
        half = (system.high - system.low) / 2
        assert half == pytest.approx(1.96 * np.sqrt(covariance[place, place]), rel=0.05)


def test_comparisons_of_one_sample_that_repeat_each_other_make_no_interval_narrower() -> None:
    judgements = simulated(7, 100, per_sample=1)
    repeated = [
        Judgement(one.sample, f"rater {k}", one.first, one.second, one.points) for one in judgements for k in range(4)
    ]
    for once, often in zip(strengths(judgements).systems, strengths(repeated).systems, strict=True):
        assert once.low == pytest.approx(often.low, abs=1e-9)


def test_many_raters_are_drawn_too() -> None:
    judgements = simulated(8, 200, per_sample=3, spread=1.0, raters=MIN_RATERS)
    alone = [Judgement(one.sample, "ann", one.first, one.second, one.points) for one in judgements]
    drawn, fixed = strengths(judgements), strengths(alone)
    assert (drawn.basis, fixed.basis) == ("samples and raters", "samples")
    for one, other in zip(drawn.systems, fixed.systems, strict=True):
        assert one.low is not None
        assert other.low is not None
        assert one.low < other.low


def test_few_samples_few_comparisons_and_single_samples_give_no_interval() -> None:
    few = strengths(simulated(9, MIN_SAMPLES - 1))
    assert {one.note for one in few.systems} == {"n too small"}
    assert all(one.strength is not None and one.low is None for one in few.systems)
    assert {(one.best_rank, one.worst_rank) for one in few.systems} == {(1, 4)}

    judgements = simulated(10, 60)
    rare = [Judgement(f"s{k}", "ann", "rare", "m0", k % 2) for k in range(MIN_COMPARISONS - 1)]
    notes = {one.system: one.note for one in strengths([*judgements, *rare]).systems}
    assert notes["rare"] == "too few comparisons"
    assert notes["m0"] == ""

    single = [Judgement("s0", f"rater {k}", "single", "m0", k % 2) for k in range(MIN_COMPARISONS)]
    notes = {one.system: one.note for one in strengths([*judgements, *single]).systems}
    assert notes["single"] == ONE_SAMPLE_DECIDES


@pytest.mark.parametrize("points", [(0.5,), (1, 1, 0)])
def test_samples_that_all_say_the_same_give_no_interval_and_no_error(points: tuple[float, ...]) -> None:
    judgements = [Judgement(f"s{k}", f"r{who}", "a", "b", each) for k in range(30) for who, each in enumerate(points)]
    found = strengths(judgements)
    assert found.differences[0].value == pytest.approx(np.log(np.sum(points) / (len(points) - np.sum(points))))
    assert found.differences[0].p is None
    assert [(one.low, one.note, one.best_rank, one.worst_rank) for one in found.systems] == [
        (None, NO_SPREAD, 1, 2)
    ] * 2


def test_two_groups_that_one_sample_connects_have_no_interval() -> None:
    inside = [Judgement(f"s{k}", "ann", *pair, (k * 7 % 5) % 2) for k in range(40) for pair in (("a", "b"), ("c", "d"))]
    bridge = [Judgement("s0", f"r{k}", "a", "c", k) for k in (0, 1)]
    found = strengths([*inside, *bridge])
    assert not found.reason
    assert {one.note for one in found.systems} == {ONE_SAMPLE_DECIDES}
    larger = strengths([*inside, *bridge, *(Judgement(f"s{k}", "ann", "a", "e", k % 2) for k in range(40))])
    assert {one.system: one.note for one in larger.systems if one.note} == dict.fromkeys("cd", ONE_SAMPLE_DECIDES)


def test_ranges_of_ranks_separate_what_the_differences_separate() -> None:
    found = strengths(simulated(11, 400))
    ranks = [(one.best_rank, one.worst_rank) for one in found.systems]
    assert ranks == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert all((one.low or 0) > 0 for one in found.differences)
    equal = strengths([Judgement(f"s{k}", "ann", "a", "b", (1, 0, 0.5)[k % 3]) for k in range(90)])
    assert [(one.best_rank, one.worst_rank) for one in equal.systems] == [(1, 2), (1, 2)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("samples", "per_sample", "spread", "raters"),
    [(MIN_SAMPLES, 3, 0.5, 1), (48, 2, 0.5, 1), (48, 6, 1.0, 1), (200, 1, 0.5, 1), (100, 4, 0.5, 12)],
)
def test_intervals_contain_the_true_strength_about_as_often_as_they_say(
    samples: int, per_sample: int, spread: float, raters: int
) -> None:
    chance = np.random.default_rng(0)
    effect = np.sqrt(2) * spread if raters > 1 else spread
    points = np.zeros((4, 4))
    for one in range(4):
        for other in set(range(4)) - {one}:
            a, b = (
                np.exp(TRUE[one] + chance.normal(0, effect, 400_000)),
                np.exp(TRUE[other] + chance.normal(0, effect, 400_000)),
            )
            tie = 0.4 * np.sqrt(a * b)
            points[one, other] = np.mean((a + tie / 2) / (a + b + tie))
    true = fit(points)
    inside = total = 0
    for seed in range(250):
        for system in strengths(simulated(seed, samples, per_sample, spread=spread, raters=raters)).systems:
            if system.low is not None and system.high is not None:
                inside += system.low <= true[int(system.system[1])] <= system.high
                total += 1
    assert total > 750
    assert 0.925 <= inside / total <= 0.985
