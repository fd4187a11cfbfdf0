"""Rank correlation: do judges rank the systems in the same order?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from knowgen.core.records import Row
from knowgen.core.steps import step
from knowgen.stats.agreement.records import RankAgreement
from knowgen.stats.bootstrap import counted_means, distribution, interval, seeded
from knowgen.stats.combine import averaged, sliced_figures
from knowgen.stats.protocol import ScoringProtocol
from knowgen.stats.subsets import group_names, sample_subsets
from knowgen.stats.summary import TOO_SMALL, Figure
from knowgen.stats.values import Floats, Unit, Values, read_values

MIN_SYSTEMS = 3
"""Minimum number of systems; the order of two can only be equal or reversed."""

MIN_SAMPLES = 20
"""Minimum number of samples for an interval."""

RESAMPLES = 1000
"""Default number of bootstrap resamples."""

NO_ORDER = "all systems are equal under one scorer"
"""Note of a coefficient that is not defined."""

NO_CHANGE = "the same in every resample"
"""Note of a coefficient without an interval."""


@step("comparing orders of systems")
def rank_agreements(
    rows: Mapping[str, Sequence[Sequence[Row]]],
    dimensions: Mapping[str, Sequence[str]],
    protocol: ScoringProtocol,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[RankAgreement]:
    """Return the agreement of each pair of scorers on the order of the systems.

    Systems are ranked by their headline figure over the samples for which all systems have a score by both scorers.
    The interval resamples these samples, jointly for all systems; the systems are fixed.

    Args:
        rows: For each scorer, the rows of every system, in the same order of systems.
        dimensions: Dimensions of each scorer.
        protocol: Scoring protocol.
        resamples: Number of bootstrap resamples; 0 for no intervals.
        seed: Seed of the bootstrap.
    """
    read = {
        scorer: [read_values(system, protocol, tuple(dimensions[scorer])) for system in systems]
        for scorer, systems in rows.items()
    }
    return [
        _pair(first, second, read, dimensions, protocol, resamples, seed) for first, second in combinations(read, 2)
    ]


def _pair(
    first: str,
    second: str,
    read: Mapping[str, Sequence[Values]],
    dimensions: Mapping[str, Sequence[str]],
    protocol: ScoringProtocol,
    resamples: int,
    seed: int,
) -> RankAgreement:
    units = _common([*read[first], *read[second]])
    strata = group_names(units)
    scores = [_Scores(read[name], units, dimensions[name], protocol) for name in (first, second)]
    systems = len(read[first])
    points = [one(np.ones((1, len(units)))) for one in scores] if units else []
    measures = (("kendall", kendalls), ("spearman", spearmans))
    if systems < MIN_SYSTEMS or not units:
        empty = Figure(n=systems, note=TOO_SMALL)
        return RankAgreement(first=first, second=second, samples=len(units), kendall=empty, spearman=empty)
    figures: dict[str, Figure] = {}
    resampled = None
    if resamples and len(units) >= MIN_SAMPLES:
        resampled = distribution(
            lambda counts: np.column_stack([measure(*(one(counts) for one in scores)) for _, measure in measures]),
            strata,
            resamples,
            seeded(seed, "ranks", first, second),
        )
    for place, (name, _) in enumerate(measures):
        value = _point(name, points[0][0], points[1][0])
        if math.isnan(value):
            figures[name] = Figure(n=systems, note=NO_ORDER)
            continue
        ends = interval(resampled[:, place], len(units)) if resampled is not None else None
        if ends is None:
            figures[name] = Figure(value=value, n=systems, note=TOO_SMALL if resamples else "")
        elif ends[1] - ends[0] < 1e-9:  # an interval of width 0 would claim certainty that resampling cannot show
            figures[name] = Figure(value=value, n=systems, note=NO_CHANGE)
        else:
            figures[name] = Figure(value=value, low=ends[0], high=ends[1], n=systems)
    return RankAgreement(first=first, second=second, samples=len(units), **figures)


def _common(read: Sequence[Values]) -> list[Unit]:
    """Return the samples for which every system has a score by both scorers, sorted by id."""
    rated = []
    for values in read:
        has = np.flatnonzero(np.isfinite(values.table).any(axis=(0, 2)))
        rated.append({values.units[place].id for place in has})
    common = set.intersection(*rated)
    return sorted((unit for unit in read[0].units if unit.id in common), key=lambda unit: unit.id)


class _Scores:
    """Function from resample counts to the headline figures of several systems under one scorer."""

    def __init__(
        self, read: Sequence[Values], units: Sequence[Unit], dimensions: Sequence[str], protocol: ScoringProtocol
    ) -> None:
        self.dimensions, self.protocol, self.tables = tuple(dimensions), protocol, []
        self.counted = sample_subsets(units, protocol)[0].counted
        self.groups = group_names(units)[self.counted]
        for values in read:
            places = {unit.id: place for place, unit in enumerate(values.units)}
            table = values.table[:, [places[unit.id] for unit in units], :]
            self.tables.append(averaged(table, self.dimensions, protocol)[:, self.counted])

    def __call__(self, counts: Floats) -> Floats:
        """Return headline figures of shape (resamples, systems)."""
        weights = counts[:, self.counted]
        return np.column_stack(
            [
                sliced_figures(
                    "all",
                    self.groups,
                    [counted_means(one, weights) for one in table],
                    self.dimensions,
                    self.protocol,
                    rounded=False,
                )[:, -1]
                for table in self.tables
            ]
        )


def _point(name: str, first: Floats, second: Floats) -> float:
    from scipy.stats import kendalltau, spearmanr

    if np.ptp(first) <= 1e-9 or np.ptp(second) <= 1e-9:
        return math.nan
    rounded = np.round(first, 9), np.round(second, 9)
    return round(float((kendalltau if name == "kendall" else spearmanr)(*rounded).statistic), 12)


def kendalls(first: Floats, second: Floats) -> Floats:
    """Return Kendall's tau-b over resamples: (concordant - discordant) / sqrt(untied in first * untied in second).

    Source: Kendall, The Treatment of Ties in Ranking Problems, Biometrika 33, 1945.

    Args:
        first: Figures under the first scorer, shape (resamples, systems).
        second: Figures under the second scorer, same shape.

    Returns:
        Shape (resamples,), NaN where all systems are tied under one scorer.

    Example:
        >>> kendalls(np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 2.0, 3.0]])).tolist()
        [1.0]
    """
    one, other = np.triu_indices(first.shape[1], 1)
    signs = [np.sign(np.round(table[:, one] - table[:, other], 9)) for table in (first, second)]
    untied = np.sqrt(np.square(signs[0]).sum(axis=1) * np.square(signs[1]).sum(axis=1))
    out: Floats = np.full(len(first), math.nan)
    np.divide((signs[0] * signs[1]).sum(axis=1), untied, out=out, where=untied > 0)
    return out


def spearmans(first: Floats, second: Floats) -> Floats:
    """Return Spearman's rank correlation over resamples: Pearson's correlation of the ranks, with mean ranks for ties.

    Args:
        first: Figures under the first scorer, shape (resamples, systems).
        second: Figures under the second scorer, same shape.

    Returns:
        Shape (resamples,), NaN where all systems are tied under one scorer.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(np.round(table, 9), axis=1) for table in (first, second)]
    centred = [one - one.mean(axis=1, keepdims=True) for one in ranks]
    spread = np.sqrt(np.square(centred[0]).sum(axis=1) * np.square(centred[1]).sum(axis=1))
    out: Floats = np.full(len(first), math.nan)
    np.divide((centred[0] * centred[1]).sum(axis=1), spread, out=out, where=spread > 0)
    return out
