"""Failures of a submission: reasons why scores are missing, with the number of scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from knowgen.core.records import Row
from knowgen.leaderboards.folder import Board
from knowgen.leaderboards.records import SubmissionResult
from knowgen.leaderboards.rows import rows_of
from knowgen.report.gallery import read_cell
from knowgen.stats.protocol import ScoringProtocol


@dataclass(frozen=True)
class MissingScores:
    """A reason why scores are missing.

    Attributes:
        state: One of `knowgen.stats.values.STATES`, never `scored`.
        reason: The reason in the submission; empty if there is none.
        count: Number of scores.
        sample: Id of the first sample with it.
    """

    state: str
    reason: str
    count: int
    sample: str


def missing_scores(
    result: SubmissionResult, board: Board, protocol: ScoringProtocol, samples: Iterable[str]
) -> tuple[MissingScores, ...]:
    """Return why scores are missing, the most frequent reason first.

    Args:
        result: Result of the submission.
        board: Its board.
        protocol: Scoring protocol of the board.
        samples: Ids of the samples with a missing score.
    """
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    troubled = set(samples)
    for row in rows_of(result, [sample for sample in board.samples if sample.id in troubled]):
        state = read_cell([row], protocol, board.file.scorer.dimensions)[0]
        if state != "scored":
            key = (state, _reason(row, state, protocol))
            counts[key] += 1
            first.setdefault(key, row.sample_id)
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return tuple(MissingScores(*key, number, first[key]) for key, number in ordered)


def _reason(row: Row, state: str, protocol: ScoringProtocol) -> str:
    if state.startswith("generation"):
        return row.generation_reason
    reading = row.lenient if protocol.reading == "lenient" and row.lenient is not None else row.strict
    return reading.reason
