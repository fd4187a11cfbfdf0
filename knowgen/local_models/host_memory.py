"""Memory of this machine: how much there is, and how much a process can still take."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_MEMINFO = Path("/proc/meminfo")
_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
"""Limit and use of a container, in the second and the first version of control groups."""


class HostMemory(NamedTuple):
    """Bytes of main memory.

    Attributes:
        total: All that this process may use, as far as a container limits it.
        free: What it can still take.
    """

    total: int
    free: int


def host_memory() -> HostMemory | None:
    """Return the main memory of this machine or container; None where the system does not say it."""
    machine = _machine()
    limits = [limit for limit in map(_container, _LIMITS) if limit is not None]
    found = [*([machine] if machine is not None else []), *limits]
    if not found:
        return None
    return HostMemory(min(each.total for each in found), min(each.free for each in found))


def _machine() -> HostMemory | None:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return _without_proc()
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest}
    return HostMemory(kilobytes["MemTotal"] * 1024, kilobytes.get("MemAvailable", kilobytes["MemFree"]) * 1024)


def _without_proc() -> HostMemory | None:
    """Return all memory of a system without /proc, such as macOS, which does not say what is free: all of it."""
    import os

    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    return HostMemory(total, total)


def _container(files: tuple[Path, Path]) -> HostMemory | None:
    try:
        limit, used = (int(file.read_text(encoding="ascii")) for file in files)
    except (OSError, ValueError):  # no container, or `max`: no limit
        return None
    return HostMemory(limit, max(0, limit - used))
