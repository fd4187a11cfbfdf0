"""Divide the processors and GPUs of a cluster among the plugins of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
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

_GPU_THREADS = 4
"""Threads of a worker with a GPU."""

Handle = AgentHandle | GeneratorHandle | ScorerHandle


class NodeResources(NamedTuple):
    """What a node of a cluster has for this run.

    Attributes:
        cpus: Its processors.
        gpus: Its GPUs.
        id: What the cluster calls it.
    """

    cpus: float
    gpus: float
    id: str = ""


@dataclass(frozen=True)
class Place:
    """What the workers of one plugin get on a cluster.

    Attributes:
        workers: Number of workers.
        cpus: Processors of each; few for a plugin that waits for a service, none for one that uses a GPU.
        gpus: GPUs of each; less than 1 where plugins share one.
        alone_gpus: GPUs of the worker in which calls are repeated alone.
        threads: Threads of each for libraries that compute.
        nodes: Id of the node of each worker; empty where the cluster may choose.
    """

    workers: int
    cpus: float = 0.0
    gpus: float = 0.0
    alone_gpus: float = 0.0
    threads: int = 1
    nodes: tuple[str, ...] = ()

    def node_of(self, number: int) -> str:
        """Return the node of a worker; empty where the cluster may choose."""
        return self.nodes[number % len(self.nodes)] if self.nodes else ""


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
        ConfigError: The cluster has neither processors nor GPUs, or not those that the plugins of a stage need.

    Example:
        >>> plan_places([NodeResources(4, 0)], [[]], None)
        {}
    """
    if not any(node.cpus > 0 or node.gpus > 0 for node in nodes):
        raise ConfigError("no node of the cluster has a processor", fix="start nodes with --num-cpus or --num-gpus")
    places: dict[str, Place] = {}
    for stage in stages:
        _check_gpus(nodes, [each for each in stage if _uses_gpu(each)])
        on_gpu = [each for each in stage if _uses_gpu(each) and any(node.gpus > 0 for node in nodes)]
        on_cpu = [each for each in stage if each not in on_gpu and not _waits(each)]
        places |= {
            name_of(each): Place(workers or 1, cpus=SMALL_CPU)
            for each in stage
            if each not in on_gpu and each not in on_cpu
        }
        places |= _on_gpus(nodes, on_gpu, workers)
        places |= _on_cpus([node.cpus for node in nodes], on_cpu, workers)
    return places


def _on_cpus(cpus: Sequence[float], handles: Sequence[Handle], workers: int | None) -> dict[str, Place]:
    numbers = _divide(cpus, handles, workers)
    share = _share(cpus, sum(numbers.values())) * (1 - _SPARE)
    threads = {name: max(1, int(sum(cpus)) // max(1, sum(numbers.values()))) for name in numbers}
    return {name: Place(number, cpus=_rounded(share), threads=threads[name]) for name, number in numbers.items()}


def _check_gpus(nodes: Sequence[NodeResources], handles: Sequence[Handle]) -> None:
    """Check that each plugin with several GPUs for one worker can have them.

    Raises:
        ConfigError: No node has as many, or a worker of the plugin has to be repeated beside itself.
    """
    largest = max((int(node.gpus) for node in nodes), default=0)
    for handle in handles:
        each = handle.capabilities.gpus_per_worker
        if each > max(1, largest):
            found = f"the largest node of the cluster has {largest}" if largest else "the cluster has no GPU"
            fix = "give a smaller gpus_per_worker, or start nodes with more GPUs"
            raise ConfigError(f"gpus_per_worker={each}, and {found}", where=name_of(handle), fix=fix)
        if each > 1 and _waits(handle):
            what = f"gpus_per_worker={each}, which a plugin that takes several calls at once cannot have on a cluster"
            fix = "give its class `generate_batch` or `score_batch`, or run it with executor local"
            raise ConfigError(what, where=name_of(handle), fix=fix)


def _on_gpus(nodes: Sequence[NodeResources], handles: Sequence[Handle], workers: int | None) -> dict[str, Place]:
    """Return the places of plugins that use GPUs. Each GPU of a worker with several is its own; others may share one.

    Raises:
        ConfigError: There are too few GPUs.
    """
    several = [handle for handle in handles if handle.capabilities.gpus_per_worker > 1]
    others = [handle for handle in handles if handle not in several]
    if not several:
        return _sharing_gpus(nodes, others, workers)
    free, chosen = _with_several_gpus(nodes, handles, workers)
    places = {
        name_of(handle): Place(
            len(chosen[name_of(handle)]),
            gpus=float(handle.capabilities.gpus_per_worker),
            threads=_GPU_THREADS,
            nodes=tuple(nodes[number].id for number in chosen[name_of(handle)]),
        )
        for handle in several
    }
    left = [NodeResources(node.cpus, gpus, node.id) for node, gpus in zip(nodes, free, strict=True)]
    sharing = _sharing_gpus(left, others, workers)
    slots = cycle(_slots(left, sharing.values()))
    return places | {name: replace(place, nodes=tuple(islice(slots, place.workers))) for name, place in sharing.items()}


def _slots(nodes: Sequence[NodeResources], places: Iterable[Place]) -> list[str]:
    """Return the id of a node for each worker that it has room for, where all have the same part of a GPU."""
    parts = max((round(1 / (place.gpus + place.alone_gpus)) for place in places), default=1)
    return [node.id for node in nodes for _ in range(int(node.gpus) * parts)]


def _sharing_gpus(nodes: Sequence[NodeResources], handles: Sequence[Handle], workers: int | None) -> dict[str, Place]:
    """Return the places of plugins with one GPU for a worker, or a part of one where there are too few."""
    gpus = [node.gpus for node in nodes]
    numbers = _divide(gpus, handles, workers)
    share = _share(gpus, sum(numbers.values()))
    places = {}
    for handle in handles:
        spare = _SPARE if _waits(handle) else 0.0
        own, alone = _rounded(share * (1 - spare)), _rounded(share * spare)
        places[name_of(handle)] = Place(numbers[name_of(handle)], gpus=own, alone_gpus=alone, threads=_GPU_THREADS)
    return places


def _with_several_gpus(
    nodes: Sequence[NodeResources], handles: Sequence[Handle], workers: int | None
) -> tuple[list[int], dict[str, list[int]]]:
    """Choose the nodes of workers with several GPUs, so that the cluster has room for all at the same time.

    Every plugin gets one worker first; then each gets its part, and the first one of all what is left over. Where
    others need GPUs too, they keep theirs.

    Returns:
        The GPUs that are left of each node, and the numbers of the nodes of each plugin's workers.

    Raises:
        ConfigError: There are too few GPUs.
    """
    free = [int(node.gpus) for node in nodes]
    part = max(1, sum(free) // len(handles))
    several = sorted(
        (handle for handle in handles if handle.capabilities.gpus_per_worker > 1),
        key=lambda handle: -handle.capabilities.gpus_per_worker,
    )
    others = [handle for handle in handles if handle.capabilities.gpus_per_worker == 1]
    chosen: dict[str, list[int]] = {name_of(handle): [] for handle in several}
    least = {name_of(handle): workers or 1 for handle in several}
    for handle in several:
        for _ in range(least[name_of(handle)]):
            if not _choose(handle, free, chosen, keep=1 if others else 0):
                raise _too_few(nodes, handles, least)
    if workers is None:
        keep = sum(min(part, _most_workers(handle) or part) for handle in others)
        for handle in sorted(several, key=lambda handle: handle is handles[0]):
            each = handle.capabilities.gpus_per_worker
            most = _most_workers(handle) or (sum(free) if handle is handles[0] else max(1, part // each))
            while len(chosen[name_of(handle)]) < most and _choose(handle, free, chosen, keep=keep):
                pass
    return free, chosen


def _choose(handle: Handle, free: list[int], chosen: dict[str, list[int]], keep: int) -> bool:
    """Take the GPUs of one more worker from the fullest node that has them; return False where none has.

    Args:
        handle: The plugin.
        free: GPUs that are left of each node.
        chosen: Nodes of each plugin's workers.
        keep: GPUs that are left for others.
    """
    each = handle.capabilities.gpus_per_worker
    fitting = [number for number, gpus in enumerate(free) if gpus >= each]
    if not fitting or sum(free) - each < keep:
        return False
    best = min(fitting, key=lambda number: free[number])
    free[best] -= each
    chosen[name_of(handle)].append(best)
    return True


def _too_few(nodes: Sequence[NodeResources], handles: Sequence[Handle], least: Mapping[str, int]) -> ConfigError:
    """Return the error for plugins that need more GPUs at the same time than the cluster has."""
    needs = []
    for handle in handles:
        each, number = handle.capabilities.gpus_per_worker, least.get(name_of(handle), 0)
        needs.append(f"{name_of(handle)} {f'{number} x {each}' if number > 1 else each if number else 'a part of one'}")
    gpus = ", ".join(str(int(node.gpus)) for node in nodes if node.gpus)
    what = f"the GPUs of the cluster ({gpus} on its nodes) are too few for all at the same time: {'; '.join(needs)}"
    fixes = ["a smaller gpus_per_worker", *(["fewer workers"] if max(least.values()) > 1 else [])]
    fixes += ["schedule phased"] if len(handles) > 1 else []
    return ConfigError(what, fix=f"give {' or '.join(fixes)}")


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
