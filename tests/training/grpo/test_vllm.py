"""A server samples with weights that it is sent before each step. What is sent over NCCL is handed over here."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from knowgen.training.backends.trl import TrlBackend
from tests.helpers.grpo import Training, tiny_config, tiny_policy_model
from tests.helpers.weight_server import WeightServer, without_nccl

UPDATE = ["/start_weight_update", "/update_weights", "/finish_weight_update", "/reset_prefix_cache"]


def served_training(folder: Path, url: str, model: Path, **grpo: Any) -> Training:
    """Return a training that samples with a server."""
    config = tiny_config(rollout={"engine": "vllm", "url": url}, **grpo)
    config = config.model_copy(update={"model": config.model.model_copy(update={"path": str(model)})})
    return Training(folder, config)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a server whose weights are other ones than those that are trained."""
    policy_model = tiny_policy_model(seed=7)
    policy_model.processor.save_pretrained(tmp_path / "served")
    server = WeightServer(policy_model, str(tmp_path / "served"))
    without_nccl(monkeypatch, server)
    with server:
        yield server


@pytest.mark.parametrize(
    "old", ["engine", *(pytest.param(name, marks=pytest.mark.slow) for name in ("trainer", "corrected"))]
)
def test_the_server_samples_each_step_with_the_weights_of_the_step_before(
    old: str, served: WeightServer, tmp_path: Path
) -> None:
    training = served_training(tmp_path / "run", served.address, tmp_path / "served", max_steps=2, old_logprobs=old)
    policy_model = tiny_policy_model()
    result = TrlBackend(training.config).train_model(training.tools(), policy_model)
    assert result.steps == 2
    assert served.calls == [
        "/health", "/server_info", "/get_world_size", "/init_weight_transfer_engine",
        *(["/server_info"] if old == "corrected" else []), *UPDATE, *UPDATE,
    ]  # fmt: skip
    assert served.update["names"] == [name for name, _ in policy_model.model.named_parameters()]
    assert set(served.update["dtype_names"]) == {"float32"}
    for step in (1, 2):
        assert training.figures[step]["gap_max"] < 1e-4  # other weights differ by more than 1
        assert training.sampled_with(step) == {f"step-{step - 1}"}


@pytest.mark.slow
def test_a_trained_vision_tower_resets_what_the_server_keeps_of_images(served: WeightServer, tmp_path: Path) -> None:
    training = served_training(tmp_path / "run", served.address, tmp_path / "served", max_steps=1)
    TrlBackend(training.config).train_model(training.tools(), tiny_policy_model(frozen=()))
    assert served.calls[-5:] == [*UPDATE, "/reset_encoder_cache"]


@pytest.mark.parametrize("weight", [pytest.param(1.0, marks=pytest.mark.slow), 0.25])
def test_the_correction_weights_each_token_by_trainer_over_engine(
    weight: float, served: WeightServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that reports other probabilities than it samples with gives each token another weight, at most 2."""
    served.change = partial(shifted, by=-math.log(weight))
    training = served_training(
        tmp_path / "run", served.address, tmp_path / "served", max_steps=1, old_logprobs="corrected"
    )
    from tests.helpers.grpo_loss import first_step
    from tests.helpers.hand_grpo import gradients

    step = first_step(training, tiny_policy_model())
    assert training.rollouts is not None
    training.rollouts.close()
    corrected = gradients(step.model, step.loss())
    plain = gradients(step.model, step.by_hand(on_policy=True).loss)
    for name, value in plain.items():
        assert float((corrected[name] - weight * value).abs().max()) < 1e-3 * float(value.abs().max() + 1e-3), name


def shifted(answer: dict[str, Any], by: float) -> dict[str, Any]:
    """Change the log-probabilities of an answer."""
    for entry in answer["choices"][0]["logprobs"]["content"]:
        entry["logprob"] += by
    return answer
