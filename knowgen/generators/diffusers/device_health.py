"""Faults of a GPU: how many a worker process survives, and when it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from knowgen.core.errors import TransientError
from knowgen.core.text import error_message
from knowgen.generators.contract import GPU_FAULT_CODE

MOST_FAULTS = 3
"""So many CUDA faults end a worker process, which the engine then starts anew."""


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
        words = error_message(error)
        if os.environ.get("KNOWGEN_DEVICE") and (fatal or self.faults >= MOST_FAULTS or _context_is_dead()):
            print(f"the GPU failed ({self.faults}): {words}; this worker ends", file=sys.stderr, flush=True)  # noqa: T201
            self._leave(GPU_FAULT_CODE)
        return TransientError(f"the GPU failed: {words}")
