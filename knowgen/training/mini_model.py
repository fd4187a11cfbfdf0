"""A Qwen3-VL of about 217,000 random weights for training on a CPU: `mini:SEED`.

Architecture, processor and chat format are those of the large model. Three things make it learn in minutes:

- The vocabulary has the constant pieces of the agent's protocol as one token each: a reply has about ten.
- Weights are drawn with a standard deviation of 1 / sqrt(fan-in). At the library's 0.02, which is made for a width of
  4096, a model of width 64 hardly sees.
- Embeddings have a standard deviation of 0.5.

The words of its vocabulary are those of the synthetic task `things`. Any other text is spelled byte by byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from knowgen.agents.prompts.texts import agent_texts
from knowgen.agents.protocol import (
    ANSWER_CLOSE,
    ANSWER_OPEN,
    CALL_CLOSE,
    CALL_OPEN,
    RESPONSE_CLOSE,
    RESPONSE_OPEN,
    observation,
    written_answer,
    written_call,
)
from knowgen.agents.records import SeenImage
from knowgen.agents.rendering import END, IMAGE, IMAGE_END, IMAGE_START, START
from knowgen.agents.tools.image_search import listing
from knowgen.core.records import ImageRef
from knowgen.tasks.things_words import COLOURS, PICTURE_URL, PROMPT, SYLLABLES

DATE = "2026-01-01"
"""Date of the system prompt in the bundled configurations, one token of the vocabulary."""

IMAGE_SIDE = 64
"""Greatest side of an image in pixels; such an image has four placeholders."""

_WIDTH, _VISION_WIDTH, _LAYERS, _PATCH, _MERGE = 64, 32, 2, 16, 2
_EMBEDDING_STD, _POSITION_STD = 0.5, 0.1

_PAD = "<|endoftext|>"
_SPECIAL = (_PAD, START, END, IMAGE_START, IMAGE_END, IMAGE, "<|video_pad|>")
_TAGS = (CALL_OPEN, CALL_CLOSE, RESPONSE_OPEN, RESPONSE_CLOSE, "<think>", "</think>", ANSWER_OPEN, ANSWER_CLOSE)

_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}{{ '\\n' }}
{%- if message.content is string -%}{{ message.content }}{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}{%- endif -%}
<|im_end|>{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant{{ '\\n' }}{%- endif -%}"""
"""Chat template with the layout of Qwen3-VL's, for texts and images."""


def build_mini(seed: int = 0) -> tuple[Any, Any]:
    """Build the small model and its processor.

    Args:
        seed: Seed of the weights.

    Returns:
        A `Qwen3VLForConditionalGeneration` in float32 on the CPU, in evaluation mode, and a `Qwen3VLProcessor` that
        pads on the left.
    """
    import torch
    from transformers import GenerationConfig, Qwen3VLForConditionalGeneration

    processor = mini_processor()
    tokenizer = processor.tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(_config(tokenizer))
        _initialize(model)
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id], pad_token_id=tokenizer.pad_token_id
    )
    return model.eval(), processor


def mini_processor() -> Any:
    """Return the processor of the small model."""
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    side = _PATCH * _MERGE
    images = Qwen2VLImageProcessor(
        patch_size=_PATCH,
        merge_size=_MERGE,
        temporal_patch_size=2,
        size={"shortest_edge": side**2, "longest_edge": IMAGE_SIDE**2},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    videos = Qwen3VLVideoProcessor(patch_size=_PATCH, merge_size=_MERGE, temporal_patch_size=2)
    return Qwen3VLProcessor(
        image_processor=images, tokenizer=_tokenizer(), video_processor=videos, chat_template=_TEMPLATE
    )


def phrases() -> list[str]:
    """Return the texts that are one token each, longest first.

    The constant pieces are cut out of texts that the protocol itself makes, so that they are always its own.

    Example:
        >>> {"draw a ", "ko", " ra", "gold"} <= set(phrases())
        True
    """
    words = [*COLOURS, *SYLLABLES, *(f" {syllable}" for syllable in SYLLABLES)]
    return sorted({*words, *filter(None, _constant_pieces())}, key=lambda text: (-len(text), text))


def _constant_pieces() -> Iterator[str]:
    """Yield what stays the same in the messages of a conversation, cut at control tokens, tags, queries and prompts."""
    hole = "~~"
    short = agent_texts("short", [], calls=0)
    picture = SeenImage(
        id="IMG_001", image=ImageRef(sha256="", width=1, height=1, format="PNG"), title=hole, url=PICTURE_URL
    )
    messages = (
        f"system\n{hole}",
        f"user\n{hole}",
        f"assistant\n{hole}",
        PROMPT,
        DATE,
        short.system,
        f"user\n{short.final}",
        f"user\n{short.invalid}",
        f"user\n{short.too_long}",
        written_call("image_search", query=hole),
        written_answer(hole),
        written_answer(hole, "IMG_001"),
        f"user{hole}{observation([listing(hole, [picture])])}",
        f"user{hole}{observation([listing(hole, [])])}",
    )
    cut = re.compile("|".join(map(re.escape, (hole, *_TAGS))))
    for message in messages:
        yield from cut.split(message)


def _tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    base = Tokenizer(models.BPE())
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    base.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    base.train_from_iterator([], trainers.BpeTrainer(vocab_size=256, initial_alphabet=alphabet, show_progress=False))
    base.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in _SPECIAL])
    base.add_tokens([AddedToken(name, special=False, normalized=False) for name in chain(_TAGS, phrases())])
    return PreTrainedTokenizerFast(
        tokenizer_object=base,
        eos_token=END,
        pad_token=_PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
        chat_template=_TEMPLATE,
    )


def _config(tokenizer: Any) -> Any:
    from transformers import Qwen3VLConfig

    number = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    return Qwen3VLConfig(
        text_config={
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": _WIDTH,
            "intermediate_size": 2 * _WIDTH,
            "num_hidden_layers": _LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": _WIDTH // 4,
            "max_position_embeddings": 4096,
            "rope_parameters": rope,
        },
        vision_config={
            "depth": _LAYERS,
            "hidden_size": _VISION_WIDTH,
            "intermediate_size": 2 * _VISION_WIDTH,
            "num_heads": 2,
            "patch_size": _PATCH,
            "spatial_merge_size": _MERGE,
            "temporal_patch_size": 2,
            "out_hidden_size": _WIDTH,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=number(IMAGE),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number(IMAGE_START),
        vision_end_token_id=number(IMAGE_END),
        tie_word_embeddings=True,
    )


def _initialize(model: Any) -> None:
    """Draw the weights of linear layers and convolutions by their fan-in, and the embeddings at their own scale."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() >= 2 and "embed" not in name:
                torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        torch.nn.init.normal_(model.model.language_model.embed_tokens.weight, std=_EMBEDDING_STD)
        torch.nn.init.normal_(model.model.visual.pos_embed.weight, std=_POSITION_STD)
