"""Rows that were published elsewhere: a CSV file of a board, shown as it is."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from knowgen.core.errors import DataError
from knowgen.core.text_files import read_text
from knowgen.leaderboards.folder import Board
from knowgen.report.numbers import in_words

_WORDS = {"k_score": "K-Score", "sk": "Science & Knowledge,", "pop": "Pop Culture & News,"}


@dataclass(frozen=True)
class PublishedRows:
    """A table as published, not checked.

    Attributes:
        source: Where the rows come from.
        url: Web address of the source; empty if it has none that may be a link.
        columns: Title of each column, and whether it holds numbers only.
        lines: The cells as in the file.
    """

    source: str
    url: str
    columns: tuple[tuple[str, bool], ...]
    lines: tuple[tuple[str, ...], ...]


def published_rows(board: Board) -> PublishedRows | None:
    """Return the published rows of a board; None if it has none.

    Raises:
        DataError: The file is missing, or a line has another number of cells than the first.
    """
    table = board.file.published
    if table is None:
        return None
    path = board.path / table.file
    lines = [line for line in csv.reader(io.StringIO(read_text(path))) if line]
    if len(lines) < 2:
        raise DataError("has no rows", where=str(path), fix="add a line for each system, or remove `published`")
    for number, line in enumerate(lines, 1):
        if len(line) != len(lines[0]):
            what = f"has {len(line)} cells, the first line {len(lines[0])}"
            raise DataError(what, where=f"{path}:{number}", fix="give each line as many cells as the first")
    columns = tuple(
        (_title(name), all(_is_number(line[place]) for line in lines[1:])) for place, name in enumerate(lines[0])
    )
    return PublishedRows(table.source, web(table.url), columns, tuple(map(tuple, lines[1:])))


def web(address: str) -> str:
    """Return an address if a browser may open it as a page of the web; empty for any other scheme."""
    return address if address.startswith(("https://", "http://")) else ""


def _title(name: str) -> str:
    if name in _WORDS:
        return _WORDS[name]
    head, cut, rest = name.partition("_")
    words = f"{_WORDS[head]} {in_words(rest)}" if cut and head in _WORDS else in_words(name)
    return words[:1].upper() + words[1:]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return not text.strip()
    return True
