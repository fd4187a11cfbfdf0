"""Put a pipeline onto its devices: one, several, or main memory with an accelerator for the part that computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knowgen.core.errors import ConfigError
from knowgen.generators.diffusers.options import LoadingOptions

DENOISERS = ("transformer", "unet")
OFFLOADS = ("", "model", "sequential")


def denoiser_of(pipe: Any) -> Any:
    """Return the model that removes noise, None for a pipeline without one."""
    return next((part for name in DENOISERS if (part := getattr(pipe, name, None)) is not None), None)


def place(pipe: Any, options: LoadingOptions, where: str) -> None:
    """Move a pipeline to its devices, and apply the options that save memory; they have been checked.

    Raises:
        ConfigError: The weights do not fit into the memory of several GPUs.
    """
    if options.offload:
        enable = pipe.enable_model_cpu_offload if options.offload == "model" else pipe.enable_sequential_cpu_offload
        enable(device=options.device)
    elif options.gpus > 1:
        spread(pipe, options.device, options.gpus, where)
    elif not options.device_map:
        pipe.to(options.device)
    if options.slicing:
        pipe.vae.enable_slicing()
    if options.tiling:
        pipe.vae.enable_tiling()


def gpus_of(device: str, gpus: int, where: str) -> list[int]:
    """Return the numbers of a pipeline's GPUs, its first device first.

    Args:
        device: Its first device, such as `cuda:0`.
        gpus: Number of GPUs.
        where: Names the generator in errors.

    Raises:
        ConfigError: There are fewer.
    """
    import torch

    kind, _, first = device.partition(":")
    count = getattr(torch, kind).device_count() if kind in ("cuda", "xpu") else 0
    if count < gpus:
        what = f"gpus_per_worker={gpus}, and this process has {count} GPUs"
        raise ConfigError(what, where=where, fix="ask for fewer")
    return [(int(first or 0) + number) % count for number in range(gpus)]


def spread(pipe: Any, device: str, gpus: int, where: str) -> None:
    """Spread the denoiser and the text encoders of a pipeline over several GPUs, layer by layer.

    The first layers of each are on the first GPU, with everything else, so that it stays the device of the pipeline.

    Args:
        pipe: The pipeline in main memory.
        device: Its first device, such as `cuda:0`.
        gpus: Number of GPUs.
        where: Names the generator in errors.

    Raises:
        ConfigError: There are fewer GPUs, or the weights do not fit into their memory.
    """
    import torch
    from accelerate import dispatch_model
    from accelerate.utils import get_max_memory

    devices = gpus_of(device, gpus, where)
    small: list[Any] = []
    large: list[Any] = []
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            (large if name in DENOISERS or name.startswith("text_encoder") else small).append(part)
    for part in small:
        part.to(device)
    for part in sorted(large, key=lambda each: -each.num_parameters()):
        free = get_max_memory()
        plan = layers_by_device(part, {number: free[number] for number in devices}, where)
        dispatch_model(part, plan, main_device=devices[0], force_hooks=True)


def layers_by_device(model: Any, free: Mapping[int, int], where: str) -> dict[str, int]:
    """Return on which device each layer of a model is, in equal parts.

    Args:
        model: A model of diffusers or transformers.
        free: Free bytes of each device, by its number.
        where: Names the generator in errors.

    Raises:
        ConfigError: It does not fit.
    """
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    whole = getattr(model, "_no_split_modules", None)
    whole = list(whole or getattr(model, "_repeated_blocks", None) or [])
    shares = get_balanced_memory(model, dict(free), no_split_module_classes=whole)
    plan: dict[str, Any] = infer_auto_device_map(
        model, {number: shares[number] for number in free}, no_split_module_classes=whole
    )
    if {"cpu", "disk"} & {str(device) for device in plan.values()}:
        what = f"the weights of {type(model).__name__} do not fit into {len(free)} GPUs"
        raise ConfigError(what, where=where, fix="give a larger gpus_per_worker, or offload=model instead")
    return plan
