"""What the parts of the check for a GPU share: the device, and times and memory of a block."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Figures = dict[str, Any]


def device() -> str:
    """Return the device that is checked."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def peak_gib() -> float:
    """Return the peak of the GPU's memory in GiB since the last block began; 0 on a CPU."""
    import torch

    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if torch.cuda.is_available() else 0.0


@contextmanager
def measured(figures: Figures, name: str) -> Iterator[None]:
    """Add the seconds of a block, and on a GPU its peak memory in GiB, to the figures."""
    import torch

    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    yield
    if gpu:
        torch.cuda.synchronize()
        figures[f"{name}_peak_gib"] = peak_gib()
    figures[f"{name}_seconds"] = round(time.perf_counter() - started, 3)
