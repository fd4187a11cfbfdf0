"""Further fields of a request, which the user names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from knowgen.core.errors import UsageError
from knowgen.core.secrets import refuse_secrets

_OWN_ARGUMENTS = frozenset({"size", "quality", "moderation", "output_format"})
_REFERENCES = frozenset({"image", "image[]", "images", "url", "url[]", "input_references", "mask"})
_MADE_HERE = frozenset({"model", "prompt", "inputs", "messages", "n", "stream", "response_format", "sync_mode"})


def checked_fields(fields: Any, where: str, own: frozenset[str] = _OWN_ARGUMENTS) -> dict[str, Any]:
    """Return the fields of an argument `fields`.

    Args:
        fields: Values by name; None for none.
        where: Name of the generator in errors.
        own: Fields that are arguments of the generator.

    Raises:
        UsageError: They are not an object of JSON values, or one of them is made by the generator.
        ConfigError: One of them is a secret.

    Example:
        >>> checked_fields({"num_inference_steps": 50}, "generator openai:m")
        {'num_inference_steps': 50}
    """
    if fields is None:
        return {}
    example = "write fields={num_inference_steps: 50}"
    if not isinstance(fields, Mapping) or not all(isinstance(name, str) and name for name in fields):
        raise UsageError(f"fields must be names with values, got {fields!r}", where=where, fix=example)
    refuse_secrets({f"fields.{name}": value for name, value in fields.items()}, where=where)
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(fields), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f"a value of fields cannot be sent as JSON: {error}", where=where, fix=example) from error
    for name in plain:
        if name in own:
            raise UsageError(f"fields must not hold {name}", where=where, fix=f"write -g {name}=VALUE")
        if name == "seed":
            raise UsageError("fields must not hold the seed", where=where, fix="give the run --seed N")
        if name in _MADE_HERE | _REFERENCES:
            raise UsageError(f"fields must not hold {name}, which is made for each sample", where=where)
    return plain


def merged(body: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request with further fields; objects of the same name are joined.

    Example:
        >>> merged({"extra_body": {"seed": 7}}, {"extra_body": {"width": 512}})
        {'extra_body': {'seed': 7, 'width': 512}}
    """
    result = dict(body)
    for name, value in fields.items():
        inside = result.get(name)
        both = isinstance(inside, Mapping) and isinstance(value, Mapping)
        result[name] = merged(inside, value) if both else value  # type: ignore[arg-type]
    return result


def width_height(size: str, where: str = "") -> dict[str, int]:
    """Return width and height in pixels of a size such as `1024x768`.

    Args:
        size: The size.
        where: Name of the generator in errors.

    Raises:
        UsageError: It is not such a size.

    Example:
        >>> width_height("1024x768")
        {'width': 1024, 'height': 768}
    """
    width, mark, height = str(size).strip().casefold().partition("x")
    if not mark or not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise UsageError(f"size={size!r} is not WIDTHxHEIGHT", where=where, fix="write such as size=1024x1024")
    if not int(width) or not int(height):
        raise UsageError(f"size={size!r} has a side of 0 pixels", where=where, fix="write such as size=1024x1024")
    return {"width": int(width), "height": int(height)}
