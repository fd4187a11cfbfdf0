"""Say before a large model is loaded onto a CPU how much memory it takes, and that it is slow."""

from __future__ import annotations

import logging

from knowgen.core.errors import ConfigError
from knowgen.local_models.host_memory import host_memory
from knowgen.local_models.weight_sizes import BYTES

_log = logging.getLogger("knowgen.models")

_LARGE = 10**9
"""Parameters from which a model on a CPU is reported before it is loaded."""

_LOADED = 1.1
"""Memory of a loaded model and its smallest batch, as a multiple of that of its weights."""


def report_on_cpu(parameters: int, dtype: str, where: str, *, quantized: bool = False) -> None:
    """Log what a large model on a CPU takes; nothing for one with less than a billion parameters.

    Args:
        parameters: Number of its parameters.
        dtype: Number format of its weights, such as `float32`.
        where: Names the plugin in messages.
        quantized: Whether the weights take less than that in memory.

    Raises:
        ConfigError: It cannot fit into the memory of this machine.
    """
    if parameters < _LARGE:
        return
    size, memory = parameters * BYTES[dtype], host_memory()
    what = f"{parameters / 1e9:.1f} billion parameters in {dtype} take {size / 1e9:.0f} GB of memory"
    if memory is not None and not quantized and size > memory.total:
        halved = dtype == "float32" and size // 2 <= memory.total
        half = f", or dtype=bfloat16 ({size / 2e9:.0f} GB)" if halved else ""
        total = f"{memory.total / 1e9:.0f} GB"
        raise ConfigError(f"{what}, and this machine has {total}", where=where, fix=f"use a GPU, a smaller model{half}")
    free = "" if memory is None else f"; {memory.free / 1e9:.0f} GB are free"
    tight = memory is not None and not quantized and size * _LOADED > memory.free
    _log.warning(
        "%s: no GPU is used, so the model runs on the CPU, where one result may take minutes to hours. %s%s%s%s",
        where, what, " before it is quantized" if quantized else "", free,
        ", which is too little: the system may swap or end the process" if tight else "",
    )  # fmt: skip
