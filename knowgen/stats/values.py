"""From rows to values: what became of each judgement, and one value a sample and dimension.

The same table of values feeds the figures, their intervals and the paired comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from knowgen.core.errors import DataError
from knowgen.core.records import (
    DIMENSIONS,
    TEXT,
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
    "generation_not_run",
    "judgement_failed",
    "judgement_not_run",
    "not_applicable",
)
"""What can become of an expected judgement: exactly one of these, named as in `Coverage`."""

JUDGED_TEXT = len(STATES)

_NO_DRAWING = {
    GenerationStatus.FAILED: "generation_failed",
    GenerationStatus.REFUSED: "generation_refused",
    GenerationStatus.NOT_RUN: "generation_not_run",
}
_READ = {
    ScoreStatus.OK: "scored",
    ScoreStatus.FAILED: "judgement_failed",
    ScoreStatus.NOT_APPLICABLE: "not_applicable",
    ScoreStatus.NOT_RUN: "judgement_not_run",
}


@dataclass(frozen=True)
class Unit:
    """A sample as the statistics see it: the unit of every interval."""

    id: str
    category: str
    group: str
    difficulty: str
    text_required: bool | None


@dataclass
class RowProblems:
    """Counts of judgements that a reader must hear of.

    Attributes:
        malformed: Lack a declared dimension, or hold a value outside [0, 1].
        off_grid: Hold a value the reply should not have held.
        required_text_na: Called the text not applicable where the prompt requires it.
    """

    malformed: int = 0
    off_grid: int = 0
    required_text_na: int = 0


@dataclass(frozen=True)
class Values:
    """Values of a set of rows under one protocol.

    Attributes:
        units: The N samples. Sorted by id where the sample is the unit, so that the order of rows cannot matter;
            else in the order in which they came, because the published sums run in row order.
        table: Shape (slices, N, dimensions), in [0, 1], NaN where there is no value. One slice where the sample is
            the unit, else those (repeat, judge repeat) in which anything was judged.
        coverage: Shape (N, len(STATES) + 1): counts of states, and last the judgements with a text value.
        repeats: Pictures a sample.
        judge_repeats: Judgements a picture.
        judges: Names the judges' endpoint returned, sorted.
        faults: What a reader must hear of.
    """

    units: tuple[Unit, ...]
    table: Floats
    coverage: NDArray[np.int64]
    repeats: int
    judge_repeats: int
    judges: tuple[str, ...]
    faults: RowProblems


@dataclass
class _GenerationValues:
    """One generation: its rows, and the values of those that were scored, by judge repeat."""

    status: GenerationStatus
    rows: dict[int, Row] = field(default_factory=dict)
    values: dict[int, dict[str, float]] = field(default_factory=dict)


StoredGenerations = dict[int, _GenerationValues]
"""Drawings of one sample, by repeat."""


def read_values(rows: Iterable[Row], protocol: ScoringProtocol, dimensions: Sequence[str]) -> Values:
    """Reads rows as a protocol says.

    Args:
        rows: In any order; each (sample, repeat, judge repeat) once.
        protocol: How to read them.
        dimensions: What the scorer gives values for.

    Raises:
        DataError: A row comes twice, or rows of one sample or drawing contradict each other.
    """
    units, drawings = _collect(rows)
    order = sorted(units) if protocol.unit == "sample" else list(units)
    repeats = sorted({repeat for held in drawings.values() for repeat in held})
    judge_repeats = sorted({judge for held in drawings.values() for one in held.values() for judge in one.rows})
    reader = _Reader(protocol, tuple(dimensions))
    coverage = np.zeros((len(order), len(STATES) + 1), dtype=np.int64)
    for index, sample in enumerate(order):
        for repeat in repeats:
            drawing = drawings[sample].get(repeat, _GenerationValues(GenerationStatus.NOT_RUN))
            for judge in judge_repeats:
                state = reader.read(drawing, judge)
                coverage[index, STATES.index(state)] += 1
                coverage[index, JUDGED_TEXT] += TEXT in drawing.values.get(judge, {})
    held = [drawings[sample] for sample in order]
    if protocol.unit == "slice":
        slices = _by_slice(held, repeats, judge_repeats, tuple(dimensions))
        judged = np.any(np.isfinite(slices), axis=(1, 2))  # a repeat that waits to be judged is no slice of zeros
        table = slices[judged] if judged.any() else slices[:1]
    else:
        zeros = protocol.failed_generation == "zero" and _failures_may_count(coverage, protocol)
        required = [units[sample].text_required for sample in order]
        table = _by_sample(held, required, tuple(dimensions), zeros=zeros)
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
        faults=reader.faults,
    )


def _collect(rows: Iterable[Row]) -> tuple[dict[str, Unit], dict[str, StoredGenerations]]:
    units: dict[str, Unit] = {}
    drawings: dict[str, StoredGenerations] = {}
    for row in rows:
        where = f"sample {row.sample_id!r}"
        unit = Unit(row.sample_id, row.category, group_of(row.category), row.difficulty, row.text_required)
        if units.setdefault(row.sample_id, unit) != unit:
            raise DataError("rows disagree on its category, difficulty or text_required", where=where)
        drawing = drawings.setdefault(row.sample_id, {}).setdefault(row.repeat, _GenerationValues(row.generation))
        where += f", repeat {row.repeat}"
        if drawing.status != row.generation:
            raise DataError("rows disagree on what became of its drawing", where=where)
        if row.judge_repeat in drawing.rows:
            where += f", judge repeat {row.judge_repeat}"
            raise DataError("comes twice", where=where, fix="drop one of the rows")
        drawing.rows[row.judge_repeat] = row
    return units, drawings


class _Reader:
    """Reads judgements under one protocol, and counts what a reader must hear of."""

    def __init__(self, protocol: ScoringProtocol, dimensions: tuple[str, ...]) -> None:
        self.protocol, self.dimensions = protocol, dimensions
        self.faults = RowProblems()
        self.judges: set[str] = set()

    def read(self, drawing: _GenerationValues, judge: int) -> str:
        """Returns the state of one judgement of a drawing and keeps its values when it is scored."""
        if drawing.status != GenerationStatus.OK:
            return _NO_DRAWING[drawing.status]
        row = drawing.rows.get(judge)
        if row is None:
            return "judgement_not_run"
        lenient = self.protocol.reading == "lenient" and row.lenient is not None
        reading = row.lenient if lenient and row.lenient is not None else row.strict
        if reading.status != ScoreStatus.OK:
            return _READ[reading.status]
        values = self._values(reading, row)
        if values is None:
            return "judgement_failed"
        drawing.values[judge] = values
        self.judges.add(row.judge_returned)
        return "scored"

    def _values(self, reading: ParsedScore, row: Row) -> dict[str, float] | None:
        """Returns the values that count, None when the judgement cannot be used."""
        values = {name: reading.values[name] for name in self.dimensions if name in reading.values}
        for name in reading.na:
            values.pop(name, None)
        lacks = [name for name in self.dimensions if name not in values and name not in reading.na]
        by_prompt = self.protocol.text_na == "prompt" and TEXT in self.dimensions
        if lacks and (lacks != [TEXT] or (by_prompt and row.text_required is True)):
            self.faults.malformed += 1
            return None
        if not all(math.isfinite(value) and 0 <= value <= 1 for value in values.values()):
            self.faults.malformed += 1
            return None
        if self._off_grid(values, row):
            self.faults.off_grid += 1
            return None
        if by_prompt and row.text_required is True and TEXT not in values:
            self.faults.required_text_na += 1
            values[TEXT] = self.protocol.required_text_na
        if by_prompt and row.text_required is False:
            values.pop(TEXT, None)
        return values

    def _off_grid(self, values: dict[str, float], row: Row) -> bool:
        parsed = row.lenient is not None  # a measure is not parsed from a reply, and has no grid
        knowgen = set(self.dimensions) == set(DIMENSIONS)
        on = all(value in self.protocol.grid for value in values.values())
        return self.protocol.off_grid == "fail" and parsed and knowgen and not on


def _failures_may_count(coverage: NDArray[np.int64], protocol: ScoringProtocol) -> bool:
    """Return whether failed generations may count 0.

    While nothing is scored they may only if they alone reach the protocol's coverage: a run whose judge is down would
    show 0 for its few failed generations, and so would a scorer that does not apply to the system.
    """
    count = dict(zip(STATES, coverage.sum(axis=0).tolist(), strict=False))
    failed = count["generation_failed"] + count["generation_refused"]
    needed = (Fraction(str(protocol.min_coverage)) or 1) * sum(count.values())
    return bool(count["scored"] or (failed >= needed and not count["not_applicable"]))


def _by_slice(
    held: list[StoredGenerations], repeats: list[int], judges: list[int], dimensions: tuple[str, ...]
) -> Floats:
    """Lays out the values as (repeat, judge repeat) slices; NaN where nothing was scored."""
    table = np.full((max(len(repeats) * len(judges), 1), len(held), len(dimensions)), math.nan)
    for index, drawings in enumerate(held):
        for row, repeat in enumerate(repeats):
            for column, judge in enumerate(judges):
                values = drawings[repeat].values.get(judge, {}) if repeat in drawings else {}
                for name, value in values.items():
                    table[row * len(judges) + column, index, dimensions.index(name)] = value
    return table


def _by_sample(
    held: list[StoredGenerations], required: list[bool | None], dimensions: tuple[str, ...], *, zeros: bool
) -> Floats:
    """Averages judge repeats within each drawing, then drawings within each sample; NaN where nothing counts."""
    table = np.full((1, len(held), len(dimensions)), math.nan)
    for index, (drawings, text) in enumerate(zip(held, required, strict=True)):
        per_drawing = [_drawing_values(drawings[repeat], dimensions, text, zeros=zeros) for repeat in sorted(drawings)]
        for name, value in _means(per_drawing, dimensions).items():
            table[0, index, dimensions.index(name)] = value
    return table


def _drawing_values(
    drawing: _GenerationValues, dimensions: tuple[str, ...], text_required: bool | None, *, zeros: bool
) -> dict[str, float]:
    if drawing.status in (GenerationStatus.FAILED, GenerationStatus.REFUSED):
        # Where nobody has settled whether text is required it counts 0 as well, or failing could raise the mean.
        counted = [name for name in dimensions if name != TEXT or text_required is not False]
        return dict.fromkeys(counted, 0.0) if zeros else {}
    return _means([drawing.values[judge] for judge in sorted(drawing.values)], dimensions)


def _means(parts: list[dict[str, float]], dimensions: tuple[str, ...]) -> dict[str, float]:
    held = {name: [part[name] for part in parts if name in part] for name in dimensions}
    return {name: plain_mean(values) for name, values in held.items() if values}


def plain_mean(values: Sequence[float]) -> float:
    """Adds from left to right and divides, as Python 3.11's `sum` does.

    Python 3.12 and later compensate rounding errors inside `sum`, which changes the last digit; parity with the
    published arithmetic was shown on 3.11, so the loop is written out.

    Raises:
        ZeroDivisionError: There are no values.
    """
    total = 0.0
    for value in values:
        total += value
    return total / len(values)
