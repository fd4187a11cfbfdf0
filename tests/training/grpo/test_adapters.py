"""Low-rank adapters: they alone are trained, the engine samples with them, and exports contain them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from knowgen.training.backends.trl import TrlBackend
from knowgen.training.config import LoraConfig
from knowgen.training.models import PolicyModel, add_adapters
from tests.helpers.grpo import Training, tiny_policy_model
from tests.helpers.grpo_loss import first_step
from tests.training.grpo.test_training import distance, weights

MakeTraining = Callable[..., Training]
LORA = LoraConfig(rank=4, alpha=8.0, targets=("q_proj", "v_proj", "up_proj"))


def adapted() -> PolicyModel:
    """Return a tiny model with adapters."""
    base = tiny_policy_model()
    return PolicyModel(add_adapters(base.model, LORA, "test"), base.processor, base.weights)


def base_weights(policy_model: PolicyModel) -> dict[str, Any]:
    """Return the weights under the adapters."""
    named = policy_model.model.get_base_model().state_dict()
    return {name.replace(".base_layer", ""): value.clone() for name, value in named.items() if "lora_" not in name}


def test_only_adapters_are_trained_and_the_engine_samples_with_them(make_training: MakeTraining) -> None:
    policy_model = adapted()
    before = base_weights(policy_model)
    training = make_training(max_steps=2, optimizer={"learning_rate": 1e-2}, checkpoints={"every": 1})
    result = TrlBackend(training.config).train_model(training.tools(), policy_model)
    assert distance(before, base_weights(policy_model)) == 0
    adapters = {name: p for name, p in policy_model.model.named_parameters() if "lora_B" in name}
    assert max(float(value.abs().max()) for value in adapters.values()) > 1e-3
    assert training.figures[2]["gap_max"] < 1e-4  # without adapters the engine would sample from another model
    exported = weights(result.weights)
    assert set(exported) == set(before) and distance(before, exported) > 1e-3
    saved = {path.name for path in (training.folder / "checkpoints" / "checkpoint-2").iterdir()}
    assert "adapter_model.safetensors" in saved and "model.safetensors" not in saved


@pytest.mark.slow
def test_a_training_of_adapters_is_resumed(make_training: MakeTraining) -> None:
    whole = make_training("whole", max_steps=2, checkpoints={"every": 1})
    expected = weights(TrlBackend(whole.config).train_model(whole.tools(), adapted()).weights)
    parts = make_training("parts", max_steps=1, checkpoints={"every": 1})
    TrlBackend(parts.config).train_model(parts.tools(), adapted())
    parts.config = whole.config
    result = TrlBackend(parts.config).train_model(parts.tools(resume=True), adapted())
    assert sorted(parts.figures) == [1, 2]
    assert parts.figures[2]["loss"] == pytest.approx(whole.figures[2]["loss"], abs=1e-5)
    assert distance(expected, weights(result.weights)) < 1e-5


def test_the_divergence_is_that_from_the_model_without_adapters(make_training: MakeTraining) -> None:
    import torch

    policy_model = adapted()
    step = first_step(make_training(kl=0.1), policy_model)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy_model.model.named_parameters():
            if "lora_B" in name:
                parameter += 0.02 * torch.randn_like(parameter)
    loss, gradient = step.differences(kl=0.1, first=tiny_policy_model().model)
    assert loss < 1e-5 and gradient < 5e-6, (loss, gradient)
    assert abs(step.by_hand().value - step.value()) > 1e-4
