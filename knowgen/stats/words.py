"""Format counts."""

from __future__ import annotations


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: `1 generation`, `3 generations`.

    Args:
        number: Number of things.
        one: Noun in the singular.
        many: Noun in the plural; `one` with an s by default.
    """
    return f"{number} {one if number == 1 else many or one + 's'}"
