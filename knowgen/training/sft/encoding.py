"""Conversations as token ids with labels, by the renderer that the agent's policy is run with.

A reply is encoded apart from its header, as it is sampled; every other message is encoded whole. Trained are the tokens
of replies and the end token of each, and no other token: not headers, not the newline after an end token, not prompts,
tool results or images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.agents.images import scaled_size
from knowgen.agents.rendering import Renderer, image_token_count
from knowgen.core.errors import DataError
from knowgen.core.images import image_size
from knowgen.training.batches import IGNORED
from knowgen.training.conversations import SftConversation, SftMessage

EMPTY_THINK = "<think>\n\n</think>\n\n"
"""Think block that the published training puts before a reply without one."""

_MESSAGE_TOKENS = 8
"""Least upper bound on the tokens of a message besides its text and images: header, end token, newline."""


class UntrainableError(DataError):
    """A conversation has no token that can be trained; the message says why."""


@dataclass(frozen=True)
class EncodedConversation:
    """A conversation as the model takes it.

    Attributes:
        ids: Token ids.
        labels: The id of each trained token, `IGNORED` for all others.
        images: Files of the images whose placeholders are in `ids`, in order.
        cut: Whether messages after the last one that fits were left out.
    """

    ids: list[int]
    labels: list[int]
    images: tuple[Path, ...]
    cut: bool


@dataclass(frozen=True)
class _EncodedMessage:
    ids: list[int]
    labels: list[int]
    images: Sequence[Path]
    trained: bool


class ConversationEncoder:
    """Encodes conversations.

    Args:
        renderer: Renderer of the model's tokenizer.
        image_processor: Image processor of the model.
        max_tokens: Maximum number of tokens of a conversation. A longer one is cut at the end of a reply.
        image_pixels: Maximum width times height of an image; 0 for images as they are.
        empty_think: Whether a reply without a think block gets an empty one.
    """

    def __init__(
        self, renderer: Renderer, image_processor: Any, *, max_tokens: int, image_pixels: int, empty_think: bool = False
    ) -> None:
        self._renderer, self._image_processor = renderer, image_processor
        self._max_tokens, self._image_pixels, self._empty_think = max_tokens, image_pixels, empty_think

    def encode(self, conversation: SftConversation) -> EncodedConversation:
        """Return a conversation up to its last reply that fits, as token ids.

        Messages after that reply are left out, with their images: nothing follows them that could be trained.

        Raises:
            UntrainableError: It has no reply, none that fits, or a reply contains an image.
            DataError: An image cannot be opened.
        """
        done: list[_EncodedMessage] = []
        kept = length = 0
        cut = False
        for message in self._messages(conversation):
            length += len(message.ids)
            if length > self._max_tokens:
                cut = True
                break
            done.append(message)
            if message.trained:
                kept = len(done)
        if not kept:
            what = f"the first reply ends after {self._max_tokens} tokens" if cut else "it has no reply"
            raise UntrainableError(what, where=_where(conversation))
        used = done[:kept]
        return EncodedConversation(
            ids=[token for message in used for token in message.ids],
            labels=[label for message in used for label in message.labels],
            images=tuple(image for message in used for image in message.images),
            cut=cut,
        )

    def check(self, conversation: SftConversation) -> None:
        """Check that something of a conversation can be trained, without encoding it where it is short enough.

        Raises:
            UntrainableError: See `encode`.
            DataError: An image up to the first reply cannot be opened.
        """
        images = iter(conversation.images)
        bound = 0
        for message in conversation.messages:
            pieces = message.pieces
            # a token stands for at least one byte of the text
            bound += (
                _MESSAGE_TOKENS + len(message.role) + len(EMPTY_THINK) + len(message.content.encode("utf-8", "replace"))
            )
            bound += sum(self._image_tokens(next(images), conversation) + 2 for piece in pieces if piece is None)
            if message.role == "assistant":
                if bound > self._max_tokens or None in pieces:
                    break
                return
        self.encode(conversation)

    def _messages(self, conversation: SftConversation) -> Iterator[_EncodedMessage]:
        images = iter(conversation.images)
        for message in conversation.messages:
            if message.role == "assistant":
                yield self._reply(message, conversation)
                continue
            files: list[Path] = []
            pieces: list[str | int] = []
            for piece in message.pieces:
                if piece is None:
                    files.append(next(images))
                    pieces.append(self._image_tokens(files[-1], conversation))
                else:
                    pieces.append(piece)
            ids = self._renderer.message_of(message.role, pieces)
            yield _EncodedMessage(ids, [IGNORED] * len(ids), files, trained=False)

    def _reply(self, message: SftMessage, conversation: SftConversation) -> _EncodedMessage:
        pieces = message.pieces
        if None in pieces:
            raise UntrainableError("a reply contains an image, which a policy cannot write", where=_where(conversation))
        text = "".join(piece for piece in pieces if piece is not None)
        if self._empty_think and "<think>" not in text:
            text = EMPTY_THINK + text
        header, body = self._renderer.reply_header(), [*self._renderer.encode(text), self._renderer.end]
        closing = self._renderer.closing(body)
        labels = [*[IGNORED] * len(header), *body, *[IGNORED] * len(closing)]
        return _EncodedMessage([*header, *body, *closing], labels, (), trained=True)

    def _image_tokens(self, image: Path, conversation: SftConversation) -> int:
        try:
            size = image_size(image)
            if self._image_pixels:
                size = scaled_size(*size, self._image_pixels)
        except DataError as error:
            raise DataError(
                f"the image {image.name} does not open: {error.what}", where=_where(conversation)
            ) from error
        return image_token_count(self._image_processor, *size)


def _where(conversation: SftConversation) -> str:
    identity = f" (id {conversation.id[:80]!r})" if conversation.id else ""
    return f"conversation {conversation.row}{identity}"
