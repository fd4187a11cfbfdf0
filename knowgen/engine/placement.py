"""From handles to stages: where each plugin runs, with how many slots."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from knowgen.core.metering import Meter, judge_repeat
from knowgen.engine.components import GeneratorHandle, ScorerHandle
from knowgen.engine.devices import cuda_count, own_device
from knowgen.engine.dispatcher import Dispatcher
from knowgen.engine.executors.concurrency import CapacityLimiter, LoopBridge
from knowgen.engine.executors.in_process import Executor, LazyPlugin, LoopExecutor, ThreadExecutor
from knowgen.engine.executors.invoke import generate
from knowgen.engine.executors.subprocess import SubprocessExecutor, WorkerLaunch
from knowgen.engine.options import EngineOptions
from knowgen.engine.run_state import RunState
from knowgen.generators.contract import GenerationSource
from knowgen.scorers.short_form import score_item

_SPARE_WALKS = 8


def generator_slots(handle: GeneratorHandle, options: EngineOptions) -> tuple[int, int]:
    """Returns how many calls of a generator run at once, and how many requests each takes."""
    traits = handle.traits
    if in_workers(handle, options):
        batch = {"draw": 1, "generate": options.concurrency or traits.concurrency, "generate_batch": traits.batch_size}
        return options.workers, max(1, batch[traits.shape])
    if traits.shape == "generate":
        return max(1, options.concurrency or traits.concurrency), 1
    return max(1, traits.concurrency), max(1, traits.batch_size) if traits.shape == "generate_batch" else 1


def workers_for(handle: GeneratorHandle) -> int:
    """Returns how many worker processes a generator gets where the user names no number: one a GPU of several.

    A service behind a generator needs none, and neither does one that asks for no device.
    """
    if handle.remake is None or handle.traits.shape == "generate" or not handle.traits.wants_device:
        return 0
    count = cuda_count()
    return count if count > 1 else 0


def in_workers(handle: GeneratorHandle, options: EngineOptions) -> bool:
    """Tells whether a generator runs in worker processes; an object of this process cannot."""
    return options.workers > 0 and handle.remake is not None


def scorer_slots(handle: ScorerHandle, options: EngineOptions) -> tuple[int, int]:
    """Returns how many calls of a scorer run at once, and how many items each takes."""
    traits = handle.traits
    if traits.shape == "score":
        return max(1, options.concurrency or traits.concurrency), 1
    workers = traits.workers or os.cpu_count() or 1
    return workers if handle.remake is not None else 1, max(1, traits.concurrency)


def stage_width(
    generator: GeneratorHandle | GenerationSource, scorers: Sequence[ScorerHandle], options: EngineOptions
) -> int:
    """Returns how many walks may be under way: enough that no stage is ever short of work, and no more."""
    width = _SPARE_WALKS
    if isinstance(generator, GeneratorHandle):
        slots, batch = generator_slots(generator, options)
        width += 2 * slots * batch
    for handle in scorers:
        slots, batch = scorer_slots(handle, options)
        width += 2 * slots * batch
    return width


def generator_stage(
    handle: GeneratorHandle, options: EngineOptions, mailbox: LoopBridge, control: RunState, meter: Meter, folder: Path
) -> Dispatcher:
    """Makes the stage of a generator; nothing is built yet.

    Args:
        handle: The generator.
        options: Concurrency, deadline, worker processes.
        mailbox: Of the engine's loop.
        control: Says whether work is still taken.
        meter: For paid calls.
        folder: The run directory, for logs and pictures on their way.
    """
    where = f"generator {handle.spec.name!r}"
    slots, batch = generator_slots(handle, options)
    built = LazyPlugin(mailbox, handle.build, own_device, where)
    hosts: Executor
    if handle.remake is not None and in_workers(handle, options):
        recipe = WorkerLaunch(handle.remake, handle.traits.shape, where, folder, slots, accelerated=True)
        hosts = SubprocessExecutor(recipe, mailbox, meter)
    elif handle.traits.shape == "generate":
        hosts = LoopExecutor(mailbox, built, generate, meter, where)
    else:
        hosts = ThreadExecutor(mailbox, built, handle.traits.shape, meter, where)
    return Dispatcher(
        mailbox,
        control,
        hosts,
        slots=slots,
        batch_size=batch,
        timeout=handle.traits.deadline or options.timeout,
        noun="drawing",
        where=where,
        fill=handle.traits.shape == "generate_batch",
        room=CapacityLimiter(2 * slots * batch + 2),
    )


def scorer_stage(
    handle: ScorerHandle, options: EngineOptions, mailbox: LoopBridge, control: RunState, meter: Meter, folder: Path
) -> Dispatcher:
    """Makes the stage of a scorer; nothing is built yet. Arguments as for `generator_stage`."""
    where = f"scorer {handle.spec.name!r}"
    slots, batch = scorer_slots(handle, options)
    built = LazyPlugin(mailbox, handle.build, own_device, where)
    hosts: Executor
    if handle.traits.shape == "score":
        hosts = LoopExecutor(mailbox, built, _score, meter, where)
    elif handle.remake is not None:
        hosts = SubprocessExecutor(
            WorkerLaunch(handle.remake, "score_batch", where, folder, slots, handle.traits.local), mailbox, meter
        )
    else:
        hosts = ThreadExecutor(mailbox, built, "score_batch", meter, where)
    return Dispatcher(
        mailbox,
        control,
        hosts,
        slots=slots,
        batch_size=batch,
        timeout=handle.traits.deadline or options.score_timeout,
        noun="score",
        where=where,
        drain=True,
    )


async def _score(plugin: Any, item: Any) -> Any:
    sample, truth, generation, repeat = item
    judge_repeat.set(repeat)  # of this task alone
    return await score_item(plugin, (sample, truth, generation))
