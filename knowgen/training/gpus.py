"""GPUs for estimates of memory and time: what their vendor publishes of each.

Looked up on 2026-11-28 in NVIDIA's data sheets and in tables that cite them. Floating-point rates are those of dense
bfloat16 matrices: data sheets often print twice as much, for matrices of which half of the entries are zero.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from knowgen.core.errors import UsageError

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        name: Name as it is written after `--gpus`.
        memory: Memory in bytes.
        flops: Peak of dense bfloat16 matrices in floating-point operations a second.
        bandwidth: Peak of its memory in bytes a second.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("RTX4090", 24e9, 165.2e12, 1.008e12),
        Gpu("L40S", 48e9, 362e12, 0.864e12),
        Gpu("A100-40", 40e9, 312e12, 1.555e12),
        Gpu("A100", 80e9, 312e12, 2.039e12),
        Gpu("H100", 80e9, 989.4e12, 3.35e12),
        Gpu("H200", 141e9, 989.4e12, 4.8e12),
        Gpu("B200", 180e9, 2250e12, 7.7e12),
    )
}
"""Known GPUs: those of data centres with the connectors of their servers (SXM), L40S and RTX 4090 as cards."""


def parse_gpus(text: str) -> tuple[Gpu, int]:
    """Return the GPU of a text such as `H100:8`, and how many.

    Raises:
        UsageError: The GPU is not known, or the number is not a whole one from 1.

    Example:
        >>> gpu, count = parse_gpus("H100:8")
        >>> gpu.memory / 1e9, count
        (80.0, 8)
    """
    match = re.fullmatch(r"([A-Za-z0-9-]+)(?::(\d+))?", text.strip())
    gpu = GPUS.get(match[1].upper()) if match else None
    if match is None or gpu is None or match[2] == "0":
        known = ", ".join(GPUS)
        raise UsageError(f"{text!r} names no known GPU", where="--gpus", fix=f"write NAME:COUNT with one of {known}")
    return gpu, int(match[2] or 1)
