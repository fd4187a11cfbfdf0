"""Text for messages: one printable line of bounded length, and numbers with their nouns; JSON from elsewhere."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

ERROR_LENGTH = 200
"""Default limit of an error message, in characters."""

_CONTROLS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of characters that control a terminal or the text direction, or that are not visible."""

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""Beginning of a cell that a spreadsheet may evaluate; the last four are the full-width forms of the signs."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def one_line(text: object, limit: int | None = None) -> str:
    """Return a text as one printable line.

    White space becomes single spaces. Characters that are not printable, such as control characters and lone
    surrogates, become spaces too, so that external text cannot control a terminal or break a file.

    Args:
        text: Text, or any object, which is converted with `str`.
        limit: Maximum length in characters; a longer line ends with an ellipsis. No limit when None.

    Example:
        >>> one_line("cannot connect:\\n  timed out")
        'cannot connect: timed out'
        >>> one_line("a long message", limit=7)
        'a long…'
    """
    line = _as_text(text)
    if not line.isprintable():
        line = "".join(letter if letter.isprintable() else " " for letter in line)
    line = " ".join(line.split())
    return line if limit is None or len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _as_text(value: object) -> str:
    """Return `str(value)`, or a statement that it cannot be read: a plugin's own class may raise anything there."""
    if type(value) is str:
        return value
    try:
        return str.__str__(str(value))
    except BaseException as error:  # noqa: BLE001 - the text of an error must not hide the error
        return f"(the text of this {type(value).__name__} cannot be read: {type(error).__name__})"


def escape_controls(text: str) -> str:
    r"""Return a text in which characters that control a terminal are visible escapes.

    Control characters other than line breaks and tabs, characters without a width, those that set the text direction,
    and lone surrogates become `\uXXXX`, which has the same meaning inside a JSON string.

    Example:
        >>> print(escape_controls("\x1b[31mred, \u202egnp.exe"))
        \u001b[31mred, \u202egnp.exe
    """
    if text.isprintable() or text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(
        _escaped(letter) if letter not in "\n\t" and unicodedata.category(letter) in _CONTROLS else letter
        for letter in text
    )


def _escaped(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def error_message(error: BaseException, limit: int | None = ERROR_LENGTH) -> str:
    """Return the message of an error on one line, or the name of its type when it has no message."""
    return one_line(error, limit) or type(error).__name__


def error_summary(error: BaseException, limit: int | None = ERROR_LENGTH) -> str:
    """Return the type of an error and its message on one line.

    Args:
        error: The error.
        limit: Maximum length of the message without the type, in characters.

    Example:
        >>> error_summary(OSError("disk full"))
        'OSError: disk full'
    """
    message = one_line(error, limit)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun.

    Args:
        number: The number.
        one: Singular of the noun.
        many: Plural of the noun; the singular with an s when empty.

    Example:
        >>> count(1, "image"), count(3, "image")
        ('1 image', '3 images')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def csv_cell(text: str) -> str:
    """Return a text as a cell of a CSV file that no spreadsheet takes for a formula.

    An apostrophe is put before a text that begins with `=`, `+`, `-`, `@`, a tab or a line break, and before one that
    begins with apostrophes and then one of these, so that `from_csv_cell` can tell them apart.

    Example:
        >>> csv_cell("=1+1"), csv_cell("'=1"), csv_cell("plain")
        ("'=1+1", "''=1", 'plain')
    """
    return f"'{text}" if _FORMULA.match(text) else text


def from_csv_cell(cell: str) -> str:
    """Return the text of a cell that `csv_cell` wrote.

    Example:
        >>> from_csv_cell("'=1+1"), from_csv_cell("''=1"), from_csv_cell("'s Hertogenbosch")
        ('=1+1', "'=1", "'s Hertogenbosch")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def parse_json(text: str | bytes) -> Any:
    """Parse JSON from a file or a service.

    Raises:
        ValueError: It is not JSON, or nested too deeply to be parsed.

    Example:
        >>> parse_json("[" * 100_000)
        Traceback (most recent call last):
            ...
        ValueError: nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def duration_text(seconds: float) -> str:
    """Return a duration in one unit, rounded to a whole number of it.

    Example:
        >>> duration_text(42), duration_text(1800), duration_text(86400)
        ('42 s', '30 min', '24 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def clean_text(text: str) -> str:
    """Return the text with lone surrogates replaced, so that it can be stored as UTF-8."""
    return _SURROGATE.sub("\ufffd", text)
