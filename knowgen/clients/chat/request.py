"""A chat request: its canonical form, by which replies are found again, and its body, sent piece by piece.

The canonical form is the exact messages with each picture replaced by the hash of its encoded bytes, together with
model, endpoint, decoding arguments and the number of the judgement. What the endpoint could not tell apart has one key.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from knowgen.clients.chat.image_encoding import EncodedImageFile
from knowgen.core.spec import fingerprint

REQUEST_VERSION = 1
"""Raised when the canonical form changes, so that no old reply answers a new question."""

Message = Mapping[str, Any]


@dataclass(frozen=True)
class ChatRequest:
    """One request in the chat format.

    Attributes:
        url: Address of the endpoint, without a trailing slash.
        model: Model name.
        messages: In the chat format; where a data URL would stand there is an `EncodedImageFile`.
        decoding: Further fields of the body, such as temperature.
        attempt: Number of the try, where the same words are asked again in the hope of another reply.
    """

    url: str
    model: str
    messages: Sequence[Message]
    decoding: Mapping[str, Any]
    attempt: int = 0

    def key(self, judge_repeat: int) -> str:
        """Returns the name of this request for one judgement: 64 hex digits.

        Args:
            judge_repeat: From 0; the second judgement of the same picture is another call.
        """
        return fingerprint([self._canonical, judge_repeat, self.attempt])

    @cached_property
    def _canonical(self) -> str:
        """Hash of all that does not depend on how often it is asked."""
        return fingerprint(
            {
                "request": REQUEST_VERSION,
                "endpoint": self.url,
                "model": self.model,
                "messages": _hashed(self.messages),
                "decoding": dict(self.decoding),
            }
        )

    @cached_property
    def pictures(self) -> list[EncodedImageFile]:
        """The pictures in the order in which they are sent."""
        return list(_pictures(self.messages))

    @cached_property
    def texts(self) -> list[str]:
        """Every text of the messages."""
        return list(_texts(self.messages))

    @cached_property
    def _parts(self) -> list[bytes]:
        """The body's text, cut where the pictures stand."""
        mark = secrets.token_hex(16)  # no text can hold it
        body = {"model": self.model, "messages": self.messages, **self.decoding}
        text = json.dumps(body, default=lambda value: _mark(value, mark), ensure_ascii=False)
        return [part.encode("utf-8", "replace") for part in text.split(mark)]

    @property
    def length(self) -> int:
        """Returns the bytes of the body."""
        return sum(map(len, self._parts)) + sum(picture.url_length for picture in self.pictures)

    async def body(self) -> AsyncIterator[bytes]:
        """Yields the body. Pictures are read while they are sent, so that waiting requests hold none of them.

        Raises:
            OSError: An encoded picture is gone.
        """
        yield self._parts[0]
        for picture, rest in zip(self.pictures, self._parts[1:], strict=True):
            for piece in picture.url_pieces():
                yield piece
                await asyncio.sleep(0)  # a large picture must not hold up the answers to other requests
            yield rest


def _mark(value: object, mark: str) -> str:
    if isinstance(value, EncodedImageFile):
        return mark
    raise TypeError(f"a {type(value).__name__} cannot be sent")


def _hashed(value: Any) -> Any:
    """Returns plain data with each picture replaced by its hash."""
    if isinstance(value, EncodedImageFile):
        return {"jpeg_sha256": value.sha256}
    if isinstance(value, str):  # as it is sent: half a surrogate pair has no bytes
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {key: _hashed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_hashed(inner) for inner in value]
    return value


def _pictures(value: Any) -> list[EncodedImageFile]:
    if isinstance(value, EncodedImageFile):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [found for inner in value for found in _pictures(inner)] if isinstance(value, list | tuple) else []


def _texts(messages: Sequence[Message]) -> list[str]:
    found: list[str] = []
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list | tuple) else [{"text": content}]
        found += [
            str(part["text"]) for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str)
        ]
    return found
