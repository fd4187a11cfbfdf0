"""Fine-tuning of a policy in the directory of a training: begin, go on, or say that it is complete."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from knowgen.core.errors import KnowgenError, UsageError
from knowgen.local_models.quiet import quiet_libraries
from knowgen.store.files import explain_os_error
from knowgen.store.lock import RunLock
from knowgen.store.training_ledger import TrainingLedger
from knowgen.store.training_run import TrainingRun
from knowgen.tasks.contract import Task
from knowgen.tracking.session import Tracking, open_tracking
from knowgen.training.config import GrpoSection, SftSection, TrainingConfig
from knowgen.training.conversations import load_conversations
from knowgen.training.sft.trainer import SelectedConversations, SftTools, require_training_packages, train_sft
from knowgen.workflows.checkpoint_evaluation import CheckpointEvaluation
from knowgen.workflows.described import open_task
from knowgen.workflows.open_training import described, open_directory
from knowgen.workflows.tracked_training import ending_of_training, tracked_training, watch_of
from knowgen.workflows.training_plan import check_evaluation

if TYPE_CHECKING:
    from knowgen.training.models import PolicyModel

MAY_CHANGE = (
    "checkpoints", "keep_episodes", "evaluation", "agent", "grpo", "model.attention", "model.download",
    "model.gradient_checkpointing",
)  # fmt: skip
"""Parts of a configuration that may differ when a training is continued: its next step does not depend on them."""


@dataclass(frozen=True)
class FineTuned:
    """What a fine-tuning left.

    Attributes:
        folder: Directory of the training.
        weights: Folder of the exported model; it exists once the training is complete.
        steps: Number of optimizer steps, earlier calls included.
        stopped: Why it ended early; empty when it is complete.
        used: Number of conversations; 0 where the training was complete before.
        left_out: Why each of the other conversations was not used.
        main: Whether this is the main process of the training, the one that wrote it.
    """

    folder: Path
    weights: Path
    steps: int
    stopped: str = ""
    used: int = 0
    left_out: list[str] = field(default_factory=list)
    main: bool = True


def fine_tune(
    config: TrainingConfig,
    out: Path,
    *,
    name: str,
    fresh: bool = False,
    report: Callable[[str], None] = lambda line: None,
    log: Sequence[str] | None = None,
) -> FineTuned:
    """Fine-tune a policy on conversations, or continue an earlier call on the same directory.

    Args:
        config: The configuration; its method is `sft`.
        out: Directory of the training.
        name: Name of the configuration in errors.
        fresh: Whether an earlier training in the directory is removed first.
        report: Called with a line on what happens.
        log: Experiment trackers, such as `wandb:my-project`.

    Raises:
        UsageError: The configuration is one of another method, or names no model or no conversations.
        MissingDependencyError: A package or the weights are missing.
        ConfigError: The directory belongs to something else or is in use, the model cannot be trained, or a tracker is
            not set up.
        DataError: A conversation, the model or the directory is damaged.
    """
    if config.method != "sft":
        raise UsageError(f"the method is {config.method}", where=name, fix=f"use `knowgen train {config.method}`")
    require_training_packages(name)
    check_evaluation(with_limits(config))
    run, tracking = TrainingRun(out), Tracking()
    done = None if fresh else _complete(run)
    description = described(config, name, **({"steps": done.steps, "stopped": ""} if done else {}))
    with ExitStack() as stack:
        main = os.environ.get("RANK", "0") == "0"  # as `accelerate launch` and `torchrun` say
        if main:
            tracking = stack.enter_context(open_tracking(() if done else log))
            stack.enter_context(_own_directory(run, description, fresh=fresh))
        if done is not None:
            return done
        evaluate: Callable[[int, Path], float | None] | None = None
        if config.evaluation.task:
            evaluate = stack.enter_context(_evaluation(config, run, report)) if main else _elsewhere
        run.watch = watch_of(tracking)
        tracking.start(tracked_training(description, out))
        tools = SftTools(out, name, True, report, evaluate=evaluate, watch=run.watch)
        tuned = _fine_tuned(config, run, description, tools, main)
        tracking.close(ending_of_training(tuned.stopped))
        return tuned


def _fine_tuned(
    config: TrainingConfig, run: TrainingRun, description: dict[str, Any], tools: SftTools, main: bool
) -> FineTuned:
    known: list[SelectedConversations] = []

    def started(selected: SelectedConversations, policy: PolicyModel) -> None:
        known.append(selected)
        description.update(conversations=len(selected.numbers), left_out=len(selected.left_out), weights=policy.weights)
        run.describe(description)

    tools.started = started
    try:
        with quiet_libraries():
            result = train_sft(config, tools)
        if main:
            run.describe({**description, "steps": result.steps, "stopped": result.stopped})
    except OSError as error:
        raise explain_os_error(error, run.path) from error
    used, left_out = (len(known[0].numbers), known[0].left_out) if known else (0, [])
    return FineTuned(run.path, result.weights, result.steps, result.stopped, used, left_out, main)


@contextmanager
def _own_directory(run: TrainingRun, description: dict[str, Any], *, fresh: bool) -> Iterator[None]:
    """Open the directory of a training, and keep other processes from it."""
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, run.path) from error
    lock = RunLock(run.path)
    try:
        open_directory(run, description, may_change=MAY_CHANGE, fresh=fresh)
        yield
    finally:
        lock.release()


def with_limits(config: TrainingConfig) -> TrainingConfig:
    """Return a configuration with a section `grpo`, which limits conversations as in a training with rewards."""
    return config if config.grpo is not None else config.model_copy(update={"grpo": GrpoSection()})


def tasks_of_conversations(config: TrainingConfig) -> list[Task]:
    """Return the task that the conversations were made on, if they name one and both are on this machine."""
    sources = (config.sft or SftSection()).conversations
    try:
        name = load_conversations(sources[0].path).task if sources else ""
        return [open_task(name, in_worker=True)] if name else []
    except KnowgenError:  # made on another machine, or removed since: nothing to evaluate on
        return []


@contextmanager
def _evaluation(
    config: TrainingConfig, run: TrainingRun, report: Callable[[str], None]
) -> Iterator[CheckpointEvaluation]:
    """Yield the evaluation of weights."""
    ledger = TrainingLedger(run.path)
    try:
        yield CheckpointEvaluation(with_limits(config), run, ledger, report)
    finally:
        ledger.close()


def _elsewhere(step: int, weights: Path) -> NoReturn:
    """Stand for the evaluation in a process that joins a training: it writes nothing, and counts no cost again."""
    raise RuntimeError("only the leading process of a training evaluates")


def _complete(run: TrainingRun) -> FineTuned | None:
    """Return the result of a training that is complete, None for any other."""
    weights = run.path / "model"
    if not TrainingRun.at(run.path) or not (weights / "config.json").is_file():
        return None
    description = run.description()
    if description.get("stopped") != "" or "steps" not in description:
        return None
    return FineTuned(run.path, weights, int(description["steps"]))
