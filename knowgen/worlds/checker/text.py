"""Match required texts against recognised lines.

Case, spaces and punctuation are ignored. Glyphs that recognition confuses (l, I, 1 and i; O and 0) are equal; any other
wrong letter or digit makes a text wrong. Each required text needs a position of its own, at word boundaries, and may
continue on the next line at a space.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from knowgen.worlds.checker.ocr import CERTAIN, TextLine

_FOLDED = str.maketrans("li|o", "1110")
_SWAPPED_FOR_DIGITS = frozenset("lio|")
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:[,. ]\d{3})+(?![\d])")
_DECIMAL = re.compile(r"(?<=\d)\.(?=\d)")
_POINT = "."

INSIDE, WORD_EDGE, LINE_EDGE = 0, 1, 2
"""Boundary between two glyphs: none, of a word, of a line."""

_TOLERATED_LETTERS, _TOLERATED_SHARE = 20, 0.6
_FLOOD = 3.0

_GlyphPosition = tuple[int, int]


@dataclass(frozen=True, slots=True)
class TextMatch:
    """Match of the required texts.

    Attributes:
        recognised: Required texts that were recognised, in order.
        missing: Required texts that were not recognised.
        surplus: Number of recognised letters and digits beyond the required number, at least 0.
        flooded: Whether the surplus exceeds the tolerance.
        rivals: Other numbers in the image with as many digits as a required number that is also there.
        value: 1 if all are found, 0.5 if at least half are, else 0. Rivals or too much surplus limit it to 0.5; a much
            larger surplus gives 0.
    """

    recognised: tuple[str, ...]
    missing: tuple[str, ...]
    surplus: int
    flooded: bool
    rivals: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True)
class _Glyphs:
    """A sequence of glyphs: folded letters and digits, digit flags, boundaries before and after them, and positions."""

    letters: str
    digits: tuple[bool, ...]
    edges: tuple[int, ...]
    positions: tuple[_GlyphPosition, ...]


def find_texts(
    required: Sequence[str], lines: Sequence[TextLine], marks: Sequence[tuple[float, float, float, float]] = ()
) -> TextMatch:
    """Match required texts against recognised lines.

    Args:
        required: Texts that must be readable; those without a letter or digit are ignored.
        lines: Recognised lines.
        marks: Boxes of recognised subjects, as fractions of the image size. Their own marks may be read as a number,
            which counts as a rival only if it is read with certainty.

    Example:
        >>> line = TextLine("ORUVANE, 1931", score=1.0, box=(0.1, 0.1, 0.9, 0.2))
        >>> find_texts(["Oruvane", "1932"], [line]).missing
        ('1932',)
    """
    targets = [text for text in required if _to_glyphs(text, 0).letters]
    glyph_lines = [_to_glyphs(line.text, number) for number, line in enumerate(lines)]
    sequences = [_concatenate([glyph_lines[number] for number in order]) for order in _reading_orders(lines)]
    occupied: set[_GlyphPosition] = set()
    recognised: set[int] = set()
    for index in sorted(range(len(targets)), key=lambda number: -len(targets[number])):
        positions = _locate(_to_glyphs(targets[index], 0), sequences, occupied)
        if positions:
            occupied |= positions
            recognised.add(index)
    length = sum(len(_to_glyphs(text, 0).letters) for text in targets)
    letter_count = sum(len(run.letters) for run in glyph_lines)
    surplus = max(0, letter_count - length)
    rivals = _rivals(targets, [line.text for line in lines if line.score >= CERTAIN or not line.is_within(marks)])
    tolerance = _TOLERATED_LETTERS + _TOLERATED_SHARE * length
    share = len(recognised) / len(targets) if targets else 1.0
    value = 1.0 if share == 1 else 0.5 if share >= 0.5 else 0.0
    cap = 0.0 if surplus > _FLOOD * tolerance else 0.5 if surplus > tolerance or rivals else 1.0
    return TextMatch(
        recognised=tuple(text for index, text in enumerate(targets) if index in recognised),
        missing=tuple(text for index, text in enumerate(targets) if index not in recognised),
        surplus=surplus,
        flooded=surplus > tolerance,
        rivals=rivals,
        value=min(value, cap),
    )


def _normalise(text: str) -> str:
    """Return a text in Unicode form NFKC, without thousands separators."""
    plain = unicodedata.normalize("NFKC", text)
    return _GROUPED.sub(lambda match: re.sub(r"\D", "", match.group()), plain)


def _to_glyphs(text: str, line: int) -> _Glyphs:
    """Return the glyphs of a text."""
    letters: list[str] = []
    digits: list[bool] = []
    edges: list[int] = [LINE_EDGE]
    positions: list[_GlyphPosition] = []
    plain = _normalise(text)
    points = {match.start() for match in _DECIMAL.finditer(plain)}
    before, edge = "", LINE_EDGE
    for position, char in enumerate(plain):
        if not (char.isalnum() or char == "|" or position in points):
            edge = max(edge, WORD_EDGE)
            continue
        if letters:
            edge = max(edge, _edge_between(before, char))
            edges.append(edge)
        letters.append(char.casefold().translate(_FOLDED))
        digits.append(char.isdigit() or char == _POINT)
        positions.append((line, position))
        before, edge = char, INSIDE
    edges.append(LINE_EDGE)
    return _Glyphs("".join(letters), tuple(digits), tuple(edges), tuple(positions))


def _edge_between(before: str, after: str) -> int:
    """Return the boundary between two neighbouring characters, as in `toOruvane` and `412kg`."""
    if before.islower() and after.isupper():
        return WORD_EDGE
    if before.isdigit() == after.isdigit() or _POINT in (before, after):
        return INSIDE
    letter = after if before.isdigit() else before
    return INSIDE if letter.casefold() in _SWAPPED_FOR_DIGITS else WORD_EDGE


def _concatenate(runs: Sequence[_Glyphs]) -> _Glyphs:
    """Return the glyphs of consecutive lines as one sequence."""
    edges = [LINE_EDGE]
    for run in runs:
        edges += run.edges[1:] if run.letters else ()
    return _Glyphs(
        "".join(run.letters for run in runs),
        tuple(digit for run in runs for digit in run.digits),
        tuple(edges),
        tuple(place for run in runs for place in run.positions),
    )


def _reading_orders(lines: Sequence[TextLine]) -> list[list[int]]:
    """Return the lines in row order and in column order, since a text may be wrapped in either."""
    rows = _group_lines(lines, axis=1)
    columns = _group_lines(lines, axis=0)
    return [
        [number for row in rows for number in sorted(row, key=lambda number: lines[number].box[0])],
        [number for column in columns for number in sorted(column, key=lambda number: lines[number].box[1])],
    ]


def _group_lines(lines: Sequence[TextLine], axis: int) -> list[list[int]]:
    """Return groups of lines that overlap by half along an axis (0: columns, 1: rows)."""
    groups: list[list[int]] = []
    for number in sorted(range(len(lines)), key=lambda number: lines[number].box[axis] + lines[number].box[axis + 2]):
        start, end = lines[number].box[axis], lines[number].box[axis + 2]
        for group in groups:
            first = lines[group[0]].box
            shared = min(end, first[axis + 2]) - max(start, first[axis])
            if shared > 0.5 * min(end - start, first[axis + 2] - first[axis]):
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


def _locate(text: _Glyphs, sequences: Sequence[_Glyphs], occupied: set[_GlyphPosition]) -> set[_GlyphPosition]:
    """Return the positions of the first unused occurrence of a text; empty if there is none."""
    for sequence in sequences:
        start = sequence.letters.find(text.letters)
        while start >= 0:
            positions = set(sequence.positions[start : start + len(text.letters)])
            if _is_occurrence(text, sequence, start) and not positions & occupied:
                return positions
            start = sequence.letters.find(text.letters, start + 1)
    return set()


def _is_occurrence(text: _Glyphs, sequence: _Glyphs, start: int) -> bool:
    """Return whether an occurrence has word boundaries around it, breaks only at spaces, and has digits as digits."""
    length = len(text.letters)
    if sequence.edges[start] == INSIDE or sequence.edges[start + length] == INSIDE:
        return False
    digit_count = matching_digits = 0
    for offset in range(length):
        if text.digits[offset]:
            digit_count += 1
            matching_digits += sequence.digits[start + offset]
        if offset == 0:
            continue
        edge = sequence.edges[start + offset]
        within_number = text.digits[offset] and text.digits[offset - 1]
        if text.edges[offset] == INSIDE and (edge == LINE_EDGE or (edge == WORD_EDGE and within_number)):
            return False
    return 2 * matching_digits >= digit_count


def _numbers(text: str) -> list[str]:
    """Return the whole numbers of at least two digits in a text."""
    return re.findall(r"(?<![\d.])\d{2,}(?![\d.]*\d)", _normalise(text))


def _rivals(targets: Sequence[str], texts: Sequence[str]) -> tuple[str, ...]:
    """Return other numbers in the image with the length of a required number that is also there."""
    required = {number for text in targets for number in _numbers(text)}
    lengths = {len(number) for number in required}
    numbers = {number for text in texts for number in _numbers(text)}
    if not required & numbers:
        return ()
    return tuple(sorted(number for number in numbers - required if len(number) in lengths))
