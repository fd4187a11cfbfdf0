"""What the official evaluator writes into its result file beside the judge's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knowgen.core.records import DIMENSIONS, GROUPS
from knowgen.stats.combine import sample_overall
from knowgen.stats.protocol import OFFICIAL
from knowgen.stats.summary import OVERALL, Slice, Summary

WHOLE = "overall_avg"


def stored_overall(values: Mapping[str, float]) -> float | None:
    """Returns the overall that the published evaluator stores with a sample: .1 F + .4 V + .4 T + .1 A, 2 decimals.

    Args:
        values: Of the lenient reading; text accuracy is absent where it is N/A, and counts .5.

    Returns:
        None where there are no values.
    """
    value = sample_overall(values, DIMENSIONS, OFFICIAL)
    return None if value is None else round(value, 2)


def summary_rows(summary: Summary) -> list[dict[str, Any]]:
    """Returns the three rows that end a result file: each group, then the mean of both.

    Args:
        summary: Made with the protocol `official` from the four KnowGen dimensions.

    Raises:
        ValueError: It was made otherwise.
    """
    if summary.protocol != OFFICIAL.name or set(summary.dimensions) != set(DIMENSIONS):
        raise ValueError(f"needs the four KnowGen dimensions under the protocol official, not {summary.protocol!r}")
    rows = [_row(group, summary.slice("group", group)) for group in GROUPS]
    return [*rows, _row(WHOLE, summary.slice())]


def _row(name: str, part: Slice) -> dict[str, Any]:
    figures = {dimension: part.figures[dimension].value or 0.0 for dimension in (*DIMENSIONS, OVERALL)}
    return {"summary_type": name, "avg_scores": figures, "count": part.figures[OVERALL].n}
