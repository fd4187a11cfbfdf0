"""A server that samples as vLLM does and takes weights as its development endpoints do, without NCCL.

TRL's client sends tensors over NCCL, which needs GPUs. Here its broadcast hands them over in this process; everything
else, such as the calls and their order, is the client's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from knowgen.agents.policies.hf_engine import HfEngine
from knowgen.local_models.vlm import LocalVlm
from knowgen.training.models import PolicyModel
from tests.helpers.vllm_server import VllmServer


class WeightServer(VllmServer):
    """The server.

    Args:
        policy_model: Its model and processor, with weights of its own.
        model: Name under which it is served.

    Attributes:
        calls: Paths of the calls about weights, in order.
        update: What the update that runs announced.
    """

    def __init__(self, policy_model: PolicyModel, model: str) -> None:
        self.weights = policy_model.model
        vlm = LocalVlm(policy_model.model, policy_model.processor, "", "float32")
        super().__init__(HfEngine(lambda: vlm, batch_size=64, where="server"), model=model)
        asyncio.run(self.engine.open())
        self.calls: list[str] = []
        self.update: dict[str, Any] = {}

    def get(self, path: str, authorization: str) -> tuple[int, Mapping[str, Any]]:
        """Answer a GET request."""
        answers: dict[str, Mapping[str, Any]] = {
            "/health": {},
            "/server_info?config_format=json": {
                "vllm_config": {
                    "weight_transfer_config": {"backend": "nccl"},
                    "model_config": {"logprobs_mode": "processed_logprobs"},
                }
            },
            "/get_world_size": {"world_size": 1},
        }
        if path in answers:
            self.calls.append(path.partition("?")[0])
            return 200, answers[path]
        return super().get(path, authorization)

    def post(self, path: str, headers: Mapping[str, str], body: dict[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """Answer a POST request."""
        if path in (
            "/init_weight_transfer_engine", "/start_weight_update", "/update_weights", "/finish_weight_update",
            "/reset_prefix_cache", "/reset_encoder_cache",
        ):  # fmt: skip
            self.calls.append(path)
            if path == "/init_weight_transfer_engine":
                assert body["init_info"]["world_size"] == 2 and body["init_info"]["packed"]
            if path == "/update_weights":
                self.update = body["update_info"]
            return 200, {"success": True}
        return super().post(path, headers, body)

    def receive(self, tensors: Iterator[tuple[str, Any]]) -> None:
        """Take tensors as the broadcast sends them."""
        import torch

        own = dict(self.weights.named_parameters())
        with torch.no_grad():
            for name, value in tensors:
                own[name].copy_(value)


def without_nccl(monkeypatch: pytest.MonkeyPatch, server: WeightServer) -> None:
    """Let TRL's client hand weights to a server in this process."""
    from trl.generation import vllm_client, vllm_generation

    start = vllm_client.VLLMClient.init_communicator
    for module in (vllm_client, vllm_generation):
        monkeypatch.setattr(module, "is_vllm_available", lambda min_version=None: True)
    monkeypatch.setattr(vllm_client, "_HAS_STATEFUL_TRAINER_ENGINE", True)
    monkeypatch.setattr(vllm_client, "_HAS_RESET_PREFIX_CACHE_SUCCESS", True)
    monkeypatch.setattr(vllm_client, "get_ip", lambda: "127.0.0.1", raising=False)
    monkeypatch.setattr(vllm_client, "open_trainer_endpoint", lambda info: _Group(), raising=False)
    monkeypatch.setattr(vllm_client.VLLMClient, "init_communicator", lambda self, device: start(self, "cuda"))

    def broadcast(iterator: Iterator[tuple[str, Any]], group: Any, src: int, post_iter_func: Any) -> None:
        server.receive(iterator)

    monkeypatch.setattr(vllm_client, "packed_nccl_broadcast_producer", broadcast, raising=False)


class _Group:
    """A group of processes that is never used."""

    def __init__(self) -> None:
        self.group = self
        self.store = self.socket = None
