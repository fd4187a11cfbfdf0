"""Where in a user's code an error was raised, and its traceback as bounded text."""

from __future__ import annotations

import sysconfig
import traceback
from functools import cache
from pathlib import Path

TRACEBACK_LENGTH = 8000
"""Maximum length of a traceback in characters."""

_OWN = str(Path(__file__).resolve().parents[1])


@cache
def _installed() -> tuple[str, ...]:
    """Return the folders of the standard library and of installed packages."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({sysconfig.get_path(name) for name in names})


def is_local(file: str) -> bool:
    """Return whether a source file is the user's own: not of Python, an installed package or this project.

    Example:
        >>> import json
        >>> is_local(json.__file__), is_local("/home/me/duck.py")
        (False, True)
    """
    if not file or file.startswith("<") or "/site-packages/" in file or "/dist-packages/" in file:
        return False
    return not any(file.startswith(f"{folder}/") for folder in (*_installed(), _OWN))


def place_of(error: BaseException) -> str:
    """Return file name and line of the innermost frame in the user's own code, such as `duck.py:12`.

    Without one it is the innermost frame of an installed package; empty for an error of this project alone.
    """
    try:
        frames = traceback.extract_tb(error.__traceback__)
    except Exception:  # noqa: BLE001 - the traceback of a hostile error may be anything
        return ""
    foreign = [frame for frame in frames if not frame.filename.startswith((f"{_OWN}/", "<"))]
    local = [frame for frame in foreign if is_local(frame.filename)]
    chosen = (local or foreign)[-1:]
    return f"{Path(chosen[0].filename).name}:{chosen[0].lineno}" if chosen else ""


def traceback_text(error: BaseException, limit: int = TRACEBACK_LENGTH) -> str:
    """Return the traceback of an error; of a long one the beginning and the end.

    Args:
        error: The error.
        limit: Maximum length in characters.
    """
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException as second:  # noqa: BLE001 - formatting calls the error's own methods
        text = f"{type(error).__name__} (its text cannot be read: {type(second).__name__})\n"
        text += "".join(traceback.format_tb(error.__traceback__))
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"
