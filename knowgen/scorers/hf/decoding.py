"""Replies of a local model to several prompts at once: left padding, and half the batch where memory runs out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from knowgen.local_models.memory import BatchSizes, in_batches, run_if_fits
from knowgen.scorers.hf.model import LocalVlm

if TYPE_CHECKING:
    from PIL.Image import Image

OUT_OF_MEMORY = "memory ran out for this sample alone; lower max_pixels or max_new_tokens, or take a smaller model"

_OPENS_CONTROL = "<[|"
_THOUGHT = re.compile(r"\A.*</think>\s*", re.DOTALL)


@dataclass(frozen=True)
class DecoderPrompt:
    """What a model is asked.

    Attributes:
        system: The system message.
        text: The user's text, which stands before the pictures.
        pictures: RGB pictures, in order.
    """

    system: str
    text: str
    images: tuple[Image, ...]


@dataclass(frozen=True)
class DecoderReply:
    """What a model said.

    Attributes:
        text: Without control tokens, and without what a reasoning model thought before.
        finish: `stop`, or `length` when it was cut off; empty when there is no reply.
        input_tokens: Of the prompt and its pictures, without padding.
        output_tokens: Of the reply, its end token included.
        seconds: This reply's share of the time its batch took.
        error: Why there is no reply, else empty.
    """

    text: str = ""
    finish: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    error: str = ""


class Decoder:
    """Asks a local model in batches.

    At temperature 0 decoding is greedy. A prompt gets the same reply in any batch as far as the arithmetic is exact:
    padding changes the order of some sums, so that in low precision two tokens of nearly the same likelihood may
    change places. Above 0 the seed of a batch follows from its prompts, so the same batch is answered the same way.

    Args:
        vlm: The model.
        batch_size: Prompts of one batch; halved for good whenever memory runs out.
        max_new_tokens: Longest reply.
        temperature: Of the decoding.
    """

    def __init__(self, vlm: LocalVlm, *, batch_size: int, max_new_tokens: int, temperature: float) -> None:
        self._sizes = BatchSizes(batch_size)
        self._vlm = vlm
        self._max_new_tokens, self._temperature = max_new_tokens, temperature
        tokenizer = vlm.processor.tokenizer
        self._control = [
            token for token in tokenizer.get_added_vocab() if len(token) > 2 and token[0] in _OPENS_CONTROL
        ]
        ends = vlm.model.generation_config.eos_token_id
        ends = tokenizer.eos_token_id if ends is None else ends
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])

    def replies(self, prompts: Sequence[DecoderPrompt]) -> Iterator[DecoderReply]:
        """Yields one reply a prompt, in order."""
        for batch, found in in_batches(prompts, lambda batch: run_if_fits(lambda: self._ask(batch)), self._sizes):
            yield from found or [DecoderReply(error=OUT_OF_MEMORY) for _ in batch]

    @property
    def batch_size(self) -> int:
        """Number of prompts of the next batch."""
        return self._sizes.size()

    def _ask(self, batch: Sequence[DecoderPrompt]) -> list[DecoderReply]:
        import torch

        started = perf_counter()
        model, processor = self._vlm.model, self._vlm.processor
        texts = [self.render(prompt) for prompt in batch]
        beginning = processor.tokenizer.bos_token
        inputs = processor(
            text=texts,
            images=[list(prompt.images) for prompt in batch],
            padding=True,
            return_tensors="pt",
            add_special_tokens=not (beginning and texts[0].startswith(beginning)),
        ).to(model.device, dtype=model.dtype)
        with torch.inference_mode(), torch.random.fork_rng(enabled=self._temperature > 0):
            if self._temperature > 0:
                torch.manual_seed(_seed(texts))
            output = model.generate(**inputs, **self._decoding())
        asked = inputs["input_ids"].shape[1]
        said = output[:, asked:].tolist()
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        share = (perf_counter() - started) / len(batch)
        return [self._reply(tokens, int(length), share) for tokens, length in zip(said, lengths, strict=True)]

    def _decoding(self) -> dict[str, Any]:
        if self._temperature > 0:
            chosen: dict[str, Any] = {"do_sample": True, "temperature": self._temperature}
        else:
            chosen = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return {**chosen, "num_beams": 1, "max_new_tokens": self._max_new_tokens}

    def render(self, prompt: DecoderPrompt) -> str:
        """Returns a prompt as the model's chat template writes it, with a mark where each picture goes."""
        images = [{"type": "image"} for _ in prompt.images]
        messages = [
            {"role": "system", "content": [{"type": "text", "text": self._plain(prompt.system)}]},
            {"role": "user", "content": [{"type": "text", "text": self._plain(prompt.text)}, *images]},
        ]
        rendered = self._vlm.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return str(rendered)

    def _plain(self, text: str) -> str:
        """Returns text without control tokens in it: a prompt must not end its own message, nor add a picture."""
        for token in self._control:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _reply(self, tokens: list[int], asked: int, seconds: float) -> DecoderReply:
        end = next((place for place, token in enumerate(tokens) if token in self._ends), None)
        kept = tokens if end is None else tokens[: end + 1]
        text = self._vlm.processor.tokenizer.decode(kept, skip_special_tokens=True)
        return DecoderReply(
            text=_THOUGHT.sub("", text),
            finish="length" if end is None else "stop",
            input_tokens=asked,
            output_tokens=len(kept),
            seconds=seconds,
        )


def _seed(texts: Sequence[str]) -> int:
    """Returns a seed that follows from the prompts of a batch."""
    return int.from_bytes(hashlib.sha256("\0".join(texts).encode()).digest()[:4], "big")
