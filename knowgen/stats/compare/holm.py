"""Holm's correction of p-values for several comparisons."""

from __future__ import annotations

from collections.abc import Sequence

from knowgen.stats.compare.records import Comparison


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's step-down method, in the given order.

    The i-th smallest of m p-values is multiplied by m - i + 1. The results are at most 1 and never decrease with the
    rank (Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6, 1979).

    Args:
        p_values: p-values of one family of comparisons.

    Example:
        >>> holm([0.02, 0.01])
        [0.02, 0.02]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons with the p-values of their headlines corrected for their number.

    Args:
        comparisons: All comparisons of the family; those without a p-value are not counted.
    """
    p_values = [one.headline.p_permutation for one in comparisons]
    places = [place for place, p_value in enumerate(p_values) if p_value is not None]
    adjusted = dict(zip(places, holm([p_value for p_value in p_values if p_value is not None]), strict=True))
    return [
        one.model_copy(update={"p_holm": adjusted.get(place), "family": len(places)})
        for place, one in enumerate(comparisons)
    ]
