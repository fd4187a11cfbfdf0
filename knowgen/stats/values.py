"""Read rows into values: the state of each score, and the values by sample and dimension.

Figures, intervals and paired comparisons use the same table of values.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from knowgen.core.errors import DataError
from knowgen.core.records import (
    DIMENSIONS,
    TEXT,
    FailureCause,
    GenerationStatus,
    ParsedScore,
    Row,
    ScoreStatus,
    group_of,
)
from knowgen.stats.protocol import ScoringProtocol

Floats = NDArray[np.float64]

STATES = (
    "scored",
    "generation_failed",
    "generation_refused",
    "generation_unavailable",
    "generation_not_run",
    "score_failed",
    "score_refused",
    "score_not_run",
    "not_applicable",
)
"""States of an expected score, named as in `Coverage`; every score is in exactly one of them."""

SCORED_TEXT = len(STATES)
"""Column of `Values.coverage` that counts scores with a text value."""

_GENERATION_STATES = {
    GenerationStatus.FAILED: "generation_failed",
    GenerationStatus.REFUSED: "generation_refused",
    GenerationStatus.NOT_RUN: "generation_not_run",
}
_SCORE_STATES = {
    ScoreStatus.OK: "scored",
    ScoreStatus.FAILED: "score_failed",
    ScoreStatus.NOT_APPLICABLE: "not_applicable",
    ScoreStatus.NOT_RUN: "score_not_run",
}


def generation_state(status: GenerationStatus, cause: FailureCause | None) -> str:
    """Return the state of the scores of a generation without an image; empty if there is an image."""
    if status == GenerationStatus.FAILED and cause == FailureCause.INFRASTRUCTURE:
        return "generation_unavailable"
    return _GENERATION_STATES.get(status, "")


def counted(dimensions: Sequence[str], text_required: bool | None) -> list[str]:
    """Return the dimensions in which a sample without values of its own counts.

    If it is not known whether text is required, text counts as well; otherwise failing could raise the mean.
    """
    return [name for name in dimensions if name != TEXT or text_required is not False]


@dataclass(frozen=True)
class Unit:
    """Identity and properties of a sample, the unit of every interval."""

    id: str
    category: str
    group: str
    difficulty: str
    text_required: bool | None


@dataclass
class RowProblems:
    """Number of scores with problems that a summary must mention.

    Attributes:
        malformed: Scores that lack a declared dimension or have a value outside [0, 1].
        off_grid: Scores with a value that is not in the protocol's grid.
        required_text_na: Scores that report text as N/A although the prompt requires text.
    """

    malformed: int = 0
    off_grid: int = 0
    required_text_na: int = 0


@dataclass(frozen=True)
class Values:
    """Values of a set of rows under one protocol.

    Attributes:
        units: The N samples. If the sample is the unit they are sorted by id, so that the order of rows does not
            matter; otherwise they are in row order, because the published sums run in row order.
        table: Values in [0, 1], shape (slices, N, dimensions), NaN where there is none. One slice if the sample is the
            unit, otherwise one for each (repeat, judge repeat) with a score.
        coverage: Number of scores in each state, and last of scores with a text value, shape (N, len(STATES) + 1).
        repeats: Number of images per sample.
        judge_repeats: Number of scores per image.
        judges: Model names returned by the judges' endpoints, sorted.
        problems: Number of scores with problems.
        outside: Most frequent reason of the generations that failed for reasons outside the system; empty if there are
            none.
    """

    units: tuple[Unit, ...]
    table: Floats
    coverage: NDArray[np.int64]
    repeats: int
    judge_repeats: int
    judges: tuple[str, ...]
    problems: RowProblems
    outside: str = ""


@dataclass
class _GenerationValues:
    """One generation: its rows, and the values of its scores, by judge repeat."""

    status: GenerationStatus
    cause: FailureCause | None = None
    rows: dict[int, Row] = field(default_factory=dict)
    values: dict[int, dict[str, float]] = field(default_factory=dict)


_SampleGenerations = dict[int, _GenerationValues]
"""The generations of one sample by repeat."""


def read_values(
    rows: Iterable[Row], protocol: ScoringProtocol, dimensions: Sequence[str], *, refused: float | None = None
) -> Values:
    """Read the values of rows under a protocol.

    Args:
        rows: One row for each (sample, repeat, judge repeat), in any order.
        protocol: Scoring protocol.
        dimensions: Dimensions that the scorer gives values for.
        refused: Value that a refused score counts as in every dimension that applies; None to leave it out.

    Raises:
        DataError: A row is duplicated, or rows of one sample or generation contradict each other.
    """
    units, generations = _collect(rows)
    order = sorted(units) if protocol.unit == "sample" else list(units)
    repeats = sorted({repeat for by_repeat in generations.values() for repeat in by_repeat})
    judge_repeats = sorted({j for by_repeat in generations.values() for one in by_repeat.values() for j in one.rows})
    reader = _Reader(protocol, tuple(dimensions), refused)
    coverage = np.zeros((len(order), len(STATES) + 1), dtype=np.int64)
    for index, sample in enumerate(order):
        for repeat in repeats:
            generation = generations[sample].get(repeat, _GenerationValues(GenerationStatus.NOT_RUN))
            for judge in judge_repeats:
                state = reader.read(generation, judge)
                coverage[index, STATES.index(state)] += 1
                coverage[index, SCORED_TEXT] += TEXT in generation.values.get(judge, {})
    ordered = [generations[sample] for sample in order]
    if protocol.unit == "slice":
        slices = _by_slice(ordered, repeats, judge_repeats, tuple(dimensions))
        has_score = np.any(np.isfinite(slices), axis=(1, 2))  # a repeat without scores must not count as zeros
        table = slices[has_score] if has_score.any() else slices[:1]
    else:
        zeros = protocol.failed_generation == "zero" and _failures_may_count(coverage, protocol)
        required = [units[sample].text_required for sample in order]
        table = _by_sample(ordered, required, tuple(dimensions), zeros=zeros)
    if protocol.missing_sample_text is not None and TEXT in dimensions:
        text = table[:, :, list(dimensions).index(TEXT)]
        text[np.isnan(text) & np.isfinite(table).any(axis=2)] = protocol.missing_sample_text
    return Values(
        units=tuple(units[sample] for sample in order),
        table=table,
        coverage=coverage,
        repeats=max(len(repeats), 1),
        judge_repeats=max(len(judge_repeats), 1),
        judges=tuple(sorted(reader.judges - {""})),
        problems=reader.problems,
        outside=_outside(ordered),
    )


def _outside(ordered: Sequence[_SampleGenerations]) -> str:
    """Return the most frequent reason of the generations that failed for reasons outside the system."""
    reasons = Counter(
        next((row.generation_reason for row in one.rows.values() if row.generation_reason), "")
        for generations in ordered
        for one in generations.values()
        if generation_state(one.status, one.cause) == "generation_unavailable"
    )
    return reasons.most_common(1)[0][0] if reasons else ""


def _collect(rows: Iterable[Row]) -> tuple[dict[str, Unit], dict[str, _SampleGenerations]]:
    units: dict[str, Unit] = {}
    generations: dict[str, _SampleGenerations] = {}
    for row in rows:
        where = f"sample {row.sample_id!r}"
        unit = Unit(row.sample_id, row.category, group_of(row.category), row.difficulty, row.text_required)
        if units.setdefault(row.sample_id, unit) != unit:
            raise DataError("rows have different categories, difficulties or values of text_required", where=where)
        generation = generations.setdefault(row.sample_id, {}).setdefault(
            row.repeat, _GenerationValues(row.generation, row.generation_cause)
        )
        where += f", repeat {row.repeat}"
        if (generation.status, generation.cause) != (row.generation, row.generation_cause):
            raise DataError("rows have different generation statuses or causes", where=where)
        if row.judge_repeat in generation.rows:
            where += f", judge repeat {row.judge_repeat}"
            raise DataError("duplicate row", where=where, fix="remove one of the rows")
        generation.rows[row.judge_repeat] = row
    return units, generations


class _Reader:
    """Reader of scores under one protocol; it counts the scores with problems."""

    def __init__(self, protocol: ScoringProtocol, dimensions: tuple[str, ...], refused: float | None) -> None:
        self.protocol, self.dimensions, self.refused = protocol, dimensions, refused
        self.problems = RowProblems()
        self.judges: set[str] = set()

    def read(self, generation: _GenerationValues, judge: int) -> str:
        """Return the state of one score of a generation, and store its values in the generation if it has some."""
        if generation.status != GenerationStatus.OK:
            return generation_state(generation.status, generation.cause)
        row = generation.rows.get(judge)
        if row is None:
            return "score_not_run"
        lenient = self.protocol.reading == "lenient" and row.lenient is not None
        parsed = row.lenient if lenient and row.lenient is not None else row.strict
        if parsed.status == ScoreStatus.FAILED and row.score_cause == FailureCause.REFUSAL:
            if self.refused is not None:
                generation.values[judge] = dict.fromkeys(counted(self.dimensions, row.text_required), self.refused)
            return "score_refused"
        if parsed.status != ScoreStatus.OK:
            return _SCORE_STATES[parsed.status]
        values = self._values(parsed, row)
        if values is None:
            return "score_failed"
        generation.values[judge] = values
        self.judges.add(row.judge_returned)
        return "scored"

    def _values(self, parsed: ParsedScore, row: Row) -> dict[str, float] | None:
        """Return the values that count; None if the score cannot be used."""
        values = {name: parsed.values[name] for name in self.dimensions if name in parsed.values}
        for name in parsed.na:
            values.pop(name, None)
        absent = [name for name in self.dimensions if name not in values and name not in parsed.na]
        by_prompt = self.protocol.text_na == "prompt" and TEXT in self.dimensions
        if absent and (absent != [TEXT] or (by_prompt and row.text_required is True)):
            self.problems.malformed += 1
            return None
        if not all(math.isfinite(value) and 0 <= value <= 1 for value in values.values()):
            self.problems.malformed += 1
            return None
        if self._off_grid(values, row):
            self.problems.off_grid += 1
            return None
        if by_prompt and row.text_required is True and TEXT not in values:
            self.problems.required_text_na += 1
            values[TEXT] = self.protocol.required_text_na
        if by_prompt and row.text_required is False:
            values.pop(TEXT, None)
        return values

    def _off_grid(self, values: dict[str, float], row: Row) -> bool:
        from_reply = row.lenient is not None  # a measured score is not parsed from a reply and has no grid
        knowgen = set(self.dimensions) == set(DIMENSIONS)
        on_grid = all(value in self.protocol.grid for value in values.values())
        return self.protocol.off_grid == "fail" and from_reply and knowgen and not on_grid


def _failures_may_count(coverage: NDArray[np.int64], protocol: ScoringProtocol) -> bool:
    """Return whether failed generations may count 0.

    Without any score, they may only if they alone reach the protocol's coverage. Otherwise a run whose judge
    is down would show 0 because of a few failed generations, and so would a scorer that does not apply to the system.
    """
    count = dict(zip(STATES, coverage.sum(axis=0).tolist(), strict=False))
    failed = count["generation_failed"] + count["generation_refused"]
    needed = (Fraction(str(protocol.min_coverage)) or 1) * sum(count.values())
    return bool(count["scored"] or (failed >= needed and not count["not_applicable"]))


def _by_slice(
    ordered: list[_SampleGenerations], repeats: list[int], judges: list[int], dimensions: tuple[str, ...]
) -> Floats:
    """Return the values by (repeat, judge repeat) slice; NaN where a score is missing."""
    table = np.full((max(len(repeats) * len(judges), 1), len(ordered), len(dimensions)), math.nan)
    for index, generations in enumerate(ordered):
        for row, repeat in enumerate(repeats):
            for column, judge in enumerate(judges):
                values = generations[repeat].values.get(judge, {}) if repeat in generations else {}
                for name, value in values.items():
                    table[row * len(judges) + column, index, dimensions.index(name)] = value
    return table


def _by_sample(
    ordered: list[_SampleGenerations], required: list[bool | None], dimensions: tuple[str, ...], *, zeros: bool
) -> Floats:
    """Return values averaged over judge repeats of each generation, then over generations of each sample."""
    table = np.full((1, len(ordered), len(dimensions)), math.nan)
    for index, (generations, text) in enumerate(zip(ordered, required, strict=True)):
        per_generation = [
            _generation_values(generations[repeat], dimensions, text, zeros=zeros) for repeat in sorted(generations)
        ]
        for name, value in _means(per_generation, dimensions).items():
            table[0, index, dimensions.index(name)] = value
    return table


def _generation_values(
    generation: _GenerationValues, dimensions: tuple[str, ...], text_required: bool | None, *, zeros: bool
) -> dict[str, float]:
    if generation_state(generation.status, generation.cause) in ("generation_failed", "generation_refused"):
        return dict.fromkeys(counted(dimensions, text_required), 0.0) if zeros else {}
    return _means([generation.values[judge] for judge in sorted(generation.values)], dimensions)


def _means(parts: list[dict[str, float]], dimensions: tuple[str, ...]) -> dict[str, float]:
    by_dimension = {name: [part[name] for part in parts if name in part] for name in dimensions}
    return {name: plain_mean(values) for name, values in by_dimension.items() if values}


def plain_mean(values: Sequence[float]) -> float:
    """Return the mean, adding from left to right like `sum` in Python 3.11.

    Python 3.12 and later compensate rounding errors inside `sum`, which changes the last digit. Parity with the
    published arithmetic was verified on 3.11, so the loop is written out.

    Raises:
        ZeroDivisionError: There are no values.
    """
    total = 0.0
    for value in values:
        total += value
    return total / len(values)
