"""Which accelerator a generator or scorer is set up on, found out without loading torch into this process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import cache

_PROBE = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
_PROBE_SECONDS = 120


@cache
def cuda_count() -> int:
    """Returns how many CUDA devices torch can use here; 0 where torch is not installed or finds none."""
    if importlib.util.find_spec("torch") is None:
        return 0
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True
        )
        return int(done.stdout.split()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0  # a torch that does not import offers no device; a plugin that needs it says so itself


def own_device() -> str:
    """Returns the device for a plugin in this process: `cuda:0`, or `cpu`."""
    return "cuda:0" if cuda_count() else "cpu"


def worker_devices(workers: int) -> list[tuple[str, str]]:
    """Shares the devices out among worker processes.

    A worker sees only its own device, so its name is `cuda:0` in each of them.

    Returns:
        For each worker the device's name, and the value of CUDA_VISIBLE_DEVICES, empty to leave it alone.
    """
    count = cuda_count()
    if count == 0:
        return [("cpu", "")] * workers
    allowed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    visible = allowed or [str(number) for number in range(count)]
    return [("cuda:0", visible[number % len(visible)]) for number in range(workers)]
