"""Memory of an accelerator: how much there is, how much is free, and how much a piece of work takes at its peak."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

R = TypeVar("R")

_highest: dict[str, int] = {}
"""Peaks in bytes that were measured before the library's own count was reset, by device."""


class DeviceMemory:
    """The memory of one accelerator, as torch counts it for this process.

    Args:
        device: Device, as torch names it, such as `cuda:0`.
        library: `torch.cuda` or `torch.xpu`.
    """

    def __init__(self, device: str, library: Any) -> None:
        self.device, self._library = device, library

    @property
    def total(self) -> int:
        """Bytes of the card."""
        return int(self._library.mem_get_info(self.device)[1])

    @property
    def free(self) -> int:
        """Bytes that a tensor of this process can take: those of the card, and those that torch holds unused."""
        unused = self._library.memory_reserved(self.device) - self._library.memory_allocated(self.device)
        return int(self._library.mem_get_info(self.device)[0] + unused)

    @property
    def of_others(self) -> int:
        """Bytes of the card that are neither free nor torch's in this process: other programs, and the driver."""
        free, total = self._library.mem_get_info(self.device)
        return max(0, int(total - free - self._library.memory_reserved(self.device)))

    @property
    def peak(self) -> int:
        """Maximum number of bytes that this process has had in tensors."""
        return max(int(self._library.max_memory_allocated(self.device)), _highest.get(self.device, 0))

    def added_by(self, work: Callable[[], R]) -> tuple[R, int]:
        """Carry out some work; return its result, and by how many bytes it raised what is in tensors at its peak.

        Raises:
            BaseException: What the work raised.
        """
        _highest[self.device] = self.peak
        self._library.reset_peak_memory_stats(self.device)
        before = int(self._library.memory_allocated(self.device))
        result = work()
        return result, max(0, int(self._library.max_memory_allocated(self.device)) - before)


def memory_of(device: str) -> DeviceMemory | None:
    """Return the memory of an accelerator; None for a CPU and for devices that do not say how much is free.

    Example:
        >>> memory_of("cpu") is None
        True
    """
    torch = sys.modules.get("torch")
    library = getattr(torch, device.partition(":")[0], None) if device.startswith(("cuda", "xpu")) else None
    if library is None or not library.is_available() or not hasattr(library, "mem_get_info"):
        return None
    memory = DeviceMemory(device, library)
    try:
        memory.total  # noqa: B018 - some drivers of Intel GPUs do not say it
    except RuntimeError:
        return None
    return memory
