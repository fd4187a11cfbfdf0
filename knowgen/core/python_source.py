"""Parse Python source, also while other threads parse."""

from __future__ import annotations

import ast
import gc


def parse_python(source: str | bytes) -> ast.Module:
    """Return the syntax tree of a source.

    Python 3.11 counts the depth of all trees that are being built together. The garbage collector may let another
    thread run in the middle, and if that one parses as well, `ast.parse` ends with a `SystemError`. So the collector
    pauses meanwhile.

    Raises:
        SyntaxError, ValueError: It is not Python.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(source)
    finally:
        if enabled:
            gc.enable()
