"""Labels that people gave: a CSV file with a line a picture and rater.

Columns: `sample_id`; `system` where several runs are rated; `repeat`, 0 where there is none; `rater`, where there are
several; and any of the dimensions, each value in [0, 1], blank where it was not rated or does not apply.
"""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from knowgen.core.errors import DataError

COLUMNS = ("sample_id", "system", "repeat", "rater")
HUMAN = "human"


@dataclass(frozen=True)
class Label:
    """What one rater said of one picture.

    Attributes:
        line: Number of the line in the file, from 1.
        sample: Id of the sample.
        system: Name of the run; empty where the file has no such column.
        repeat: Of the drawing.
        rater: `human`, or `human:NAME` where the file names its raters.
        values: By dimension; what was left blank is absent.
    """

    line: int
    sample: str
    system: str
    repeat: int
    rater: str
    values: dict[str, float]


@dataclass(frozen=True)
class LabelFile:
    """A file of labels.

    Attributes:
        path: The file.
        dimensions: Those it has columns for.
        ignored: Its columns that mean nothing here, such as a comment.
        labels: In the order of the file.
    """

    path: Path
    dimensions: tuple[str, ...]
    ignored: tuple[str, ...]
    labels: tuple[Label, ...]


def read_labels(path: Path, dimensions: Sequence[str]) -> LabelFile:
    """Reads a file of labels.

    Args:
        path: The file, UTF-8.
        dimensions: What the scorers give values for.

    Raises:
        DataError: It cannot be read, lacks a column, holds a value outside [0, 1], or rates a picture twice; with the
            number of the line.
    """
    lines = _lines(path)
    try:
        number, head = next(lines)
    except StopIteration:
        raise DataError("is empty", where=str(path), fix=f"its first line names {', '.join(COLUMNS[:1])}, …") from None
    names = [name.strip() for name in head]
    known = tuple(name for name in dimensions if name in names)
    ignored = _check_head(names, known, dimensions, f"{path}:{number}")
    labels: list[Label] = []
    places: dict[tuple[str, str, int, str], int] = {}
    for number, cells in lines:
        label = _label(dict(zip(names, cells, strict=False)), known, number, f"{path}:{number}")
        if len(cells) > len(names):
            raise DataError(f"has {len(cells)} cells, the head {len(names)}", where=f"{path}:{number}")
        key = (label.system, label.sample, label.repeat, label.rater)
        if key in places:
            raise DataError(
                f"rates sample {label.sample!r} again, after line {places[key]}",
                where=f"{path}:{number}",
                fix="drop one of the lines, or name the raters in a column `rater`",
            )
        places[key] = number
        labels.append(label)
    if not any(label.values for label in labels):
        raise DataError("holds no label", where=str(path))
    return LabelFile(path, known, ignored, tuple(labels))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the lines that are not blank, each with the number at which it ends."""
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
                    raise DataError(f"is no CSV ({error})", where=f"{where}:{reader.line_num}") from error
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, cells
    except FileNotFoundError as error:
        raise DataError("is missing", where=where) from error
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", where=where, fix="save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=where) from error


def _check_head(names: Sequence[str], known: Sequence[str], dimensions: Sequence[str], where: str) -> tuple[str, ...]:
    """Returns the columns that mean nothing here; refuses a head that cannot be what was meant."""
    if "sample_id" not in names:
        raise DataError("has no column sample_id", where=where, fix="name it in the first line")
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise DataError(f"has two columns {twice!r}", where=where)
    ignored = tuple(name for name in names if name and name not in COLUMNS and name not in dimensions)
    for name in ignored:
        if near := difflib.get_close_matches(name.lower().replace(" ", "_"), [*dimensions, *COLUMNS], n=1, cutoff=0.75):
            raise DataError(f"unknown column {name!r}", where=where, fix=f"did you mean {near[0]!r}?")
    if not known:
        raise DataError("has no column of a dimension", where=where, fix=f"known are {', '.join(dimensions)}")
    return ignored


def _label(cells: dict[str, str], known: Sequence[str], number: int, where: str) -> Label:
    held = {name: cell.strip() for name, cell in cells.items()}
    if not held.get("sample_id"):
        raise DataError("sample_id is blank", where=where)
    repeat = held.get("repeat") or "0"
    if not (repeat.isascii() and repeat.isdecimal()):
        raise DataError(f"repeat is {repeat!r}, not a number from 0", where=where)
    values = {name: _value(name, held[name], where) for name in known if held.get(name)}
    rater = f"{HUMAN}:{held['rater']}" if held.get("rater") else HUMAN
    return Label(number, held["sample_id"], held.get("system", ""), int(repeat), rater, values)


def _value(name: str, text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:  # NaN as well
        raise DataError(f"{name} is {text!r}, not a number from 0 to 1", where=where, fix="leave it blank if not rated")
    return value
