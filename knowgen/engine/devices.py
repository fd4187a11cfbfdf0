"""Choose the accelerator for a plugin, without importing torch into this process."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

_PROBE = """
import torch
if torch.cuda.is_available():
    print("cuda", torch.cuda.device_count())
elif hasattr(torch, "xpu") and torch.xpu.is_available():
    print("xpu", torch.xpu.device_count())
elif torch.backends.mps.is_available():
    print("mps", 1)
else:
    print("cpu", 0)
"""
_PROBE_SECONDS = 120

_GPU_FILES = ("nvidia[0-9]*", "kfd", "dxg", "dri/renderD*")
"""Files under /dev of NVIDIA and AMD GPUs, of GPUs under Windows' Linux, and of any GPU."""


class Device(NamedTuple):
    """A device of a worker process.

    Attributes:
        name: What `setup` is given, such as `cuda:0`, `xpu:0` or `mps`.
        visible: Value of CUDA_VISIBLE_DEVICES; empty to leave it unchanged.
    """

    name: str
    visible: str


CPU = Device("cpu", "")


class Accelerators(NamedTuple):
    """The accelerators that torch can use.

    Attributes:
        kind: `cuda` (NVIDIA and AMD), `xpu` (Intel), `mps` (Apple), or `cpu` for none.
        number: Number of devices; 0 for none.
    """

    kind: str
    number: int


NONE = Accelerators("cpu", 0)


def _may_have_gpu() -> bool:
    """Return whether this machine may have a GPU, so that importing torch, which takes seconds, is worthwhile."""
    if sys.platform == "darwin" or shutil.which("nvidia-smi"):
        return True
    return any(file for pattern in _GPU_FILES for file in Path("/dev").glob(pattern))


@cache
def accelerators() -> Accelerators:
    """Return the accelerators that torch can use; `NONE` if torch is not installed or finds none."""
    if not _may_have_gpu() or importlib.util.find_spec("torch") is None:
        return NONE
    try:
        process = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True
        )
        kind, count = process.stdout.split()[-2:]
        found = Accelerators(kind, int(count))
    except (OSError, subprocess.SubprocessError, ValueError):
        return NONE  # torch cannot be imported: no device; a plugin that needs torch reports the error itself
    if not found.number and shutil.which("nvidia-smi"):
        logging.getLogger("knowgen.engine").warning(
            "this machine has an NVIDIA GPU that torch cannot use; local models run on the CPU (see `knowgen doctor`)"
        )
    return found


def cuda_count() -> int:
    """Return the number of CUDA devices that torch can use."""
    kind, count = accelerators()
    return count if kind == "cuda" else 0


def own_device() -> str:
    """Return the device for a plugin in this process, such as `cuda:0`, `mps` or `cpu`."""
    kind, count = accelerators()
    return f"{kind}:0" if count and kind != "mps" else kind


def worker_devices(workers: int) -> list[Device]:
    """Assign a device to each worker process, in turn.

    A worker sees only its own CUDA device, so the name is `cuda:0` in each, and a plugin that uses plain "cuda" gets
    the right device as well.

    Args:
        workers: Number of worker processes.
    """
    kind, count = accelerators()
    if count == 0:
        return [CPU] * workers
    if kind != "cuda":
        names = ["mps"] if kind == "mps" else [f"{kind}:{number}" for number in range(count)]
        return [Device(names[number % count], "") for number in range(workers)]
    allowed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    visible = allowed or [str(number) for number in range(count)]
    return [Device("cuda:0", visible[number % len(visible)]) for number in range(workers)]
