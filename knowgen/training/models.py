"""The policy's model for a training: load it, choose the weights that are trained, and export the result.

    policy = load_policy_model(config.model, "grpo/recommended")
    ...
    export_model(policy.model, policy.processor, folder / "model")

What is trained is decided here once, for fine-tuning and for reinforcement learning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from knowgen.core.atomic import folder_draft
from knowgen.core.errors import ConfigError, MissingDependencyError, UsageError
from knowgen.local_models.devices import auto_dtype
from knowgen.local_models.vlm import ModelSource, load
from knowgen.training.config import PROJECTOR_MODULES, VISION_MODULES, LoraConfig, ModelConfig

MINI = "mini:"
"""Beginning of the path of the small model with random weights; its seed follows."""

_PEFT_PREFIX = "base_model.model."
_SHARD = "5GB"
_LOADED = "knowgen_loaded"
"""Attribute of a model with what trainers and engines may change in it, a `_Loaded`."""


@dataclass(frozen=True)
class PolicyModel:
    """A model that can be trained.

    Attributes:
        model: Model of transformers, or of peft where it has adapters. `requires_grad` says what is trained.
        processor: Its processor.
        weights: Content id of the weights that it was loaded from.
    """

    model: Any
    processor: Any
    weights: str


@dataclass(frozen=True)
class _Loaded:
    """A model's number format and generation settings as it was loaded."""

    dtype: str
    generation: Any


def load_policy_model(config: ModelConfig, where: str, seed: int = 0) -> PolicyModel:
    """Load a model for training, on the CPU; the trainer moves it to its device.

    Weights that are frozen, or lie under adapters, have the number format of the configuration. Weights that are
    trained are kept in float32, because a small step is lost in the rounding of bfloat16; the trainer computes with
    them in bfloat16. DeepSpeed keeps such copies itself.

    Args:
        config: The model, what of it is frozen, and its adapters.
        where: Name of the training in errors.
        seed: Seed of the adapters' first weights.

    Raises:
        UsageError: No model is named, or the seed of the small one is not a number.
        MissingDependencyError: A package or the weights are missing.
        ConfigError: It is not a vision-language model, or a part that is to be frozen or adapted does not exist.
        DataError: The folder is not a model, or its weights are pickles or incomplete.
    """
    policy = _loaded(config, where)
    freeze(policy.model, config.freeze, where)
    model = policy.model if config.lora is None else add_adapters(policy.model, config.lora, where, seed)
    _keep_trained_weights_exact(model)
    if config.gradient_checkpointing:
        _recompute_activations(model)
    return PolicyModel(model, policy.processor, policy.weights)


def training_dtype(config: ModelConfig) -> str:
    """Return the number format in which a training computes: `bfloat16` or `float32`."""
    if config.dtype != "auto":
        return config.dtype
    import torch

    if not torch.cuda.is_available():
        return "float32"
    return "bfloat16" if auto_dtype("cuda") == "bfloat16" else "float32"


def _loaded(config: ModelConfig, where: str) -> PolicyModel:
    if not config.path:
        raise UsageError("no model is named", where=where, fix="set model.path to a folder or a name on the hub")
    if config.path.startswith(MINI):
        return _mini(config.path, where)
    source = ModelSource(
        config.path,
        config.revision,
        config.download,
        training_dtype(config),
        where=where,
        option="model.",
        attention=config.attention,
    )
    vlm = load(source, "cpu")
    setattr(vlm.model, _LOADED, _Loaded(vlm.dtype, deepcopy(vlm.model.generation_config)))
    return PolicyModel(vlm.model, vlm.processor, vlm.weights)


def _mini(path: str, where: str) -> PolicyModel:
    from knowgen.training.mini_model import build_mini

    seed = path.removeprefix(MINI)
    if not seed.isdecimal():
        raise UsageError(f"the seed of {path!r} is not a whole number", where=where, fix=f"write it as {MINI}0")
    model, processor = build_mini(int(seed))
    return PolicyModel(model, processor, path)


def freeze(model: Any, parts: Iterable[str], where: str) -> None:
    """Take parts of a model out of the training.

    Args:
        model: Model of transformers.
        parts: Parts of parameter names, and the words `vision` and `projector`, which stand for the vision tower
            without the projector and for the projector of any family.
        where: Name of the training in errors.

    Raises:
        ConfigError: A part matches no parameter, or nothing is left to train.
    """
    named = dict(model.named_parameters())
    for part in parts:
        chosen = [name for name in named if _belongs(name, part)]
        if not chosen:
            raise ConfigError(
                f"no parameter of the model belongs to {part!r}",
                where=f"{where}: model.freeze",
                fix=_nearest(part, (piece for name in named for piece in name.split("."))),
            )
        for name in chosen:
            named[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in named.values()):
        raise ConfigError("nothing is left to train", where=f"{where}: model.freeze", fix="freeze less")


def _belongs(name: str, part: str) -> bool:
    """Return whether a parameter belongs to a part that is to be frozen."""
    projector = any(module in name for module in PROJECTOR_MODULES)
    if part == "projector":
        return projector
    if part == "vision":
        return not projector and any(module in name for module in VISION_MODULES)
    return part in name


def add_adapters(model: Any, config: LoraConfig, where: str, seed: int = 0) -> Any:
    """Return a model of peft with low-rank adapters on linear layers of the language model; all else is frozen.

    Args:
        model: Model of transformers.
        config: Size of the adapters and the layers that get one.
        where: Name of the training in errors.
        seed: Seed of the adapters' first weights.

    Raises:
        MissingDependencyError: peft is not installed.
        ConfigError: A layer does not exist in the language model.
    """
    if find_spec("peft") is None:
        raise MissingDependencyError(
            "needs peft, which is not installed", where=where, fix='pip install "knowgen[train]"'
        )
    import torch
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model
    from torch.nn import Linear

    outside = VISION_MODULES + PROJECTOR_MODULES
    inner = [name for name, module in model.named_modules() if isinstance(module, Linear)]
    layers = {name.rpartition(".")[2] for name in inner if not any(part in name for part in outside)}
    for target in config.targets:
        if target not in layers:
            raise ConfigError(
                f"the language model has no linear layer {target!r}",
                where=f"{where}: model.lora.targets",
                fix=_nearest(target, layers),
            )
    not_outside = "".join(f"(?!.*{re.escape(part)})" for part in outside)
    adapters = PeftLoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=rf"{not_outside}(?:.*\.)?(?:{'|'.join(re.escape(target) for target in config.targets)})",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # ZeRO-3 gathers small weights into one buffer, which needs them in one number format
        return get_peft_model(model, adapters, autocast_adapter_dtype=not _under_zero3())


def _nearest(wanted: str, names: Iterable[str]) -> str:
    """Return the advice to name what exists."""
    known = sorted({name for name in names if not name.isdigit()})
    near = get_close_matches(wanted, known, n=1, cutoff=0.4)
    return f"did you mean {near[0]}?" if near else f"name one of {', '.join(known[:20])}"


def _under_zero3() -> bool:
    """Return whether DeepSpeed will shard the weights of models that are loaded from now on."""
    from transformers.integrations import is_deepspeed_zero3_enabled

    return bool(is_deepspeed_zero3_enabled())


def _recompute_activations(model: Any) -> None:
    """Have the backward pass compute activations again.

    Frozen embeddings leave the input of the first layer without a gradient, which the form with re-entrance needs;
    ZeRO-3 with adapters needs that form.
    """
    reentrant = _under_zero3() and hasattr(model, "get_base_model")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()


def _keep_trained_weights_exact(model: Any) -> None:
    import torch

    if _under_zero3():
        return
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()


def export_model(model: Any, processor: Any, folder: Path, state: Mapping[str, Any] | None = None) -> None:
    """Write a model as a folder that the policy `hf:FOLDER` and vLLM load, in place of an earlier one.

    Adapters are merged into the weights that are written, and the model stays as it is. Weights are written in the
    number format that the model was loaded in.

    Args:
        model: Model of transformers or peft, not wrapped for several devices.
        processor: Its processor, with tokenizer and chat template.
        folder: The folder. It appears, complete, when everything is written.
        state: All weights by name, where the model itself holds a part of them; those of the model by default.

    Raises:
        OSError: A file cannot be written; an earlier folder stays as it is.
    """
    import torch

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    weights = merged_state(model, model.state_dict() if state is None else state)
    loaded: _Loaded | None = getattr(base, _LOADED, None)
    if loaded is not None:
        dtype = getattr(torch, loaded.dtype)
        weights = {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}
    with folder_draft(folder) as draft:
        base.save_pretrained(draft, state_dict=weights, max_shard_size=_SHARD)
        if loaded is not None:
            base.config.dtype = loaded.dtype  # saving states the format of the first weight, which may be a trained one
            base.config.save_pretrained(draft)
            loaded.generation.save_pretrained(draft)
        processor.save_pretrained(draft)
        # processors are one file since transformers 5; servers with an earlier one read these
        processor.image_processor.save_pretrained(draft)


def export_from(trainer: Any, processor: Any, folder: Path) -> None:
    """Write the model of a trainer as `export_model` does; every process calls it, and the main one writes.

    Args:
        trainer: Trainer of transformers, which may have sharded the weights over several devices.
        processor: Processor of the model.
        folder: The folder.
    """
    accelerator = trainer.accelerator
    sharded = accelerator.distributed_type in ("FSDP", "DEEPSPEED")
    state = accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    if accelerator.is_main_process:
        export_model(trainer.model, processor, folder, state)
    accelerator.wait_for_everyone()


def merged_state(model: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights of a model by their names without adapters, which are added to the weights under them.

    Args:
        model: Model of transformers, or of peft with low-rank adapters.
        state: Weights by name, as `model.state_dict()` gives them.
    """
    plain = {name.removeprefix(_PEFT_PREFIX): value for name, value in state.items()}
    if not hasattr(model, "get_base_model"):
        return plain
    from peft.tuners.lora import LoraLayer

    merged = {name.replace(".base_layer.", "."): value for name, value in plain.items() if ".lora_" not in name}
    for name, layer in model.get_base_model().named_modules():
        if isinstance(layer, LoraLayer):
            for adapter in layer.active_adapters:
                down, up = (plain[f"{name}.lora_{side}.{adapter}.weight"].float() for side in "AB")
                weight = merged[f"{name}.weight"]
                merged[f"{name}.weight"] = (weight.float() + layer.scaling[adapter] * (up @ down)).to(weight.dtype)
    return merged
