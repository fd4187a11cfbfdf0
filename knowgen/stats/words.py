"""Numbers in words."""

from __future__ import annotations


def count(number: int, one: str, many: str = "") -> str:
    """Writes a number with its noun: `1 drawing`, `3 drawings`.

    Args:
        number: How many.
        one: The noun in the singular.
        many: Its plural, where it is not formed with an s.
    """
    return f"{number} {one if number == 1 else many or one + 's'}"
