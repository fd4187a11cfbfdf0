"""One-line text is printable and bounded for any input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from knowgen.core.text import count, error_message, error_summary, one_line


@given(some.text(some.characters()), some.none() | some.integers(1, 50))
def test_a_line_is_printable_and_within_its_limit(text: str, limit: int | None) -> None:
    line = one_line(text, limit)
    assert line.isprintable() and line == line.strip()
    assert limit is None or len(line) <= limit
    assert one_line(line, limit) == line


def test_printable_text_stays_as_it_is() -> None:
    assert one_line("Größe: 3 €, 図") == "Größe: 3 €, 図"
    assert one_line("exact", limit=5) == "exact"


@pytest.mark.parametrize(
    ("text", "line"),
    [("a\n\tb", "a b"), ("\x1b[31mred\x1b[0m", "[31mred [0m"), ("a\u202eb", "a b"), ("x\ud800y", "x y"), ("\x00", "")],
)
def test_control_characters_become_spaces(text: str, line: str) -> None:
    assert one_line(text) == line


def test_a_long_line_ends_with_an_ellipsis() -> None:
    assert one_line("abc def", limit=5) == "abc…"
    assert one_line("abcdef", limit=5) == "abcd…"


def test_an_error_without_a_message_is_named_by_its_type() -> None:
    assert error_message(ValueError(" ")) == error_summary(ValueError("")) == "ValueError"
    assert error_message(ValueError("bad\nvalue")) == "bad value"
    assert error_summary(OSError("disk full")) == "OSError: disk full"
    assert error_summary(ValueError("x" * 300), limit=10) == "ValueError: " + "x" * 9 + "…"


def test_numbers_agree_with_their_noun() -> None:
    assert (count(1, "image"), count(0, "image"), count(2, "entry", "entries")) == ("1 image", "0 images", "2 entries")
