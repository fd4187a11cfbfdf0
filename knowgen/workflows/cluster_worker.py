"""Rollouts in a process on any machine of a cluster, built from the configuration alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from knowgen.agents.policies.contract import Policy
from knowgen.store.training_ledger import TrainingLedger
from knowgen.store.training_run import TrainingRun
from knowgen.training.config import TrainingConfig, grpo_of
from knowgen.training.episode_images import EpisodeImages
from knowgen.training.rollouts import AgentRollouts
from knowgen.workflows.training_plan import rollout_parts

WORKER_ROLLOUTS = f"{__name__}:cluster_rollouts"
"""What builds the rollouts of a worker, for `TrainingTools.worker_rollouts`."""


def cluster_rollouts(config: TrainingConfig, folder: Path, policy: Policy) -> AgentRollouts:
    """Build the rollouts of one of the processes that run agents.

    Each process has an equal part of what is left of the budget, and a file of its own for what it spends.

    Args:
        config: The configuration of the training.
        folder: Its directory, which all machines see.
        policy: The policy over the weights that are trained.

    Raises:
        KnowgenError: A part cannot be built.
    """
    ledger = TrainingLedger(folder, _own_number(folder))
    return AgentRollouts(
        _with_part_of_budget(config, ledger),
        policy,
        rollout_parts(config),
        folder=folder,
        images=EpisodeImages(TrainingRun(folder).images),
        ledger=ledger,
    )


def _own_number(folder: Path) -> int:
    """Return the least number that no other process of this call has, from 1; the training process has 0."""
    taken = folder / "verl" / "workers"
    taken.mkdir(parents=True, exist_ok=True)
    return next(_free_numbers(taken))


def _free_numbers(taken: Path) -> Iterator[int]:
    for number in count(1):
        with suppress(FileExistsError):
            (taken / str(number)).touch(exist_ok=False)
            yield number


def _with_part_of_budget(config: TrainingConfig, ledger: TrainingLedger) -> TrainingConfig:
    """Return a configuration whose budget is what this process may spend, its earlier calls included."""
    grpo = grpo_of(config)
    if grpo.services.budget is None:
        return config
    part = ledger.spent() + max(0.0, grpo.services.budget - ledger.total()) / config.verl.workers
    services = grpo.services.model_copy(update={"budget": part})
    return config.model_copy(update={"grpo": grpo.model_copy(update={"services": services})})
