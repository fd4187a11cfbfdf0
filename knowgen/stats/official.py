"""Overalls and summary rows in the format of the official evaluator's result file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knowgen.core.records import DIMENSIONS, GROUPS
from knowgen.stats.combine import sample_overall
from knowgen.stats.protocol import OFFICIAL
from knowgen.stats.summary import OVERALL, Slice, Summary

WHOLE = "overall_avg"


def stored_overall(values: Mapping[str, float]) -> float | None:
    """Return the overall that the published evaluator stores for a sample: .1 F + .4 V + .4 T + .1 A, 2 decimals.

    The terms are added from left to right, as published, so that the last digit is the same.

    Args:
        values: Values of a parsed score; text accuracy is absent if it is N/A, and then counts .5.

    Returns:
        The overall in [0, 1]; None if there are no values.

    Example:
        >>> stored_overall(dict(faithfulness=1.0, visual_correctness=0.5, aesthetics=1.0))
        0.6
    """
    value = sample_overall(values, DIMENSIONS, OFFICIAL)
    return None if value is None else round(value, 2)


def summary_rows(summary: Summary) -> list[dict[str, Any]]:
    """Return the last three rows of a result file: one for each group, then the mean of both.

    Args:
        summary: Summary of the four KnowGen dimensions under the protocol `official`.

    Raises:
        ValueError: The summary has another protocol or other dimensions.
    """
    if summary.protocol != OFFICIAL.name or set(summary.dimensions) != set(DIMENSIONS):
        raise ValueError(
            f"official summary rows need the protocol official and the four KnowGen dimensions, got the protocol "
            f"{summary.protocol} and {', '.join(summary.dimensions)}"
        )
    rows = [_row(group, summary.slice("group", group)) for group in GROUPS]
    return [*rows, _row(WHOLE, summary.slice())]


def _row(name: str, part: Slice) -> dict[str, Any]:
    figures = {dimension: part.figures[dimension].value or 0.0 for dimension in (*DIMENSIONS, OVERALL)}
    return {"summary_type": name, "avg_scores": figures, "count": part.figures[OVERALL].n}
