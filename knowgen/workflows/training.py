"""Train the policy of the agent with GRPO, in a directory that a later call on it continues."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from knowgen.agents.policies.contract import Policy
from knowgen.local_models.quiet import quiet_libraries
from knowgen.scorers.vlm.endpoint_config import IDENTITY_EXCLUDES
from knowgen.store.files import explain_os_error
from knowgen.store.lock import RunLock
from knowgen.store.training_ledger import TrainingLedger
from knowgen.store.training_run import TrainingRun
from knowgen.tracking.session import Tracking, open_tracking
from knowgen.training.backends.contract import TrainingResult, TrainingTools
from knowgen.training.config import TrainingConfig, grpo_of
from knowgen.training.episode_images import EpisodeImages
from knowgen.training.rollouts import AgentRollouts
from knowgen.training.step_log import StepLog
from knowgen.workflows.checkpoint_evaluation import CheckpointEvaluation
from knowgen.workflows.cluster_worker import WORKER_ROLLOUTS
from knowgen.workflows.open_training import described, open_directory
from knowgen.workflows.tracked_training import ending_of_training, tracked_training, watch_of
from knowgen.workflows.training_plan import NoPolicy, TrainingPlan

MAY_CHANGE = (
    "checkpoints", "keep_episodes", "evaluation", "model.attention", "model.download", "model.gradient_checkpointing",
    "grpo.services", "grpo.painter.urls", "grpo.painter.concurrency", "grpo.painter.timeout", "grpo.micro_batch",
    "grpo.rollout.url", "grpo.rollout.batch_size", "grpo.rollout.concurrency",
    "verl.ray", "verl.workers", "verl.offload", "verl.tokens_per_gpu", "verl.tensor_parallel", "verl.gpu_memory",
    *(f"*.{name}" for name in sorted(IDENTITY_EXCLUDES | {"base_url"})),
)  # fmt: skip
"""Parts of a configuration that may differ when a training is continued: its next step does not depend on them."""

LENGTH = ("grpo.max_steps", "grpo.epochs")
"""May differ too, where the learning rate does not depend on the number of steps."""


@dataclass(frozen=True)
class GrpoTraining:
    """What a call of a training left.

    Attributes:
        run: Its directory.
        result: Number of steps, exported weights, and why it ended early.
        headlines: Headline of each evaluation by step.
        rewards: Mean reward of each step.
        leads: Whether this process leads the training, and so has its figures.
    """

    run: TrainingRun
    result: TrainingResult
    headlines: dict[int, float]
    rewards: dict[int, float]
    leads: bool = True


@dataclass(frozen=True)
class _Process:
    """This process among those of the training, as `accelerate launch` and `torchrun` say."""

    number: int
    count: int

    @classmethod
    def this(cls) -> _Process:
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @property
    def main(self) -> bool:
        return self.number == 0


def train_grpo(
    plan: TrainingPlan,
    folder: Path,
    *,
    fresh: bool = False,
    show: Callable[[str], None] = lambda line: None,
    log: Sequence[str] | None = None,
) -> GrpoTraining:
    """Train, or continue an earlier call on the same directory.

    Args:
        plan: What `plan_training` returned.
        folder: Directory of the training.
        fresh: Whether an earlier training in it is removed first.
        show: Takes lines for the user, such as one for each step.
        log: Experiment trackers, such as `wandb:my-project`.

    Raises:
        MissingDependencyError: The library of a tracker is not installed.
        ConfigError: The directory belongs to something else, or is in use, or a tracker is not set up.
        AccountError, ServiceUnavailableError: A service takes no calls.
        KnowgenError: The training cannot begin or go on.
    """
    process, run = _Process.this(), TrainingRun(folder.absolute())
    if not process.main:
        return _joined(plan, run, process, fresh=fresh)
    with open_tracking(log) as tracking:
        trained = _led(plan, run, process, show, tracking, fresh=fresh)
        tracking.close(ending_of_training(trained.result.stopped))
        return trained


def _led(
    plan: TrainingPlan,
    run: TrainingRun,
    process: _Process,
    show: Callable[[str], None],
    tracking: Tracking,
    *,
    fresh: bool,
) -> GrpoTraining:
    """Train as the leading process: in the locked directory, which it describes before and after."""
    config = plan.config
    optimizer = config.optimizer
    same_rate = optimizer.schedule == "constant" and optimizer.warmup_ratio == 0
    may_change = MAY_CHANGE + (LENGTH if same_rate else ())
    lock = _locked(run.path)
    try:
        tasks = {task.name: task.version for task in plan.prompts.tasks()}
        description = described(config, plan.name, steps=plan.steps, tasks=tasks)
        open_directory(run, description, may_change=may_change, fresh=fresh)
        run.watch = watch_of(tracking)
        tracking.start(tracked_training(description, run.path))
        trained = _trained(plan, run, process, show, fresh=fresh)
        run.describe({**description, "steps": trained.result.steps, "stopped": trained.result.stopped})
        return trained
    finally:
        lock.release()


def _locked(folder: Path) -> RunLock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, folder) from error
    return RunLock(folder)


def _trained(
    plan: TrainingPlan, run: TrainingRun, process: _Process, show: Callable[[str], None], *, fresh: bool
) -> GrpoTraining:
    ledger = TrainingLedger(run.path, process.number)
    try:
        evaluate = CheckpointEvaluation(plan.config, run, ledger, show) if plan.config.evaluation.task else None
        config = _with_share_of_budget(plan.config, ledger, process)
        if evaluate is not None:
            evaluate.share = grpo_of(config).services.budget  # the other processes may spend the rest
        images = EpisodeImages(run.images)

        def rollouts(policy: Policy) -> AgentRollouts:
            return AgentRollouts(config, policy, plan.parts, folder=run.path, images=images, ledger=ledger, notice=show)

        _check_services(rollouts)
        tools = TrainingTools(
            folder=run.path,
            prompts=plan.prompts,
            rollouts=rollouts,
            log=StepLog(
                run,
                images,
                ledger,
                steps=plan.steps,
                budget=plan.grpo.services.budget,
                keep_episodes=plan.config.keep_episodes,
                show=show,
            ),
            evaluate=evaluate,
            resume=not fresh,
            worker_rollouts=WORKER_ROLLOUTS,
        )
        with quiet_libraries():
            result = plan.backend.train(tools)
    finally:
        ledger.close()
    evaluations, steps = run.metrics("evaluation"), run.metrics()
    return GrpoTraining(
        run,
        result,
        {step: values["headline"] for step, values in evaluations.items() if "headline" in values},
        {step: values["reward"] for step, values in steps.items() if "reward" in values},
    )


def _joined(plan: TrainingPlan, run: TrainingRun, process: _Process, *, fresh: bool) -> GrpoTraining:
    """Take part in a training that another process leads, which alone writes figures and evaluates.

    Nothing is written before the backend asks for rollouts: the leading process may be emptying the directory.
    """
    images = EpisodeImages(run.images)
    ledgers: list[TrainingLedger] = []

    def rollouts(policy: Policy) -> AgentRollouts:
        ledgers.append(TrainingLedger(run.path, process.number))
        config = _with_share_of_budget(plan.config, ledgers[-1], process)
        return AgentRollouts(config, policy, plan.parts, folder=run.path, images=images, ledger=ledgers[-1])

    def elsewhere(*_: object) -> NoReturn:
        raise RuntimeError("only the leading process of a training writes figures and evaluates")

    evaluate = elsewhere if plan.config.evaluation.task else None
    tools = TrainingTools(run.path, plan.prompts, rollouts, elsewhere, evaluate, resume=not fresh)
    try:
        with quiet_libraries():
            result = plan.backend.train(tools)
    finally:
        for ledger in ledgers:
            ledger.close()
    return GrpoTraining(run, result, {}, {}, leads=False)


def _check_services(rollouts: Callable[[Policy], AgentRollouts]) -> None:
    """Check that all services would take calls, before a model is loaded."""
    checked = rollouts(NoPolicy())
    try:
        checked.check()
    finally:
        checked.close()


def _with_share_of_budget(config: TrainingConfig, ledger: TrainingLedger, process: _Process) -> TrainingConfig:
    """Return a configuration whose budget is what this process may spend, earlier calls included."""
    assert config.grpo is not None
    budget = config.grpo.services.budget
    if budget is None:
        return config
    share = ledger.spent() + max(0.0, budget - ledger.total()) / process.count
    services = config.grpo.services.model_copy(update={"budget": share})
    return config.model_copy(update={"grpo": config.grpo.model_copy(update={"services": services})})
