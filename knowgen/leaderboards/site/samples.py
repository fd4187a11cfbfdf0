"""The results of single samples, read from a submission: state, values, failures with their reasons, and texts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from knowgen.core.records import Row
from knowgen.leaderboards.folder import Board
from knowgen.leaderboards.records import SubmissionResult, SubmittedGeneration
from knowgen.leaderboards.rows import rows_of
from knowgen.report.gallery import read_cell
from knowgen.stats.combine import observed
from knowgen.stats.protocol import ScoringProtocol, get_protocol
from knowgen.stats.values import STATES, read_values


@dataclass(frozen=True)
class SampleResult:
    """The result of a system on one sample.

    Attributes:
        state: One of `STATES`: `scored` if there is any score, otherwise the most frequent state.
        missing: Number of expected scores without values.
        overall: The value that the sample counts as, in [0, 1]: a weighted mean of the dimensions that apply; None if
            it is left out.
        values: Value of each dimension that it counts as; None where there is none.
    """

    state: str
    missing: int
    overall: float | None
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class SampleFailure:
    """A reason why scores are missing.

    Attributes:
        state: One of `STATES`, never `scored`.
        reason: The reason in the submission; empty if there is none.
        count: Number of scores.
        sample: Id of the first sample with it.
    """

    state: str
    reason: str
    count: int
    sample: str


@dataclass(frozen=True)
class SystemSamples:
    """The results of a system on all samples of its board.

    Attributes:
        results: Result of each sample in the order of the board; None for a sample that the submission does not have.
        failures: Reasons of missing scores, the most frequent first.
        generations: Generations by sample id.
    """

    results: tuple[SampleResult | None, ...]
    failures: tuple[SampleFailure, ...]
    generations: Mapping[str, tuple[SubmittedGeneration, ...]]


def system_samples(result: SubmissionResult, board: Board) -> SystemSamples:
    """Return the results of a submission on the samples of its board, under the board's protocol.

    Raises:
        DataError: A sample or score is listed twice.
    """
    protocol, dimensions = get_protocol(board.file.protocol), board.file.scorer.dimensions
    rows = list(rows_of(result, board.samples))
    read = read_values(rows, protocol, dimensions)
    table = observed(read.table, dimensions, protocol)
    found = {
        unit.id: _result(counts, line)
        for unit, counts, line in zip(read.units, read.coverage.tolist(), table.tolist(), strict=True)
    }
    troubled = {name for name, one in found.items() if one.missing}
    return SystemSamples(
        results=tuple(found.get(sample.id) for sample in board.samples),
        failures=tuple(_failures(rows, troubled, protocol, dimensions)),
        generations={sample.id: sample.generations for sample in result.samples},
    )


def _result(counts: Sequence[int], line: Sequence[float]) -> SampleResult:
    states = counts[: len(STATES)]
    state = STATES[0] if states[0] else STATES[states.index(max(states))]
    values = [None if math.isnan(value) else value for value in line]
    return SampleResult(state, sum(states) - states[0], values[-1], tuple(values[:-1]))


def _failures(
    rows: Sequence[Row], troubled: set[str], protocol: ScoringProtocol, dimensions: Sequence[str]
) -> Iterator[SampleFailure]:
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    for row in rows:
        if row.sample_id in troubled:
            state = read_cell([row], protocol, tuple(dimensions))[0]
            if state != "scored":
                key = (state, reason_of(row, state, protocol))
                counts[key] += 1
                first.setdefault(key, row.sample_id)
    for (state, reason), number in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        yield SampleFailure(state, reason, number, first[state, reason])


def reason_of(row: Row, state: str, protocol: ScoringProtocol) -> str:
    """Return why a score is missing, in the words of the submission."""
    if state.startswith("generation"):
        return row.generation_reason
    reading = row.lenient if protocol.reading == "lenient" and row.lenient is not None else row.strict
    return reading.reason
