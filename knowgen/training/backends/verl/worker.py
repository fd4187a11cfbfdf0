"""Episodes in a process of verl's agent-loop workers, with the agent and the rewards of any training."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import Any

from knowgen.agents.policies.contract import Policy
from knowgen.core.errors import ConfigError
from knowgen.core.text import error_message
from knowgen.training.backends.contract import Episode, Rollouts
from knowgen.training.backends.verl.engine import WHERE, VerlEngine, VerlPolicy
from knowgen.training.backends.verl.files import VerlFiles
from knowgen.training.config import TrainingConfig, grpo_of
from knowgen.training.grpo.rows import RowBuilder
from knowgen.training.seeds import episode_seed

FORGET_AFTER = 60.0
"""Time for which the episodes of a group are kept after it has ended, in seconds; verl asks for all of them at once."""

_workers: dict[Path, EpisodeWorker] = {}
_lock = threading.Lock()


class EpisodeWorker:
    """Runs episodes in this process.

    Args:
        folder: Directory of the training.
        client: verl's client of its servers.
        processor: Processor of the model.

    Raises:
        ConfigError: What builds the rollouts cannot be imported, or the model is not one of the Qwen-VL family.
    """

    def __init__(self, folder: Path, client: Any, processor: Any) -> None:
        self.files = VerlFiles(folder)
        self.config, builder = self.files.read_task()
        grpo = grpo_of(self.config)
        rollout = grpo.rollout
        engine = VerlEngine(
            client, processor, max_prompt=rollout.max_prompt_tokens, max_completion=rollout.max_completion_tokens
        )
        self.rows = RowBuilder(processor, WHERE, blank_images=False)
        build = imported(builder)
        self._rollouts: Rollouts = build(part_of(self.config), folder, VerlPolicy(engine))
        self._group = rollout.group
        self._threads = ThreadPoolExecutor(rollout.prompts, thread_name_prefix="knowgen-group")
        self._running: dict[tuple[int, int], asyncio.Future[list[Episode]]] = {}

    async def episode(self, *, step: int, row: int, place: int, number: int) -> Episode:
        """Return an episode; all of its group run together, when the first of them is asked for.

        Args:
            step: Number of the step.
            row: Number of the prompt in the order of the training.
            place: Place of the prompt in the file of prompts.
            number: Number of the episode within its group.

        Raises:
            KnowgenError: The training cannot go on; the training process was asked to end it.
        """
        group = self._running.get((step, row))
        if group is None:
            loop = asyncio.get_running_loop()
            group = loop.run_in_executor(self._threads, self._run, step, row, place)
            self._running[step, row] = group
            group.add_done_callback(lambda _: loop.call_later(FORGET_AFTER, self._running.pop, (step, row), None))
        return (await asyncio.shield(group))[number]

    def _run(self, step: int, row: int, place: int) -> list[Episode]:
        """Run the episodes of a group, and store them for the training process."""
        prompt = self.files.prompt_at(place)
        seeds = [episode_seed(self.config.seed, step, prompt.key, number) for number in range(self._group)]
        try:
            episodes = self._rollouts.run([prompt] * self._group, step=step, seeds=seeds)
        except Exception as error:
            self.files.request_stop(type(error).__name__, error_message(error, 1000))
            raise
        self.files.put_group(step, row, episodes)
        return episodes


def worker_of(folder: Path, client: Any, processor: Any) -> EpisodeWorker:
    """Return the worker of this process, which is made once for a training."""
    with _lock:
        if folder not in _workers:
            _workers[folder] = EpisodeWorker(folder, client, processor)
        return _workers[folder]


def part_of(config: TrainingConfig) -> TrainingConfig:
    """Return the configuration for one of the workers: each may make an equal part of the calls at once.

    The budget is divided by what builds the rollouts, which knows what has been spent.
    """
    grpo, workers = grpo_of(config), config.verl.workers
    judges = max(1, grpo.services.judge_concurrency // workers)
    services = grpo.services.model_copy(update={"judge_concurrency": judges})
    painter = grpo.painter.model_copy(update={"concurrency": max(1, grpo.painter.concurrency // workers)})
    rollout = grpo.rollout.model_copy(update={"concurrency": max(1, ceil(grpo.rollout.concurrency / workers))})
    section = grpo.model_copy(update={"services": services, "painter": painter, "rollout": rollout})
    return config.model_copy(update={"grpo": section})


def imported(name: str) -> Callable[[TrainingConfig, Path, Policy], Rollouts]:
    """Return a function by its name as `module:function`.

    Raises:
        ConfigError: It cannot be imported.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{name!r} cannot be imported: {error}", where=WHERE) from error
