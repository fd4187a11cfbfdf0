"""Choose the attention kernels of a pipeline's denoiser, by the name that diffusers gives them."""

from __future__ import annotations

from typing import Any

from knowgen.core.errors import ConfigError, MissingDependencyError, UsageError
from knowgen.core.text import error_message

_PACKAGES = {
    "flash": "flash-attn",
    "flash_varlen": "flash-attn",
    "_flash_3": "flash-attn-3",
    "_flash_varlen_3": "flash-attn-3",
    "sage": "sageattention",
    "sage_varlen": "sageattention",
    "_native_npu": "torch_npu",
    "_native_xla": "torch_xla",
    "xformers": "xformers",
}
"""Packages of kernels that torch does not bring, by the name of the backend in diffusers 0.42."""

_ON_CPU = frozenset({"native", "_native_math", "flex"})


def _package(backend: str) -> str:
    """Return the package that a backend needs; empty for one of torch itself."""
    if backend.endswith("_hub"):
        return "kernels"
    return "sageattention" if backend.startswith("_sage") else _PACKAGES.get(backend, "")


def backends() -> list[str]:
    """Return the names of the backends of the installed diffusers."""
    from diffusers.models.attention_dispatch import AttentionBackendName

    return [backend.value for backend in AttentionBackendName]


def check_attention(backend: str, where: str) -> None:
    """Check the name of a backend.

    Raises:
        UsageError: diffusers has no such backend.
    """
    known = backends()
    if backend not in known:
        raise UsageError(f"attention={backend!r} is unknown", where=where, fix=f"give one of {', '.join(known)}")


def set_attention(pipeline: str, denoiser: Any, backend: str, device: str, where: str) -> None:
    """Have a denoiser compute its attention with a backend of diffusers.

    Only this denoiser changes: the library also makes the backend the default of the process, which is put back.

    Args:
        pipeline: Class of the pipeline, for messages.
        denoiser: Its transformer or U-Net.
        backend: Name of the backend, such as `native` or `flash_hub`.
        device: Device of the pipeline.
        where: Names the generator in errors.

    Raises:
        UsageError: diffusers has no such backend.
        MissingDependencyError: Its package is not installed, or its kernels are not on this machine.
        ConfigError: It does not fit the device or the class.
    """
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    check_attention(backend, where)
    if device.startswith("cpu") and backend not in _ON_CPU:
        raise ConfigError(f"attention={backend} needs an accelerator", where=where, fix="leave out attention")
    if not callable(getattr(denoiser, "set_attention_backend", None)):
        raise ConfigError(f"{pipeline} has no denoiser whose attention can be chosen", where=where)
    default, _ = _AttentionBackendRegistry.get_active_backend()
    try:
        denoiser.set_attention_backend(backend)
    except (RuntimeError, ImportError, OSError) as error:
        package = _package(backend)
        fix = f"pip install -U {package}" if package else "leave out attention"
        what = f"attention={backend} cannot be used: {error_message(error, 300)}"
        raise MissingDependencyError(what, where=where, fix=fix) from error
    finally:
        _AttentionBackendRegistry.set_active_backend(default)
    if not _set_layers(denoiser, backend):
        raise ConfigError(
            f"{type(denoiser).__name__} computes its attention itself, so that attention={backend} has no effect",
            where=where,
            fix="leave out attention",
        )


def _set_layers(denoiser: Any, backend: str) -> int:
    """Return the number of layers that use a backend."""
    processors = (getattr(module, "processor", None) for module in denoiser.modules())
    chosen = (getattr(processor, "_attention_backend", None) for processor in processors)
    return sum(each is not None and each.value == backend for each in chosen)
