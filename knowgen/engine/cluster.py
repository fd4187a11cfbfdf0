"""Divide the processors and GPUs of a cluster among the plugins of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from knowgen.core.errors import ConfigError, UsageError
from knowgen.engine.components import AgentHandle, GeneratorHandle, ScorerHandle
from knowgen.engine.executors.links import WorkerLaunch
from knowgen.engine.executors.subprocess import WorkerHosts
from knowgen.generators.contract import GenerationSource

SMALL_CPU = 0.001
"""Part of a processor that a worker takes which mostly waits; nodes without processors, as many heads are, get none."""

_SPARE = 0.01
"""Part of a processor or GPU that workers leave free, for those that mostly wait and those for calls that are alone."""

_MOST_SHARES = 64
"""Most workers that share a processor or a GPU."""

Handle = AgentHandle | GeneratorHandle | ScorerHandle


class NodeResources(NamedTuple):
    """What a node of a cluster has for this run."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Place:
    """What the workers of one plugin get on a cluster.

    Attributes:
        workers: Number of workers.
        cpus: Processors of each; few for a plugin that waits for a service, none for one that uses a GPU.
        gpus: GPUs of each; less than 1 where plugins share one.
        alone_gpus: GPUs of the worker in which calls are repeated alone.
        threads: Threads of each for libraries that compute.
    """

    workers: int
    cpus: float = 0.0
    gpus: float = 0.0
    alone_gpus: float = 0.0
    threads: int = 1


class Cluster(Protocol):
    """The machines on which plugins run."""

    def place(self, where: str) -> Place:
        """Return what the workers of a plugin get.

        Args:
            where: The plugin, as in `name_of`.
        """
        ...

    def hosts(self, launch: WorkerLaunch) -> WorkerHosts:
        """Return where the workers of a plugin run."""
        ...


def name_of(handle: Handle) -> str:
    """Return the name of a plugin for messages, such as `generator 'duck'`."""
    kinds = {AgentHandle: "agent", GeneratorHandle: "generator", ScorerHandle: "scorer"}
    return f"{kinds[type(handle)]} {handle.spec.name!r}"


def _waits(handle: Handle) -> bool:
    return handle.capabilities.shape in {"answer", "generate", "score"}


def _uses_gpu(handle: Handle) -> bool:
    if isinstance(handle, ScorerHandle):
        return handle.capabilities.local
    return handle.capabilities.wants_device


def _most_workers(handle: Handle) -> int:
    """Return how many workers a plugin may have; 0 for no maximum."""
    return handle.capabilities.workers if isinstance(handle, ScorerHandle) else 0


def stages(
    agent: AgentHandle | None,
    generator: GeneratorHandle | GenerationSource,
    scorers: Sequence[ScorerHandle],
    *,
    phased: bool,
) -> list[list[Handle]]:
    """Return the plugins that run at the same time: all, or in a phased run those of each stage.

    Raises:
        UsageError: One of them is an object of this process, which no other machine has.
    """
    parts: list[list[Handle]] = [
        [agent] if agent is not None else [],
        [generator] if isinstance(generator, GeneratorHandle) else [],
        list(scorers),
    ]
    for handle in (each for part in parts for each in part):
        if handle.component_ref is None:
            raise UsageError(
                "it is an object of this process, which the nodes of a cluster do not have",
                where=name_of(handle),
                fix="name it as file.py:Class, or run it with executor local",
            )
    return parts if phased else [[each for part in parts for each in part]]


def plan_places(
    nodes: Sequence[NodeResources], stages: Sequence[Sequence[Handle]], workers: int | None
) -> dict[str, Place]:
    """Return what the workers of each plugin get, by its name.

    Each worker that computes gets a processor, or a GPU if it uses one and the cluster has any. Those that run at the
    same time divide them; where there are too few, they share. A plugin that waits for a service gets one worker.

    Args:
        nodes: The nodes of the cluster.
        stages: Plugins that run at the same time, for each stage.
        workers: Number of workers of each plugin; None for as many as there are processors or GPUs.

    Raises:
        ConfigError: The cluster has neither processors nor GPUs.

    Example:
        >>> plan_places([NodeResources(4, 0)], [[]], None)
        {}
    """
    if not any(node.cpus > 0 or node.gpus > 0 for node in nodes):
        raise ConfigError("no node of the cluster has a processor", fix="start nodes with --num-cpus or --num-gpus")
    places: dict[str, Place] = {}
    for stage in stages:
        on_gpu = [each for each in stage if _uses_gpu(each) and any(node.gpus > 0 for node in nodes)]
        on_cpu = [each for each in stage if each not in on_gpu and not _waits(each)]
        places |= {
            name_of(each): Place(workers or 1, cpus=SMALL_CPU)
            for each in stage
            if each not in on_gpu and each not in on_cpu
        }
        places |= _on_gpus([node.gpus for node in nodes], on_gpu, workers)
        places |= _on_cpus([node.cpus for node in nodes], on_cpu, workers)
    return places


def _on_cpus(cpus: Sequence[float], handles: Sequence[Handle], workers: int | None) -> dict[str, Place]:
    numbers = _divide(cpus, handles, workers)
    share = _share(cpus, sum(numbers.values())) * (1 - _SPARE)
    threads = {name: max(1, int(sum(cpus)) // max(1, sum(numbers.values()))) for name in numbers}
    return {name: Place(number, cpus=_rounded(share), threads=threads[name]) for name, number in numbers.items()}


def _on_gpus(gpus: Sequence[float], handles: Sequence[Handle], workers: int | None) -> dict[str, Place]:
    numbers = _divide(gpus, handles, workers)
    share = _share(gpus, sum(numbers.values()))
    places = {}
    for handle in handles:
        spare = _SPARE if _waits(handle) else 0.0
        number, each = numbers[name_of(handle)], handle.capabilities.gpus_per_worker
        if each > 1:  # one model on several GPUs of a node
            most = max(1, min(number // each, sum(int(unit) // each for unit in gpus)))
            places[name_of(handle)] = Place(most, gpus=float(each), threads=4)
            continue
        own, alone = _rounded(share * (1 - spare)), _rounded(share * spare)
        places[name_of(handle)] = Place(number, gpus=own, alone_gpus=alone, threads=4)
    return places


def _divide(units: Sequence[float], handles: Sequence[Handle], workers: int | None) -> dict[str, int]:
    """Return the number of workers of each plugin; what is left over is given to the first one."""
    total = sum(math.floor(unit) for unit in units)
    each = max(1, total // max(1, len(handles)))
    numbers: dict[str, int] = {}
    for handle in reversed(handles):
        first = handle is handles[0]
        number = workers or (max(each, total - sum(numbers.values())) if first else each)
        most = _most_workers(handle)
        numbers[name_of(handle)] = min(number, most) if most else number
    return numbers


def _share(units: Sequence[float], workers: int) -> float:
    """Return the largest share of a processor or GPU of which the nodes have enough for some workers."""
    for parts in range(1, _MOST_SHARES + 1):
        if sum(math.floor(unit * parts) for unit in units) >= workers:
            return 1 / parts
    return 1 / _MOST_SHARES


def _rounded(share: float) -> float:
    """Return a share in the smallest unit of Ray, 1/10000, rounded down."""
    return math.floor(share * 10_000 + 1e-6) / 10_000
