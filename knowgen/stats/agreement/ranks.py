"""Do judges put the systems in the same order?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from knowgen.core.records import Row
from knowgen.stats.agreement.records import RankAgreement
from knowgen.stats.bootstrap import TOO_SMALL, counted_means, distribution, interval, seeded
from knowgen.stats.combine import averaged, sliced_figures
from knowgen.stats.protocol import ScoringProtocol
from knowgen.stats.subsets import group_names, parts_of
from knowgen.stats.summary import Figure
from knowgen.stats.values import Floats, Unit, Values, read_values

MIN_SYSTEMS = 3
"""Fewest systems whose order says anything: of two it is the same or the other way round."""

MIN_SAMPLES = 20
RESAMPLES = 1000
NO_ORDER = "all level under one of them"
NO_CHANGE = "the same in every resample"


def rank_agreements(
    rows: Mapping[str, Sequence[Sequence[Row]]],
    dimensions: Mapping[str, Sequence[str]],
    protocol: ScoringProtocol,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[RankAgreement]:
    """Returns the agreement of every two scorers on the order of the systems.

    The systems are ranked by their headline figure over the samples that all of them have a figure for under both
    scorers. The interval resamples these samples, the same ones for every system; the systems themselves are given.

    Args:
        rows: By scorer, the rows of each system, in one order.
        dimensions: By scorer, what it gives values for.
        protocol: How figures are made.
        resamples: Of the bootstrap; 0 for no intervals.
        seed: Of the bootstrap.
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
    found: dict[str, Figure] = {}
    draws = None
    if resamples and len(units) >= MIN_SAMPLES:
        draws = distribution(
            lambda counts: np.column_stack([measure(*(one(counts) for one in scores)) for _, measure in measures]),
            strata,
            resamples,
            seeded(seed, "ranks", first, second),
        )
    for place, (name, _) in enumerate(measures):
        value = _point(name, points[0][0], points[1][0])
        if math.isnan(value):
            found[name] = Figure(n=systems, note=NO_ORDER)
            continue
        ends = interval(draws[:, place], len(units)) if draws is not None else None
        if ends is None:
            found[name] = Figure(value=value, n=systems, note=TOO_SMALL if resamples else "")
        elif ends[1] - ends[0] < 1e-9:  # no width: nothing was seen of how the order could be another
            found[name] = Figure(value=value, n=systems, note=NO_CHANGE)
        else:
            found[name] = Figure(value=value, low=ends[0], high=ends[1], n=systems)
    return RankAgreement(first=first, second=second, samples=len(units), **found)


def _common(read: Sequence[Values]) -> list[Unit]:
    """Returns the samples that every system has a figure for under both scorers, and that count for the headline."""
    rated = []
    for values in read:
        has = np.flatnonzero(np.isfinite(values.table).any(axis=(0, 2)))
        rated.append({values.units[place].id for place in has})
    kept = set.intersection(*rated)
    return sorted((unit for unit in read[0].units if unit.id in kept), key=lambda unit: unit.id)


class _Scores:
    """Makes the headline figures of several systems under one scorer over resamples of the same samples."""

    def __init__(
        self, read: Sequence[Values], units: Sequence[Unit], dimensions: Sequence[str], protocol: ScoringProtocol
    ) -> None:
        self.dimensions, self.protocol, self.tables = tuple(dimensions), protocol, []
        self.counted = parts_of(units, protocol)[0].counted
        self.groups = group_names(units)[self.counted]
        for values in read:
            places = {unit.id: place for place, unit in enumerate(values.units)}
            table = values.table[:, [places[unit.id] for unit in units], :]
            self.tables.append(averaged(table, self.dimensions, protocol)[:, self.counted])

    def __call__(self, counts: Floats) -> Floats:
        """Returns headline figures of shape (resamples, systems)."""
        drawn = counts[:, self.counted]
        return np.column_stack(
            [
                sliced_figures(
                    "all",
                    self.groups,
                    [counted_means(one, drawn) for one in table],
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
    """Returns Kendall's tau-b over resamples: (concordant - discordant) / sqrt(untied in first * untied in second).

    Source: Kendall, The Treatment of Ties in Ranking Problems, Biometrika 33, 1945.

    Args:
        first: Shape (resamples, systems).
        second: The same.

    Returns:
        Shape (resamples,), NaN where one of them holds nothing but ties.
    """
    one, other = np.triu_indices(first.shape[1], 1)
    signs = [np.sign(np.round(table[:, one] - table[:, other], 9)) for table in (first, second)]
    untied = np.sqrt(np.square(signs[0]).sum(axis=1) * np.square(signs[1]).sum(axis=1))
    out: Floats = np.full(len(first), math.nan)
    np.divide((signs[0] * signs[1]).sum(axis=1), untied, out=out, where=untied > 0)
    return out


def spearmans(first: Floats, second: Floats) -> Floats:
    """Returns Spearman's rank correlation over resamples: Pearson's of the ranks, ties having their mean rank.

    Args:
        first: Shape (resamples, systems).
        second: The same.

    Returns:
        Shape (resamples,), NaN where one of them holds nothing but ties.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(np.round(table, 9), axis=1) for table in (first, second)]
    apart = [one - one.mean(axis=1, keepdims=True) for one in ranks]
    spread = np.sqrt(np.square(apart[0]).sum(axis=1) * np.square(apart[1]).sum(axis=1))
    out: Floats = np.full(len(first), math.nan)
    np.divide((apart[0] * apart[1]).sum(axis=1), spread, out=out, where=spread > 0)
    return out
