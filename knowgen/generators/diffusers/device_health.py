"""Faults of an accelerator: memory that ran out, and a GPU that stopped computing."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

from knowgen.core.errors import TransientError
from knowgen.generators.contract import GPU_FAULT_CODE

MOST_FAULTS = 3
"""So many CUDA faults end a worker process, which the engine then starts anew."""

_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed")
_CUDA_WORDS = (
    "cuda error", "device-side assert", "illegal memory access", "cublas_status_", "cudnn_status_", "cuda driver error",
    "hip error",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether memory ran out, of the accelerator or of the machine."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _MEMORY_WORDS)


def is_gpu_fault(error: BaseException) -> bool:
    """Tells whether the GPU failed under a call, for another reason than memory."""
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    return any(word in str(error).lower() for word in _CUDA_WORDS)


def free_memory() -> None:
    """Gives back what is held in vain; call it when no exception is being handled, since that holds tensors, too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def device_name(device: str) -> str:
    """Returns what a GPU calls itself, empty for a CPU."""
    if not device.startswith("cuda"):
        return ""
    import torch

    return str(torch.cuda.get_device_name(device))


def _context_is_dead() -> bool:
    """Tells whether the process can use its GPU no more: after some faults every later call fails alike."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


class GpuHealth:
    """Counts the faults of a process's GPU, and ends a worker whose GPU cannot go on.

    Args:
        leave: Ends the process at once; nothing of a broken GPU may be waited for.
    """

    def __init__(self, leave: Callable[[int], object] = os._exit) -> None:
        self.faults = 0
        self._leave = leave

    def failed(self, error: BaseException, *, fatal: bool = False) -> TransientError:
        """Takes note of a fault and returns the error to raise, by which the engine draws the requests again.

        A worker process ends here at the third fault, or at once when its GPU answers no more. One that is no worker
        goes on: it may belong to a user's notebook.

        Args:
            error: What the GPU raised.
            fatal: Must a worker end at the first fault, because it has no pipeline yet?
        """
        self.faults += 1
        words = " ".join(str(error).split())[:200]
        if os.environ.get("KNOWGEN_DEVICE") and (fatal or self.faults >= MOST_FAULTS or _context_is_dead()):
            print(f"the GPU failed ({self.faults}): {words}; this worker ends", file=sys.stderr, flush=True)  # noqa: T201
            self._leave(GPU_FAULT_CODE)
        return TransientError(f"the GPU failed: {words}")
