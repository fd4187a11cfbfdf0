"""Parse the rows of the published data sets, under each of their known field names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.records import Sample, group_of
from knowgen.core.text_files import decode, parse_strict_json, read_bytes

PROMPT_FIELDS = ("prompt", "question", "user_prompt", "image_prompt")
IMAGE_FIELDS = ("gt_image", "ground_truth", "target_image", "reference_image", "gen_image")
ROLES = ("system", "user", "assistant")
IMAGE_MARK = "<image>"
"""Placeholder in a message's text where an image belongs."""


@dataclass(frozen=True)
class PublishedRow:
    """A row as published.

    Attributes:
        number: Row number, from 1, in file order.
        where: File, row number and id, for error messages.
        id: Id as a string; empty if the row has none.
        data: Fields of the row.
    """

    number: int
    where: str
    id: str
    data: Mapping[str, Any] = field(repr=False)

    @property
    def prompt(self) -> str:
        """The first non-empty value under one of `PROMPT_FIELDS`; empty if there is none."""
        prompt = self._first(PROMPT_FIELDS)
        return prompt if isinstance(prompt, str) and prompt.strip() else ""

    @property
    def image(self) -> str:
        """Path of the ground truth: the first non-empty value under one of `IMAGE_FIELDS`; empty if there is none."""
        return _path(self._first(IMAGE_FIELDS))

    def _first(self, names: Sequence[str]) -> Any:
        return next((self.data[name] for name in names if self.data.get(name)), "")


def read_rows(file: Path, name: str) -> list[PublishedRow]:
    """Read a JSON array of objects.

    Args:
        file: The file.
        name: Name of the file in error messages.

    Raises:
        DataError: The file is not a JSON array of objects, or is empty.
    """
    data = parse_strict_json(decode(read_bytes(file), name), name)
    if not isinstance(data, list) or not data:
        raise DataError("must be a JSON array with at least one row", where=name, fix="fetch it again")
    rows = []
    for number, row in enumerate(data, 1):
        if not isinstance(row, dict):
            raise DataError("must be a JSON object", where=f"{name}, row {number}")
        identity = _identity(row.get("id"))
        where = f"{name}, row {number}" + (f" (id {identity[:80]!r})" if identity else "")
        rows.append(PublishedRow(number, where, identity, row))
    return rows


def sample_of(row: PublishedRow) -> Sample:
    """Return the sample of a benchmark row; unknown keys of `meta` are preserved.

    Raises:
        DataError: The row has no id or no prompt, or `meta` is not an object.
    """
    if not row.id:
        raise DataError("has no id", where=row.where)
    if not row.prompt:
        raise DataError(f"has no prompt under any of {', '.join(PROMPT_FIELDS)}", where=row.where)
    meta = row.data.get("meta") or {}
    if not isinstance(meta, Mapping):
        raise DataError("meta must be a JSON object", where=row.where)
    meta = {**{name: row.data[name] for name in ("category", "difficulty") if row.data.get(name)}, **meta}
    category = str(meta.pop("category", "") or "").strip().lower()
    difficulty = str(meta.pop("difficulty", "") or "").strip()
    return Sample(
        id=row.id,
        prompt=row.prompt,
        category=category,
        group=group_of(category),
        difficulty=difficulty,
        meta={str(key): value for key, value in meta.items()},
    )


def conversation_of(row: PublishedRow) -> tuple[list[dict[str, str]], list[str]]:
    """Return the messages of a conversation, each with role and content, and the paths of its images in order.

    Raises:
        DataError: A message is malformed, or the number of `<image>` marks differs from the number of images.
    """
    messages = row.data.get("messages")
    if not isinstance(messages, list) or not messages:
        raise DataError("has no messages", where=row.where)
    plain = [_message(message, number, row.where) for number, message in enumerate(messages, 1)]
    images = row.data.get("images") or []
    if not isinstance(images, list):
        raise DataError("images must be a list", where=row.where)
    paths = [_path(image) for image in images]
    if "" in paths:
        raise DataError(f"image {paths.index('') + 1} has no path", where=row.where)
    check_marks([message["content"] for message in plain], len(paths), row.where)
    return plain, paths


def check_marks(contents: Sequence[str], images: int, where: str) -> None:
    """Check that a conversation has one `<image>` mark for each image.

    Raises:
        DataError: The numbers differ.
    """
    marks = sum(content.count(IMAGE_MARK) for content in contents)
    if marks != images:
        raise DataError(f"has {marks} {IMAGE_MARK} marks but {images} images; the numbers must be equal", where=where)


def _message(message: Any, number: int, where: str) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise DataError(f"message {number} must be a JSON object", where=where)
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise DataError(f"message {number} has the role {str(role)[:40]!r}, not one of {', '.join(ROLES)}", where=where)
    if not isinstance(content, str):
        raise DataError(f"content of message {number} must be a string", where=where)
    return {"role": role, "content": content}


def _identity(value: Any) -> str:
    """Return an id as a string. The number 0 is a valid id."""
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _path(value: Any) -> str:
    """Return an image's path from a string, a list of one path, or an object with `path`; empty if there is none."""
    if isinstance(value, list) and len(value) == 1:
        return _path(value[0])
    if isinstance(value, Mapping):
        return _path(value.get("path"))
    return value.strip() if isinstance(value, str) else ""
