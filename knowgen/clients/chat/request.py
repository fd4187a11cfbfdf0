"""A chat request: the key under which its reply is cached, and its body, sent in pieces.

The key is the hash of the canonical request: the exact messages with each image replaced by the hash of its encoded
bytes, the model, the endpoint and the decoding arguments; and of the numbers of judge repeat and attempt. Requests
that are identical to the endpoint have the same key.
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
"""Version of the canonical request. Increment it when the form changes, so that old replies are not reused."""

Message = Mapping[str, Any]


@dataclass(frozen=True)
class ChatRequest:
    """A request in the chat format.

    Attributes:
        url: URL of the endpoint, without a trailing slash.
        model: Model name.
        messages: Messages in the chat format, with an `EncodedImageFile` in the place of each data URL.
        decoding: Further fields of the body, such as the temperature.
        attempt: Number of the attempt; the same messages under another number are another request.
        changes: How it differs from the request that was asked for, in words; not part of the key, which is of the
            request as it is sent.
    """

    url: str
    model: str
    messages: Sequence[Message]
    decoding: Mapping[str, Any]
    attempt: int = 0
    changes: tuple[str, ...] = ()

    def key(self, judge_repeat: int) -> str:
        """Return the key of this request, 64 hex digits.

        Args:
            judge_repeat: Number of the judge repeat, from 0; each scores the same image by a call of its own.
        """
        return fingerprint([self._canonical, judge_repeat, self.attempt])

    @cached_property
    def _canonical(self) -> str:
        """Hash of the canonical request, without the numbers of judge repeat and attempt."""
        return fingerprint(
            {
                "request": REQUEST_VERSION,
                "endpoint": self.url,
                "model": self.model,
                "messages": _with_hashes(self.messages),
                "decoding": dict(self.decoding),
            }
        )

    @cached_property
    def images(self) -> list[EncodedImageFile]:
        """The images, in the order in which they are sent."""
        return list(_images(self.messages))

    @cached_property
    def texts(self) -> list[str]:
        """The texts of the messages."""
        return list(_texts(self.messages))

    @cached_property
    def _parts(self) -> list[bytes]:
        """The body as JSON, split at the images."""
        mark = secrets.token_hex(16)  # random, so no text can contain it
        body = {"model": self.model, "messages": self.messages, **self.decoding}
        text = json.dumps(body, default=lambda value: _placeholder(value, mark), ensure_ascii=False)
        return [part.encode("utf-8", "replace") for part in text.split(mark)]

    @property
    def length(self) -> int:
        """Length of the body in bytes."""
        return sum(map(len, self._parts)) + sum(image.url_length for image in self.images)

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the body. Images are read while they are sent, so that waiting requests take no memory for them.

        Raises:
            OSError: The file of an encoded image is missing or was cut off.
        """
        yield self._parts[0]
        for image, rest in zip(self.images, self._parts[1:], strict=True):
            for piece in image.url_pieces():
                yield piece
                await asyncio.sleep(0)  # let other requests proceed while a large image is sent
            yield rest


def _placeholder(value: object, mark: str) -> str:
    if isinstance(value, EncodedImageFile):
        return mark
    raise TypeError(f"a {type(value).__name__} cannot be sent")


def _with_hashes(value: Any) -> Any:
    """Return plain data with each image replaced by its hash."""
    if isinstance(value, EncodedImageFile):
        return {"jpeg_sha256": value.sha256}
    if isinstance(value, str):  # as it is sent: a lone surrogate is replaced
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {key: _with_hashes(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_hashes(inner) for inner in value]
    return value


def _images(value: Any) -> list[EncodedImageFile]:
    if isinstance(value, EncodedImageFile):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [image for inner in value for image in _images(inner)] if isinstance(value, list | tuple) else []


def replace_images(messages: Sequence[Message], images: Sequence[EncodedImageFile]) -> list[Message]:
    """Return messages with other images, in the same order."""
    left = iter(images)

    def replaced(value: Any) -> Any:
        if isinstance(value, EncodedImageFile):
            return next(left)
        if isinstance(value, Mapping):
            return {key: replaced(inner) for key, inner in value.items()}
        return [replaced(inner) for inner in value] if isinstance(value, list | tuple) else value

    return [replaced(message) for message in messages]


def _texts(messages: Sequence[Message]) -> list[str]:
    texts: list[str] = []
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list | tuple) else [{"text": content}]
        texts += [
            str(part["text"]) for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str)
        ]
    return texts
