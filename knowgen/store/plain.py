"""Records as JSON text, also where a model or a plugin put something into them that JSON or UTF-8 does not know."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from knowgen.core.secrets import mask_secrets
from knowgen.errors import DataError
from knowgen.records import Record

R = TypeVar("R", bound=Record)

_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = 1000


def as_json(record: R) -> tuple[R, str]:
    """Returns a record and its JSON text.

    Half a surrogate pair becomes U+FFFD, bytes and foreign objects become words; the record that is returned says
    what the text says. A result that was paid for is never lost to a stray character. Secrets are masked here last,
    because a plugin may repeat one in its words.
    """
    try:
        text = record.model_dump_json()
    except PydanticSerializationError:
        record = type(record).model_validate(_plain(record.model_dump()))
        text = record.model_dump_json()
    masked = mask_secrets(text)
    return (record, text) if masked == text else (type(record).model_validate_json(masked), masked)


def from_json(kind: type[R], text: str) -> R:
    """Returns the record a JSON text holds.

    Raises:
        DataError: It is damaged, or from another version of the records.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "record"
        raise DataError(
            f"holds a damaged {kind.__name__} ({field}: {first['msg']})",
            where="run.sqlite",
            fix="restore a copy or start again with --fresh",
        ) from error


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_SURROGATE.sub("\ufffd", str(key)): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    if hasattr(value, "item") and getattr(value, "size", 0) == 1:  # a number of an array library
        return _plain(value.item())
    return _SURROGATE.sub("\ufffd", str(value))[:_SHOWN]
