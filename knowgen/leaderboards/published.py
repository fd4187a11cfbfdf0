"""Rows of a board that were published elsewhere: read strictly, kept as published, and checked by nobody here."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from knowgen.core.errors import DataError
from knowgen.core.text import count, from_csv_cell, one_line
from knowgen.core.text_files import read_text
from knowgen.leaderboards.folder import Board

SYSTEM, KIND = "system", "kind"
"""Columns of texts; all others hold numbers."""

_COLUMN = r"[a-z][a-z0-9_]*"
_NUMBER = r"\d{1,3}(?:\.\d{1,6})?"


@dataclass(frozen=True)
class PublishedSystem:
    """A system as published.

    Attributes:
        system: Its name.
        kind: Its kind in the words of the source; empty if the table has no such column.
        values: Number of each other column, in [0, 100]; None where the cell is empty.
    """

    system: str
    kind: str
    values: Mapping[str, float | None]


@dataclass(frozen=True)
class PublishedRows:
    """The published table of a board: as published, not checked.

    Attributes:
        source: Where the rows come from.
        url: Address of the source; empty if there is none.
        columns: Names of the columns of numbers, in order.
        rows: The systems, in the order of the file.
    """

    source: str
    url: str
    columns: tuple[str, ...]
    rows: tuple[PublishedSystem, ...]


def read_published(board: Board) -> PublishedRows | None:
    """Return the published rows of a board; None if it has none.

    The first column is `system`, the second may be `kind`. All others hold numbers from 0 to 100, as such tables print
    them; an empty cell is a missing number.

    Raises:
        DataError: The file is missing, has another header, a system twice, or a cell that is not such a number.
    """
    table = board.file.published
    if table is None:
        return None
    path = board.path / table.file
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        lines = [(reader.line_num, line) for line in reader if line]
    except csv.Error as error:
        raise DataError(f"is not CSV: {error}", where=f"{path}:{reader.line_num}") from error
    if len(lines) < 2:
        raise DataError("has no rows", where=str(path), fix="add a line for each system, or remove `published`")
    texts, columns = _header(lines[0][1], path)
    found: dict[str, PublishedSystem] = {}
    for number, line in lines[1:]:
        row = _row(line, texts, columns, f"{path}:{number}")
        if row.system.casefold() in found:
            raise DataError(f"the system {row.system!r} is listed twice", where=f"{path}:{number}")
        found[row.system.casefold()] = row
    return PublishedRows(table.source, table.url, columns, tuple(found.values()))


def _header(names: Sequence[str], path: Path) -> tuple[int, tuple[str, ...]]:
    """Return the number of columns of texts, and the names of the others."""
    texts = 2 if list(names[1:2]) == [KIND] else 1
    columns = tuple(names[texts:])
    fix = "begin it with `system`, and `kind` if there is one, then lower-case names of columns of numbers"
    if names[0] != SYSTEM or not columns or not all(re.fullmatch(_COLUMN, name) for name in columns):
        raise DataError(f"the header is {one_line(','.join(names), 120)!r}", where=f"{path}:1", fix=fix)
    if len(set(names)) < len(names):
        raise DataError("the header has a column twice", where=f"{path}:1")
    return texts, columns


def _row(line: Sequence[str], texts: int, columns: Sequence[str], where: str) -> PublishedSystem:
    expected = texts + len(columns)
    if len(line) != expected:
        raise DataError(f"has {count(len(line), 'cell')} instead of {expected}", where=where)
    system = one_line(from_csv_cell(line[0]))
    if not system:
        raise DataError("the name of the system is empty", where=where)
    values: dict[str, float | None] = {}
    for name, cell in zip(columns, line[texts:], strict=True):
        text = cell.strip()
        if text and not (re.fullmatch(_NUMBER, text) and float(text) <= 100):
            raise DataError(f"{name}: {one_line(cell, 40)!r} is not a number from 0 to 100", where=where)
        values[name] = float(text) if text else None
    return PublishedSystem(system, one_line(from_csv_cell(line[1])) if texts > 1 else "", values)
