"""Reads the rows of the published data sets, in whichever of the known spellings they come."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.records import Sample, group_of
from knowgen.core.text import error_message

PROMPT_FIELDS = ("prompt", "question", "user_prompt", "image_prompt")
PICTURE_FIELDS = ("gt_image", "ground_truth", "target_image", "reference_image", "gen_image")
ROLES = ("system", "user", "assistant")
IMAGE_MARK = "<image>"
"""Stands in a message where a picture belongs."""


@dataclass(frozen=True)
class PublishedRow:
    """A row as it was published.

    Attributes:
        number: From 1, in file order.
        where: File, number and id, for errors.
        id: As a string; empty when the row has none.
        data: Its fields.
    """

    number: int
    where: str
    id: str
    data: Mapping[str, Any] = field(repr=False)

    @property
    def prompt(self) -> str:
        """The prompt under any of `PROMPT_FIELDS`, the first that is not empty; empty when there is none."""
        found = self._first(PROMPT_FIELDS)
        return found if isinstance(found, str) and found.strip() else ""

    @property
    def picture(self) -> str:
        """Path of the ground truth under any of `PICTURE_FIELDS`, the first that is not empty; empty when none is."""
        return _path(self._first(PICTURE_FIELDS))

    def _first(self, names: Sequence[str]) -> Any:
        return next((self.data[name] for name in names if self.data.get(name)), "")


def read_rows(file: Path, name: str) -> list[PublishedRow]:
    """Reads a JSON array of objects.

    Args:
        file: Where it lies.
        name: Of the file in errors.

    Raises:
        DataError: It is no such array.
    """
    try:
        data = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=name) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"is no JSON: {error_message(error)}", where=name, fix="fetch it again") from error
    if not isinstance(data, list) or not data:
        raise DataError("must be a JSON array with at least one row", where=name, fix="fetch it again")
    rows = []
    for number, row in enumerate(data, 1):
        if not isinstance(row, dict):
            raise DataError("is no JSON object", where=f"{name}, row {number}")
        identity = _identity(row.get("id"))
        where = f"{name}, row {number}" + (f" (id {identity[:80]!r})" if identity else "")
        rows.append(PublishedRow(number, where, identity, row))
    return rows


def sample_of(row: PublishedRow) -> Sample:
    """Returns the sample of a benchmark row; whatever else `meta` holds is kept.

    Raises:
        DataError: The row has no id or no prompt, or `meta` is no object.
    """
    if not row.id:
        raise DataError("has no id", where=row.where)
    if not row.prompt:
        raise DataError(f"has no prompt under any of {', '.join(PROMPT_FIELDS)}", where=row.where)
    meta = row.data.get("meta") or {}
    if not isinstance(meta, Mapping):
        raise DataError("meta is no JSON object", where=row.where)
    told = {**{name: row.data[name] for name in ("category", "difficulty") if row.data.get(name)}, **meta}
    category = str(told.pop("category", "") or "").strip().lower()
    difficulty = str(told.pop("difficulty", "") or "").strip()
    return Sample(
        id=row.id,
        prompt=row.prompt,
        category=category,
        group=group_of(category),
        difficulty=difficulty,
        meta={str(key): value for key, value in told.items()},
    )


def conversation_of(row: PublishedRow) -> tuple[list[dict[str, str]], list[str]]:
    """Returns the messages of a conversation, each with role and content, and the paths of its pictures in order.

    Raises:
        DataError: A message is none, or the `<image>` marks are not as many as the pictures.
    """
    messages = row.data.get("messages")
    if not isinstance(messages, list) or not messages:
        raise DataError("has no messages", where=row.where)
    plain = [_message(message, number, row.where) for number, message in enumerate(messages, 1)]
    images = row.data.get("images") or []
    if not isinstance(images, list):
        raise DataError("images is no list", where=row.where)
    paths = [_path(image) for image in images]
    if "" in paths:
        raise DataError(f"picture {paths.index('') + 1} has no path", where=row.where)
    check_marks([message["content"] for message in plain], len(paths), row.where)
    return plain, paths


def check_marks(contents: Sequence[str], pictures: int, where: str) -> None:
    """Holds a conversation to one `<image>` mark for each picture.

    Raises:
        DataError: There are more or fewer.
    """
    marks = sum(content.count(IMAGE_MARK) for content in contents)
    if marks != pictures:
        raise DataError(f"has {marks} {IMAGE_MARK} marks and {pictures} pictures; they must be as many", where=where)


def _message(message: Any, number: int, where: str) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise DataError(f"message {number} is no JSON object", where=where)
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise DataError(f"message {number} has the role {str(role)[:40]!r}, not one of {', '.join(ROLES)}", where=where)
    if not isinstance(content, str):
        raise DataError(f"message {number} has no text as content", where=where)
    return {"role": role, "content": content}


def _identity(value: Any) -> str:
    """Returns an id as a string; a row may number its ids from 0, so that 0 is one."""
    if value is None or isinstance(value, bool | list | dict):
        return ""
    return str(value).strip()


def _path(value: Any) -> str:
    """Returns a picture's path, which may stand alone, in a list of one, or as an object's `path`."""
    if isinstance(value, list) and len(value) == 1:
        return _path(value[0])
    if isinstance(value, Mapping):
        return _path(value.get("path"))
    return value.strip() if isinstance(value, str) else ""
