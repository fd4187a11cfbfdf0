"""A training backend that trains nothing: it samples with rules, so that tests of trainings need no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from knowgen.core.errors import AccountError, BudgetReachedError, ServiceUnavailableError
from knowgen.training.backends.contract import Rollouts, TrainingResult, TrainingTools
from knowgen.training.config import TrainingConfig
from knowgen.training.seeds import episode_seed
from knowgen.worlds.things.teacher import ThingsTeacher


class ScriptedBackend:
    """Runs the steps of a training with a policy that follows rules.

    Args:
        config: The configuration.
    """

    problems: tuple[str, ...] = ()
    logs = True

    def __init__(self, config: TrainingConfig) -> None:
        assert config.grpo is not None
        self.config, self.grpo = config, config.grpo

    def check(self) -> list[str]:
        return list(self.problems)

    def train(self, tools: TrainingTools) -> TrainingResult:
        marker, model = tools.folder / "checkpoints" / "step", tools.folder / "model"
        marker.parent.mkdir(exist_ok=True)
        model.mkdir(exist_ok=True)
        step = int(marker.read_text()) if tools.resume and marker.is_file() else 0
        stopped = ""
        rollouts = tools.rollouts(self.policy())
        try:
            while step < (self.grpo.max_steps or 0):
                self._evaluate(tools, step, model)
                self._step(tools, rollouts, step + 1)
                step += 1
                marker.write_text(str(step))
            self._evaluate(tools, step, model)
        except KeyboardInterrupt:
            stopped = "interrupted"
        except BudgetReachedError:
            stopped = "budget"
        except (AccountError, ServiceUnavailableError) as error:
            stopped = str(error)
        finally:
            rollouts.close()
        return TrainingResult(step, model, stopped)

    def policy(self) -> Any:
        return ThingsTeacher(look=1.0, right=1.0)

    def _step(self, tools: TrainingTools, rollouts: Rollouts, step: int) -> None:
        size, group = self.grpo.rollout.prompts, self.grpo.rollout.group
        chosen = list(tools.prompts(step - 1)[:size])
        prompts = [prompt for prompt in chosen for _ in range(group)]
        seeds = [episode_seed(self.config.seed, step, each.key, n % group) for n, each in enumerate(prompts)]
        episodes = rollouts.run(prompts, step=step, seeds=seeds)
        if self.logs:
            tools.log(step, {"loss": 0.0, "seconds": 2.0, "share/rollout": 0.5, "share/train": 0.5}, episodes)

    def _evaluate(self, tools: TrainingTools, step: int, model: Path) -> None:
        if tools.evaluate is not None and step % self.config.evaluation.every == 0:
            tools.evaluate(step, model)
