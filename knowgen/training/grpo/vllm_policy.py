"""The policy over the weights that are trained, sampled by a vLLM server that is sent them before each step.

Two protocols of one server, vLLM 0.31 (looked up in November 2026):

- token ids in and out, which `policies/vllm.py` speaks: `vllm serve MODEL --enable-scale-out`;
- the transfer of weights over NCCL, which TRL's client speaks. It needs the package `vllm` in the trainer's environment
  too, a CUDA device of the trainer's main process, and the server's development endpoints:

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out --logprobs-mode processed_logprobs
        --weight-transfer-config '{"backend": "nccl"}'

TRL calls `/health`, `/server_info`, `/get_world_size` and `/init_weight_transfer_engine` once, and before each step
`/start_weight_update`, `/update_weights`, `/finish_weight_update` and `/reset_prefix_cache`. Where the vision tower is
trained, `/reset_encoder_cache` is called besides. With the log-probabilities
of `processed_logprobs` the temperature is part of them, as in the trainer; with top_p below 1 they are those after the
cut, and the ratio with the trainer's is below 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from knowgen.agents.policies.contract import Sampling
from knowgen.agents.policies.vllm import VllmPolicy
from knowgen.agents.tokens import TokenSession
from knowgen.training.config import TrainingConfig


class VllmTrainedPolicy:
    """A policy of tokens behind a server whose weights the trainer sets.

    Args:
        config: The configuration.
    """

    def __init__(self, config: TrainingConfig) -> None:
        assert config.grpo is not None
        model = config.model
        self._policy = VllmPolicy(model.path, config.grpo.rollout.url, revision=model.revision, download=model.download)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model and server before the training."""
        return {**self._policy.identity, "policy": "training"}

    def open(self, sampling: Sampling, prompt: str, session: str) -> TokenSession:
        """Return a new session."""
        return self._policy.open(sampling, prompt, session)

    async def check_service(self) -> str:
        """Check the server; see `VllmPolicy`."""
        return await self._policy.check_service()

    async def close(self) -> None:
        """Close the connections."""
        await self._policy.close()

    @contextmanager
    def sampling(self, version: str) -> Iterator[None]:
        """Name the version of the weights, which the trainer has sent."""
        for engine in self._policy.engines:
            engine.weights = version
        yield


def server_problems(config: TrainingConfig) -> list[str]:
    """Return what stands in the way of sampling with a server on this machine, one line each."""
    import torch

    assert config.grpo is not None
    problems = []
    if not config.grpo.rollout.url:
        problems.append("grpo.rollout.url is empty: name the vLLM server, such as http://127.0.0.1:8000")
    if find_spec("vllm") is None:
        problems.append(
            "vllm is not installed, whose package sends the weights to the server: install vllm 0.31 in this "
            "environment, or use grpo.rollout.engine=local"
        )
    if not torch.cuda.is_available():
        problems.append("no CUDA device is here, from which NCCL sends the weights: use grpo.rollout.engine=local")
    return problems
