"""What is wrong with a value of a configuration, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORDS = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "tuple_type": "must be a list",
    "dict_type": "must have keys and values",
    "model_type": "must have keys and values",
    "missing": "is missing",
}
"""Problems in words, by pydantic's names of them."""


def value_problem(error: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, and the value where that helps.

    Args:
        error: One of the errors of pydantic: its type, its message and the input.

    Example:
        >>> value_problem({"type": "int_parsing", "msg": "Input should be …", "input": "three"})
        "must be a whole number, got 'three'"
    """
    said = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    given = "" if error["type"] in ("value_error", "missing") else f", got {error['input']!r}"
    return f"{_WORDS.get(error['type'], said)}{given}"
