"""Typesetting of lines into a space: one size for the heading, one for the rest, wrapped only if smaller type fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import ImageFont

from knowgen.core.errors import DataError

LEADING = 1.34
"""Line height as a multiple of the font size."""

_LARGEST, _UNWRAPPED_SMALLEST, _SMALLEST = 46, 28, 12
_BODY_SHARE = 0.8
_BODY_PREFERRED = 24
_MISSING_GLYPH = "\uffff"


@dataclass(frozen=True, slots=True)
class TextRow:
    """A row of text, with its font size in pixels and whether it belongs to the heading."""

    text: str
    size: int
    heading: bool


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Typeset rows of text.

    Attributes:
        rows: The rows, from top to bottom.
        width: Width of the widest row, in pixels.
        height: Height of all rows with their leading, in pixels.
    """

    rows: tuple[TextRow, ...]
    width: float
    height: float

    @property
    def smallest(self) -> int:
        """Smallest font size, in pixels."""
        return min(row.size for row in self.rows)


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's built-in scalable font at a size in pixels.

    Raises:
        DataError: If Pillow was built without FreeType.
    """
    loaded = ImageFont.load_default(size)
    if not isinstance(loaded, ImageFont.FreeTypeFont):
        raise DataError("Pillow has no scalable font", where="typeset", fix="install Pillow with FreeType support")
    return loaded


@lru_cache(maxsize=8192)
def text_width(text: str, size: int) -> float:
    """Return the width of a text at a font size, in pixels."""
    return font(size).getlength(text)


@lru_cache(maxsize=1024)
def _can_draw(letter: str) -> bool:
    glyphs = font(24)
    return letter == " " or bytes(glyphs.getmask(letter)) != bytes(glyphs.getmask(_MISSING_GLYPH))


def unsupported_letters(text: str) -> str:
    """Return the letters of a text that the font lacks, each once, in order; whitespace is ignored."""
    return "".join(dict.fromkeys(letter for letter in text if not letter.isspace() and not _can_draw(letter)))


def tidy_lines(lines: Sequence[str]) -> list[str]:
    """Return the lines with single spaces, without blank lines."""
    return [tidy for tidy in (" ".join(line.split()) for line in lines) if tidy]


def fit_text(lines: Sequence[str], max_width: float, max_height: float) -> TextBlock | None:
    """Typeset lines as large as they fit; the first is the heading.

    A smaller size is tried before wrapping; a wrapped line has one size and rows of similar length.

    Args:
        lines: Texts with single spaces, at least one.
        max_width: Maximum width in pixels.
        max_height: Maximum height in pixels.

    Returns:
        The typeset text; None if it does not fit at the smallest size.
    """
    for size, wrapped in _size_candidates():
        rows: list[TextRow] = []
        for index, line in enumerate(lines):
            heading = index == 0
            row_size = size if index == 0 else max(_SMALLEST, min(size, _body_size(size)))
            parts = _wrap(line, row_size, max_width) if wrapped else [line]
            rows += [TextRow(part, row_size, heading) for part in parts]
        width = max(text_width(row.text, row.size) for row in rows)
        height = sum(row.size * LEADING for row in rows)
        if width <= max_width and height <= max_height:
            return TextBlock(tuple(rows), width, height)
    return None


def _body_size(heading_size: int) -> int:
    return max(_BODY_PREFERRED, int(heading_size * _BODY_SHARE))


def _size_candidates() -> Iterator[tuple[int, bool]]:
    for size in range(_LARGEST, _UNWRAPPED_SMALLEST - 1, -2):
        yield size, False
    for size in range(_LARGEST - 8, _SMALLEST - 1, -2):
        yield size, True


def _wrap(line: str, size: int, max_width: float) -> list[str]:
    """Break a line at spaces into as few rows as possible, then narrow them while their number stays the same."""
    rows = _fill_rows(line, size, max_width)
    if len(rows) == 1:
        return rows
    for share in (0.6, 0.7, 0.8, 0.9):
        narrower = _fill_rows(line, size, max_width * share)
        widest = max(text_width(row, size) for row in narrower)
        if len(narrower) == len(rows) and widest <= max_width:
            return narrower
    return rows


def _fill_rows(line: str, size: int, max_width: float) -> list[str]:
    rows: list[str] = []
    for word in line.split():
        if rows and text_width(f"{rows[-1]} {word}", size) <= max_width:
            rows[-1] = f"{rows[-1]} {word}"
        else:
            rows.append(word)
    return rows
