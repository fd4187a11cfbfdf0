"""Bradley-Terry strengths of systems from comparisons of two images, with intervals and ranges of ranks.

The model (Bradley and Terry, Rank Analysis of Incomplete Block Designs, Biometrika 39, 1952) gives each system a
strength s, and

    P(a is preferred to b) = 1 / (1 + exp(s_b - s_a)).

A tie counts as half a win for both. Strengths maximise the likelihood of these points; they are on a log scale and
centred, so that their mean is 0. A maximum exists exactly if the systems cannot be divided into two groups of which one
never got a point against the other (Ford, Solution of a Ranking Problem from Binary Comparisons, American Mathematical
Monthly 64, 1957). Otherwise differences between such groups would be infinite. The largest group without such a
division then has strengths, from the comparisons within it, and the other systems have none; there are no strengths at
all where no group is the largest, or it has a single system.

With ties the points are not 0 or 1, and the comparisons of one sample depend on each other. Intervals therefore do not
use the information of the model, but the one-step jackknife over samples: the variance is (G - 1) / G times the sum of
the squared changes of the strengths when one of G samples is left out, to the first order (Efron, The Jackknife, the
Bootstrap and Other Resampling Plans, 1982); the quantile is that of Student's distribution with G - 1 degrees of
freedom. Raters are fixed: the intervals say what other samples would give, judged by the same people. With at least
`MIN_RATERS` raters, they are drawn too: the variance over raters is added and that over samples and raters together
taken off (Cameron, Gelbach and Miller, Robust Inference With Multiway Clustering, Journal of Business & Economic
Statistics 29, 2011), with one degree of freedom less than the smaller number of the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from knowgen.core.records import Record
from knowgen.stats.compare.holm import holm
from knowgen.stats.summary import TOO_SMALL
from knowgen.stats.values import Floats

MIN_SAMPLES = 20
"""Minimum number of samples for intervals; see `tests/stats/test_bradley_terry.py` for their coverage."""

MIN_COMPARISONS = 8
"""Minimum number of comparisons of a system for its interval."""

MIN_RATERS = 10
"""Minimum number of raters for intervals that also draw the raters."""

LEVEL = 0.95
"""Level of the intervals, and of the tests that give the ranges of ranks."""

FEW_COMPARISONS = "too few comparisons"
"""Note of a system without an interval because it was compared too rarely."""

ONE_SAMPLE_DECIDES = "rests on one sample"
"""Note of a system without an interval because nothing but a single sample (or rater) connects it with the others."""

INFINITE = {1: "strength would be +infinite", -1: "strength would be -infinite", 0: "strength is undetermined"}
"""Note of a system without a strength: 1 where it, or one that it won against, won every comparison with those that
have one, -1 where it lost them, 0 where no chain of comparisons says so."""

NO_SPREAD = "all samples say the same"
"""Note of a system without an interval because its strength does not change, whichever sample is left out."""

_STEPS = 200
_TOLERANCE = 1e-10
_NO_ERROR = 1e-9
"""Standard error up to which there is none but that of rounding."""

_NO_WEIGHT = 1e-9
"""Share of the largest information up to which two systems count as not compared."""


@dataclass(frozen=True)
class Judgement:
    """A comparison of the images of two systems.

    Attributes:
        sample: Id of the sample.
        rater: Name of the rater.
        first: Name of a system.
        second: Name of the other system.
        points: Points of the first: 1 if its image is preferred, 0 if the other is, 0.5 for a tie.
    """

    sample: str
    rater: str
    first: str
    second: str
    points: float


class SystemStrength(Record):
    """The strength of one system.

    Attributes:
        system: Its name.
        strength: Strength on the natural log scale, centred; None without a maximum of the likelihood.
        low: Lower end of the 95 % interval; None without one.
        high: Upper end of the interval.
        best_rank: 1 + the number of systems that are shown to be better.
        worst_rank: Number of systems minus those that are shown to be worse; None, as `best_rank`, without a strength.
        comparisons: Number of comparisons.
        wins: Number of comparisons that it won.
        ties: Number of ties.
        samples: Number of samples.
        note: Why it has no interval; empty if it has.
    """

    system: str
    strength: float | None = None
    low: float | None = None
    high: float | None = None
    best_rank: int | None = None
    worst_rank: int | None = None
    comparisons: int
    wins: int
    ties: int
    samples: int
    note: str = ""


class StrengthDifference(Record):
    """The difference of two strengths.

    Attributes:
        first: The system that is ranked before the other.
        second: The other system.
        value: Strength of the first minus that of the second, at least 0.
        low: Lower end of the 95 % interval, not corrected for the number of pairs; None without one.
        high: Upper end of the interval.
        p: Two-sided p-value; None without an interval.
        p_holm: The same, corrected by Holm's method for all pairs.
    """

    first: str
    second: str
    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None


class Strengths(Record):
    """Strengths of all systems.

    Attributes:
        systems: Systems, the strongest first, those without a strength before or after the others; by name if there are
            no strengths.
        differences: Difference of each two systems with a strength; empty without strengths.
        comparisons: Number of comparisons.
        samples: Number of samples.
        raters: Number of raters.
        reason: Why there are no strengths; empty if there are.
        basis: What the intervals draw: `samples` or `samples and raters`.
    """

    systems: tuple[SystemStrength, ...]
    differences: tuple[StrengthDifference, ...] = ()
    comparisons: int
    samples: int
    raters: int
    reason: str = ""
    basis: str = "samples"


def strengths(judgements: Sequence[Judgement]) -> Strengths:
    """Return the Bradley-Terry strengths of the systems.

    Args:
        judgements: Comparisons; their order does not matter.

    Returns:
        Strengths with intervals and ranges of ranks, or the reason why there are none.

    Raises:
        ValueError: A system is compared with itself, or points are not 0, 0.5 or 1.

    Example:
        >>> pairs = [Judgement("s1", "ann", "a", "b", 1), Judgement("s2", "ann", "a", "b", 1)]
        >>> found = strengths([*pairs, Judgement("s3", "ann", "a", "b", 0)])
        >>> [(one.system, round(one.strength, 3)) for one in found.systems]
        [('a', 0.347), ('b', -0.347)]
        >>> strengths(pairs).reason
        'a won every comparison with the others, so that its strength would be infinite'
    """
    table = _Judgements(judgements)
    shared = {
        "comparisons": len(judgements),
        "samples": len(set(table.samples)),
        "raters": len(set(table.raters)),
    }
    reason, sides = _no_maximum(table.names, table.points()), {}
    inner = table
    if reason:
        sides = _sides(table.names, table.points())
        if not sides:
            return Strengths(systems=tuple(table.tally(name) for name in table.names), reason=reason, **shared)
        inner = _Judgements([one for one in judgements if not {one.first, one.second} & set(sides)])
    theta = fit(inner.points())
    spread = _Spread(inner, theta)
    differences = _differences(inner.names, theta, spread)
    systems = [
        table.tally(name).model_copy(
            update={
                "strength": float(theta[place]),
                **spread.ends(theta[place], _contrast(len(inner.names), place)),
                **_ranks(name, len(table.names), differences),
                "note": spread.note(place),
            }
        )
        for place, name in enumerate(inner.names)
    ]
    systems += [table.tally(name).model_copy(update={"note": INFINITE[side]}) for name, side in sides.items()]
    places = {name: {1: 0, -1: 2, 0: 3}[side] for name, side in sides.items()}
    systems.sort(key=lambda one: (places.get(one.system, 1), -round(one.strength or 0.0, 9), one.system))
    return Strengths(systems=tuple(systems), differences=tuple(differences), basis=spread.basis, **shared)


def fit(points: Floats) -> Floats:
    """Return the centred strengths that maximise the likelihood, by Newton's method with shortened steps.

    Args:
        points: Points of the row's system against the column's, shape (systems, systems), for which a maximum exists.

    Returns:
        Natural logarithms, shape (systems,), with mean 0.

    Example:
        >>> [round(each, 4) for each in fit(np.array([[0.0, 3.0], [1.0, 0.0]])).tolist()]
        [0.5493, -0.5493]
    """
    theta = np.zeros(len(points))
    value = _log_likelihood(points, theta)
    for _ in range(_STEPS):
        expected = (points + points.T) * _preference(theta)
        gradient = (points - expected).sum(axis=1)
        step = np.linalg.solve(information(points, theta) + 1.0 / len(points), gradient)
        size = 1.0
        while (after := _log_likelihood(points, theta + size * step)) < value and size > _TOLERANCE:
            size /= 2
        theta, value = theta + size * step, after
        if np.abs(size * step).max() < _TOLERANCE:
            break
    centred: Floats = theta - theta.mean()
    return centred


def information(points: Floats, theta: Floats) -> Floats:
    """Return the Fisher information of the strengths under the model, for independent comparisons without ties.

    Args:
        points: As in `fit`.
        theta: Strengths, shape (systems,).

    Returns:
        Shape (systems, systems). Rows add up to 0, because only differences of strengths are determined.
    """
    chance = _preference(theta)
    weights = (points + points.T) * chance * (1 - chance)
    np.fill_diagonal(weights, 0.0)
    matrix: Floats = np.diag(weights.sum(axis=1)) - weights
    return matrix


def _preference(theta: Floats) -> Floats:
    """Return the probability that the row's system is preferred to the column's, shape (systems, systems)."""
    from scipy.special import expit

    chance: Floats = expit(theta[:, None] - theta[None, :])
    return chance


def _log_likelihood(points: Floats, theta: Floats) -> float:
    gaps = theta[:, None] - theta[None, :]
    return -float((points * np.logaddexp(0.0, -gaps)).sum())


class _Judgements:
    """Comparisons as arrays: places of the two systems, points, codes of samples and raters."""

    def __init__(self, judgements: Sequence[Judgement]) -> None:
        if wrong := next((one for one in judgements if one.first == one.second), None):
            raise ValueError(f"{wrong.first!r} is compared with itself")
        if any(one.points not in (0, 0.5, 1) for one in judgements):
            raise ValueError("points must be 0, 0.5 or 1")
        self.names = sorted({name for one in judgements for name in (one.first, one.second)})
        places = {name: place for place, name in enumerate(self.names)}
        # sorted, so that sums do not depend on the order in which comparisons were read
        ordered = sorted(judgements, key=lambda one: (one.sample, one.rater, one.first, one.second, one.points))
        self.first = np.array([places[one.first] for one in ordered], dtype=int)
        self.second = np.array([places[one.second] for one in ordered], dtype=int)
        self.won = np.array([one.points for one in ordered], dtype=float)
        self.samples = [one.sample for one in ordered]
        self.raters = [one.rater for one in ordered]

    def points(self) -> Floats:
        table: Floats = np.zeros((len(self.names), len(self.names)))
        np.add.at(table, (self.first, self.second), self.won)
        np.add.at(table, (self.second, self.first), 1 - self.won)
        return table

    def tally(self, name: str) -> SystemStrength:
        place = self.names.index(name)
        mine = (self.first == place) | (self.second == place)
        won = np.where(self.first == place, self.won, 1 - self.won)[mine]
        return SystemStrength(
            system=name,
            comparisons=int(mine.sum()),
            wins=int((won == 1).sum()),
            ties=int((won == 0.5).sum()),
            samples=len({sample for sample, own in zip(self.samples, mine, strict=True) if own}),
        )


def _no_maximum(names: Sequence[str], points: Floats) -> str:
    """Return why the likelihood has no maximum; empty if it has."""
    from scipy.sparse.csgraph import connected_components

    if len(names) < 2:
        return "no comparisons of two systems"
    parts, part_of = connected_components(points + points.T > 0, directed=False)
    if parts > 1:
        groups = "; ".join(", ".join(_members(names, part_of, part)) for part in range(parts))
        return f"no comparison connects these groups of systems: {groups}"
    strong, group_of = connected_components(points > 0, directed=True, connection="strong")
    if strong == 1:
        return ""
    for did, table in (("won", points), ("lost", points.T)):
        for part in range(strong):
            inside = group_of == part
            if not table[np.ix_(~inside, inside)].sum():
                group = _members(names, group_of, part)
                whose = "its strength" if len(group) == 1 else "their strengths"
                return (
                    f"{' and '.join(group)} {did} every comparison with the others, so that {whose} would be infinite"
                )
    raise AssertionError("one group of such a division gives no points")


def _sides(names: Sequence[str], points: Floats) -> dict[str, int]:
    """Return the side of each system that is outside the largest group with finite differences; see `INFINITE`.

    Empty if the systems are not connected, no group is the largest, or it has a single system.
    """
    from scipy.sparse.csgraph import connected_components, shortest_path

    if not len(names) or connected_components(points + points.T > 0, directed=False)[0] > 1:
        return {}
    _, group_of = connected_components(points > 0, directed=True, connection="strong")
    sizes = np.bincount(group_of)
    largest = np.flatnonzero(sizes == sizes.max())
    if len(largest) > 1 or sizes.max() < 2:
        return {}
    inside = group_of == largest[0]
    reached = np.isfinite(shortest_path(points > 0, unweighted=True))
    above, below = reached[:, inside].any(axis=1), reached[inside].any(axis=0)
    return {name: int(above[place]) - int(below[place]) for place, name in enumerate(names) if not inside[place]}


def _members(names: Sequence[str], part_of: Floats, part: int) -> list[str]:
    return [name for name, own in zip(names, part_of, strict=True) if own == part]


def _apart(information: Floats, least: float) -> Floats:
    """Return 1 for each system that is not in the largest group of connected ones, and for all if none is the largest.

    Args:
        information: As `information` returns it.
        least: Information up to which two systems are not connected.
    """
    from scipy.sparse.csgraph import connected_components

    parts, part_of = connected_components(-information > least, directed=False)
    sizes = np.bincount(part_of, minlength=parts)
    largest = np.flatnonzero(sizes == sizes.max())
    if len(largest) > 1:
        return np.ones(len(information))
    apart: Floats = (part_of != largest[0]).astype(float)
    return apart


def _positive_part(matrix: Floats) -> Floats:
    """Return a symmetric matrix without its negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    part: Floats = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return part


def _contrast(size: int, place: int, other: int | None = None) -> Floats:
    """Return the vector whose product with the strengths is one of them, or the difference of two."""
    vector = np.zeros(size)
    vector[place] = 1.0
    if other is not None:
        vector[other] = -1.0
    return vector


class _Spread:
    """Covariance of the strengths, and the intervals that follow from it.

    Attributes:
        basis: What is drawn: `samples`, or `samples and raters`.
        reasons: Why a system has no interval; empty text if it has.
    """

    def __init__(self, table: _Judgements, theta: Floats) -> None:
        from scipy.stats import t

        self.table, self.theta = table, theta
        self.basis = "samples"
        raters, samples = len(set(table.raters)), len(set(table.samples))
        self.reasons = [""] * len(theta)
        if samples < MIN_SAMPLES:
            self.reasons = [TOO_SMALL] * len(theta)
            return
        self.covariance, decided = self._jackknife(table.samples)
        degrees = samples - 1
        if raters >= MIN_RATERS:
            self.basis, degrees = "samples and raters", min(samples, raters) - 1
            by_rater, one_rater = self._jackknife(table.raters)
            both, _ = self._jackknife([f"{a}\0{b}" for a, b in zip(table.samples, table.raters, strict=True)])
            # the second part may be negative by chance; no interval is narrower than over samples alone
            self.covariance = self.covariance + _positive_part(by_rater - both)
            decided = decided + one_rater
        self.quantile, self.degrees = float(t.ppf(0.5 + LEVEL / 2, degrees)), degrees
        compared = (table.points() + table.points().T).sum(axis=1)
        for place in range(len(theta)):
            if compared[place] < MIN_COMPARISONS:
                self.reasons[place] = FEW_COMPARISONS
            elif decided[place]:
                self.reasons[place] = ONE_SAMPLE_DECIDES
            elif self._error(_contrast(len(theta), place)) <= _NO_ERROR:
                self.reasons[place] = NO_SPREAD

    def _jackknife(self, clusters: Sequence[str]) -> tuple[Floats, Floats]:
        """Return the covariance over clusters, and for which systems it is not determined."""
        table, size = self.table, len(self.theta)
        codes = np.unique(clusters, return_inverse=True)[1]
        chance = _preference(self.theta)[table.first, table.second]
        groups = int(codes.max()) + 1
        scores = np.zeros((groups, size))
        np.add.at(scores, (codes, table.first), table.won - chance)
        np.add.at(scores, (codes, table.second), chance - table.won)
        whole = information(table.points(), self.theta)
        weight = chance * (1 - chance)
        undetermined = np.zeros(size)
        changes = np.zeros((groups, size))
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(groups + 1))
        for group in range(groups):
            rows = order[bounds[group] : bounds[group + 1]]
            rest = whole.copy()
            for a, b, w in zip(table.first[rows], table.second[rows], weight[rows], strict=True):
                rest[[a, b], [a, b]] -= w
                rest[[a, b], [b, a]] += w
            apart = _apart(rest, _NO_WEIGHT * whole.diagonal().max())
            if apart.any():  # this cluster alone connects these systems with the others
                undetermined += apart
                changes[group] = -np.linalg.pinv(rest, rcond=_NO_WEIGHT, hermitian=True) @ scores[group]
            else:
                changes[group] = -np.linalg.solve(rest + 1.0 / size, scores[group])
        covariance: Floats = (groups - 1) / groups * changes.T @ changes
        return covariance, undetermined

    def note(self, place: int) -> str:
        return self.reasons[place]

    def ends(self, value: float, contrast: Floats) -> dict[str, float]:
        """Return the ends of the interval of a contrast; empty if one of its systems has none."""
        if not self._has_error(contrast):
            return {}
        half = self.quantile * self._error(contrast)
        return {"low": float(value - half), "high": float(value + half)}

    def p_value(self, value: float, contrast: Floats) -> float | None:
        from scipy.stats import t

        if not self._has_error(contrast):
            return None
        return float(2 * t.sf(abs(value) / self._error(contrast), self.degrees))

    def _has_error(self, contrast: Floats) -> bool:
        """Return whether each system of a contrast has an interval, and the contrast itself varies."""
        if any(self.reasons[place] for place in np.flatnonzero(contrast)):
            return False
        return self._error(contrast) > _NO_ERROR

    def _error(self, contrast: Floats) -> float:
        return math.sqrt(max(0.0, float(contrast @ self.covariance @ contrast)))


def _differences(names: Sequence[str], theta: Floats, spread: _Spread) -> list[StrengthDifference]:
    found = []
    for one, other in combinations(
        sorted(range(len(names)), key=lambda place: (-round(float(theta[place]), 9), place)), 2
    ):
        contrast, value = _contrast(len(names), one, other), float(theta[one] - theta[other])
        found.append(
            StrengthDifference(
                first=names[one], second=names[other], value=value, **spread.ends(value, contrast),
                p=spread.p_value(value, contrast),
            )
        )  # fmt: skip
    p_values = [one.p for one in found if one.p is not None]
    adjusted = iter(holm(p_values))
    return [one.model_copy(update={"p_holm": next(adjusted)}) if one.p is not None else one for one in found]


def _ranks(name: str, number: int, differences: Sequence[StrengthDifference]) -> dict[str, int]:
    shown = [one for one in differences if one.p_holm is not None and one.p_holm <= 1 - LEVEL and one.value > 0]
    better = sum(one.second == name for one in shown)
    worse = sum(one.first == name for one in shown)
    return {"best_rank": 1 + better, "worst_rank": number - worse}
