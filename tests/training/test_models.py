"""Models for training: what is frozen, adapters, and exports that the agent's policy loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import ConfigError, UsageError
from knowgen.local_models.vlm import ModelSource, load
from knowgen.training.config import LoraConfig, ModelConfig
from knowgen.training.models import export_model, load_policy_model
from tests.helpers.tiny_models import tiny_llava, tiny_vlm

torch = pytest.importorskip("torch")
pytest.importorskip("peft")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vlm(tmp_path_factory.mktemp("models") / "vlm")


def logits(model: Any, processor: Any) -> Any:
    """Return the logits of a conversation with an image, computed in float32 without dropout."""
    from PIL import Image

    text = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Draw it.<|im_end|>\n<|im_start|>assistant\n"
    inputs = processor(text=[text], images=[Image.linear_gradient("L").convert("RGB")], return_tensors="pt")
    with torch.inference_mode():
        return model.eval()(**inputs).logits, inputs


def trained(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_vision_tower_and_projector_are_frozen_by_default(folder: Path) -> None:
    model = load_policy_model(ModelConfig(path=str(folder)), "test").model
    assert trained(model) == {name for name, _ in model.named_parameters() if "visual" not in name}


def test_the_projector_can_be_trained_without_the_vision_tower(folder: Path) -> None:
    model = load_policy_model(ModelConfig(path=str(folder), freeze=("vision",)), "test").model
    inside = {name for name in trained(model) if "visual" in name}
    assert inside
    assert all("merger" in name for name in inside)


def test_another_family_has_the_same_words(tmp_path: Path) -> None:
    model = load_policy_model(ModelConfig(path=str(tiny_llava(tmp_path / "llava"))), "test").model
    assert not any("vision_tower" in name or "projector" in name for name in trained(model))
    assert any("language_model" in name for name in trained(model))


def test_a_part_that_matches_nothing_is_an_error_with_the_nearest(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no parameter of the model belongs to 'visul'.*did you mean visual\?"):
        load_policy_model(ModelConfig(path=str(folder), freeze=("visul",)), "test")


def test_a_model_without_anything_to_train_is_an_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is left to train"):
        load_policy_model(ModelConfig(path=str(folder), freeze=("model", "lm_head")), "test")


def test_a_missing_name_says_what_to_set() -> None:
    with pytest.raises(UsageError, match=r"no model is named.*set model\.path"):
        load_policy_model(ModelConfig(), "test")


def test_adapters_stand_in_the_language_model_alone(folder: Path) -> None:
    config = ModelConfig(path=str(folder), lora=LoraConfig(rank=2, targets=("q_proj", "down_proj")))
    names = trained(load_policy_model(config, "test").model)
    assert names
    assert all("language_model" in name and "lora_" in name for name in names)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in names} == {"q_proj", "down_proj"}


def test_adapters_begin_with_the_weights_of_their_seed(folder: Path) -> None:
    def first_weights(seed: int) -> Any:
        config = ModelConfig(path=str(folder), lora=LoraConfig(rank=2, targets=("q_proj",)))
        model = load_policy_model(config, "test", seed).model
        return torch.cat([value.flatten() for name, value in model.named_parameters() if "lora_A" in name])

    torch.testing.assert_close(first_weights(1), first_weights(1), rtol=0, atol=0)
    assert not torch.equal(first_weights(1), first_weights(2))


def test_adapters_leave_out_a_vision_tower_with_the_same_layer_names(tmp_path: Path) -> None:
    config = ModelConfig(path=str(tiny_llava(tmp_path / "llava")), lora=LoraConfig(rank=2, targets=("q_proj",)))
    names = trained(load_policy_model(config, "test").model)
    assert names
    assert all("language_model" in name for name in names)


def test_an_unknown_layer_for_adapters_is_an_error_with_the_nearest(folder: Path) -> None:
    config = ModelConfig(path=str(folder), lora=LoraConfig(targets=("q_prj",)))
    with pytest.raises(ConfigError, match=r"no linear layer 'q_prj'.*did you mean q_proj\?"):
        load_policy_model(config, "test")


def test_trained_weights_are_exact_and_frozen_ones_compact(folder: Path) -> None:
    model = load_policy_model(ModelConfig(path=str(folder), dtype="bfloat16"), "test").model
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters() if not parameter.requires_grad} == {torch.bfloat16}


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)], ids=["full", "lora"])
def test_gradients_reach_what_is_trained_with_checkpointing_as_without(folder: Path, lora: LoraConfig | None) -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        config = ModelConfig(path=str(folder), lora=lora, gradient_checkpointing=checkpointing)
        policy = load_policy_model(config, "test")
        _, inputs = logits(policy.model, policy.processor)
        policy.model.train()(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients.append({name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None})
        assert set(gradients[-1]) == trained(policy.model)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def perturb(model: Any) -> None:
    """Change every weight that is trained, adapters included, which begin at zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4, alpha=16)], ids=["full", "lora"])
def test_an_export_gives_the_same_logits(folder: Path, tmp_path: Path, lora: LoraConfig | None) -> None:
    policy = load_policy_model(ModelConfig(path=str(folder), lora=lora), "test")
    perturb(policy.model)
    before, inputs = logits(policy.model, policy.processor)

    export_model(policy.model, policy.processor, tmp_path / "model")

    again = load(ModelSource(str(tmp_path / "model"), where="test"), "cpu")
    with torch.inference_mode():
        torch.testing.assert_close(again.model(**inputs).logits, before, rtol=0, atol=0 if lora is None else 2e-5)
        torch.testing.assert_close(policy.model(**inputs).logits, before, rtol=0, atol=0)  # unchanged by the export
    assert again.processor.chat_template == policy.processor.chat_template
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"config.json", "model.safetensors", "generation_config.json", "tokenizer.json"} <= names
    architectures = json.loads((tmp_path / "model" / "config.json").read_text())["architectures"]
    assert architectures == ["Qwen3VLForConditionalGeneration"]


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)], ids=["full", "lora"])
def test_each_export_has_the_number_format_of_the_model(folder: Path, tmp_path: Path, lora: LoraConfig | None) -> None:
    from safetensors.torch import load_file

    policy = load_policy_model(ModelConfig(path=str(folder), dtype="bfloat16", lora=lora), "test")
    for _ in range(2):
        export_model(policy.model, policy.processor, tmp_path / "model")
        weights = load_file(tmp_path / "model" / "model.safetensors")
        assert {value.dtype for value in weights.values()} == {torch.bfloat16}
        assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "bfloat16"


def test_an_export_has_the_generation_settings_of_the_model_whatever_a_trainer_changed(
    folder: Path, tmp_path: Path
) -> None:
    policy = load_policy_model(ModelConfig(path=str(folder)), "test")
    policy.model.generation_config.eos_token_id = 1
    policy.model.config.dtype = "float16"
    export_model(policy.model, policy.processor, tmp_path / "model")
    for name, key in (("generation_config.json", "eos_token_id"), ("config.json", "dtype")):
        stored = json.loads((tmp_path / "model" / name).read_text())
        assert stored[key] == json.loads((folder / name).read_text())[key]


def test_an_export_replaces_an_earlier_one_whole_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "left-over.txt").write_text("old")
    policy = load_policy_model(ModelConfig(path=str(folder)), "test")

    class Broken:
        def save_pretrained(self, folder: Path) -> None:
            raise OSError("disk is full")

    with pytest.raises(OSError, match="disk is full"):
        export_model(policy.model, Broken(), target)
    assert [path.name for path in target.iterdir()] == ["left-over.txt"]

    export_model(policy.model, policy.processor, target)
    assert not (target / "left-over.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
