"""The options with which a diffusers pipeline is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knowgen.generators.diffusers.lora import LowRankAdapter
from knowgen.generators.diffusers.quantization import Quantization
from knowgen.generators.diffusers.weight_files import digest_of

DTYPES = ("auto", "bfloat16", "float16", "float32")


@dataclass(frozen=True)
class LoadingOptions:
    """How a pipeline is loaded into memory.

    Attributes:
        device: Device, as torch names it.
        dtype: One of `DTYPES`.
        variant: Variant of the weights, such as `fp16`.
        device_map: Argument of diffusers of the same name; empty to put the whole pipeline on `device`.
        gpus: Number of GPUs over which the denoiser and the text encoders are spread.
        offload: One of `OFFLOADS`: components stay in main memory until they are needed.
        slicing: Decode images one by one.
        tiling: Decode images in tiles, which leaves visible seams.
        attention: Attention backend of diffusers; empty for the default.
        compilation: How the denoiser is compiled, from `parse_compile`; empty for not at all.
        cache: Cache between the steps, from `parse_cache`; empty for none.
        quantization: What is quantized; None for nothing.
        adapters: Low-rank adapters.
        gguf: File with the denoiser's weights, instead of those in the folder.
    """

    device: str
    dtype: str = "auto"
    variant: str = ""
    device_map: str = ""
    gpus: int = 1
    offload: str = ""
    slicing: bool = False
    tiling: bool = False
    attention: str = ""
    compilation: Mapping[str, Any] = field(default_factory=dict)
    cache: Mapping[str, Any] = field(default_factory=dict)
    quantization: Quantization | None = None
    adapters: tuple[LowRankAdapter, ...] = ()
    gguf: Path | None = None

    def recorded(self) -> dict[str, Any]:
        """Return what is recorded with each image about files that are named by path."""
        files: dict[str, Any] = {}
        if self.adapters:
            files["lora"] = [adapter.recorded() for adapter in self.adapters]
        if self.gguf is not None:
            files["gguf"] = {"file": self.gguf.name, "sha256": digest_of(self.gguf)}
        return files
