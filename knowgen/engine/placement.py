"""Decide where each plugin runs, and build its executor and dispatcher.

A plugin runs in worker processes, in an event loop of its own, or in threads, depending on its shape and the options.
Nothing is built here: an executor builds its plugin when the first request arrives.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from knowgen.core.metering import Meter
from knowgen.core.records import GenerationRequest
from knowgen.engine.cluster import name_of
from knowgen.engine.components import AgentHandle, GeneratorHandle, ScorerHandle
from knowgen.engine.devices import gpu_count, own_device
from knowgen.engine.dispatcher import Dispatcher
from knowgen.engine.executors.concurrency import CapacityLimiter, LoopBridge
from knowgen.engine.executors.in_process import Executor, LazyPlugin, LoopExecutor, ThreadExecutor
from knowgen.engine.executors.invoke import answer, generate, score
from knowgen.engine.executors.links import WorkerLaunch
from knowgen.engine.executors.subprocess import SubprocessExecutor
from knowgen.engine.failure_log import FailureLog
from knowgen.engine.options import EngineOptions
from knowgen.engine.queued_requests import LOOK_AHEAD
from knowgen.engine.run_state import RunState
from knowgen.generators.contract import GenerationSource

_SPARE_ITEMS = 8
_SPARE_IMAGES = 32
"""Images that wait to be stored, at most, before generators wait; beside those that are being generated."""


def gpus_for(handle: GeneratorHandle) -> int:
    """Return over how many GPUs a generator is spread: all, if it has `setup(device)`, else 0.

    Generators that call a service, and objects of this process, need none.
    """
    capabilities = handle.capabilities
    if handle.component_ref is None or capabilities.shape == "generate" or not capabilities.wants_device:
        return 0
    return gpu_count()


def generator_workers(handle: GeneratorHandle, options: EngineOptions) -> int:
    """Return the number of worker processes of a generator; 0 if it runs in this process.

    Code that is not of this project gets a worker process; an object that exists in this process only cannot.
    """
    if handle.component_ref is None:
        return 0
    if options.cluster is not None:
        return options.cluster.place(name_of(handle)).workers
    if options.workers is not None:
        return options.workers
    each = handle.capabilities.gpus_per_worker
    if handle.component_ref.bundled and each == 1:
        return options.gpus if options.gpus > 1 else 0
    return max(1, options.gpus // each)


def scorer_workers(handle: ScorerHandle, options: EngineOptions) -> int:
    """Return the number of worker processes of a scorer; 0 if it runs in this process.

    Scorers that compute use several cores in that way; one that waits for a service gets a process if it is not of this
    project.
    """
    ref, capabilities = handle.component_ref, handle.capabilities
    if ref is not None and options.cluster is not None:
        return options.cluster.place(name_of(handle)).workers
    if ref is None or (options.workers == 0 and not ref.bundled):
        return 0
    if capabilities.shape == "score_batch":
        return capabilities.workers or os.cpu_count() or 1
    return 0 if ref.bundled else 1


def generator_slots(handle: GeneratorHandle, options: EngineOptions) -> tuple[int, int]:
    """Return the number of concurrent calls of a generator, and the number of requests per call."""
    capabilities = handle.capabilities
    workers = generator_workers(handle, options)
    if capabilities.shape == "generate":
        return max(1, workers, options.concurrency or capabilities.concurrency), 1
    batch_size = max(1, capabilities.batch_size) if capabilities.shape == "generate_batch" else 1
    return max(1, workers) * max(1, capabilities.concurrency), batch_size


def scorer_slots(handle: ScorerHandle, options: EngineOptions) -> tuple[int, int]:
    """Return the number of concurrent calls of a scorer, and the number of items per call."""
    capabilities = handle.capabilities
    if capabilities.shape == "score":
        return max(1, options.concurrency or capabilities.concurrency), 1
    return max(1, scorer_workers(handle, options)), max(1, capabilities.concurrency)


def agent_slots(handle: AgentHandle, options: EngineOptions) -> int:
    """Return the number of concurrent calls of an agent."""
    return max(1, options.concurrency or handle.capabilities.concurrency)


def agent_workers(handle: AgentHandle, options: EngineOptions) -> int:
    """Return the number of worker processes of an agent; 0 if it runs in this process, as one of this project does."""
    ref = handle.component_ref
    if ref is not None and options.cluster is not None:
        return options.cluster.place(name_of(handle)).workers
    if ref is None or options.workers == 0:
        return 0
    return 0 if ref.bundled else 1


def _in_workers(launch: WorkerLaunch, options: EngineOptions, bridge: LoopBridge, meter: Meter) -> Executor:
    """Return the executor of worker processes: on the nodes of the run's cluster, or on this machine."""
    hosts = None if options.cluster is None else options.cluster.hosts(launch)
    return SubprocessExecutor(launch, bridge, meter, hosts)


def max_items_in_flight(
    generator: GeneratorHandle | GenerationSource | None,
    scorers: Sequence[ScorerHandle],
    options: EngineOptions,
    agent: AgentHandle | None = None,
) -> int:
    """Return the maximum number of items in flight: enough that no plugin of a pass is ever short of work."""
    count = _SPARE_ITEMS
    if agent is not None:
        count += 2 * agent_slots(agent, options)
    if isinstance(generator, GeneratorHandle):
        slots, batch = generator_slots(generator, options)
        ahead = LOOK_AHEAD if generator.capabilities.groups_by_length and batch > 1 else 1
        count += slots * batch + max(slots, ahead) * batch
    for handle in scorers:
        slots, batch = scorer_slots(handle, options)
        count += 2 * slots * batch
    return count


def generator_executor(
    handle: GeneratorHandle, options: EngineOptions, bridge: LoopBridge, meter: Meter, folder: Path
) -> Executor:
    """Return the executor of a generator.

    Args:
        handle: The generator.
        options: Number of worker processes, and concurrency.
        bridge: Bridge into the engine's event loop.
        meter: Meter of paid calls.
        folder: Folder for logs and for images in transfer.
    """
    where, shape = name_of(handle), handle.capabilities.shape
    workers = generator_workers(handle, options)
    if handle.component_ref is not None and workers:
        calls = -(-generator_slots(handle, options)[0] // workers)
        launch = WorkerLaunch(
            handle.component_ref, shape, where, folder, workers, calls,
            accelerated=True, gpus=handle.capabilities.gpus_per_worker,
            build_timeout=options.build_timeout, reuse=not options.fresh,
        )  # fmt: skip
        return _in_workers(launch, options, bridge, meter)
    plugin = LazyPlugin(bridge, handle.build, own_device, where, options.build_timeout)
    if shape == "generate":
        return LoopExecutor(bridge, plugin, generate, meter, where, reuse=not options.fresh)
    return ThreadExecutor(bridge, plugin, shape, meter, where, reuse=not options.fresh)


def _prompt_length(request: GenerationRequest) -> int:
    """Return the length of a prompt in bytes, which follows the number of its tokens in every script."""
    return len(request.prompt.encode())


def generator_dispatcher(
    handle: GeneratorHandle, options: EngineOptions, bridge: LoopBridge, state: RunState, meter: Meter, folder: Path
) -> Dispatcher:
    """Return the dispatcher of a generator.

    Args:
        handle: The generator.
        options: Concurrency, time limit, number of worker processes.
        bridge: Bridge into the engine's event loop.
        state: Whether the run goes on.
        meter: Meter of paid calls.
        folder: The run directory, for logs and for images in transfer.
    """
    slots, batch = generator_slots(handle, options)
    return Dispatcher(
        bridge,
        state,
        generator_executor(handle, options, bridge, meter, folder),
        slots=slots,
        batch_size=batch,
        timeout=handle.capabilities.deadline or options.timeout,
        result_name="image",
        where=name_of(handle),
        fill=handle.capabilities.shape == "generate_batch",
        length=_prompt_length if handle.capabilities.groups_by_length and batch > 1 else None,
        limiter=CapacityLimiter(slots * batch + min(slots * batch, _SPARE_IMAGES) + 2),
        failures=FailureLog(folder, name_of(handle)),
    )


def agent_dispatcher(
    handle: AgentHandle, options: EngineOptions, bridge: LoopBridge, state: RunState, meter: Meter, folder: Path
) -> Dispatcher:
    """Return the dispatcher of an agent; arguments as for `generator_dispatcher`."""
    where, capabilities = name_of(handle), handle.capabilities
    slots, workers = agent_slots(handle, options), agent_workers(handle, options)
    executor: Executor
    if handle.component_ref is not None and workers:
        calls = -(-slots // workers)
        launch = WorkerLaunch(
            handle.component_ref, capabilities.shape, where, folder, workers, calls,
            accelerated=True, build_timeout=options.build_timeout, reuse=not options.fresh,
        )  # fmt: skip
        executor = _in_workers(launch, options, bridge, meter)
    else:
        plugin = LazyPlugin(bridge, handle.build, own_device, where, options.build_timeout)
        executor = LoopExecutor(bridge, plugin, answer, meter, where, reuse=not options.fresh)
    return Dispatcher(
        bridge,
        state,
        executor,
        slots=slots,
        batch_size=1,
        timeout=capabilities.deadline or options.answer_timeout,
        result_name="answer",
        where=where,
        limiter=CapacityLimiter(2 * slots + 2),
        failures=FailureLog(folder, where),
    )


def scorer_dispatcher(
    handle: ScorerHandle, options: EngineOptions, bridge: LoopBridge, state: RunState, meter: Meter, folder: Path
) -> Dispatcher:
    """Return the dispatcher of a scorer; arguments as for `generator_dispatcher`."""
    where, capabilities = name_of(handle), handle.capabilities
    slots, batch = scorer_slots(handle, options)
    executor: Executor
    workers = scorer_workers(handle, options)
    if handle.component_ref is not None and workers:
        calls = -(-slots // workers)
        launch = WorkerLaunch(
            handle.component_ref, capabilities.shape, where, folder, workers, calls,
            accelerated=capabilities.local, gpus=capabilities.gpus_per_worker, emptiest=True,
            build_timeout=options.build_timeout, reuse=not options.fresh,
        )  # fmt: skip
        executor = _in_workers(launch, options, bridge, meter)
    else:
        plugin = LazyPlugin(bridge, handle.build, own_device, where, options.build_timeout)
        if capabilities.shape == "score":
            executor = LoopExecutor(bridge, plugin, score, meter, where, reuse=not options.fresh)
        else:
            executor = ThreadExecutor(bridge, plugin, "score_batch", meter, where, reuse=not options.fresh)
    return Dispatcher(
        bridge,
        state,
        executor,
        slots=slots,
        batch_size=batch,
        timeout=capabilities.deadline or options.score_timeout,
        result_name="score",
        where=where,
        drain=True,
        failures=FailureLog(folder, where),
    )
