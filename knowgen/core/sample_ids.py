"""Ids of samples: text or whole numbers in files, compared as text in Unicode normal form C."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.text import one_line


def comparable_id(sample_id: str) -> str:
    """Return the form in which ids are compared, so that composed and decomposed letters are equal.

    Example:
        >>> comparable_id("e\\u0301") == comparable_id("\\u00e9")
        True
    """
    return sample_id if sample_id.isascii() else unicodedata.normalize("NFC", sample_id)


def id_text(value: Any, where: str, *, field: str = "id") -> str:
    """Return the id of a record as text; a whole number becomes its digits.

    Args:
        value: The value in the file.
        where: File and line or row, in the error.
        field: Name of the field, in the error.

    Raises:
        DataError: It is empty, null, true or false, a number with a fraction, a list or an object, or has a character
            that cannot be stored.

    Example:
        >>> id_text(7, "samples.jsonl:1")
        '7'
    """
    if isinstance(value, str) and value.strip():
        if not value.isascii() and value != value.encode("utf-8", "replace").decode():
            raise DataError(f"the {field} {one_line(value, 60)!r} is not valid Unicode", where=where, fix="change it")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    shown = one_line(json.dumps(value), 40)
    raise DataError(f"the {field} must be text or a whole number, got {shown}", where=where, fix=f"give it an {field}")


class SeenIds:
    """Finds duplicates among ids, also those that differ only in their Unicode form."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[str, str]] = {}

    def add(self, sample_id: str, place: str, where: str) -> None:
        """Remember an id.

        Args:
            sample_id: The id.
            place: Its place for the error of a later duplicate, such as `line 4`.
            where: File and line of this one.

        Raises:
            DataError: The id was there before.
        """
        form = comparable_id(sample_id)
        if form in self._places:
            earlier, first = self._places[form]
            unicode = "" if earlier == sample_id else " in another Unicode form"
            raise DataError(
                f"duplicate id {sample_id!r}, already on {first}{unicode}", where=where, fix="make ids unique"
            )
        self._places[form] = (sample_id, place)
