"""Read human labels from a CSV file with one line per image and rater.

Columns: `sample_id`; `system`, if several runs are rated; `repeat`, 0 by default; `rater`, if there are several; and
any of the dimensions, with values in [0, 1], blank if not rated or not applicable.
"""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from knowgen.core.errors import DataError
from knowgen.core.text import from_csv_cell

COLUMNS = ("sample_id", "system", "repeat", "rater")
HUMAN = "human"
"""Name of the rater if the file has no `rater` column."""


@dataclass(frozen=True)
class Label:
    """Ratings of one image by one rater.

    Attributes:
        line: Number of the line in the file, from 1.
        sample: Id of the sample.
        system: Name of the run; empty if the file has no such column.
        repeat: Repeat of the generation.
        rater: `human`, or `human:NAME` if the file has a `rater` column.
        values: Value of each dimension that is not blank.
    """

    line: int
    sample: str
    system: str
    repeat: int
    rater: str
    values: dict[str, float]


@dataclass(frozen=True)
class LabelFile:
    """Content of a file of labels.

    Attributes:
        path: Path of the file.
        dimensions: Dimensions that have a column.
        ignored: Names of unknown columns, such as a comment.
        labels: Labels in the order of the file.
    """

    path: Path
    dimensions: tuple[str, ...]
    ignored: tuple[str, ...]
    labels: tuple[Label, ...]


def read_labels(path: Path, dimensions: Sequence[str]) -> LabelFile:
    """Read a file of labels.

    Args:
        path: Path of a CSV file in UTF-8.
        dimensions: Dimensions that the scorers give values for.

    Raises:
        DataError: The file cannot be read, lacks a column, has a value outside [0, 1], or has two labels of one rater
            for an image; the error names the line.
    """
    lines = _lines(path)
    try:
        number, head = next(lines)
    except StopIteration:
        fix = f"start with a line of column names: {COLUMNS[0]}, …"
        raise DataError("file is empty", where=str(path), fix=fix) from None
    names = [name.strip() for name in head]
    known = tuple(name for name in dimensions if name in names)
    ignored = _check_head(names, known, dimensions, f"{path}:{number}")
    labels: list[Label] = []
    places: dict[tuple[str, str, int, str], int] = {}
    for number, cells in lines:
        label = _label(dict(zip(names, cells, strict=False)), known, number, f"{path}:{number}")
        if len(cells) > len(names):
            raise DataError(
                f"{len(cells)} cells for {len(names)} columns", where=f"{path}:{number}", fix="fix that line"
            )
        key = (label.system, label.sample, label.repeat, label.rater)
        if key in places:
            raise DataError(
                f"second label of sample {label.sample!r}, after line {places[key]}",
                where=f"{path}:{number}",
                fix="remove one of the lines, or name the raters in a column `rater`",
            )
        places[key] = number
        labels.append(label)
    if not any(label.values for label in labels):
        raise DataError("no labels: all values are blank", where=str(path), fix="fill in the columns of the dimensions")
    return LabelFile(path, known, ignored, tuple(labels))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line that is not blank, with the number of its last line."""
    where = str(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            while True:
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    raise DataError(f"not valid CSV: {error}", where=f"{where}:{reader.line_num}") from error
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, cells
    except FileNotFoundError as error:
        raise DataError("file not found", where=where) from error
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", where=where, fix="save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=where) from error


def _check_head(names: Sequence[str], known: Sequence[str], dimensions: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the unknown columns; raise an error if the column names are not usable."""
    if "sample_id" not in names:
        raise DataError("column sample_id is missing", where=where, fix="add it to the first line")
    if repeated := next((name for name in names if name and names.count(name) > 1), None):
        raise DataError(f"duplicate column {repeated!r}", where=where)
    ignored = tuple(name for name in names if name and name not in COLUMNS and name not in dimensions)
    for name in ignored:
        if near := difflib.get_close_matches(name.lower().replace(" ", "_"), [*dimensions, *COLUMNS], n=1, cutoff=0.75):
            raise DataError(f"unknown column {name!r}", where=where, fix=f"did you mean {near[0]!r}?")
    if not known:
        raise DataError("no column of a dimension", where=where, fix=f"known dimensions: {', '.join(dimensions)}")
    return ignored


def _label(cells: dict[str, str], known: Sequence[str], number: int, where: str) -> Label:
    fields = {name: from_csv_cell(cell.strip()) for name, cell in cells.items()}
    if not fields.get("sample_id"):
        raise DataError("sample_id is blank", where=where)
    repeat = fields.get("repeat") or "0"
    if not (repeat.isascii() and repeat.isdecimal()):
        raise DataError(f"repeat must be a whole number >= 0, got {repeat!r}", where=where)
    values = {name: _value(name, fields[name], where) for name in known if fields.get(name)}
    rater = f"{HUMAN}:{fields['rater']}" if fields.get("rater") else HUMAN
    return Label(number, fields["sample_id"], fields.get("system", ""), int(repeat), rater, values)


def _value(name: str, text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:  # true for NaN as well
        fix = "leave it blank if not rated"
        raise DataError(f"{name} must be a number from 0 to 1, got {text!r}", where=where, fix=fix)
    return value
