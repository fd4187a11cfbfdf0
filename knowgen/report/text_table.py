"""Tables of text, rendered for the terminal, as Markdown and as CSV. Names are escaped."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from knowgen.core.text import csv_cell

NAME_LIMIT = 60

NONE = "-"
"""Cell without a value. It is ASCII, for any terminal; pages use `numbers.NONE`."""

_MARKDOWN = re.compile(r"[\\`*|~]|(?<![^\W_])_|_(?![^\W_])|^#|\](?=[(\[:])|!(?=\[)")
"""Characters with a meaning in Markdown. Brackets are escaped only where a link target can follow."""


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        title: Title; empty for none.
        head: Names of the columns.
        rows: Rows with one cell for each column.
        left: Indices of left-aligned columns; the others are right-aligned.
        lines: Lines below the table.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: frozenset[int] = frozenset({0})
    lines: Sequence[str] = ()


def visible(text: str, limit: int | None = None) -> str:
    """Return a text that is safe to print on one line.

    White space becomes a space. Characters that control a terminal or the text direction, and those that are invisible
    or cannot be stored, become escapes such as `\\x1b`.

    Args:
        text: Any text.
        limit: Maximum length in characters; longer texts end with an ellipsis. None for no limit.
    """
    line = "".join(_shown(character) for character in " ".join(text.split()))
    return line if limit is None or len(line) <= limit else line[: limit - 3] + "..."


def _shown(character: str) -> str:
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
        return character.encode("unicode_escape").decode("ascii")
    return character


def width(text: str) -> int:
    """Return the width of a text in terminal columns: two for wide characters, none for combining ones."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def terminal_text(grids: Iterable[TextTable]) -> str:
    """Render tables in plain monospace, without trailing spaces, separated by an empty line."""
    return "\n\n".join(_terminal(grid) for grid in grids)


def _terminal(grid: TextTable) -> str:
    cells = [[visible(cell, NAME_LIMIT) for cell in row] for row in (grid.head, *grid.rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(grid.head))]
    lines = [visible(grid.title)] if grid.title else []
    for number, row in enumerate(cells):
        padded = []
        for column, cell in enumerate(row):
            space = " " * (widths[column] - width(cell))
            padded.append(cell + space if column in grid.left else space + cell)
        lines.append("  ".join(padded).rstrip())
        if number == 0:
            lines.append("  ".join("-" * size for size in widths))
    return "\n".join(lines + [visible(line) for line in grid.lines])


def markdown_text(grids: Iterable[TextTable]) -> str:
    """Render tables as Markdown, with every cell and line escaped and a final line break."""
    return "\n\n".join(_markdown(grid) for grid in grids) + "\n"


def escape_markdown(text: str) -> str:
    """Escape characters with a meaning in Markdown or HTML."""
    line = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\g<0>", line)


def _markdown(grid: TextTable) -> str:
    parts = [f"### {escape_markdown(grid.title)}", ""] if grid.title else []
    parts.append(_markdown_row([escape_markdown(cell) for cell in grid.head]))
    parts.append(_markdown_row([":--" if column in grid.left else "--:" for column in range(len(grid.head))]))
    parts += [_markdown_row([escape_markdown(visible(cell, NAME_LIMIT)) for cell in row]) for row in grid.rows]
    for line in grid.lines:
        parts += ["", escape_markdown(line)]
    return "\n".join(parts)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def csv_text(head: Sequence[str], rows: Iterable[Sequence[str | float | int | None]]) -> str:
    """Render rows as CSV with full precision (RFC 4180 quoting, `\\n` line ends); None is an empty field.

    A text that a spreadsheet would evaluate as a formula is prefixed with an apostrophe, see `csv_cell`.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow([_csv_cell(cell) for cell in row])
    return out.getvalue()


def _csv_cell(cell: str | float | int | None) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return csv_cell(visible(cell))
    return repr(cell)
