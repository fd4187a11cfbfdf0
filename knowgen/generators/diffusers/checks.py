"""Check the options of a pipeline against each other, its device and its classes, before gigabytes are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from knowgen.core.errors import ConfigError, MissingDependencyError
from knowgen.generators.diffusers.attention import set_attention
from knowgen.generators.diffusers.options import LoadingOptions
from knowgen.generators.diffusers.placement import DENOISERS, gpus_of
from knowgen.generators.diffusers.quantization import check_backend
from knowgen.generators.diffusers.step_cache import cache_config, check_class
from knowgen.generators.diffusers.weights import PipelineFiles
from knowgen.local_models.weights import require_packages


def check_before_loading(pipeline: type, files: PipelineFiles, options: LoadingOptions, where: str) -> None:
    """Check what can be known without the weights.

    Args:
        pipeline: Class of the pipeline.
        files: The folder.
        options: How it is to be loaded.
        where: Names the generator in errors.

    Raises:
        UsageError: A value is unknown.
        MissingDependencyError: A package is not installed.
        ConfigError: Options do not go together, or do not fit the device or a class.
    """
    check_combinations(options, files.denoiser, where)
    _check_device(options, where)
    if options.quantization is not None:
        check_backend(options.quantization.backend, options.device, where)
    if options.gguf is not None:
        require_packages(where, "gguf", extra="quantization")
    if options.adapters:
        _check_adapters(pipeline, where)
    _check_vae(pipeline, files, options, where)
    if options.attention or options.cache or options.compilation:
        _check_denoiser(pipeline, files, options, where)


def check_combinations(options: LoadingOptions, denoiser: str, where: str) -> None:
    """Check that options go together.

    Args:
        options: How a pipeline is to be loaded.
        denoiser: Name of the component that removes noise; empty for a pipeline without one.
        where: Names the generator in errors.

    Raises:
        ConfigError: They do not.
    """
    if options.gpus < 1:
        raise ConfigError("gpus_per_worker must be 1 or more", where=where)
    for first, second, why in _conflicts(options, denoiser):
        what = f"{first} and {second} do not go together{f': {why}' if why else ''}"
        raise ConfigError(what, where=where, fix=f"leave out one of them, such as {second.partition('=')[0]}")


def _conflicts(options: LoadingOptions, denoiser: str) -> Iterator[tuple[str, str, str]]:
    """Yield pairs of options that exclude each other, and why where it is not plain."""
    backend = "" if options.quantization is None else options.quantization.backend
    if options.gpus > 1:
        others = {"offload": options.offload, "device_map": options.device_map, "compile": options.compilation}
        yield from (("gpus_per_worker", name, "") for name, value in others.items() if value)
        if backend.startswith("bitsandbytes"):
            yield "gpus_per_worker", f"quantization={backend}", "its weights stay on the GPU on which they were made"
    if options.offload and options.device_map:
        yield "offload", "device_map", ""
    if options.offload == "sequential" and options.compilation:
        yield "offload=sequential", "compile", "its layers are moved one by one"
    if options.gguf is None:
        return
    if options.quantization is not None and (not options.quantization.parts or denoiser in options.quantization.parts):
        yield "gguf", "quantization", f"the {denoiser or 'denoiser'} is quantized already; name other parts"
    if options.gpus > 1:
        yield "gguf", "gpus_per_worker", "accelerate cannot move its weights one by one"
    if options.offload == "sequential":
        yield "gguf", "offload=sequential", "accelerate cannot move its weights one by one"


def _check_device(options: LoadingOptions, where: str) -> None:
    """Check that the device has what the options need.

    Raises:
        ConfigError: It has not.
    """
    from diffusers.pipelines.pipeline_utils import SUPPORTED_DEVICE_MAP

    if options.offload and options.device.startswith("cpu"):
        raise ConfigError("offload needs an accelerator", where=where, fix="leave out offload")
    if options.gpus > 1:
        gpus_of(options.device, options.gpus, where)
    if options.device_map and options.device_map not in SUPPORTED_DEVICE_MAP:
        known = ", ".join(dict.fromkeys(SUPPORTED_DEVICE_MAP))
        raise ConfigError(f"device_map={options.device_map!r} is unknown here", where=where, fix=f"give one of {known}")


def _check_adapters(pipeline: type, where: str) -> None:
    """Check that a class takes adapters, and that they can be loaded.

    Raises:
        MissingDependencyError: peft is not installed.
        ConfigError: The class takes none.
    """
    if not callable(getattr(pipeline, "load_lora_weights", None)):
        raise ConfigError(f"{pipeline.__name__} takes no LoRA", where=where, fix="leave out lora")
    if find_spec("peft") is None:
        raise MissingDependencyError("lora needs peft, which is not installed", where=where, fix="pip install peft")


def _check_vae(pipeline: type, files: PipelineFiles, options: LoadingOptions, where: str) -> None:
    """Check that the VAE decodes as requested.

    Raises:
        ConfigError: Its class cannot.
    """
    vae = _class_of(files, "vae")
    for requested, method in ((options.slicing, "enable_slicing"), (options.tiling, "enable_tiling")):
        if requested and not callable(getattr(vae, method, None)):
            what = f"{pipeline.__name__} has no VAE with {method}"
            raise ConfigError(what, where=where, fix=f"leave out {method.removeprefix('enable_')}")


def _check_denoiser(pipeline: type, files: PipelineFiles, options: LoadingOptions, where: str) -> None:
    """Check that the denoiser takes the options that make it faster.

    Raises:
        UsageError: An attention backend is unknown.
        MissingDependencyError: Its package is not installed.
        ConfigError: The class cannot be used with an option.
    """
    denoiser = _class_of(files, files.denoiser)
    if denoiser is None:
        what = f"{pipeline.__name__} has no {' or '.join(DENOISERS)} for attention, cache or compile"
        raise ConfigError(what, where=where, fix="leave them out")
    if options.attention:
        set_attention(pipeline.__name__, _without_weights(denoiser, files), options.attention, options.device, where)
    if options.cache:
        check_class(str(options.cache["kind"]), pipeline, denoiser, 1, where)
        cache_config(options.cache, pipeline.__name__, None, lambda: None, where)
    if options.compilation.get("scope") == "regional" and not getattr(denoiser, "_repeated_blocks", None):
        what = f"{denoiser.__name__} names no repeated blocks, so that it cannot be compiled by region"
        raise ConfigError(what, where=where, fix="give compile=true")


def _class_of(files: PipelineFiles, component: str) -> Any:
    """Return the class of a component of diffusers; None where it is not there or of another library."""
    import diffusers

    return getattr(diffusers, files.classes.get(component, ""), None)


def _without_weights(denoiser: Any, files: PipelineFiles) -> Any:
    """Return a denoiser with its layers and no weights, which takes no memory."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        return denoiser.from_config(denoiser.load_config(str(files.folder), subfolder=files.denoiser))
