"""Data as script files: a page opened from disk cannot fetch, so its data comes as scripts that assign a global."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

GLOBAL = "KNOWGEN_DATA"
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def as_script_json(value: Any) -> str:
    """Returns JSON that is safe inside a script: no `<`, `>`, `&` and no line separators of Unicode.

    Numbers that JSON does not know (NaN, infinities) and lone surrogates come out as text that JSON does know, so that
    one odd value in a stored record cannot break the page.
    """
    text = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str)
    return text.translate(_ESCAPES)


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
    """Writes one value as `<folder>/<name>.js`, to be read as `KNOWGEN_DATA["<name>"]`."""
    line = f'(window.{GLOBAL}=window.{GLOBAL}||{{}})["{name}"]={as_script_json(value)};\n'
    (folder / f"{name}.js").write_text(line, encoding="utf-8")
