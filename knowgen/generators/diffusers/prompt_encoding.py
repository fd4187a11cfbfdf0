"""Prompts encoded once: each is encoded alone, whatever its batch, and its embeddings are kept for later requests.

Repeats of a prompt with other seeds, and the negative prompt that all requests share, are then encoded once. Because a
prompt is always encoded alone, its embeddings depend neither on its batch nor on whether they were kept.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Joining = Literal["rows", "padded"]
"""How the embeddings of prompts are joined to those of a batch: `rows`, all prompts have one length; `padded`, shorter
ones are followed by zeros and a mask says so, as the class does it itself."""

JOINING: dict[str, Joining] = {
    "StableDiffusion3Pipeline": "rows",
    "StableDiffusion3Img2ImgPipeline": "rows",
    "FluxPipeline": "rows",
    "FluxKontextPipeline": "rows",
    "Flux2KleinPipeline": "rows",
    "QwenImagePipeline": "padded",
}
"""Classes whose `encode_prompt` gives a prompt the same embeddings alone and in a batch, from their source in diffusers
0.42.1; held by a test for each. Other classes encode their batches themselves."""

MAX_KEPT_BYTES = 256 * 2**20
"""Maximum size of the embeddings that are kept."""

Encoded = tuple[Any, ...]


class PromptEncoder:
    """Stands for `encode_prompt` of a pipeline.

    Args:
        encode: The pipeline's own `encode_prompt`.
        joining: How the embeddings of prompts are joined.
        most_bytes: Maximum size of the embeddings that are kept; 0 to keep none.

    Attributes:
        encoded: Number of prompts that were encoded.
        reused: Number of prompts whose embeddings were known.
    """

    def __init__(self, encode: Callable[..., Encoded], joining: Joining, most_bytes: int = MAX_KEPT_BYTES) -> None:
        self._encode, self._joining, self._most_bytes = encode, joining, most_bytes
        self._signature = inspect.signature(encode)
        self._kept: OrderedDict[Hashable, Encoded] = OrderedDict()
        self._bytes = 0
        self.encoded = self.reused = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Encoded:
        """Return the embeddings of a batch of prompts, as the pipeline's own method does."""
        arguments = dict(self._signature.bind(*args, **kwargs).arguments)
        rows = _rows(arguments)
        if rows is None:
            return self._encode(*args, **kwargs)
        joined = _joined([self._row(row) for row in rows], self._joining)
        return self._encode(*args, **kwargs) if joined is None else joined

    def clear(self) -> None:
        """Free what is kept."""
        self._kept.clear()
        self._bytes = 0

    def _row(self, arguments: dict[str, Any]) -> Encoded:
        """Return the embeddings of one prompt."""
        key = tuple(sorted(arguments.items(), key=lambda item: item[0]))
        if key in self._kept:
            self._kept.move_to_end(key)
            self.reused += 1
            return self._kept[key]
        encoded = self._encode(**arguments)
        self.encoded += 1
        size = _bytes(encoded)
        if size <= self._most_bytes:
            self._kept[key] = encoded
            self._bytes += size
            while self._bytes > self._most_bytes:
                self._bytes -= _bytes(self._kept.popitem(last=False)[1])
        return encoded


def keep_prompts(pipe: Any, most_bytes: int = MAX_KEPT_BYTES) -> PromptEncoder | None:
    """Have a pipeline encode each prompt once; return its encoder, None for a class that encodes its batches itself."""
    joining = JOINING.get(type(pipe).__name__)
    if joining is None:
        return None
    known = vars(pipe).get("encode_prompt")
    if isinstance(known, PromptEncoder):
        return known
    encoder = pipe.encode_prompt = PromptEncoder(pipe.encode_prompt, joining, most_bytes)
    return encoder


def text_length(pipe: Any, prompt: str) -> int:
    """Return by how many tokens a prompt lengthens its batch; 0 for a class whose batches all have one length."""
    if JOINING.get(type(pipe).__name__) != "padded":
        return 0
    return len(pipe.tokenizer(prompt).input_ids)


def _rows(arguments: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the arguments of each prompt of a batch; None where they say more than texts and plain values."""
    lists = {name: value for name, value in arguments.items() if isinstance(value, list)}
    counts = {len(value) for value in lists.values()} or {1}
    texts = all(isinstance(text, str) for value in lists.values() for text in value)
    if len(counts) > 1 or not texts or not all(_is_plain(value) for value in arguments.values()):
        return None
    return [
        {name: value[number] if name in lists else value for name, value in arguments.items()}
        for number in range(counts.pop())
    ]


def _is_plain(value: Any) -> bool:
    """Return whether an argument of `encode_prompt` is a text, a list of them, or a value that can be compared."""
    if isinstance(value, list):
        return True
    return type(value).__module__ != "torch" or type(value).__name__ in {"device", "dtype"}


def _joined(rows: Sequence[Encoded], joining: Joining) -> Encoded | None:
    """Return the embeddings of a batch; None where those of its prompts cannot be joined."""
    if joining == "padded":
        return _padded(rows)
    joined = []
    for parts in zip(*rows, strict=True):
        if len({None if part is None else tuple(part.shape) for part in parts}) > 1:
            return None
        joined.append(_stacked(parts))
    return tuple(joined)


def _stacked(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Return one tensor for all prompts; one without a row for each prompt, such as positions, is the same for all."""
    import torch

    first = parts[0]
    if first is None or first.shape[0] != 1:
        return first
    return torch.cat([part for part in parts if part is not None])


def _padded(rows: Sequence[Encoded]) -> Encoded:
    """Return embeddings with zeros after the shorter prompts, and the mask; None for the mask where none is shorter."""
    import torch

    lengths = [embeddings.shape[1] for embeddings, _ in rows]
    longest = max(lengths)
    embeddings = torch.cat([_lengthened(embeddings, longest) for embeddings, _ in rows])
    if min(lengths) == longest:
        return embeddings, None
    masks = [torch.ones((1, length), dtype=torch.long, device=embeddings.device) for length in lengths]
    return embeddings, torch.cat([_lengthened(mask, longest) for mask in masks])


def _lengthened(tensor: Tensor, length: int) -> Tensor:
    """Return a tensor of shape (1, n, ...) with zeros up to shape (1, length, ...)."""
    import torch

    missing = length - tensor.shape[1]
    return torch.cat([tensor, tensor.new_zeros((1, missing, *tensor.shape[2:]))], dim=1) if missing else tensor


def _bytes(encoded: Encoded) -> int:
    return sum(part.numel() * part.element_size() for part in encoded if part is not None)
