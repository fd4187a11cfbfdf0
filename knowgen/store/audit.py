"""Check a run's database against itself: the columns of each row against its record.

Each row holds a full record as JSON, and beside it the columns used for look-ups. `report`, `export` and the statistics
read the records; people who open the file see the columns. Both are written together and must agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from knowgen.core.errors import DataError
from knowgen.core.records import AgentAnswer, Generation, GroundTruth, Sample, Score
from knowgen.core.steps import counted
from knowgen.store.database import Database, has_table
from knowgen.store.rows import Statement, answer_row, from_json, generation_row, sample_row, score_row

_SAMPLES = ("place", "sample_id", "category", "category_group", "difficulty", "text_required")
_GENERATIONS = ("key", "sample_id", "repeat", "status", "reason", "image", "seconds", "cost", "attempts")
_ANSWERS = ("key", "sample_id", "repeat", "status", "reason", "ending", "seconds", "cost", "attempts")
_SCORES = (
    "key", "sample_id", "repeat", "scorer", "scorer_hash", "judge_repeat", "image", "status", "reason",
    "strict_values", "seconds", "cost", "tries",
)  # fmt: skip
"""Columns of each table in the order of its insert statement, without the records."""


@dataclass(frozen=True)
class RowFault:
    """A row whose columns disagree with its record, or whose record cannot be read.

    Attributes:
        where: Table, sample and further numbers of the row.
        what: What is wrong.
    """

    where: str
    what: str


def row_faults(database: Database) -> Iterator[RowFault]:
    """Yield the faults of all rows of a database, current or not."""
    for row in _rows(database, "samples", (*_SAMPLES, "sample", "truth")):
        where = f"samples, sample {row[1]!r}"
        yield from _faults(where, _SAMPLES, row[:-2], lambda row=row: _sample(row))
    for row in _rows(database, "answers", (*_ANSWERS, "record")) if has_table(database, "answers") else ():
        where = f"answers, sample {row[1]!r}, repeat {row[2]}"
        yield from _faults(
            where,
            _ANSWERS,
            row[:-1],
            lambda row=row: answer_row(row[0], from_json(AgentAnswer, row[-1])),
        )
    for row in _rows(database, "generations", (*_GENERATIONS, "record")):
        where = f"generations, sample {row[1]!r}, repeat {row[2]}"
        yield from _faults(
            where,
            _GENERATIONS,
            row[:-1],
            lambda row=row: generation_row(row[0], from_json(Generation, row[-1])),
        )
    for row in _rows(database, "scores", (*_SCORES, "record")):
        where = f"scores, sample {row[1]!r}, repeat {row[2]}, scorer {row[3]!r}, judge repeat {row[5]}"
        yield from _faults(
            where,
            _SCORES,
            row[:-1],
            lambda row=row: score_row(row[0], from_json(Score, row[-1]), row[4]),
        )


def _rows(database: Database, table: str, columns: tuple[str, ...]) -> Iterator[tuple[object, ...]]:
    return counted(_read_rows(database, table, columns), f"checking rows of {table}")


def _read_rows(database: Database, table: str, columns: tuple[str, ...]) -> Iterator[tuple[object, ...]]:
    order = "place" if table == "samples" else "number"
    last = -1
    while True:
        sql = f"select {order}, {', '.join(columns)} from {table} where {order} > ? order by {order} limit 256"
        page = database.read(sql, (last,))
        if not page:
            return
        last = page[-1][0]
        yield from (row[1:] for row in page)


def _sample(row: tuple[object, ...]) -> Statement:
    sample, truth = from_json(Sample, str(row[-2])), from_json(GroundTruth, str(row[-1]))
    return sample_row(int(str(row[0])), sample, truth)


def _faults(where: str, names: tuple[str, ...], stored: tuple[object, ...], made: object) -> Iterator[RowFault]:
    assert callable(made)
    try:
        expected = made()[1]
    except (DataError, ValueError) as error:
        yield RowFault(where, f"its record cannot be read: {error}")
        return
    for name, there, own in zip(names, stored, expected, strict=False):
        same = bool(there) == bool(own) if isinstance(own, bool) and there is not None else there == own
        if not same:
            yield RowFault(where, f"the column {name} is {_short(there)}, the record has {_short(own)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
