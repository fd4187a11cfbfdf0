"""The claimed figures of a submission, computed again from its scores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from knowgen.core.text import one_line
from knowgen.leaderboards.checks.findings import BoardFinding, error
from knowgen.leaderboards.folder import RESULT_FILE, Board
from knowgen.leaderboards.records import SubmissionResult
from knowgen.leaderboards.rows import rows_of
from knowgen.stats.aggregate import aggregate
from knowgen.stats.summary import Figure, Summary

TOLERANCE = 1e-9
"""Largest difference between a claimed figure and the one that the scores give."""

_FIX = "make the file with `knowgen board add`, which computes it"


def recompute(result: SubmissionResult, board: Board) -> Summary:
    """Return the summary that the scores of a submission give under the board's protocol.

    Raises:
        DataError: The rows contradict each other.
    """
    return aggregate(
        rows_of(result, board.samples),
        board.file.protocol,
        dimensions=board.file.scorer.dimensions,
        task=board.file.task.name,
        scorer=board.file.scorer.name,
        selection=result.spec.selection.label,
    )


def check_figures(result: SubmissionResult, summary: Summary) -> Iterator[BoardFinding]:
    """Yield claimed figures, coverage and numbers of judges that do not follow from the scores."""
    figures = summary.slice().figures
    for name in sorted(result.claimed.keys() | figures.keys()):
        shown = one_line(name, 60)
        if name not in figures:
            yield error("figures", RESULT_FILE, f"claimed.{shown} is not a figure of the board", "remove it")
        elif name not in result.claimed:
            yield error("figures", RESULT_FILE, f"claimed.{shown} is missing", _FIX)
        elif not _equal(result.claimed[name], figures[name]):
            what = f"claimed.{shown} is {_shown(result.claimed[name])}, the scores give {_shown(figures[name].value)}"
            yield error("figures", RESULT_FILE, what, _FIX)
    claimed, counted = result.coverage.model_dump(), summary.slice().coverage.model_dump()
    for name, number in counted.items():
        if claimed[name] != number:
            what = f"coverage.{name} is {claimed[name]}, the scores give {number}"
            yield error("figures", RESULT_FILE, what, _FIX)
    judges = Counter(
        score.judge for sample in result.samples for one in sample.generations for score in one.scores if score.judge
    )
    for name in sorted(result.judges.keys() | judges.keys()):
        if result.judges.get(name, 0) != judges[name] or (name in result.judges and not judges[name]):
            what = f"judges.{one_line(name, 60)} is {result.judges.get(name, 0)}, the scores give {judges[name]}"
            yield error("figures", RESULT_FILE, what, _FIX)


def _equal(claimed: float | None, figure: Figure) -> bool:
    if claimed is None or figure.value is None:
        return claimed is None and figure.value is None
    return math.isclose(claimed, figure.value, rel_tol=0, abs_tol=TOLERANCE)


def _shown(value: float | None) -> str:
    return "no value" if value is None else f"{value:.12g}"
