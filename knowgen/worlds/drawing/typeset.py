"""Fitting lines of text into a space: one size for a heading, one for the rest, wrapped only when shrinking fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import ImageFont

from knowgen.core.errors import DataError

LEADING = 1.34
"""Height of a row of text, in font sizes."""

_LARGEST, _UNWRAPPED_SMALLEST, _SMALLEST = 46, 28, 12
_BODY_SHARE = 0.8
_BODY_PREFERRED = 24
_MISSING_GLYPH = "\uffff"


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it will stand: its text, font size in pixels, and whether it belongs to the heading."""

    text: str
    size: int
    heading: bool


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Rows set one below the other.

    Attributes:
        rows: The rows, from top to bottom.
        width: Width of the widest row, in pixels.
        height: Height of all rows with their leading, in pixels.
    """

    rows: tuple[Row, ...]
    width: float
    height: float

    @property
    def smallest(self) -> int:
        """Smallest font size used, in pixels."""
        return min(row.size for row in self.rows)


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Returns Pillow's built-in scalable font at a size in pixels.

    Raises:
        DataError: This Pillow was built without FreeType.
    """
    loaded = ImageFont.load_default(size)
    if not isinstance(loaded, ImageFont.FreeTypeFont):
        raise DataError("Pillow has no scalable font", where="typeset", fix="install Pillow with FreeType support")
    return loaded


@lru_cache(maxsize=8192)
def text_width(text: str, size: int) -> float:
    """Returns how wide a text is at a font size, in pixels."""
    return font(size).getlength(text)


@lru_cache(maxsize=1024)
def _can_draw(letter: str) -> bool:
    glyphs = font(24)
    return letter == " " or bytes(glyphs.getmask(letter)) != bytes(glyphs.getmask(_MISSING_GLYPH))


def unsupported_letters(text: str) -> str:
    """Returns the letters of a text that the font has no shape for, each once, in order; whitespace is no letter."""
    return "".join(dict.fromkeys(letter for letter in text if not letter.isspace() and not _can_draw(letter)))


def tidy_lines(lines: Sequence[str]) -> list[str]:
    """Returns the lines with single spaces, those without any letter left out."""
    return [tidy for tidy in (" ".join(line.split()) for line in lines) if tidy]


def fit_text(lines: Sequence[str], max_width: float, max_height: float) -> TextBlock | None:
    """Sets lines as large as they fit; the first is the heading.

    A line is shrunk before it is wrapped, and a wrapped line keeps one size and rows of like length.

    Args:
        lines: Texts with single spaces, at least one.
        max_width: Pixels across.
        max_height: Pixels down.

    Returns:
        The set text, or None when it does not fit at the smallest size.
    """
    for size, wrapped in _trials():
        rows: list[Row] = []
        for index, line in enumerate(lines):
            heading = index == 0
            row_size = size if index == 0 else max(_SMALLEST, min(size, _body_size(size)))
            parts = _wrap(line, row_size, max_width) if wrapped else [line]
            rows += [Row(part, row_size, heading) for part in parts]
        width = max(text_width(row.text, row.size) for row in rows)
        height = sum(row.size * LEADING for row in rows)
        if width <= max_width and height <= max_height:
            return TextBlock(tuple(rows), width, height)
    return None


def _body_size(heading_size: int) -> int:
    return max(_BODY_PREFERRED, int(heading_size * _BODY_SHARE))


def _trials() -> Iterator[tuple[int, bool]]:
    for size in range(_LARGEST, _UNWRAPPED_SMALLEST - 1, -2):
        yield size, False
    for size in range(_LARGEST - 8, _SMALLEST - 1, -2):
        yield size, True


def _wrap(line: str, size: int, max_width: float) -> list[str]:
    """Breaks a line at spaces into as few rows as fit, then narrows them while their number stays the same."""
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
