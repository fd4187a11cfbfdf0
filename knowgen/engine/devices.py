"""Choose the accelerator for a plugin, without importing torch into this process."""

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
    """A device of a worker process.

    Attributes:
        name: What `setup` is given, such as `cuda:0`.
        visible: Value of CUDA_VISIBLE_DEVICES; empty to leave it unchanged.
    """

    name: str
    visible: str


CPU = Device("cpu", "")


def _has_driver() -> bool:
    """Return whether torch could find a CUDA device, so that importing it, which takes seconds, is worthwhile."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists() or bool(shutil.which("nvidia-smi"))


@cache
def cuda_count() -> int:
    """Return the number of CUDA devices that torch can use; 0 if torch is not installed or finds none."""
    if not _has_driver() or importlib.util.find_spec("torch") is None:
        return 0
    try:
        process = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True
        )
        return int(process.stdout.split()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0  # torch cannot be imported: no device; a plugin that needs torch reports the error itself


def own_device() -> str:
    """Return the device for a plugin in this process: `cuda:0`, or `cpu`."""
    return "cuda:0" if cuda_count() else "cpu"


def worker_devices(workers: int) -> list[Device]:
    """Assign a device to each worker process, in turn.

    A worker sees only its own device, so the name is `cuda:0` in each, and a plugin that uses plain "cuda" gets the
    right device as well.

    Args:
        workers: Number of worker processes.
    """
    count = cuda_count()
    if count == 0:
        return [CPU] * workers
    allowed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    visible = allowed or [str(number) for number in range(count)]
    return [Device("cuda:0", visible[number % len(visible)]) for number in range(workers)]
