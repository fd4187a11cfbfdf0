"""How far the best system is ahead of the next, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence

from knowgen.report.answer import Lead, differences, ranked
from knowgen.report.view import System, View
from knowgen.stats.compare import compare
from knowgen.stats.summary import OVERALL, Summary


def lead_of(systems: Sequence[System], view: View) -> Lead | None:
    """Compares the two best systems of a view over the samples that both have.

    Returns:
        The difference, best minus second; None where there is no second system, the runs cannot be compared, or there
        are too few samples for an interval.
    """
    order = ranked(systems, view)[:2]
    if len(order) < 2 or differences(_summaries(order, view)):
        return None
    best, second = order
    found = compare(
        second.run.store.rows(view.scorer),
        best.run.store.rows(view.scorer),
        view.protocol,
        dimensions=view.dimensions,
        permutations=0,  # the interval alone is shown
        a_name=second.label,
        b_name=best.label,
    )
    figure = found.slices[0].figures[OVERALL]
    if figure.value is None or figure.low is None or figure.high is None:
        return None
    return Lead(figure.value, figure.low, figure.high, figure.n)


def _summaries(order: Sequence[System], view: View) -> list[Summary]:
    return [summary for system in order if (summary := view.summaries[system.index]) is not None]
