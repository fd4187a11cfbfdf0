"""Quantize the parts of a pipeline while they are loaded, with bitsandbytes, torchao or another of diffusers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from knowgen.core.errors import ConfigError, MissingDependencyError, UsageError
from knowgen.core.text import error_message

_TORCHAO: dict[str, tuple[str, dict[str, Any]]] = {
    "torchao_int8wo": ("Int8WeightOnlyConfig", {}),
    "torchao_int4wo": ("Int4WeightOnlyConfig", {}),
    "torchao_int8dq": ("Int8DynamicActivationInt8WeightConfig", {}),
    "torchao_fp8wo": ("Float8WeightOnlyConfig", {}),
    "torchao_fp8dq": ("Float8DynamicActivationFloat8WeightConfig", {"granularity": "PerRow"}),
}
"""Configurations of torchao. `fp8dq` scales each row: with one scale for all, an image would depend on its batch."""

_BITSANDBYTES: dict[str, dict[str, Any]] = {
    "bitsandbytes_4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "bitsandbytes_8bit": {"load_in_8bit": True},
}

_PACKAGES = {
    "bitsandbytes": ("bitsandbytes", "pip install 'knowgen[quantization]'"),
    "torchao": ("torchao", "pip install 'knowgen[quantization]'"),
    "quanto": ("optimum", "pip install optimum-quanto"),
    "modelopt": ("modelopt", "pip install 'nvidia-modelopt[hf]'"),
}
"""The module that a backend needs, and what installs it, by the first word of its name."""

QUANTIZATIONS = (*_BITSANDBYTES, *_TORCHAO)
"""Quantizations with default arguments; other backends of diffusers are given as {backend, kwargs, parts}."""


@dataclass(frozen=True)
class Quantization:
    """What is quantized, and how.

    Attributes:
        backend: One of `QUANTIZATIONS`, or a backend of diffusers.
        kwargs: Arguments beside those of its name.
        parts: Components; empty for the denoiser.
    """

    backend: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    parts: tuple[str, ...] = ()


def parse_quantization(value: str | Mapping[str, Any], where: str) -> Quantization | None:
    """Return what is quantized, None for nothing.

    Raises:
        UsageError: The quantization is unknown.

    Example:
        >>> parse_quantization({"backend": "torchao_int8wo", "parts": ["text_encoder"]}, "generator").parts
        ('text_encoder',)
    """
    if not value:
        return None
    requested: Mapping[str, Any] = {"backend": value} if isinstance(value, str) else value
    if not requested.get("backend") or set(requested) - {"backend", "kwargs", "parts"}:
        raise UsageError("quantization takes backend, kwargs and parts", where=where)
    backend, kwargs = str(requested["backend"]), dict(requested.get("kwargs") or {})
    if backend not in QUANTIZATIONS and not kwargs:
        known = ", ".join(QUANTIZATIONS)
        raise UsageError(
            f"quantization {backend!r} is unknown", where=where, fix=f"give {known}, or {{backend, kwargs, parts}}"
        )
    parts = requested.get("parts") or ()
    return Quantization(backend, kwargs, (parts,) if isinstance(parts, str) else tuple(map(str, parts)))


def quantization_config(
    requested: Quantization, libraries: Mapping[str, str], dtype: str, device: str, where: str
) -> Any:
    """Return the configuration of diffusers for a quantization. By default only the denoiser is quantized.

    Args:
        requested: What is quantized.
        libraries: Library of each component with weights, `diffusers` or `transformers`, as the model's index says.
        dtype: Number format in which the pipeline computes.
        device: Device of the pipeline.
        where: Names the generator in errors.

    Raises:
        UsageError: A component or an argument is unknown.
        MissingDependencyError: The backend is not installed.
        ConfigError: It does not run on this device.
    """
    from diffusers import PipelineQuantizationConfig

    check_backend(requested.backend, device, where)
    parts = requested.parts or tuple(part for part in ("transformer", "unet") if part in libraries)
    if not parts:
        what = "quantization: the pipeline has neither transformer nor unet"
        raise UsageError(what, where=where, fix=f"name its parts: {', '.join(sorted(libraries))}")
    if unknown := [part for part in parts if part not in libraries]:
        what = f"quantization: the pipeline has no {unknown[0]}"
        raise UsageError(what, where=where, fix=f"its parts are {', '.join(sorted(libraries))}")
    make = _maker(requested, dtype)
    try:
        if make is None:
            return PipelineQuantizationConfig(
                quant_backend=requested.backend, quant_kwargs=requested.kwargs, components_to_quantize=list(parts)
            )
        return PipelineQuantizationConfig(quant_mapping={part: make(libraries[part]) for part in parts})
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"quantization: {error_message(error, 300)}", where=where) from error


def check_backend(backend: str, device: str, where: str) -> None:
    """Check that a quantization can be used.

    Args:
        backend: As in `Quantization`.
        device: Device of the pipeline.
        where: Names the generator in errors.

    Raises:
        MissingDependencyError: Its package is not installed.
        ConfigError: It does not run on this device.
    """
    module, install = _PACKAGES.get(backend.partition("_")[0], ("", ""))
    if module and find_spec(module) is None:
        raise MissingDependencyError(f"{backend} needs {module}, which is not installed", where=where, fix=install)
    if module == "bitsandbytes" and device.startswith("cpu"):
        raise ConfigError(f"{backend} needs an accelerator", where=where, fix="give quantization=torchao_int8wo")


def _maker(requested: Quantization, dtype: str) -> Callable[[str], Any] | None:
    """Return the function that makes the configuration of a component by its library; None for other backends."""
    if requested.backend in _BITSANDBYTES:
        return lambda library: _bitsandbytes(library, requested, dtype)
    if requested.backend in _TORCHAO:
        return lambda library: _torchao(library, requested)
    return None


def _config_class(library: str, name: str) -> Any:
    import importlib

    return getattr(importlib.import_module("transformers" if library == "transformers" else "diffusers"), name)


def _bitsandbytes(library: str, requested: Quantization, dtype: str) -> Any:
    computing = {"bnb_4bit_compute_dtype": dtype} if requested.backend == "bitsandbytes_4bit" else {}
    arguments = {**_BITSANDBYTES[requested.backend], **computing, **requested.kwargs}
    return _config_class(library, "BitsAndBytesConfig")(**arguments)


def _torchao(library: str, requested: Quantization) -> Any:
    import torchao.quantization  # type: ignore[import-untyped, import-not-found, unused-ignore]

    name, defaults = _TORCHAO[requested.backend]
    arguments = {**defaults, **requested.kwargs}
    skipped = arguments.pop("modules_to_not_convert", None)
    if isinstance(granularity := arguments.get("granularity"), str):
        arguments["granularity"] = getattr(torchao.quantization, granularity)()
    config = getattr(torchao.quantization, name)(**arguments)
    return _config_class(library, "TorchAoConfig")(config, modules_to_not_convert=skipped)
