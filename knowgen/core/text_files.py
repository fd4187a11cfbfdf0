"""Read text files that come from other machines: their encodings and line ends, and errors that name line and byte.

UTF-8 with or without a byte-order mark, UTF-16 and UTF-32 with one. Lines end with LF, CRLF or CR, and with nothing
else: U+2028, U+2029, U+0085 and vertical tabs are part of a line.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import select
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.text import error_message, one_line

MAX_BYTES = 1 << 30
"""Maximum size of a file that is read whole."""

MAX_PIPE_BYTES = 64 << 20
"""Maximum size of what is read from a pipe."""

PIPE_SECONDS = 5.0
"""Seconds to wait for somebody to write to a pipe."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it starts with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_KINDS = (
    (b"PK\x03\x04", "it is a zip archive, such as a spreadsheet: export it as text"),
    (b"\x1f\x8b", "it is compressed with gzip: unpack it"),
    (b"\x89PNG", "it is an image"),
    (b"\xff\xd8\xff", "it is an image"),
    (b"%PDF", "it is a PDF"),
)
_AS_UTF8 = "save the file as UTF-8"


def read_bytes(path: Path, *, fix: str = "") -> bytes:
    """Return the content of a regular file or a pipe.

    Args:
        path: The file.
        fix: How to fix it when the file does not exist.

    Raises:
        DataError: It is missing, a folder or a device, cannot be read, or is larger than `MAX_BYTES`.
    """
    where = str(path)
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            if status.st_size > MAX_BYTES:
                raise DataError(f"has {status.st_size} bytes, at most {MAX_BYTES} are read", where=where)
            return path.read_bytes()
        if stat.S_ISFIFO(status.st_mode):
            return _from_pipe(path)
    except FileNotFoundError as error:
        raise DataError("is missing", where=where, fix=fix or "check the path") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=where) from error
    except ValueError as error:
        raise DataError(f"not a valid file name ({error_message(error)})", where=one_line(where)) from error
    kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device"
    raise DataError(f"is {kind}, not a file", where=where, fix=fix or "name a file")


def _from_pipe(path: Path) -> bytes:
    """Read a pipe to its end. It is opened without waiting, because a pipe without a writer would block for ever."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123 - a descriptor
        poll = select.poll()
        poll.register(file, select.POLLIN | select.POLLHUP)
        if not poll.poll(PIPE_SECONDS * 1000):
            raise DataError("is a pipe to which nobody writes", where=str(path), fix="name a file")
        os.set_blocking(file.fileno(), True)
        data = file.read(MAX_PIPE_BYTES + 1)
    if len(data) > MAX_PIPE_BYTES:
        raise DataError(f"gives more than {MAX_PIPE_BYTES} bytes", where=str(path), fix="write it to a file")
    return data


def decode(data: bytes, where: str) -> str:
    """Return the text of a file's bytes, without a byte-order mark.

    Args:
        data: The bytes.
        where: Name of the file in the error.

    Raises:
        DataError: A byte is not valid in the encoding. The message names the line and the byte.

    Example:
        >>> decode(b"\\xef\\xbb\\xbfone", "a.txt"), decode("one".encode("utf-16"), "a.txt")
        ('one', 'one')
    """
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    if not mark and (kind := _other_kind(data)):
        raise DataError("is not text", where=where, fix=kind)
    if not mark and b"\0" in data[:4]:
        fix = f"{_AS_UTF8}, or as UTF-16 with a byte-order mark"
        raise DataError("is not text: it starts with a NUL byte, as UTF-16 without a mark does", where=where, fix=fix)
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        place = len(mark) + error.start
        raise _undecodable(data, place, encoding, where, data[: place + 1].count(b"\n") + 1) from error


def _other_kind(data: bytes) -> str:
    """Return what a file is that begins with these bytes; empty if it may be text."""
    return next((words for start, words in _KINDS if data.startswith(start)), "")


def _undecodable(data: bytes, place: int, encoding: str, where: str, line: int, before: int = 0) -> DataError:
    """Return the error of a byte at a place of the data, which begin after `before` bytes of the file."""
    what = f"byte {before + place + 1} of the file (0x{data[place]:02x}) is not {encoding.upper()}"
    return DataError(what, where=f"{where}:{line}", fix=_AS_UTF8)


def read_text(path: Path, *, fix: str = "") -> str:
    """Return the text of a file, without a byte-order mark; line ends are kept.

    Args:
        path: The file.
        fix: How to fix it when the file does not exist.

    Raises:
        DataError: The file cannot be read, or is not text.
    """
    return decode(read_bytes(path, fix=fix), str(path))


def split_lines(text: str) -> list[str]:
    """Return the lines of a text. Only LF, CRLF and CR end a line.

    Example:
        >>> split_lines("a\\u2028b\\r\\nc\\rd\\n")
        ['a\\u2028b', 'c', 'd']
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def numbered_lines(path: Path, *, fix: str = "") -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that are not blank, with their numbers from 1.

    A UTF-8 file is read line by line; any other is held in memory.

    Args:
        path: The file.
        fix: How to fix it when the file does not exist.

    Raises:
        DataError: The file cannot be read, or is not text.
    """
    lines = _utf8_lines(path) if _is_utf8(path) else enumerate(split_lines(read_text(path, fix=fix)), 1)
    yield from ((number, line) for number, line in lines if line.strip())


def _is_utf8(path: Path) -> bool:
    """Return whether a path is a regular file that does not begin like UTF-16, UTF-32 or a binary file."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(8)
    except (OSError, ValueError):
        return False
    others = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, *(start for start, _ in _KINDS))
    return b"\0" not in head[:4] and not head.startswith(others)


def _utf8_lines(path: Path) -> Iterator[tuple[int, str]]:
    number = start = 0
    try:
        with path.open("rb") as file:
            for raw in file:
                data = raw.removeprefix(codecs.BOM_UTF8) if not start else raw
                try:
                    text = data.decode("utf-8")
                except UnicodeDecodeError as error:
                    place = error.start + len(raw) - len(data)
                    raise _undecodable(raw, place, "utf-8", str(path), number + 1, start) from error
                start += len(raw)
                for line in split_lines(text):
                    number += 1
                    yield number, line
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {one_line(digits, 40)} is too large")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {one_line(double, 60)!r} is there twice")
    return fields


def parse_strict_json(text: str, where: str, *, nan: bool = False) -> Any:
    """Return the value of a JSON text that a user wrote; its errors name the place.

    Args:
        text: The text.
        where: File, or file and line, in the error.
        nan: Whether NaN and Infinity are read as numbers, as Python writes them.

    Raises:
        DataError: It is not JSON, is nested too deeply, contains a number that is not JSON, or a field twice.

    Example:
        >>> parse_strict_json('{"id": 1}', "a.jsonl:1")
        {'id': 1}
    """
    options: dict[str, Any] = {} if nan else {"parse_constant": _refuse_constant, "parse_float": _finite}
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates, **options)
    except json.JSONDecodeError as error:
        place = f" at line {error.lineno}, column {error.colno}" if "\n" in text else f" at column {error.colno}"
        fix = "fix that line" if "\n" not in text else "write it with a JSON library"
        raise DataError(f"invalid JSON: {error.msg}{place}", where=where, fix=fix) from error
    except RecursionError as error:
        raise DataError("invalid JSON: nested too deeply", where=where, fix="nest its values less deeply") from error
    except ValueError as error:  # a number of too many digits, NaN, or a field that is there twice
        raise DataError(f"invalid JSON: {error_message(error, 120)}", where=where, fix="fix it") from error
