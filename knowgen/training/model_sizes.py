"""Sizes of a vision-language model of the Qwen3-VL family, from its config.json alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from knowgen.core.errors import ConfigError


@dataclass(frozen=True)
class VisionSizes:
    """Sizes of a vision tower.

    Attributes:
        width: Size of its hidden states.
        inner: Size inside its feed-forward blocks.
        depth: Number of blocks.
        patch: Side of a patch in pixels.
        frames: Frames of a patch.
        merge: Side of the square of patches that become one token.
        output: Size of its output.
        positions: Number of learned positions.
        taps: Number of further outputs from inner blocks.
    """

    width: int
    inner: int
    depth: int
    patch: int
    frames: int
    merge: int
    output: int
    positions: int
    taps: int

    @property
    def parameters(self) -> int:
        """Number of parameters without the projectors: patches, positions, and blocks with attention and two layers."""
        width, inner = self.width, self.inner
        patches = 3 * self.frames * self.patch**2 * width + width
        block = (3 * width * width + 3 * width) + (width * width + width)
        block += (width * inner + inner) + (inner * width + width) + 4 * width
        return patches + self.positions * width + self.depth * block

    @property
    def projector_parameters(self) -> int:
        """Number of parameters of the projectors: one for the output, one for each inner output."""
        joined = self.width * self.merge**2
        layers = (joined * joined + joined) + (joined * self.output + self.output)
        return layers + 2 * self.width + self.taps * (layers + 2 * joined)


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a model.

    Attributes:
        hidden: Size of hidden states.
        inner: Size inside feed-forward blocks, which have a gate.
        layers: Number of layers.
        heads: Number of heads of queries.
        kv_heads: Number of heads of keys and values.
        head: Size of a head.
        vocabulary: Number of tokens.
        tied: Whether input and output embeddings are one matrix.
        vision: The vision tower.
    """

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool
    vision: VisionSizes

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str) -> ModelSizes:
        """Return the sizes in a config.json.

        Args:
            config: Its content.
            where: Name of the file in errors.

        Raises:
            ConfigError: A size is missing, or the model has experts, of which no estimate is made.
        """
        text, vision = config.get("text_config"), config.get("vision_config")
        if not isinstance(text, Mapping) or not isinstance(vision, Mapping):
            raise ConfigError("is not the configuration of a vision-language model", where=where)
        if text.get("num_experts"):
            raise ConfigError("is a mixture of experts, of which no estimate is made", where=where)
        try:
            heads = int(text["num_attention_heads"])
            return cls(
                hidden=int(text["hidden_size"]),
                inner=int(text["intermediate_size"]),
                layers=int(text["num_hidden_layers"]),
                heads=heads,
                kv_heads=int(text["num_key_value_heads"]),
                head=int(text.get("head_dim") or int(text["hidden_size"]) // heads),
                vocabulary=int(text["vocab_size"]),
                tied=bool(config.get("tie_word_embeddings", False)),
                vision=VisionSizes(
                    width=int(vision["hidden_size"]),
                    inner=int(vision["intermediate_size"]),
                    depth=int(vision["depth"]),
                    patch=int(vision["patch_size"]),
                    frames=int(vision["temporal_patch_size"]),
                    merge=int(vision["spatial_merge_size"]),
                    output=int(vision["out_hidden_size"]),
                    positions=int(vision["num_position_embeddings"]),
                    taps=len(vision["deepstack_visual_indexes"]),
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"lacks a size that the estimate needs: {error}", where=where) from error

    @property
    def layer_parameters(self) -> int:
        """Number of parameters of a layer: queries, keys, values, output, gate, up, down, and four norms."""
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        attention = 2 * self.hidden * queries + 2 * self.hidden * keys + 2 * self.head
        return attention + 3 * self.hidden * self.inner + 2 * self.hidden

    @property
    def embedding_parameters(self) -> int:
        """Number of parameters of the embeddings."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def language_parameters(self) -> int:
        """Number of parameters of the language model, embeddings included."""
        return self.embedding_parameters + self.layers * self.layer_parameters + self.hidden

    @property
    def parameters(self) -> int:
        """Number of all parameters."""
        return self.language_parameters + self.vision.parameters + self.vision.projector_parameters

    def adapter_parameters(self, rank: int, targets: Collection[str]) -> int:
        """Return the number of parameters of low-rank adapters: rank * (inputs + outputs) for each adapted layer."""
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        sides = {
            "q_proj": self.hidden + queries, "k_proj": self.hidden + keys, "v_proj": self.hidden + keys,
            "o_proj": queries + self.hidden, "gate_proj": self.hidden + self.inner, "up_proj": self.hidden + self.inner,
            "down_proj": self.inner + self.hidden,
        }  # fmt: skip
        return rank * self.layers * sum(sides[name] for name in targets if name in sides)


QWEN3_VL_8B = ModelSizes(
    hidden=4096, inner=12288, layers=36, heads=32, kv_heads=8, head=128, vocabulary=151_936, tied=False,
    vision=VisionSizes(width=1152, inner=4304, depth=27, patch=16, frames=2, merge=2, output=4096, positions=2304,
                       taps=3),
)  # fmt: skip
"""Sizes of Qwen/Qwen3-VL-8B-Instruct (looked up on 2026-11-28), for figures in the documentation."""
