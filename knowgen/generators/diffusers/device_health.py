"""Failures of a GPU: how many a worker process survives, and when it exits."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from knowgen.core.errors import TransientError
from knowgen.core.text import error_message
from knowgen.generators.contract import GPU_FAULT_CODE

MAX_FAULTS = 3
"""Number of CUDA errors after which a worker process exits; the engine then starts a new one."""


def _context_is_dead() -> bool:
    """Return whether the process can no longer use its GPU: after some CUDA errors every later call fails alike."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


class GpuHealth:
    """Count the failures of a process's GPU, and exit a worker whose GPU is unusable.

    Args:
        leave: Exits the process at once, without cleanup that would wait for a broken GPU.

    Attributes:
        faults: Number of failures so far.
    """

    def __init__(self, leave: Callable[[int], object] = os._exit) -> None:
        self.faults = 0
        self._leave = leave

    def failed(self, error: BaseException, *, fatal: bool = False) -> TransientError:
        """Record a failure and return the error to raise, upon which the engine retries the requests.

        A worker process exits here at the third failure, or at once when its GPU is unusable. Any other process goes
        on: it may be a user's notebook.

        Args:
            error: What the GPU raised.
            fatal: Whether a worker exits at the first failure, because it has no pipeline yet.
        """
        self.faults += 1
        message = error_message(error)
        if os.environ.get("KNOWGEN_DEVICE") and (fatal or self.faults >= MAX_FAULTS or _context_is_dead()):
            print(f"the GPU failed ({self.faults}): {message}; this worker exits", file=sys.stderr, flush=True)  # noqa: T201
            self._leave(GPU_FAULT_CODE)
        return TransientError(f"the GPU failed: {message}")
