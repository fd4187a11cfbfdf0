"""Read human labels from a CSV file with one line per image and rater.

Columns: `sample_id`; `system`, if several runs are rated; `repeat`, 0 by default; `rater`, if there are several; and
any of the dimensions, with values in [0, 1], blank if not rated or not applicable.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from knowgen.core.errors import DataError
from knowgen.core.sample_ids import comparable_id
from knowgen.core.text import from_csv_cell
from knowgen.core.text_files import read_text, split_lines

COLUMNS = ("sample_id", "system", "repeat", "rater")
SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "|"}
"""Separators of columns, with their names."""

HUMAN = "human"
"""Name of the rater if the file has no `rater` column."""

_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")


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

    The separator is the one with which the first line has a column `sample_id`: a comma, a semicolon, a tab or `|`.
    With any but the comma, a number may have a decimal comma.

    Args:
        path: Path of the file, in UTF-8 or UTF-16.
        dimensions: Dimensions that the scorers give values for.

    Raises:
        DataError: The file cannot be read, lacks a column, has a value outside [0, 1], or has two labels of one rater
            for an image; the error names the line.
    """
    separator, lines = _lines(path)
    try:
        number, head = next(lines)
    except StopIteration:
        fix = f"start with a line of column names: {COLUMNS[0]}, …"
        raise DataError("file is empty", where=str(path), fix=fix) from None
    names = [name.strip() for name in head]
    known = tuple(name for name in dimensions if name in names)
    ignored = _check_head(names, known, dimensions, f"{path}:{number}", separator)
    labels: list[Label] = []
    places: dict[tuple[str, str, int, str], int] = {}
    for number, cells in lines:
        if len(cells) > len(names):
            fix = "with a decimal comma, separate the columns with ;" if separator == "," else "fix that line"
            raise DataError(f"{len(cells)} cells for {len(names)} columns", where=f"{path}:{number}", fix=fix)
        label = _label(dict(zip(names, cells, strict=False)), known, number, f"{path}:{number}", separator)
        key = (label.system, comparable_id(label.sample), label.repeat, label.rater)
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


def _lines(path: Path) -> tuple[str, Iterator[tuple[int, list[str]]]]:
    """Return the separator of a file, and the cells of each line that is not blank with the number of its last line."""
    text = read_text(path)
    named = re.match(r"sep=(.)(?:\r\n|\n|\r)", text)  # a spreadsheet names the separator in a line of its own
    separator = named[1] if named else _separator(text)
    return separator, _cells(text[named.end() :] if named else text, separator, str(path), 1 if named else 0)


def _separator(text: str) -> str:
    """Return the separator with which the first line has a column `sample_id`, or else the most columns."""
    head = next((line for line in split_lines(text) if line.strip()), "")
    columns = {each: [cell.strip().strip('"') for cell in head.split(each)] for each in SEPARATORS}
    return max(SEPARATORS, key=lambda each: ("sample_id" in columns[each], len(columns[each])))


def _cells(text: str, separator: str, where: str, before: int) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"not valid CSV: {error}", where=f"{where}:{before + reader.line_num}") from error
        if any(cell.strip() for cell in cells):
            yield before + reader.line_num, cells


def _check_head(
    names: Sequence[str], known: Sequence[str], dimensions: Sequence[str], where: str, separator: str
) -> tuple[str, ...]:
    """Return the unknown columns; raise an error if the column names are not usable."""
    if "sample_id" not in names:
        found = ", ".join(repr(name[:40]) for name in names[:6]) + (", …" if len(names) > 6 else "")
        read = f"separated by {SEPARATORS.get(separator, repr(separator))}, the first line has {found}"
        raise DataError(f"column sample_id is missing; {read}", where=where, fix="add it to the first line")
    if repeated := next((name for name in names if name and names.count(name) > 1), None):
        raise DataError(f"duplicate column {repeated!r}", where=where)
    ignored = tuple(name for name in names if name and name not in COLUMNS and name not in dimensions)
    for name in ignored:
        if near := difflib.get_close_matches(name.lower().replace(" ", "_"), [*dimensions, *COLUMNS], n=1, cutoff=0.75):
            raise DataError(f"unknown column {name!r}", where=where, fix=f"did you mean {near[0]!r}?")
    if not known:
        raise DataError("no column of a dimension", where=where, fix=f"known dimensions: {', '.join(dimensions)}")
    return ignored


def _label(cells: dict[str, str], known: Sequence[str], number: int, where: str, separator: str) -> Label:
    fields = {name: from_csv_cell(cell.strip()) for name, cell in cells.items()}
    if not fields.get("sample_id"):
        raise DataError("sample_id is blank", where=where)
    repeat = fields.get("repeat") or "0"
    if not (repeat.isascii() and repeat.isdecimal()):
        raise DataError(f"repeat must be a whole number >= 0, got {repeat!r}", where=where)
    values = {name: _value(name, fields[name], where, separator) for name in known if fields.get(name)}
    rater = f"{HUMAN}:{fields['rater']}" if fields.get("rater") else HUMAN
    return Label(number, fields["sample_id"], fields.get("system", ""), int(repeat), rater, values)


def _value(name: str, text: str, where: str, separator: str) -> float:
    has_comma = bool(_DECIMAL_COMMA.fullmatch(text))
    if has_comma and separator == ",":
        what = f"{name} has a decimal comma, {text!r}, in a file that is separated by commas"
        raise DataError(what, where=where, fix="write a decimal point, or separate the columns with ;")
    try:
        value = float(text.replace(",", ".") if has_comma else text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:  # true for NaN as well
        fix = "leave it blank if not rated"
        raise DataError(f"{name} must be a number from 0 to 1, got {text!r}", where=where, fix=fix)
    return value
