"""Evaluation of a training's weights on a task, by a run like any other in the directory of the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from knowgen.core.errors import KnowgenError
from knowgen.core.run_config import RunConfig
from knowgen.core.spec import fingerprint
from knowgen.core.text import one_line
from knowgen.engine.options import RunOutcome
from knowgen.stats.summary import OVERALL, Summary
from knowgen.store.manifest import read_manifest, spec_difference
from knowgen.store.training_ledger import TrainingLedger
from knowgen.store.training_run import TrainingRun
from knowgen.tasks.contract import Task
from knowgen.training.config import PromptSource, TrainingConfig
from knowgen.training.prompts import content_of, epoch_task
from knowgen.workflows.agents import PAINTER
from knowgen.workflows.execute import execute
from knowgen.workflows.plan import plan
from knowgen.workflows.resolve import ScorerRequest
from knowgen.workflows.run import Run, load_run
from knowgen.workflows.training_plan import AGENT, scorer_arguments

FREE_PAINTER = "painter"
"""Image model that draws by rules, for free."""

BEYOND_EPOCHS = 10_001
"""Distance to a seed that no epoch of a training with `fresh_seed` has. It is odd, for tasks that count by two."""


def agent_arguments(config: TrainingConfig, weights: Path) -> dict[str, Any]:
    """Return the arguments of `gen_searcher` with which weights of a training are evaluated.

    Args:
        config: The training.
        weights: Folder of exported weights.
    """
    assert config.grpo is not None
    grpo, evaluation = config.grpo, config.evaluation
    arguments: dict[str, Any] = {"policy": f"hf:{weights}", **config.agent}
    if evaluation.search:
        arguments = {name: value for name, value in arguments.items() if not name.startswith("search.")}
        arguments["search"] = evaluation.search
    if evaluation.painter:
        arguments[PAINTER] = evaluation.painter
    else:
        arguments[PAINTER] = f"http:{','.join(grpo.painter.urls)}" if grpo.painter.urls else grpo.painter.name
        arguments |= {f"{PAINTER}.{name}": value for name, value in grpo.painter.args.items()}
    arguments["max_new_tokens"] = grpo.rollout.max_new_tokens
    arguments["max_context"] = grpo.rollout.max_prompt_tokens + grpo.rollout.max_completion_tokens
    return arguments


def headline_of(summary: Summary) -> float | None:
    """Return the headline of an evaluation; that of all samples where none belongs to a group that counts for it.

    Args:
        summary: Summary of the run.
    """
    if summary.headline.value is not None or summary.headline.n:
        return summary.headline.value
    groups = [part.figures[OVERALL] for part in summary.slices if part.kind == "group"]
    known = [(figure.value, figure.n) for figure in groups if figure.value is not None]
    count = sum(n for _, n in known)
    return sum(value * n for value, n in known) / count if count else None


@dataclass(frozen=True)
class FittingTask:
    """A task that weights of a training can be evaluated on.

    Attributes:
        task: Name of the task.
        painter: Image model for it, where the training names none.
    """

    task: str
    painter: str


def fitting_task(config: TrainingConfig, sources: Sequence[PromptSource], tasks: Sequence[Task]) -> FittingTask:
    """Return the task of a training's evaluations, or else one that fits what was trained on.

    That is one with a seed of which the training had nothing, where a task ends in one; `knowgen` where the agent has
    a search for every task; and else the first task of the training itself, which has its own search.

    Args:
        config: The training.
        sources: What its prompts are from.
        tasks: The tasks of these.
    """
    painter = next((task.painter for task in tasks if hasattr(task, "painter")), FREE_PAINTER)
    if config.evaluation.task:
        return FittingTask(config.evaluation.task, painter)
    general = bool(config.agent.get("search")) and not any(task.search for task in tasks)
    return FittingTask("knowgen" if general else _unseen(sources, tasks), painter)


def _unseen(sources: Sequence[PromptSource], tasks: Sequence[Task]) -> str:
    """Return the first task with a seed that no epoch has, where its name ends in a seed."""
    if not hasattr(tasks[0], "seed_step"):
        return sources[0].task
    counted = sources[0].model_copy(update={"fresh_seed": True})
    trained = {content_of(source.task) for source in sources}
    away = BEYOND_EPOCHS if any(source.fresh_seed for source in sources) else 1
    while content_of(name := epoch_task(counted, away)) in trained:
        away += 2  # an even number, because things of seeds that are both even have the same names
    return name


class CheckpointEvaluation:
    """Evaluates weights on the task of the configuration.

    Args:
        config: The training.
        run: Its directory.
        ledger: What this process has spent.
        show: Takes a line for the user.

    Attributes:
        share: Maximum cost in US dollars of this process over all calls, of a budget that several share; None for none.
    """

    def __init__(
        self, config: TrainingConfig, run: TrainingRun, ledger: TrainingLedger, show: Callable[[str], None]
    ) -> None:
        self._config, self._run, self._ledger, self._show = config, run, ledger, show
        self.share: float | None = None
        for folder in sorted((run.path / "evaluations").glob("[0-9]*")):
            self._count_cost(folder)  # of one that was killed

    def __call__(self, step: int, weights: Path) -> float | None:
        """Return the headline of some weights; None where the run gave none.

        An evaluation that fails does not end the training, apart from the one before the first step.

        Raises:
            KeyboardInterrupt: It was interrupted.
            KnowgenError: It cannot be run before the first step.
        """
        folder = self._run.evaluation(step)
        try:
            done = self._evaluated(weights, step)
        except KnowgenError as error:
            if step == 0:
                raise
            self._show(f"step {step}  no evaluation: {one_line(error)}")
            return None
        finally:
            self._count_cost(folder)
        outcome = done.outcome or RunOutcome()
        if outcome.stopped == "interrupted":
            raise KeyboardInterrupt
        headline = headline_of(done.summary)
        if headline is None:
            reason = outcome.stop_reason or done.summary.headline.note or done.summary.no_result
            self._show(f"step {step}  no headline of the evaluation: {one_line(reason)}")
            return None
        self._run.add_metrics(step, {"headline": headline, "seconds": outcome.seconds}, kind="evaluation")
        self._show(f"step {step}  {done.summary.scorer} on {done.summary.task}: {headline:.3f}")
        return headline

    def _evaluated(self, weights: Path, step: int) -> Run:
        assert self._config.grpo is not None
        evaluation, services, folder = self._config.evaluation, self._config.grpo.services, self._run.evaluation(step)
        left = self._left(services.budget)
        options = RunConfig(
            generator_args=agent_arguments(self._config, weights),
            limit=evaluation.limit,
            budget=left,
            patience=services.patience,
            timeout=self._config.grpo.painter.timeout,
        )
        scorers = [ScorerRequest(name, scorer_arguments(self._config, name)) for name in evaluation.scorers]
        planned = plan(evaluation.task, AGENT, scorers, options)
        earlier = read_manifest(folder)
        if earlier is None:
            return execute(planned, folder)
        if spec_difference(earlier.spec, planned.spec):
            # a killed training goes on from a checkpoint before this step, and comes to it with other weights
            self._show(f"step {step}  in place of an evaluation of weights that are gone, which was not completed")
            return execute(replace(planned, config=replace(planned.config, fresh=True)), folder)
        # the budget of a run is that of all its calls, and what earlier ones spent is in the ledger
        budget = None if left is None else left + (load_run(folder).cost or 0.0)
        return execute(replace(planned, config=replace(planned.config, budget=budget)), folder)

    def _left(self, budget: float | None) -> float | None:
        """Return what an evaluation may spend in US dollars; None for no limit."""
        if budget is None:
            return None
        left = budget - self._ledger.total()
        own = left if self.share is None else self.share - self._ledger.spent()
        return max(0.0, min(left, own))

    def _count_cost(self, folder: Path) -> None:
        """Add what an evaluation has spent to what the training has spent."""
        try:
            run = load_run(folder)
            cost = run.cost
        except KnowgenError:
            return  # it has not begun
        if cost:
            which = fingerprint(run.spec.directory_identity())[:12]  # other weights at the same step are another one
            self._ledger.record(f"evaluation {folder.name} {which}", cost)
