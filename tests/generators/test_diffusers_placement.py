"""Where a pipeline's weights are: one device, several, a CPU. GPUs are simulated by their numbers and sizes."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.records import GenerationRequest, GenerationStatus
from knowgen.generators.contract import capabilities_of
from knowgen.generators.diffusers import loading, placement
from knowgen.generators.diffusers.generator import DiffusersGenerator
from knowgen.generators.diffusers.placement import layers_by_device
from knowgen.generators.diffusers.weights import find_files
from knowgen.workflows.resolve import resolve_generator, resolve_scorer
from tests.helpers import tiny_pipelines


def denoiser(layers: int) -> Any:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=layers, num_single_layers=layers, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip


def test_a_model_is_spread_over_gpus_in_equal_parts_without_splitting_a_layer() -> None:
    model = denoiser(8)
    plan = layers_by_device(model, dict.fromkeys(range(3), 10**9), "generator")
    sizes = dict.fromkeys(range(3), 0)
    for name, parameter in model.named_parameters():
        owners = {device for prefix, device in plan.items() if name == prefix or name.startswith(f"{prefix}.")}
        assert len(owners) == 1, name
        sizes[owners.pop()] += parameter.numel()
    assert min(sizes.values()) > 0.5 * max(sizes.values())
    assert next(iter(plan.values())) == 0, "the first layers are on the pipeline's device"
    blocks = [name for name in plan if ".attn" in name or ".ff" in name]
    assert blocks == []


def test_a_model_that_does_not_fit_on_its_gpus_is_an_error() -> None:
    model = denoiser(8)
    size = sum(parameter.numel() * 4 for parameter in model.parameters())
    with pytest.raises(ConfigError, match="do not fit into 2 GPUs"):
        layers_by_device(model, {0: size // 4, 1: size // 4}, "generator")


def test_a_model_that_is_spread_gives_the_images_of_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layers are moved by the hooks of accelerate, here all between one processor and itself."""
    import accelerate.utils
    import numpy as np
    import torch

    folder = tiny_pipelines.flux(tmp_path / "flux")
    args: dict[str, Any] = {"size": "32x32", "steps": 2, "batch": 1}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(accelerate.utils, "get_max_memory", lambda: {0: 10**9, 1: 10**9})
    plans: list[dict[str, int]] = []
    original = layers_by_device

    def on_processor(*arguments: Any) -> dict[str, Any]:
        plans.append(original(*arguments))
        return dict.fromkeys(plans[-1], "cpu")

    dispatch = accelerate.dispatch_model
    monkeypatch.setattr(placement, "layers_by_device", on_processor)
    monkeypatch.setattr(accelerate, "dispatch_model", lambda model, plan, main_device, force_hooks: dispatch(
        model, plan, main_device="cpu", force_hooks=force_hooks))  # fmt: skip
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)
    spread, one = DiffusersGenerator(str(folder), gpus_per_worker=2, **args), DiffusersGenerator(str(folder), **args)
    spread.dtype = "float32"
    pipes = []
    for generator, device in ((spread, "cuda:0"), (one, "cpu")):
        generator._device = device
        pipes.append(generator._load("text", None))
    assert len(plans) == 3, "the denoiser and two text encoders"
    images = [pipe.generate(["a lamp"], [1], [()], "cpu")[0] for pipe in pipes]
    assert np.array_equal(*images)
    assert hasattr(pipes[0].pipe.transformer, "_hf_hook") and not hasattr(pipes[0].pipe.vae, "_hf_hook")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"offload": "model"}, "gpus_per_worker and offload do not go together"),
        ({"device_map": "balanced"}, "gpus_per_worker and device_map do not go together"),
        ({"compile": True}, "gpus_per_worker and compile do not go together"),
        (
            {"quantization": "bitsandbytes_4bit"},
            "gpus_per_worker and quantization=bitsandbytes_4bit do not go together",
        ),
        ({}, "gpus_per_worker=2, and this process has 0 GPUs"),
    ],
)
def test_several_gpus_for_one_model_exclude_other_placements(
    tmp_path: Path, args: dict[str, Any], message: str
) -> None:
    generator = DiffusersGenerator(str(tiny_pipelines.flux(tmp_path / "flux")), gpus_per_worker=2, **args)
    with pytest.raises(ConfigError, match=message):
        generator.setup("cpu")


def test_the_number_of_gpus_of_a_worker_is_declared_and_not_part_of_the_identity() -> None:
    handle = resolve_generator("diffusers:ORG/NAME", {"gpus_per_worker": 4}, None)
    assert handle.capabilities.gpus_per_worker == 4 and "gpus_per_worker" not in handle.spec.args
    assert capabilities_of(DiffusersGenerator).gpus_per_worker == 1
    judge = resolve_scorer("hf:ORG/NAME", {"gpus_per_worker": 2})
    assert judge.capabilities.gpus_per_worker == 2 and "gpus_per_worker" not in judge.spec.args
    with pytest.raises(UsageError, match="gpus_per_worker must be 1 or more"):
        DiffusersGenerator("ORG/NAME", gpus_per_worker=0)


def test_files_of_a_model_are_read_side_by_side_unless_the_environment_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.models import modeling_utils

    used: list[bool] = []
    original = modeling_utils.ModelMixin._load_pretrained_model.__func__

    def recorded(cls: Any, *args: Any, **kwargs: Any) -> Any:
        used.append(kwargs["is_parallel_loading_enabled"])
        return original(cls, *args, **kwargs)

    monkeypatch.setattr(modeling_utils.ModelMixin, "_load_pretrained_model", classmethod(recorded))
    ahead: list[Path] = []

    def noted(files: list[Path]) -> nullcontext[None]:
        ahead.extend(files)
        return nullcontext()

    monkeypatch.setattr(loading, "read_ahead", noted)
    folder = str(tiny_pipelines.sd3(tmp_path / "sd3"))
    monkeypatch.delenv("HF_ENABLE_PARALLEL_LOADING", raising=False)
    DiffusersGenerator(folder).setup("cpu")
    assert set(used) == {True} and modeling_utils.HF_ENABLE_PARALLEL_LOADING is False
    weights = list(Path(folder).rglob("*.safetensors"))
    assert sorted(ahead) == sorted(weights)
    used.clear()
    ahead.clear()
    monkeypatch.setenv("HF_ENABLE_PARALLEL_LOADING", "0")
    DiffusersGenerator(folder).setup("cpu")
    assert set(used) == {False} and ahead == []


# --- a CPU -----------------------------------------------------------------------------------------------------------


def test_a_large_model_on_a_cpu_is_said_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from knowgen.local_models import on_cpu
    from knowgen.local_models.host_memory import HostMemory

    folder = str(tiny_pipelines.flux(tmp_path / "flux"))
    DiffusersGenerator(folder).setup("cpu")
    assert "no GPU" not in caplog.text
    monkeypatch.setattr(on_cpu, "_LARGE", 10_000)
    monkeypatch.setattr(on_cpu, "host_memory", lambda: HostMemory(total=10**6, free=10**5))
    caplog.set_level(logging.WARNING)
    DiffusersGenerator(folder).setup("cpu")
    assert "runs on the CPU, where one result may take minutes to hours" in caplog.text
    assert "too little" in caplog.text
    weights = find_files(folder, "", download=False, where="").parameters()
    half = 2 * sum(weights.values())
    monkeypatch.setattr(on_cpu, "host_memory", lambda: HostMemory(total=half, free=half))
    with pytest.raises(ConfigError, match=r"take 0 GB of memory, and this machine has 0 GB.*dtype=bfloat16"):
        DiffusersGenerator(folder).setup("cpu")
    monkeypatch.setattr(on_cpu, "host_memory", lambda: HostMemory(total=half - 1, free=half - 1))
    with pytest.raises(
        ConfigError, match=r"this machine has 0 GB; use a GPU, a smaller model$"
    ):  # nor would half of it
        DiffusersGenerator(folder).setup("cpu")
    pytest.importorskip("torchao")
    generator = DiffusersGenerator(folder, quantization="torchao_int8wo", size="32x32", steps=1)
    generator.setup("cpu")  # its weights take less
    results = list(generator.generate_batch([GenerationRequest(id="a", prompt="x", seed=0)]))
    assert results[0].status is GenerationStatus.OK
