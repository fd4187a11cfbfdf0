"""Sizes for readers."""

from __future__ import annotations


def size_text(size: int) -> str:
    """Return a number of bytes in a unit that fits.

    Example:
        >>> size_text(999), size_text(1_234_567), size_text(20_000_000_000)
        ('999 bytes', '1.2 MB', '20.0 GB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
