"""No output reaches a terminal with control characters, and a missing, full or closed stream ends no run."""

from __future__ import annotations

import io
import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as some

from knowgen.core.console import CleanStream, OutputClosedError, clean_streams
from knowgen.core.errors import DataError
from knowgen.core.text import csv_cell, escape_controls, from_csv_cell, parse_json

HARMLESS = {"\n", "\t"}


@given(some.text(some.characters()))
def test_escaped_text_controls_no_terminal_and_loses_nothing(text: str) -> None:
    shown = escape_controls(text)
    for letter in set(shown) - HARMLESS:
        assert unicodedata.category(letter) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    if text.isprintable():
        assert shown == text


@given(some.text(some.characters(exclude_categories=["Cs"])))
def test_json_keeps_its_meaning(text: str) -> None:
    assert json.loads(escape_controls(json.dumps([text], ensure_ascii=False))) == [text]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\u001b]0;title\u0007"), ("\x9b2J", r"\u009b2J"), ("a\rb", r"a\u000db"),
        ("\u202egnp", r"\u202egnp"), ("a\u200bb", r"a\u200bb"), ("\U000e0041", r"\udb40\udc41"), ("\ud800", r"\ud800"),
        ("größe 図\t1\n", "größe 図\t1\n"),
    ],
)  # fmt: skip
def test_controls_are_visible(text: str, shown: str) -> None:
    assert escape_controls(text) == shown


class Tape(io.StringIO):
    """A stream with an encoding."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding


class Broken(Tape):
    """A stream that cannot be written."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error


def test_a_stream_writes_what_its_encoding_has_and_escapes_the_rest() -> None:
    tape = Tape("ascii")
    CleanStream(tape, "stdout").write("größe\n")
    assert tape.getvalue() == "gr\\xf6\\xdfe\n"


def test_progress_bars_draw_on_stderr_only() -> None:
    bar, moved, cut = "\r 3/8 ok", "\x1b[A\x1b[A", "name\rfake"
    err, out = Tape(), Tape()
    for text in (bar, moved, cut):
        CleanStream(err, "stderr").write(text)
        CleanStream(out, "stdout").write(text)
    assert err.getvalue() == "\r 3/8 ok\x1b[A\x1b[Aname\\u000dfake"
    assert "\r" not in out.getvalue() and "\x1b" not in out.getvalue()


@pytest.mark.parametrize("error", [OSError(28, "No space left"), BrokenPipeError(), ValueError("closed file")])
def test_what_stderr_does_not_take_is_dropped(error: Exception) -> None:
    assert CleanStream(Broken(error), "stderr").write("a note\n") == len("a note\n")


def test_an_error_of_stdout_differs_from_a_reader_that_has_left() -> None:
    with pytest.raises(DataError, match="standard output: cannot be written: No space left"):
        CleanStream(Broken(OSError(28, "No space left on device")), "stdout").write("a table\n")
    with pytest.raises(OutputClosedError):
        CleanStream(Broken(BrokenPipeError()), "stdout").write("a table\n")


def test_streams_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Tape(), Tape()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with clean_streams():
        print("\x1b[31mred")
        sys.stderr.write("\x1b[31mred")
    assert out.getvalue() == "\\u001b[31mred\n" and err.getvalue() == "\\u001b[31mred"
    assert sys.stdout is out and sys.stderr is err


@given(some.text())
def test_a_csv_cell_never_starts_a_formula_and_can_be_read_back(text: str) -> None:
    cell = csv_cell(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert from_csv_cell(cell) == text


@pytest.mark.parametrize("text", ["=1+1", "'=1", "''@x", "'s", "\uff1d1", "-", ""])
def test_apostrophes_of_the_text_itself_survive(text: str) -> None:
    assert from_csv_cell(csv_cell(text)) == text


def test_json_that_is_nested_too_deeply_is_invalid_json() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)
    assert parse_json(b'{"a": [1]}') == {"a": [1]}
