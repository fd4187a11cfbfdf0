"""Prompts encoded once: each is encoded alone, whatever its batch, and its embeddings are kept for later requests.

Repeats of a prompt with other seeds, and the negative prompt that all requests share, are then encoded once. Because a
prompt is always encoded alone, its embeddings depend neither on its batch nor on whether they were kept.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from knowgen.generators.diffusers.presets import pipeline_traits

if TYPE_CHECKING:
    from torch import Tensor

Joining = Literal["rows", "layers", "lists", "padded", "alone"]
"""How what `encode_prompt` returns for single prompts is joined to what it returns for a batch: tensors with a row for
each prompt (`rows`); the same, where those of four dimensions begin with the layers of a text encoder (`layers`); lists
with an entry for each prompt (`lists`); `rows` that are filled up with zeros to the longest prompt, with a mask
(`padded`); or not at all, for a class whose batches have one prompt, or one image (`alone`)."""

JOINING: dict[str, Joining] = {
    "AuraFlowPipeline": "rows",
    "BriaFiboPipeline": "padded",
    "ChromaPipeline": "rows",
    "CogView4Pipeline": "alone",
    "ErnieImagePipeline": "alone",
    "Flux2KleinKVPipeline": "rows",
    "Flux2KleinPipeline": "rows",
    "Flux2Pipeline": "rows",
    "FluxKontextPipeline": "rows",
    "FluxPipeline": "rows",
    "GlmImagePipeline": "alone",
    "HiDreamImagePipeline": "layers",
    "HunyuanImagePipeline": "rows",
    "Kandinsky5T2IPipeline": "alone",
    "Krea2Pipeline": "rows",
    "LongCatImagePipeline": "alone",
    "Lumina2Pipeline": "rows",
    "NucleusMoEImagePipeline": "padded",
    "OvisImagePipeline": "rows",
    "PRXPipeline": "alone",
    "PixArtSigmaPipeline": "rows",
    "QwenImage21Pipeline": "alone",
    "QwenImageImg2ImgPipeline": "padded",
    "QwenImagePipeline": "padded",
    "SanaPipeline": "rows",
    "SanaSprintPipeline": "rows",
    "StableDiffusion3Img2ImgPipeline": "rows",
    "StableDiffusion3Pipeline": "rows",
    "StableDiffusionXLPipeline": "rows",
    "ZImageOmniPipeline": "lists",
    "ZImagePipeline": "lists",
}
"""Classes whose `encode_prompt` gives a prompt the same embeddings alone and in a batch, from their source in diffusers
0.42.1; held by a test for each. Other classes encode their batches themselves."""

MAX_KEPT_BYTES = 256 * 2**20
"""Maximum size of the embeddings that are kept."""

Encoded = Any
"""What `encode_prompt` returns: a tuple of tensors, lists of them and None, or a list of tensors."""


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
        if rows is None or (len(rows) > 1 and self._joining == "alone"):
            return self._encode(*args, **kwargs)
        joined = _joined([self._row(row) for row in rows], self._joining)
        return self._encode(*args, **kwargs) if joined is None else joined

    def clear(self) -> None:
        """Free what is kept."""
        self._kept.clear()
        self._bytes = 0

    def _row(self, arguments: dict[str, Any]) -> Encoded:
        """Return the embeddings of one prompt."""
        key = tuple((name, _key(arguments[name])) for name in sorted(arguments))
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
    if not pipeline_traits(type(pipe).__name__).padded:
        return 0
    tokenizer = getattr(pipe, "tokenizer", None) or pipe.processor.tokenizer
    return len(tokenizer(prompt).input_ids)


def _rows(arguments: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the arguments of each prompt of a batch; None where they say more than texts and plain values."""
    lists = {name: value for name, value in arguments.items() if "prompt" in name and isinstance(value, list)}
    counts = {len(value) for value in lists.values()} or {1}
    texts = all(isinstance(text, str) for value in lists.values() for text in value)
    if len(counts) > 1 or not texts or not all(_is_plain(value) for value in arguments.values()):
        return None
    count = counts.pop()
    own = {"batch_size": 1} if lists and "batch_size" in arguments else {}
    return [
        {name: value[number] if name in lists else value for name, value in arguments.items()} | own
        for number in range(count)
    ]


def _is_plain(value: Any) -> bool:
    """Return whether an argument of `encode_prompt` is a text, a number, a type of torch, or some of them."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if type(value).__module__ == "torch":
        return type(value).__name__ in {"device", "dtype"}
    return value is None or isinstance(value, str | int | float)


def _key(value: Any) -> Hashable:
    """Return what stands for an argument in the key of what is kept."""
    return tuple(map(_key, value)) if isinstance(value, list | tuple) else value


def _joined(rows: Sequence[Encoded], joining: Joining) -> Encoded | None:
    """Return the embeddings of a batch; None where those of its prompts cannot be joined."""
    if len(rows) == 1:
        return _copied(rows[0])
    if joining == "lists":
        return _chained(rows)
    if joining == "padded":
        return _padded(rows)
    joined = []
    for parts in zip(*rows, strict=True):
        if len({None if part is None else tuple(part.shape) for part in parts}) > 1:
            return None
        joined.append(_stacked(parts, 1 if joining == "layers" and _is_of_layers(parts[0]) else 0))
    return tuple(joined)


def _copied(encoded: Any) -> Any:
    """Return embeddings whose tensors a pipeline may change."""
    if isinstance(encoded, list | tuple):
        return type(encoded)(map(_copied, encoded))
    return encoded.clone() if hasattr(encoded, "clone") else encoded


def _chained(rows: Sequence[Any]) -> Any:
    """Return the lists of all prompts one after the other; such a list is a part of what is encoded, or all of it."""
    if isinstance(rows[0], list):
        return [_copied(entry) for row in rows for entry in row]
    return tuple(map(_chained, zip(*rows, strict=True)))


def _is_of_layers(part: Tensor | None) -> bool:
    return part is not None and part.dim() == 4


def _stacked(parts: Sequence[Tensor | None], dim: int) -> Tensor | None:
    """Return one tensor for all prompts; one without a row for each prompt, such as positions, is the same for all."""
    import torch

    first = parts[0]
    if first is None or first.shape[dim] != 1:
        return _copied(first)
    return torch.cat([part for part in parts if part is not None], dim=dim)


def _padded(rows: Sequence[Encoded]) -> Encoded:
    """Return embeddings with zeros after the shorter prompts.

    Where a class returns embeddings and a mask that is None for a prompt alone, the mask is None if none is shorter.
    """
    import torch

    if len(rows[0]) != 2:
        return tuple(map(_filled_up, zip(*rows, strict=True)))
    lengths = [embeddings.shape[1] for embeddings, _ in rows]
    masks = [
        torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device) if mask is None else mask
        for embeddings, mask in rows
    ]
    embeddings, mask = _filled_up([embeddings for embeddings, _ in rows]), _filled_up(masks)
    return embeddings, None if len(set(lengths)) == 1 and mask.all() else mask


def _filled_up(parts: Sequence[Any]) -> Any:
    """Return one tensor for all prompts, with zeros after the shorter ones; lists of tensors entry by entry."""
    import torch

    first = parts[0]
    if first is None:
        return None
    if isinstance(first, list):
        return [_filled_up(entries) for entries in zip(*parts, strict=True)]
    longest = max(part.shape[1] for part in parts)
    return torch.cat([_lengthened(part, longest) for part in parts])


def _lengthened(tensor: Tensor, length: int) -> Tensor:
    """Return a tensor of shape (1, n, ...) with zeros up to shape (1, length, ...)."""
    import torch

    missing = length - tensor.shape[1]
    return torch.cat([tensor, tensor.new_zeros((1, missing, *tensor.shape[2:]))], dim=1) if missing else tensor


def _bytes(encoded: Any) -> int:
    if isinstance(encoded, list | tuple):
        return sum(map(_bytes, encoded))
    return 0 if encoded is None else int(encoded.numel() * encoded.element_size())
