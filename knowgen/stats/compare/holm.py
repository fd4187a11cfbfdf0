"""Many comparisons: p-values that stay right when more than one difference is looked at."""

from __future__ import annotations

from collections.abc import Sequence

from knowgen.stats.compare.records import Comparison


def holm(chances: Sequence[float]) -> list[float]:
    """Returns p-values corrected by Holm's step-down method, in the order in which they came.

    The i-th smallest of m is multiplied by m - i + 1; none is smaller than those before it, and none is above 1 (Holm,
    A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6, 1979).

    Args:
        chances: p-values of one family of comparisons.
    """
    found, highest = [0.0] * len(chances), 0.0
    for rank, place in enumerate(sorted(range(len(chances)), key=lambda each: chances[each])):
        highest = max(highest, min(1.0, (len(chances) - rank) * chances[place]))
        found[place] = highest
    return found


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Returns comparisons with the p-values of their headlines corrected for one another.

    Args:
        comparisons: All that were made; one without a p-value takes no part.
    """
    chances = [one.headline.p_permutation for one in comparisons]
    places = [place for place, chance in enumerate(chances) if chance is not None]
    fixed = dict(zip(places, holm([chance for chance in chances if chance is not None]), strict=True))
    return [
        one.model_copy(update={"p_holm": fixed.get(place), "family": len(places)})
        for place, one in enumerate(comparisons)
    ]
