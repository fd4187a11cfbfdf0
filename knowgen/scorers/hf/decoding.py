"""Generating replies with a local model in batches, which are halved when memory runs out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from knowgen.local_models.memory import BatchSizes, in_batches, run_if_fits
from knowgen.local_models.vlm import LocalVlm

if TYPE_CHECKING:
    from PIL.Image import Image

OUT_OF_MEMORY = "memory ran out for this sample alone; lower max_pixels or max_new_tokens, or use a smaller model"
"""Reason of a failed score."""

_CONTROL_TOKEN_STARTS = "<[|"
"""Characters with which control tokens start."""

_REASONING = re.compile(r"\A.*</think>\s*", re.DOTALL)


@dataclass(frozen=True)
class DecoderPrompt:
    """A prompt to a local model.

    Attributes:
        system: System message.
        text: Text of the user message, which goes before the images.
        images: RGB images, in order.
    """

    system: str
    text: str
    images: tuple[Image, ...]


@dataclass(frozen=True)
class DecoderReply:
    """A reply of a local model.

    Attributes:
        text: Text without control tokens and without the reasoning before `</think>`.
        finish: `stop`, or `length` where it was cut off; empty without a reply.
        input_tokens: Number of tokens of the prompt and its images, without padding.
        output_tokens: Number of tokens of the reply, including its end token.
        seconds: Duration of the batch divided by its size, in seconds.
        error: Reason why the reply is missing, else empty.
    """

    text: str = ""
    finish: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    error: str = ""


class Decoder:
    """Generates replies of a local model in batches.

    At temperature 0 decoding is greedy, and a prompt gets the same reply in any batch up to rounding: padding changes
    the order of some sums, so that in low precision two tokens of nearly equal probability may swap. Above 0 the random
    seed of a batch is derived from its prompts, so that the same batch gets the same replies.

    Args:
        vlm: Model.
        batch_size: Number of prompts per batch; halved permanently when memory runs out.
        max_new_tokens: Maximum number of tokens of a reply.
        temperature: Sampling temperature.
    """

    def __init__(self, vlm: LocalVlm, *, batch_size: int, max_new_tokens: int, temperature: float) -> None:
        self._sizes = BatchSizes(batch_size)
        self._vlm = vlm
        self._max_new_tokens, self._temperature = max_new_tokens, temperature
        tokenizer = vlm.processor.tokenizer
        self._control = [
            token for token in tokenizer.get_added_vocab() if len(token) > 2 and token[0] in _CONTROL_TOKEN_STARTS
        ]
        eos = vlm.model.generation_config.eos_token_id
        eos = tokenizer.eos_token_id if eos is None else eos
        self._eos_tokens = frozenset(eos if isinstance(eos, list) else [eos])

    def replies(self, prompts: Sequence[DecoderPrompt]) -> Iterator[DecoderReply]:
        """Yield one reply per prompt, in order."""
        for batch, replies in in_batches(
            prompts, lambda batch: run_if_fits(lambda: self._generate(batch)), self._sizes
        ):
            yield from replies or [DecoderReply(error=OUT_OF_MEMORY) for _ in batch]

    @property
    def batch_size(self) -> int:
        """Number of prompts in the next batch."""
        return self._sizes.size

    def _generate(self, batch: Sequence[DecoderPrompt]) -> list[DecoderReply]:
        import torch

        started = perf_counter()
        model, processor = self._vlm.model, self._vlm.processor
        texts = [self.render(prompt) for prompt in batch]
        bos = processor.tokenizer.bos_token
        inputs = processor(
            text=texts,
            images=[list(prompt.images) for prompt in batch],
            padding=True,
            return_tensors="pt",
            add_special_tokens=not (bos and texts[0].startswith(bos)),
        ).to(model.device, dtype=model.dtype)
        with torch.inference_mode(), torch.random.fork_rng(enabled=self._temperature > 0):
            if self._temperature > 0:
                torch.manual_seed(_seed(texts))
            output = model.generate(**inputs, **self._decoding())
        generated = output[:, inputs["input_ids"].shape[1] :].tolist()
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        seconds = (perf_counter() - started) / len(batch)
        return [self._reply(tokens, int(length), seconds) for tokens, length in zip(generated, lengths, strict=True)]

    def _decoding(self) -> dict[str, Any]:
        if self._temperature > 0:
            sampling: dict[str, Any] = {"do_sample": True, "temperature": self._temperature}
        else:
            sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return {**sampling, "num_beams": 1, "max_new_tokens": self._max_new_tokens}

    def render(self, prompt: DecoderPrompt) -> str:
        """Return a prompt in the model's chat template, with a placeholder for each image."""
        images = [{"type": "image"} for _ in prompt.images]
        messages = [
            {"role": "system", "content": [{"type": "text", "text": self._escape(prompt.system)}]},
            {"role": "user", "content": [{"type": "text", "text": self._escape(prompt.text)}, *images]},
        ]
        rendered = self._vlm.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return str(rendered)

    def _escape(self, text: str) -> str:
        """Return text with its control tokens broken up, so that a prompt cannot end its message or add an image."""
        for token in self._control:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _reply(self, tokens: list[int], input_tokens: int, seconds: float) -> DecoderReply:
        end = next((index for index, token in enumerate(tokens) if token in self._eos_tokens), None)
        reply = tokens if end is None else tokens[: end + 1]
        text = self._vlm.processor.tokenizer.decode(reply, skip_special_tokens=True)
        return DecoderReply(
            text=_REASONING.sub("", text),
            finish="length" if end is None else "stop",
            input_tokens=input_tokens,
            output_tokens=len(reply),
            seconds=seconds,
        )


def _seed(texts: Sequence[str]) -> int:
    """Return a random seed derived from the prompts of a batch."""
    return int.from_bytes(hashlib.sha256("\0".join(texts).encode()).digest()[:4], "big")
