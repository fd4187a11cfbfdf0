"""Reading the arguments of a call, which a policy may write in many ways."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_RESULTS = 10
"""Maximum number of results of one query."""


class ToolArgumentError(ValueError):
    """An argument that a tool cannot use; the message is for the policy."""


def texts(arguments: Mapping[str, Any], *names: str) -> list[str]:
    """Return an argument that is a string or a list of strings; empty when it is missing, null or an empty list.

    Args:
        arguments: Arguments of the call.
        names: Names under which it may be given. The first one that is there counts.

    Raises:
        ToolArgumentError: It is something else.

    Example:
        >>> texts({"query": "red boat"}, "queries", "query"), texts({}, "url")
        (['red boat'], [])
    """
    name = next((name for name in names if name in arguments), "")
    value = arguments.get(name)
    if value is None:
        return []
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise ToolArgumentError(f"{name!r} must be a string or an array of strings")
    return listed


def number_of_results(arguments: Mapping[str, Any], default: int = MAX_RESULTS) -> int:
    """Return `top_k` within 1 and `MAX_RESULTS`.

    Raises:
        ToolArgumentError: It is not a number.

    Example:
        >>> number_of_results({"top_k": 50}), number_of_results({"top_k": 0}), number_of_results({})
        (10, 1, 10)
    """
    value = arguments.get("top_k", default)
    if not isinstance(value, int | float) or math.isnan(value):
        raise ToolArgumentError("'top_k' must be a whole number")
    return int(min(MAX_RESULTS, max(1, value)))


def single_line(text: str, limit: int) -> str:
    """Return the first line of a text, stripped and cut to a number of characters.

    Example:
        >>> single_line(" A boat\\nIMG_009: title: none", 100)
        'A boat'
    """
    lines = text.strip().splitlines()
    return lines[0].strip()[:limit] if lines else ""
