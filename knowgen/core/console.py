"""The terminal: standard streams that exist, accept any text, and pass no control characters on.

All output of the command line goes through these streams: its own lines, those of click, tracebacks, and what libraries
and plugins print. Names, ids, models and errors come from files and services, so their text is not trusted.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from knowgen.core.errors import DataError
from knowgen.core.text import escape_controls

_CURSOR_UP = re.compile(r"(?:\x1b\[A)+")
"""What a progress bar above another one writes to move between them."""

_BEFORE_WRITES: list[Callable[[], None]] = []
"""What is called before a standard stream is written to."""


class OutputClosedError(Exception):
    """The reader of stdout, such as `head`, has closed it."""


class CleanStream:
    """A text stream that escapes control characters, and characters that the terminal's encoding does not have.

    A carriage return at the start of a write is passed on to stderr, because progress bars draw themselves that way.
    What stderr does not accept is dropped: a message that cannot be shown must not be a reason to end a run.

    Args:
        inner: The stream that is written to.
        name: `stdout` or `stderr`.
    """

    def __init__(self, inner: TextIO, name: str) -> None:
        self._inner = inner
        self._is_stderr = name == "stderr"
        self._encoding = getattr(inner, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write a text and return its length.

        Raises:
            OutputClosedError: The reader of stdout has closed it.
            DataError: Stdout cannot be written, for example because its disk is full.
        """
        _call_before_write()
        with self._reported():
            self._inner.write(self._clean(text))
        return len(text)

    def write_controls(self, text: str) -> None:
        """Write a text with control characters that the caller made itself; errors as in `write`.

        Anything in it that comes from outside must have gone through `escape_controls` or an encoding.
        """
        _call_before_write()
        with self._reported():
            self._inner.write(self._encodable(text))

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Pass on what was written; errors as in `write`."""
        with self._reported():
            self._inner.flush()

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of the stream below.

        Raises:
            AttributeError: It has none, or `buffer` is asked for where text must be escaped: click would write there.
        """
        if name == "buffer" and codecs.lookup(self._encoding).name == "ascii":
            raise AttributeError(name)
        return getattr(self._inner, name)

    def _clean(self, text: str) -> str:
        before = ""
        if self._is_stderr:
            if _CURSOR_UP.fullmatch(text):
                return text
            if text.startswith("\r"):
                before, text = "\r", text[1:]
        return before + self._encodable(escape_controls(text))

    def _encodable(self, text: str) -> str:
        """Return a text in which characters that the encoding lacks are visible escapes."""
        try:
            text.encode(self._encoding)
        except UnicodeEncodeError:
            text = text.encode(self._encoding, "backslashreplace").decode(self._encoding)
        return text

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError as error:
            if not self._is_stderr:
                raise OutputClosedError from error
        except (OSError, ValueError) as error:  # a ValueError when the stream was closed
            if not self._is_stderr:
                what = getattr(error, "strerror", None) or str(error)
                raise DataError(f"cannot be written: {what}", where="standard output") from error


def _call_before_write() -> None:
    for call in _BEFORE_WRITES:
        call()


@contextlib.contextmanager
def before_writes(call: Callable[[], None]) -> Iterator[None]:
    """Call something before each write to a `CleanStream` during the block, such as the removal of a progress bar.

    Args:
        call: Must be quick, and must not be disturbed by writes that it makes itself.
    """
    _BEFORE_WRITES.append(call)
    try:
        yield
    finally:
        _BEFORE_WRITES.remove(call)


def open_missing_streams() -> None:
    """Open the null device in place of standard streams that the process was started without.

    Otherwise the next files that are opened, such as a database, get the numbers of these streams, and what is printed
    goes into them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest free number
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - open until the end


@contextlib.contextmanager
def clean_streams() -> Iterator[None]:
    """Let stdout and stderr be `CleanStream`s during the block."""
    earlier = sys.stdout, sys.stderr
    if sys.stdout is not None:
        sys.stdout = CleanStream(sys.stdout, "stdout")
    if sys.stderr is not None:
        sys.stderr = CleanStream(sys.stderr, "stderr")
    try:
        yield
    finally:
        sys.stdout, sys.stderr = earlier


def discard_stdout() -> None:
    """Send what is still written to stdout to the null device, after its reader has closed it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
