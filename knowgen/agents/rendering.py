"""Messages as token ids in the chat format of Qwen3-VL (ChatML), so that a conversation only ever grows.

What the policy sampled is kept as it is and never encoded again: decoding and encoding may give other ids. All other
ids equal those of the model's own chat template, because a message's header and text are encoded in one piece and split
only at control tokens, as the template's text is.

Text is data. A control token that is written out in it, such as `<|im_end|>` in a web page, becomes ordinary ids that
decode to the same characters. Tags such as `<tool_call>` are no control tokens: what may contain them is decided by
the agent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from knowgen.core.errors import ConfigError
from knowgen.core.text import error_summary

START, END = "<|im_start|>", "<|im_end|>"
IMAGE = "<|image_pad|>"
IMAGE_START, IMAGE_END = "<|vision_start|>", "<|vision_end|>"
VISION_TOKENS = (IMAGE_START, IMAGE_END, IMAGE, "<|video_pad|>")
"""Tokens that a policy must not sample: the model takes each for a part of an image."""

_PROBE = (("system", "Be brief."), ("user", "One?\n"), ("assistant", "<think>\nA\n</think>\nB"), ("user", " Two?"))
"""A conversation that shows whether a chat template is the one that is rendered here."""


class Renderer:
    """Turns messages into token ids.

    Args:
        tokenizer: Tokenizer of transformers with the control tokens of ChatML.
        where: Name of the policy in errors.

    Attributes:
        end: Id of `<|im_end|>`.
        image: Id of the image placeholder.
        banned: Ids that a policy must not sample, see `VISION_TOKENS`.

    Raises:
        ConfigError: The tokenizer lacks a control token.
    """

    def __init__(self, tokenizer: Any, where: str = "") -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_vocab()
        if missing := [name for name in (START, END, *VISION_TOKENS) if name not in added]:
            raise ConfigError(
                f"the tokenizer has no {missing[0]}",
                where=where,
                fix="use a model of the Qwen-VL family, or serve it and use policy=openai:MODEL",
            )
        self.end, self.image = int(added[END]), int(added[IMAGE])
        self.banned = tuple(int(added[name]) for name in VISION_TOKENS)
        self._start, self._image_start, self._image_end = (int(added[name]) for name in (START, IMAGE_START, IMAGE_END))
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        control = sorted(special | {name for name in added if name.startswith("<|")})
        inside = (f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})" for name in control if len(name) > 1)
        self._inside_control = re.compile("|".join(inside))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, in which control tokens are ordinary characters."""
        ids: list[int] = []
        clean = text.encode("utf-8", "replace").decode()  # tokenizers refuse a lone surrogate
        for piece in self._inside_control.split(clean):
            ids += self._tokenizer.encode(piece, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of sampled ids, without control tokens."""
        text = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def message(
        self, role: str, text: str, image_tokens: Sequence[int] = (), *, images_first: bool = True
    ) -> list[int]:
        """Return the ids of a whole message.

        Args:
            role: Who speaks: system, user or assistant.
            text: Its text.
            image_tokens: Number of placeholders of each image.
            images_first: Whether the images come before the text.
        """
        return self.message_of(role, (*image_tokens, text) if images_first else (text, *image_tokens))

    def message_of(self, role: str, pieces: Sequence[str | int]) -> list[int]:
        """Return the ids of a whole message whose texts and images stand in any order.

        Args:
            role: Who speaks: system, user or assistant.
            pieces: Texts, and for each image the number of its placeholders.
        """
        ids, text = [self._start], f"{role}\n"
        for piece in pieces:
            if isinstance(piece, str):
                text += piece
            else:
                ids += [*self.encode(text), *self.image_run(piece)]
                text = ""
        return [*ids, *self.encode(text), self.end, *self.encode("\n")]

    def image_run(self, count: int) -> list[int]:
        """Return the ids of an image with a number of placeholders."""
        return [self._image_start, *[self.image] * count, self._image_end]

    def reply_header(self) -> list[int]:
        """Return the ids after which a reply is sampled."""
        return [self._start, *self.encode("assistant\n")]

    def closing(self, sampled: Sequence[int]) -> list[int]:
        """Return the ids that close a sampled reply and were not sampled: the end token where it is missing, a newline.

        Args:
            sampled: Ids of the reply.
        """
        ended = bool(sampled) and sampled[-1] == self.end
        return [*([] if ended else [self.end]), *self.encode("\n")]

    def check_template(self, where: str) -> None:
        """Check that the model's chat template is the one that is rendered here.

        Raises:
            ConfigError: It is another one, such as that of a model that opens its reasoning in the prompt.
        """
        if not getattr(self._tokenizer, "chat_template", None):
            return  # a base model: there is nothing to compare with
        messages = [{"role": role, "content": text} for role, text in _PROBE]
        try:
            shown = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except Exception as error:  # a template may raise anything
            raise ConfigError(f"the chat template of the model fails: {error_summary(error)}", where=where) from error
        expected = [token for role, text in _PROBE for token in self.message(role, text)] + self.reply_header()
        if list(self._tokenizer.encode(shown, add_special_tokens=False)) != expected:
            raise ConfigError(
                "the chat template of the model is not that of Qwen3-VL Instruct",
                where=where,
                fix="serve the model and use policy=openai:MODEL with its base_url",
            )


def image_token_count(image_processor: Any, width: int, height: int) -> int:
    """Return the number of placeholders of an image, from the grid of a model's image processor.

    Args:
        image_processor: Image processor of the Qwen-VL family.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
    """
    patches = int(image_processor.get_number_of_image_patches(height, width, {}))  # transformers 5.10 needs the mapping
    return patches // int(image_processor.merge_size) ** 2
