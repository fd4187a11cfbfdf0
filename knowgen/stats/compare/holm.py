"""Holm's correction of p-values for several comparisons."""

from __future__ import annotations

from collections.abc import Sequence

from knowgen.stats.compare.records import ComparedSlice, Comparison
from knowgen.stats.summary import OVERALL


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


def corrected_subsets(slices: Sequence[ComparedSlice]) -> list[ComparedSlice]:
    """Return subsets with the p-values of their overalls corrected for the number of tested subsets of their kind."""
    p_values: dict[str, dict[int, float]] = {}
    for place, part in enumerate(slices):
        p = part.figures[OVERALL].p
        if part.kind != "all" and p is not None:
            p_values.setdefault(part.kind, {})[place] = p
    adjusted: dict[int, float] = {}
    for by_place in p_values.values():
        adjusted |= dict(zip(by_place, holm(list(by_place.values())), strict=True))
    return [_with_p(part, adjusted[place]) if place in adjusted else part for place, part in enumerate(slices)]


def _with_p(part: ComparedSlice, p: float) -> ComparedSlice:
    overall = part.figures[OVERALL].model_copy(update={"p_holm": p})
    return part.model_copy(update={"figures": {**part.figures, OVERALL: overall}})


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons with the p-values of their headlines corrected for their number.

    Args:
        comparisons: All comparisons of the family; those without a p-value are not counted.
    """
    p_values = [one.headline.p for one in comparisons]
    places = [place for place, p_value in enumerate(p_values) if p_value is not None]
    adjusted = dict(zip(places, holm([p_value for p_value in p_values if p_value is not None]), strict=True))
    return [
        one.model_copy(update={"p_holm": adjusted.get(place), "family": len(places)})
        for place, one in enumerate(comparisons)
    ]
