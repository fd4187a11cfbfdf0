"""The interface of embedding models, which the modules `clip` and `dino` implement, and helpers for both."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.text import error_message
from knowgen.local_models.devices import auto_dtype
from knowgen.local_models.memory import is_out_of_memory

if TYPE_CHECKING:
    from PIL.Image import Image

Vectors = NDArray[np.float32]

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class NetworkIdentity:
    """Identity of a model as plain data for keys. With precision and content it determines an embedding.

    Attributes:
        model: Name of the architecture or repository, without a path.
        weights: SHA-256 of the checkpoint, hex.
        config: Fingerprint of the configurations of model and preprocessing.
        libraries: Versions of the libraries that compute embeddings.
    """

    model: str
    weights: str
    config: str
    libraries: dict[str, str]


class Network(Protocol):
    """An embedding model loaded on its device."""

    def pixels(self, image: Image) -> Any:
        """Return the input tensor, shape (channels, height, width), of an RGB image. Must be thread-safe."""
        ...

    def images(self, batch: Sequence[Any]) -> Vectors:
        """Return unit vectors, shape (n, dimensions), of n tensors from `pixels`."""
        ...

    def texts(self, texts: Sequence[str]) -> tuple[Vectors, list[bool]]:
        """Return unit vectors, shape (n, dimensions), of n texts, and for each text whether it was cut to fit."""
        ...


class NetworkSource(Protocol):
    """Finds, identifies and loads a model."""

    def prepare(self) -> NetworkIdentity:
        """Find the files and return the model's identity, without loading it.

        Raises:
            UsageError: The name is unknown.
            MissingDependencyError: A package or the weights are missing.
        """
        ...

    def load(self, device: str, precision: str) -> Network:
        """Load the model.

        Args:
            device: Device as torch names it.
            precision: fp32, bf16 or fp16.

        Raises:
            ConfigError: The weights do not fit the model, or the device is not available.
        """
        ...


def resolve_precision(precision: str, device: str) -> str:
    """Return the precision; for `auto` bf16 on a GPU that supports it, fp16 on another GPU, and fp32 elsewhere."""
    if precision != "auto":
        return precision
    return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[auto_dtype(device)]


def check_precision(precision: str, where: str) -> None:
    """Check the name of a precision.

    Raises:
        UsageError: The name is unknown.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", where=where, fix=f"one of {', '.join(PRECISIONS)}")


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """Return a context in which matrix products have a precision; sums and norms stay in 32 bits."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    context: AbstractContextManager[Any] = torch.autocast(
        torch.device(device).type, dtype=None if precision == "fp32" else dtype, enabled=precision != "fp32"
    )
    return context


def unit_vectors(features: Any) -> Vectors:
    """Return the rows of a tensor, shape (n, dimensions), normalised to length 1, as float32."""
    import torch

    rows: Vectors = torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
    return rows


def move_to_device(model: Any, device: str, where: str) -> Any:
    """Return a model on its device, in evaluation mode and without gradients.

    Raises:
        ConfigError: The device is not available, or its memory is too small.
    """
    try:
        return model.to(device).eval().requires_grad_(False)
    except (RuntimeError, AssertionError, ValueError) as error:
        if is_out_of_memory(error):
            fix = "free memory on the device, or use a smaller model"
        else:
            fix = "choose another device"
        what = f"the model cannot be moved to the device {device!r}: {error_message(error)}"
        raise ConfigError(what, where=where, fix=fix) from error
