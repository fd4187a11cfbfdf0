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

from knowgen.core.errors import ConfigError

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
_FREE = """
import sys, torch
library = getattr(torch, sys.argv[1])
print(*(library.mem_get_info(number)[0] for number in range(library.device_count())))
"""
_PROBE_SECONDS = 120

_GPU_FILES = ("nvidia[0-9]*", "kfd", "dxg", "dri/renderD*")
"""Files under /dev of NVIDIA and AMD GPUs, of GPUs under Windows' Linux, and of any GPU."""


class Device(NamedTuple):
    """A device of a worker process.

    Attributes:
        name: What `setup` is given, such as `cuda:0`, `xpu:0` or `mps`.
        visible: The GPUs that it sees, as the value of `variable`; empty to leave that unchanged.
        variable: Variable of the environment that says which GPUs a process sees.
    """

    name: str
    visible: str
    variable: str = "CUDA_VISIBLE_DEVICES"


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

_VISIBLE = {"cuda": ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"), "xpu": ()}
"""Variables that say which GPUs a process sees, by kind. AMD's own is read first; both are understood there."""


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


def gpu_count() -> int:
    """Return the number of GPUs over which work can be spread: those of NVIDIA, AMD and Intel."""
    kind, count = accelerators()
    return count if kind in _VISIBLE else 0


def own_device() -> str:
    """Return the device for a plugin in this process, such as `cuda:0`, `mps` or `cpu`."""
    kind, count = accelerators()
    return f"{kind}:0" if count and kind != "mps" else kind


def worker_devices(workers: int, each: int = 1, *, emptiest: bool = False) -> list[Device]:
    """Assign devices to each worker process, in turn.

    A worker sees only its own CUDA devices, so the first is `cuda:0` in each, and a plugin that uses plain "cuda" gets
    the right one as well.

    Args:
        workers: Number of worker processes.
        each: Number of GPUs of a worker.
        emptiest: Whether the GPUs with the most free memory come first, for a plugin that runs beside others.

    Raises:
        ConfigError: There are fewer GPUs than a worker needs, or they cannot be given to one worker.
    """
    kind, count = accelerators()
    if each > 1 and (kind != "cuda" or count < each):
        found = (
            f"{count} GPUs"
            if kind == "cuda"
            else "no GPU"
            if kind == "cpu"
            else f"devices of the kind {kind}, of which a worker has one"
        )
        raise ConfigError(f"gpus_per_worker={each}, and this machine has {found}", fix="leave out gpus_per_worker")
    if count == 0:
        return [CPU] * workers
    order = _by_free_memory(kind, count) if emptiest else list(range(count))
    if kind != "cuda":
        names = ["mps"] if kind == "mps" else [f"{kind}:{number}" for number in order]
        return [Device(names[number % count], "") for number in range(workers)]
    variable, allowed = _visible(kind)
    visible = [allowed[number] if allowed else str(number) for number in order if not allowed or number < len(allowed)]
    groups = [visible[start : start + each] for start in range(0, len(visible) - each + 1, each)]
    return [Device("cuda:0", ",".join(groups[number % len(groups)]), variable) for number in range(workers)]


def _visible(kind: str) -> tuple[str, list[str]]:
    """Return the variable that says which GPUs a process sees, and the GPUs that it names; none where it is not set."""
    for variable in _VISIBLE[kind]:
        if allowed := [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()]:
            return variable, allowed
    return "CUDA_VISIBLE_DEVICES", []


def _by_free_memory(kind: str, count: int) -> list[int]:
    """Return the numbers of the GPUs, those with the most free memory first; in order where it is not known."""
    numbers = list(range(count))
    if count < 2:
        return numbers
    free = free_memories(kind)
    return sorted(numbers, key=lambda number: -free[number]) if len(free) == count else numbers


def free_memories(kind: str) -> list[int]:
    """Return the free bytes of each GPU, as its driver says it; empty where it does not.

    Args:
        kind: `cuda` or `xpu`.
    """
    try:
        command = [sys.executable, "-P", "-c", _FREE, kind]
        process = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True)
        return [int(number) for number in process.stdout.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []  # then the first GPU is taken, as for any other plugin
