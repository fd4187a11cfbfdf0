"""Which accelerator a generator or scorer is set up on, found out without loading torch into this process."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

_PROBE = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
_PROBE_SECONDS = 120


class Device(NamedTuple):
    """A device as `setup` is told it, and what CUDA_VISIBLE_DEVICES is set to, empty to leave it alone."""

    name: str
    visible: str


CPU = Device("cpu", "")


def _has_driver() -> bool:
    """Tells whether asking torch is worth the seconds its import takes."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists() or bool(shutil.which("nvidia-smi"))


@cache
def cuda_count() -> int:
    """Returns how many CUDA devices torch can use here; 0 where torch is not installed or finds none."""
    if not _has_driver() or importlib.util.find_spec("torch") is None:
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


def worker_devices(workers: int) -> list[Device]:
    """Shares the devices out among worker processes.

    A worker sees only its own device, so its name is `cuda:0` in each of them, and a plugin that says just "cuda"
    lands on the right one as well.
    """
    count = cuda_count()
    if count == 0:
        return [CPU] * workers
    allowed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    visible = allowed or [str(number) for number in range(count)]
    return [Device("cuda:0", visible[number % len(visible)]) for number in range(workers)]
