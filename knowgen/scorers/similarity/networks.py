"""What is asked of a model that embeds pictures, whichever library it comes from."""

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
    """What decides an embedding beside the precision and what is embedded; plain data for keys.

    Attributes:
        model: Name of the architecture or repository, no path.
        weights: SHA-256 hex digest of the checkpoint.
        config: Fingerprint of the model's and the preprocessing's configuration.
        libraries: Versions of the libraries that compute.
    """

    model: str
    weights: str
    config: str
    libraries: dict[str, str]


class Network(Protocol):
    """A model in memory, on its device."""

    def pixels(self, image: Image) -> Any:
        """Returns the tensor, shape (channels, height, width), that the model takes for an RGB picture.

        Called from several threads at once.
        """
        ...

    def images(self, batch: Sequence[Any]) -> Vectors:
        """Returns unit vectors, shape (n, dimensions), of tensors from `pixels`."""
        ...

    def texts(self, texts: Sequence[str]) -> tuple[Vectors, list[bool]]:
        """Returns unit vectors, shape (n, dimensions), and for each text whether it was cut to fit."""
        ...


class NetworkSource(Protocol):
    """Where a network comes from: its files are found and told apart before anything is loaded."""

    def prepare(self) -> NetworkIdentity:
        """Finds the files and tells who the model is; loads nothing.

        Raises:
            UsageError: The name is unknown.
            MissingDependencyError: A package or the weights are not there.
        """
        ...

    def load(self, device: str, precision: str) -> Network:
        """Loads the model.

        Raises:
            ConfigError: The weights do not fit the model, or the device is none.
        """
        ...


def resolve_precision(precision: str, device: str) -> str:
    """Returns the precision that `auto` stands for: bf16 on a GPU that has it, fp16 on another, fp32 elsewhere."""
    if precision != "auto":
        return precision
    return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[auto_dtype(device)]


def check_precision(precision: str, where: str) -> None:
    """Checks the name of a precision.

    Raises:
        UsageError: It is unknown.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", where=where, fix=f"one of {', '.join(PRECISIONS)}")


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """Returns a context in which matrix products are taken at a precision; sums and norms stay in 32 bits."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    context: AbstractContextManager[Any] = torch.autocast(
        torch.device(device).type, dtype=None if precision == "fp32" else dtype, enabled=precision != "fp32"
    )
    return context


def unit_vectors(features: Any) -> Vectors:
    """Returns rows of a tensor, shape (n, dimensions), as float32 of length 1."""
    import torch

    rows: Vectors = torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
    return rows


def move_to_device(model: Any, device: str, where: str) -> Any:
    """Moves a model to its device, ready to be asked.

    Raises:
        ConfigError: The device is not there.
    """
    try:
        return model.to(device).eval().requires_grad_(False)
    except (RuntimeError, AssertionError, ValueError) as error:
        if is_out_of_memory(error):
            fix = "free the device, or take a smaller model"
        else:
            fix = "choose another device"
        what = f"the model does not go to the device {device!r}: {error_message(error)}"
        raise ConfigError(what, where=where, fix=fix) from error
