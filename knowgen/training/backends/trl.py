"""The backend `trl`: GRPO with TRL's trainer, on one device, or on several with one process for each.

The trained model samples in this process (`engine: local`), or a vLLM server samples with weights that it is sent
before each step (`engine: vllm`). Several processes are started with `accelerate launch` or `torchrun`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from knowgen.core.errors import ConfigError, KnowgenError
from knowgen.training.backends.contract import TrainingResult, TrainingTools
from knowgen.training.config import TrainingConfig

if TYPE_CHECKING:
    from knowgen.training.models import PolicyModel

_WHERE = "backend trl"


class TrlBackend:
    """GRPO with TRL.

    Args:
        config: The configuration.
    """

    def __init__(self, config: TrainingConfig) -> None:
        if config.grpo is None:
            raise ConfigError("the configuration has no section grpo", where=_WHERE, fix="set method: grpo")
        self._config, self._grpo = config, config.grpo

    def check(self) -> list[str]:
        """Return what stands in the way of the training on this machine, one line each; nothing is loaded."""
        from knowgen.training.grpo.trl_interface import check_trl

        problems = [
            f'{name} is not installed: pip install "knowgen[train]"'
            for name in ("torch", "transformers", "trl", "accelerate", "datasets")
            if find_spec(name) is None
        ]
        if problems:
            return problems
        try:
            check_trl()
        except KnowgenError as error:
            problems.append(str(error))
        return problems + self._engine_problems()

    def _engine_problems(self) -> list[str]:
        from knowgen.training.grpo.vllm_policy import server_problems

        rollout = self._grpo.rollout
        if rollout.engine == "local":
            problems = [] if not rollout.url else ["grpo.rollout.url is set, but grpo.rollout.engine is local"]
            if self._grpo.old_logprobs == "corrected":
                problems.append("grpo.old_logprobs=corrected needs grpo.rollout.engine=vllm; use engine or trainer")
            return problems
        return server_problems(self._config)

    def train(self, tools: TrainingTools) -> TrainingResult:
        """Train, and return the weights; see `GrpoBackend`."""
        from knowgen.training.models import load_policy_model

        if problems := self.check():
            raise ConfigError(problems[0], where=_WHERE)
        model = self._config.model
        return self.train_model(tools, load_policy_model(model, f"model.path={model.path}", self._config.seed))

    def train_model(self, tools: TrainingTools, policy_model: PolicyModel) -> TrainingResult:
        """Train a model that is loaded; see `train`."""
        from knowgen.training.grpo.training import TrlTraining

        return TrlTraining(self._config, tools, policy_model).run()
