r"""Conversations for fine-tuning, one a line of a JSON Lines file, read when they are needed.

    {"id": …, "row": 1, "messages": [{"role": "user", "content": "<image>\nWhat is it?"}, …], "images": ["a.png"]}

This is the form of the published set as it is prepared, and of what `knowgen trajectories make` writes. An `<image>`
mark stands for each image, in order; paths are relative to the file. A text that contains the mark itself is written
with a backslash, `<image\>`, and every further backslash before the bracket is kept with one more.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from knowgen.core.errors import DataError, UsageError
from knowgen.core.home import expand_user
from knowgen.core.text_files import parse_strict_json
from knowgen.tasks.data_home import need_prepared, prepare_again
from knowgen.tasks.prepare.published import IMAGE_MARK, check_marks
from knowgen.tasks.prepare.rows import ROWS_FILE
from knowgen.training.config import ConversationSource

SFT_NAME = "gen_searcher_sft"
"""Name of the prepared published set."""

CONVERSATIONS_FILE = "conversations.jsonl"
"""Name of the file in a folder of conversations."""

_MARK_IN_TEXT = re.compile(r"<image(\\*)>")
_ESCAPED_MARK = re.compile(r"<image\\(\\*)>")


class DatasetRow(BaseModel):
    """Base of the records of training sets."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SftMessage(DatasetRow):
    """One message of a conversation.

    Attributes:
        role: Author of the message.
        content: The text, with an `<image>` mark for each image.
    """

    role: Literal["system", "user", "assistant"]
    content: str

    @property
    def pieces(self) -> tuple[str | None, ...]:
        """The texts of the message as they are shown, and None for each image."""
        texts = [plain_text(text) for text in self.content.split(IMAGE_MARK)]
        pieces: list[str | None] = [texts[0]]
        for text in texts[1:]:
            pieces += [None, text]
        return tuple(piece for piece in pieces if piece != "")


class SftConversation(DatasetRow):
    """A conversation of the fine-tuning set.

    Attributes:
        id: Published id; empty if the row has none.
        row: Number of the published row, from 1.
        messages: Messages in order.
        images: Local paths, in the order of the `<image>` marks.
    """

    id: str
    row: int
    messages: tuple[SftMessage, ...]
    images: tuple[Path, ...]


def marked_text(text: str) -> str:
    r"""Return a text as the content of a message, in which no mark stands for an image.

    Example:
        >>> marked_text("<image> and <image\\>")
        '<image\\> and <image\\\\>'
    """
    return _MARK_IN_TEXT.sub(r"<image\\\1>", text)


def plain_text(content: str) -> str:
    r"""Return the text of a content without marks, as `marked_text` was given it.

    Example:
        >>> plain_text(marked_text("<image> and <image\\>")) == "<image> and <image\\>"
        True
    """
    return _ESCAPED_MARK.sub(r"<image\1>", content)


class ConversationFile(Sequence[SftConversation]):
    """The conversations of one file. Only their places in the file are kept in memory.

    Args:
        path: The file.
        name: Name in errors; the path when empty.
        fix: What to do about a damaged file.
        limit: Number of conversations, from the first; all when None.

    Raises:
        DataError: The file cannot be read, or has no line.
    """

    def __init__(self, path: Path, *, name: str = "", fix: str = "", limit: int | None = None) -> None:
        self.path, self._name, self._fix = path, name or str(path), fix
        self._places = array("q")
        place = 0
        try:
            with path.open("rb") as file:
                for line in file:
                    if line.strip() and (limit is None or len(self._places) < limit):
                        self._places.append(place)
                    place += len(line)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", where=self._name, fix=fix or "check it") from error
        if not self._places:
            raise DataError("has no conversation", where=self._name, fix=fix)

    @property
    def task(self) -> str:
        """Name of the task whose prompt the first conversation begins with; empty where the file does not say."""
        with self.path.open("rb") as file:
            file.seek(self._places[0])
            row = parse_strict_json(file.readline().decode("utf-8"), f"{self.path}:1")
        return str(row.get("task", "")) if isinstance(row, dict) else ""

    def __len__(self) -> int:
        """Return the number of conversations."""
        return len(self._places)

    def __iter__(self) -> Iterator[SftConversation]:
        """Yield the conversations in order."""
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: Any) -> Any:
        """Return a conversation.

        Raises:
            IndexError: There is none of that number.
            DataError: Its line is malformed, its marks and images differ in number, or an image is missing.
        """
        with self.path.open("rb") as file:
            file.seek(self._places[number])
            line = file.readline()
        place = f"{self.path}:{range(len(self))[number] + 1}"
        try:
            row = parse_strict_json(line.decode("utf-8"), place)
        except UnicodeDecodeError as error:
            raise DataError(f"byte {error.start + 1} is not UTF-8", where=place, fix=self._fix) from error
        except DataError as error:
            raise DataError(error.what, where=error.where, fix=self._fix) from error
        if not isinstance(row, dict):
            raise DataError("must be a JSON object", where=place, fix=self._fix)
        return self._conversation(row, range(len(self))[number] + 1)

    def _conversation(self, row: dict[str, Any], number: int) -> SftConversation:
        identity = f" (id {str(row['id'])[:80]!r})" if row.get("id") else ""
        where = f"{self._name}, row {row.get('row', number)}{identity}"
        fields = {"id": str(row.get("id", "")), "row": row.get("row", number), "messages": row.get("messages")}
        try:
            found = SftConversation.model_validate({**fields, "images": row.get("images") or ()})
        except ValidationError as error:
            first = error.errors()[0]
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise DataError(what, where=where, fix=self._fix) from error
        check_marks([message.content for message in found.messages], len(found.images), where)
        paths = tuple(self.path.parent / image for image in found.images)
        for image, path in zip(found.images, paths, strict=True):
            if not path.is_file():
                raise DataError(f"the image {image} is missing", where=where, fix=self._fix)
        return found.model_copy(update={"images": paths})


def load_conversations(source: str | Path, limit: int | None = None) -> ConversationFile:
    """Return the conversations of a set.

    Args:
        source: `gen_searcher_sft` for the prepared published set, or a file, or the folder of one, that
            `knowgen trajectories make` wrote.
        limit: Number of conversations, from the first; all when None.

    Raises:
        DataError: The set is not prepared, or the file cannot be read.
        UsageError: The file does not exist.
    """
    if source == SFT_NAME:
        prepared = need_prepared(SFT_NAME)
        fix = prepare_again(SFT_NAME)
        return ConversationFile(prepared.folder / ROWS_FILE, name=SFT_NAME, fix=fix, limit=limit)
    path = expand_user(str(source))
    if path.is_dir():
        path = path / CONVERSATIONS_FILE
    if not path.is_file():
        fix = f"name {SFT_NAME}, or a file that `knowgen trajectories make` wrote"
        raise UsageError("there are no conversations", where=str(source), fix=fix)
    return ConversationFile(path, fix="write it again with `knowgen trajectories make`", limit=limit)


class Conversations(Sequence[SftConversation]):
    """The conversations of several sources, one after another.

    Args:
        sources: The sources.

    Raises:
        UsageError: No source is named, or one does not exist.
        DataError: One cannot be read.
    """

    def __init__(self, sources: Sequence[ConversationSource]) -> None:
        if not sources:
            fix = f"set sft.conversations to [{{path: {SFT_NAME}}}], or to a file of `knowgen trajectories make`"
            raise UsageError("there are no conversations to train on", where="sft.conversations", fix=fix)
        self._files = [load_conversations(source.path, source.limit) for source in sources]

    def __len__(self) -> int:
        """Return the number of conversations."""
        return sum(map(len, self._files))

    def __getitem__(self, number: Any) -> Any:
        """Return a conversation; errors as in `ConversationFile`."""
        place = range(len(self))[number]
        for file in self._files:
            if place < len(file):
                return file[place]
            place -= len(file)
        raise IndexError(number)
