"""JSON in the scripts of a page, made in parts where the whole would need much memory."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

GLOBAL = "KNOWGEN_DATA"
"""Name of the object in the page that has all data by name."""

_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
_UNSAFE = re.compile("[<>&\u2028\u2029]")


class ScriptJson(str):
    """JSON that `as_script_json` has made. It takes a fraction of the memory of the values."""

    __slots__ = ()


def as_script_json(value: Any) -> ScriptJson:
    """Return JSON that is safe inside a script: no `<`, `>`, `&` and no line separators of Unicode.

    Numbers that JSON does not have (NaN, infinities) and lone surrogates become text, so that an unusual stored value
    cannot break the page.
    """
    if isinstance(value, ScriptJson):
        return value
    try:
        text = _dumped(value)
        text.encode()
    except (ValueError, TypeError):  # a UnicodeEncodeError is a ValueError
        text = _dumped(_plain(value))
    return ScriptJson(text.translate(_ESCAPES) if _UNSAFE.search(text) else text)


def script_list(parts: Iterable[ScriptJson]) -> ScriptJson:
    """Return the list of values that are JSON already."""
    return ScriptJson(f"[{','.join(parts)}]")


def script_object(**parts: ScriptJson) -> ScriptJson:
    """Return the object of values that are JSON already, in the order of the arguments."""
    entries = (f'"{name}":{part}' for name, part in parts.items())
    return ScriptJson(f"{{{','.join(entries)}}}")


_dumped = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str).encode


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_text(str(key)): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


def write_data(folder: Path, name: str, value: Any) -> None:
    """Write one value as `<folder>/<name>.js`, readable as `KNOWGEN_DATA["<name>"]`."""
    line = f'(window.{GLOBAL}=window.{GLOBAL}||{{}})["{name}"]={as_script_json(value)};\n'
    (folder / f"{name}.js").write_text(line, encoding="utf-8", newline="\n")
