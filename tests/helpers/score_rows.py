"""Builds score rows."""

from __future__ import annotations

from typing import Any

from knowgen.core.records import DIMENSIONS, TEXT, ParsedScore, Row, ScoreStatus, group_of
from knowgen.stats.protocol import STRICT

UNBOUND = STRICT.model_copy(update={"min_coverage": 0.0})
"""`strict` without its bound on coverage: for the arithmetic of a few rows, some of them without a score."""

FAILED = ParsedScore(status=ScoreStatus.FAILED, reason="no answer")
NOT_RUN = ParsedScore(status=ScoreStatus.NOT_RUN)
NOT_APPLICABLE = ParsedScore(status=ScoreStatus.NOT_APPLICABLE, reason="no references")


def reading(f: float, v: float, t: float | None, a: float) -> ParsedScore:
    """Return a score of the four dimensions; None for text is N/A."""
    values = dict(zip(DIMENSIONS, (f, v, t, a), strict=True))
    if t is None:
        del values[TEXT]
    return ParsedScore(status=ScoreStatus.OK, values=values, na=() if t is not None else (TEXT,))


def row(sample: str, category: str, score: ParsedScore | None = None, generation: str = "ok", **fields: Any) -> Row:
    """Return a row of one sample; without a score its status is not_run."""
    return Row(
        sample_id=sample,
        category=category,
        group=group_of(category),
        generation=generation,
        strict=score or NOT_RUN,
        **fields,
    )


def perfect(sample: str, category: str, **fields: Any) -> Row:
    return row(sample, category, reading(1, 1, 1, 1), text_required=True, **fields)
