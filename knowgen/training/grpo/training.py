"""A training with TRL from its first step to the exported weights: checkpoints, evaluations, stops and resumption."""

from __future__ import annotations

import copy
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from knowgen.agents.policies.contract import Policy
from knowgen.core.atomic import remove_leftovers, replace_folder
from knowgen.core.errors import ConfigError
from knowgen.engine.run_state import SignalHandler
from knowgen.local_models.pixels import PixelCache
from knowgen.local_models.quiet import quiet_libraries
from knowgen.local_models.weights import offline
from knowgen.training.backends.contract import Rollouts, TrainingResult, TrainingTools
from knowgen.training.config import GrpoSection, TrainingConfig
from knowgen.training.grpo.arguments import grpo_arguments
from knowgen.training.grpo.checkpoints import BestWeights, last_checkpoint
from knowgen.training.grpo.collection import INTERRUPTED, Collector, TrainingStopped
from knowgen.training.grpo.interrupts import InterruptSwitch
from knowgen.training.grpo.local_policy import LocalPolicy
from knowgen.training.grpo.prompt_schedule import PromptSchedule
from knowgen.training.grpo.rows import RowBuilder
from knowgen.training.grpo.trainer import Rollout, grpo_trainer
from knowgen.training.grpo.vllm_policy import VllmTrainedPolicy
from knowgen.training.models import PolicyModel, export_model, training_dtype

_WHERE = "backend trl"


class TrainedPolicy(Policy, Protocol):
    """A policy over the weights that are trained."""

    def sampling(self, version: str) -> Any:
        """Return a context manager in which the policy samples with the weights of a version."""
        ...


class TrlTraining:
    """A training in this process, which may be one of several.

    Args:
        config: The configuration.
        tools: What the training gives its backend.
        policy_model: The model that is trained.

    Attributes:
        trainer: TRL's trainer.
    """

    def __init__(
        self,
        config: TrainingConfig,
        tools: TrainingTools,
        policy_model: PolicyModel,
    ) -> None:
        assert config.grpo is not None
        self._config, self._tools, self._processor = config, tools, policy_model.processor
        self._grpo: GrpoSection = config.grpo
        self._plan = PromptSchedule(tools.prompts, config.seed)
        self._interrupt = InterruptSwitch()
        self._checkpoints, self._model_folder = tools.folder / "checkpoints", tools.folder / "model"
        rollout = self._grpo.rollout
        batches = self._plan.batches(self._grpo.epochs, rollout.prompts)
        steps = self._grpo.max_steps or batches * self._grpo.iterations
        self._generation = copy.deepcopy(_base(policy_model.model).generation_config)
        with offline(), _quiet():  # the trainer would look for news of its libraries
            arguments = grpo_arguments(
                config,
                self._checkpoints,
                steps=steps,
                processes=int(os.environ.get("WORLD_SIZE", "1")),  # as torchrun and accelerate launch say
                dtype=training_dtype(config.model),
            )
            self.trainer = grpo_trainer(
                model=policy_model.model,
                processor=policy_model.processor,
                arguments=arguments,
                grpo=self._grpo,
                prompts=-(-steps // self._grpo.iterations) * rollout.prompts,
                log=tools.log,
            )
        self.trainer.before_step = self._before_step
        # read when all processes have joined: until then the leading one may be emptying the directory
        self._best = BestWeights(tools.folder / "best.json")
        rows = RowBuilder(policy_model.processor, _WHERE)
        policy, pixels = self._policy(policy_model)
        self._rollouts: Rollouts = tools.rollouts(policy)
        self.trainer.rollout = Rollout(
            Collector(
                self._plan,
                self._rollouts,
                group=rollout.group,
                skip_equal=self._grpo.skip_equal_groups,
                share=self.trainer.everywhere,
                process=self.trainer.accelerator.process_index,
                interrupt=self._interrupt,
            ),
            rows,
            pixels,
            policy.sampling,
        )

    def _policy(self, policy_model: PolicyModel) -> tuple[TrainedPolicy, PixelCache]:
        """Return the policy over the trained weights, and where its images are preprocessed.

        Raises:
            ConfigError: The weights lie on several devices, and the policy is to sample in this process.
        """
        if self._grpo.rollout.engine == "vllm":
            image_processor = policy_model.processor.image_processor
            return VllmTrainedPolicy(self._config), PixelCache(lambda: image_processor)
        if self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled:
            raise ConfigError(
                "the local engine needs the whole model in each process, which sharding takes apart",
                where=f"{_WHERE}: grpo.rollout.engine",
                fix="use engine=vllm, or one device or DDP without FSDP and DeepSpeed",
            )
        batch_size = self._grpo.rollout.batch_size
        policy = LocalPolicy(
            _base(policy_model.model), policy_model.processor, batch_size=batch_size, weights=policy_model.weights
        )
        return policy, policy.engine.pixels

    def run(self) -> TrainingResult:
        """Train from the last checkpoint on, or from the beginning.

        Raises:
            KnowgenError: It cannot go on.
        """
        stopped = ""
        start = last_checkpoint(self._checkpoints) if self._tools.resume else None
        try:
            with SignalHandler(self._interrupt), _quiet():
                try:
                    self.trainer.train(resume_from_checkpoint=str(start) if start else None)
                    self.evaluate()
                except TrainingStopped as stop:
                    stopped = stop.reason
                self._save()
        finally:
            self._rollouts.close()
        return TrainingResult(self.trainer.state.global_step, self._model_folder, stopped)

    def _before_step(self) -> None:
        self.evaluate()
        if self.trainer.state.global_step >= self.trainer.args.max_steps:
            raise TrainingStopped(
                ""
            )  # the trainer goes on from the checkpoint of the last step, and would take another

    def evaluate(self) -> None:
        """Evaluate the weights if it is the turn of the step, and keep them if they are the best so far.

        Raises:
            TrainingStopped: The evaluation was interrupted.
        """
        step = self.trainer.state.global_step
        due = step % self._config.evaluation.every == 0 or step == self.trainer.args.max_steps
        if self._tools.evaluate is None or not due or step in self._best.headlines:
            return
        candidate = self._tools.folder / "candidate"
        self._export(candidate)
        headline, stop = None, ""
        if self.trainer.accelerator.is_main_process:
            try:
                headline = self._tools.evaluate(step, candidate)
                self._keep_if_best(candidate, headline)
            except KeyboardInterrupt:
                stop = INTERRUPTED
            finally:
                shutil.rmtree(candidate, ignore_errors=True)
        headline, stop = self.trainer.everywhere([(headline, stop)])[0]
        if stop:
            raise TrainingStopped(stop)
        self._best.add(step, headline, write=self.trainer.accelerator.is_main_process)

    def _keep_if_best(self, candidate: Path, headline: float | None) -> None:
        """Make weights the result; their headline is stored after that, so that a kill between the two repeats both."""
        if self._keeps_best and headline is not None and self._best.is_best(headline):
            replace_folder(candidate, self._model_folder)
            remove_leftovers(self._model_folder)

    @property
    def _keeps_best(self) -> bool:
        return self._tools.evaluate is not None and self._config.evaluation.keep == "best"

    def _save(self) -> None:
        """Write a checkpoint of the last whole step and the result of the training."""
        step = self.trainer.state.global_step
        newest = last_checkpoint(self._checkpoints)
        missing = step > 0 and (newest is None or newest.name != f"checkpoint-{step}")
        kept = self._keeps_best and self._best.best is not None and self._model_folder.is_dir()
        missing, kept = self.trainer.everywhere([(missing, kept)])[0]  # what the main process sees
        if missing:
            self.trainer.save_checkpoint()
        if not kept:
            self._export(self._model_folder)

    def _export(self, folder: Path) -> None:
        """Write the weights for use elsewhere; all processes take part."""
        accelerator = self.trainer.accelerator
        sharded = self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled
        state: Mapping[str, Any] | None = accelerator.get_state_dict(self.trainer.model_wrapped) if sharded else None
        if accelerator.is_main_process:
            model = accelerator.unwrap_model(self.trainer.model)
            _base(model).generation_config = copy.deepcopy(self._generation)  # the trainer changes it
            export_model(model, self._processor, folder, state)
        accelerator.wait_for_everyone()


def _base(model: Any) -> Any:
    """Return the model of transformers under adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep off the terminal what libraries print, such as warnings of TRL about what is done on purpose here."""
    logger = logging.getLogger("trl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet_libraries():
            yield
    finally:
        logger.setLevel(level)
