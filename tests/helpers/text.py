"""What programs print, for tests."""

from __future__ import annotations


def one_line(text: str) -> str:
    """Return the only line of a text that is not blank; fail where there are others."""
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    return lines[0]
