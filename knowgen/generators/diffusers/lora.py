"""Low-rank adapters (LoRA) of a pipeline: loaded with diffusers and peft, and refused where they change nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError, KnowgenError
from knowgen.core.text import error_message
from knowgen.generators.diffusers.weight_files import digest_of
from knowgen.local_models.memory import is_out_of_memory

_FACTOR = re.compile(r"\.(lora_A|lora\.down|lora_down|lokr_w1(_a)?)\b")
"""The one tensor of each adapted layer that is counted, in the spellings of adapters."""


@dataclass(frozen=True)
class LowRankAdapter:
    """An adapter on this machine.

    Attributes:
        path: The safetensors file.
        scale: How strongly it is applied.
    """

    path: Path
    scale: float

    def recorded(self) -> dict[str, Any]:
        """Return what is recorded with each image."""
        return {"file": self.path.name, "sha256": digest_of(self.path), "scale": self.scale}


def load_adapters(pipe: Any, adapters: Sequence[LowRankAdapter], where: str) -> None:
    """Load adapters into a pipeline, each with its scale.

    Raises:
        DataError: An adapter was made for another model: some or all of its layers are not there.
    """
    if not adapters:
        return
    name = type(pipe).__name__
    labels = [f"lora_{number}" for number in range(len(adapters))]
    for label, adapter in zip(labels, adapters, strict=True):
        try:
            _load(pipe, adapter.path, label, where)
        except KnowgenError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            what = f"lora: {adapter.path.name} does not fit {name}: {error_message(error, 200)}"
            raise DataError(what, where=where, fix="give an adapter of this model") from error
    pipe.set_adapters(labels, [adapter.scale for adapter in adapters])


def _load(pipe: Any, path: Path, label: str, where: str) -> None:
    """Load one adapter, and check that each of its layers is one of the pipeline.

    Raises:
        DataError: Some are not.
    """
    files = {"weight_name": path.name, "local_files_only": True, "use_safetensors": True}
    read = pipe.lora_state_dict(str(path.parent), **files)
    state = read[0] if isinstance(read, tuple) else read
    expected = sum(_FACTOR.search(key) is not None for key in state)
    pipe.load_lora_weights(str(path.parent), adapter_name=label, **files)
    adapted = _adapted_layers(pipe, label)
    if adapted < max(expected, 1):
        what = f"lora: {adapted} of the {expected} layers of {path.name} are in {type(pipe).__name__}"
        raise DataError(what, where=where, fix="give an adapter of this model")


def _adapted_layers(pipe: Any, label: str) -> int:
    """Return the number of layers of a pipeline's components that have an adapter."""
    import torch

    components = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    layers = {id(module): module for part in components for module in part.modules()}
    factors = ("lora_A", "lora_embedding_A", "lokr_w1", "lokr_w1_a")
    return sum(any(label in (getattr(module, name, None) or ()) for name in factors) for module in layers.values())
