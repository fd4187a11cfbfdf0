"""Caches between the steps of a denoiser: faster, with other images. The techniques are those of diffusers' `hooks`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.text import error_message

KINDS = {
    "first_block": "FirstBlockCacheConfig",
    "taylorseer": "TaylorSeerCacheConfig",
    "mag": "MagCacheConfig",
    "pyramid": "PyramidAttentionBroadcastConfig",
    "faster": "FasterCacheConfig",
}
"""Classes of diffusers that configure a technique. Those for video (`sea`) and for one class (`text_kv`) are left out.
"""

_ONE_PASS = frozenset({"pyramid", "faster"})
"""Techniques that count the calls of a layer, and would mix the two passes of guidance with a negative prompt."""

_BY_CONTEXT = frozenset({"first_block", "taylorseer", "mag"})
"""Techniques that keep a state for each pass, which the pipeline must name (`cache_context`)."""

_OF_BATCH = frozenset({"first_block"})
"""Techniques that decide for a whole batch: an image would depend on what else is in it."""


def parse_cache(value: str | Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a cache as {kind, settings …}; empty for none.

    Raises:
        UsageError: The kind is unknown.

    Example:
        >>> parse_cache("first_block", "generator"), parse_cache({"kind": "mag", "threshold": 0.1}, "generator")
        ({'kind': 'first_block'}, {'kind': 'mag', 'threshold': 0.1})
    """
    if not value:
        return {}
    cache = {"kind": value} if isinstance(value, str) else dict(value)
    if cache.get("kind") not in KINDS:
        raise UsageError(
            f"cache={cache.get('kind')!r} is unknown",
            where=where,
            fix=f"give {', '.join(KINDS)}, or {{kind: first_block, threshold: 0.05}}",
        )
    return cache


class StepCache:
    """A cache that is applied to the denoiser of a pipeline.

    Args:
        pipe: The pipeline.
        denoiser: Its transformer or U-Net.
        cache: What `parse_cache` returns.
        steps: Denoising steps of its images; None where the class does not say.
        passes: Passes of the denoiser at each step, 2 with a negative prompt.
        where: Names the generator in errors.

    Attributes:
        pipe: The pipeline that is running; pipelines that share a denoiser share its cache.
        settings: The kind and all its settings, as recorded with each image.

    Raises:
        UsageError: A setting is unknown or its value is invalid.
        ConfigError: The cache does not fit the class.
    """

    def __init__(
        self, pipe: Any, denoiser: Any, cache: Mapping[str, Any], steps: int | None, passes: int, where: str
    ) -> None:
        self.pipe, self._denoiser, self._where = pipe, denoiser, where
        self._kind, self._name = str(cache["kind"]), type(pipe).__name__
        check_class(self._kind, type(pipe), type(denoiser), passes, where)
        config = cache_config(cache, self._name, steps, lambda: self.pipe.current_timestep, where)
        try:
            denoiser.enable_cache(config)
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f"cache={self._kind}: {error_message(error, 200)}", where=where) from error
        if not any(getattr(module, "_diffusers_hook", None) for module in denoiser.modules() if module is not denoiser):
            raise ConfigError(f"cache={self._kind} matches no layer of {type(denoiser).__name__}", where=where)
        self.settings = {"kind": self._kind, **_plain(config)}

    @property
    def one_at_a_time(self) -> bool:
        """Whether images must not share a batch, because the cache decides for all of a batch."""
        return self._kind in _OF_BATCH

    def start(self, pipe: Any) -> None:
        """Prepare for the images of a call: forget those before, also of one that ended in an error.

        Args:
            pipe: The pipeline that is called.
        """
        self.pipe = pipe
        self._denoiser._reset_stateful_cache()

    def check(self, pipe: Any, passes: int) -> None:
        """Check that another pipeline with the same denoiser can be cached; arguments and errors as for the class."""
        check_class(self._kind, type(pipe), type(self._denoiser), passes, self._where)


def cache_config(
    cache: Mapping[str, Any], name: str, steps: int | None, time_step: Callable[[], Any], where: str
) -> Any:
    """Return the configuration of diffusers for a cache.

    Args:
        cache: What `parse_cache` returns.
        name: Class of the pipeline.
        steps: Denoising steps of its images; None where that is not known.
        time_step: Returns the time step of the pipeline that is running.
        where: Names the generator in errors.

    Raises:
        UsageError: A setting is unknown or its value is invalid.
    """
    import diffusers
    import torch

    kind, settings = str(cache["kind"]), {name: value for name, value in cache.items() if name != "kind"}
    config_class = getattr(diffusers, KINDS[kind])
    known = [field.name for field in dataclasses.fields(config_class) if not field.name.endswith("_callback")]
    if unknown := [name for name in settings if name not in known]:
        what = f"cache={kind} has no {unknown[0]}"
        raise UsageError(what, where=where, fix=f"its settings are {', '.join(known)}")
    for field in dataclasses.fields(config_class):
        value = settings.get(field.name, field.default)
        if type(field.default) in (int, float) and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UsageError(f"cache={kind}: {field.name} must be a number, got {value!r}", where=where)
    if isinstance(dtype := settings.get("taylor_factors_dtype"), str):
        settings["taylor_factors_dtype"] = getattr(torch, dtype, dtype)
    if kind in _ONE_PASS:
        settings["current_timestep_callback"] = time_step
    if kind == "pyramid":
        settings.setdefault("spatial_attention_block_skip_range", 2)
    if kind == "faster":
        settings.setdefault("tensor_format", "BCHW")
        settings["is_guidance_distilled"] = True  # there is one pass, which has no unconditional half
    if kind == "mag":
        _add_ratios(settings, name, steps, where)
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    try:
        return config_class(**settings)
    except (ValueError, TypeError) as error:
        raise UsageError(f"cache={kind}: {error_message(error, 300)}", where=where) from error


def _add_ratios(settings: dict[str, Any], name: str, steps: int | None, where: str) -> None:
    """Add the number of steps, and for FLUX.1 the published ratios of magnitudes.

    Raises:
        UsageError: The ratios of another model are missing.
    """
    from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS

    if steps is not None:
        settings.setdefault("num_inference_steps", steps)
    if name == "FluxPipeline":
        settings.setdefault("mag_ratios", FLUX_MAG_RATIOS)
    if settings.get("mag_ratios") is None or settings.get("calibrate"):
        raise UsageError(
            f"cache=mag needs mag_ratios, which depend on the model; diffusers has none for {name}",
            where=where,
            fix="measure them with MagCacheConfig(calibrate=True), and give {kind: mag, mag_ratios: […]}",
        )
    settings["mag_ratios"] = torch_values(settings["mag_ratios"])


def check_class(kind: str, pipeline: type, denoiser: type, passes: int, where: str) -> None:
    """Check that the class of a pipeline and that of its denoiser can be cached.

    Args:
        kind: One of `KINDS`.
        pipeline: Class of the pipeline.
        denoiser: Class of its transformer or U-Net.
        passes: Passes of the denoiser at each step; 1 where that is not known yet.
        where: Names the generator in errors.

    Raises:
        ConfigError: They cannot.
    """
    what, name = "", pipeline.__name__
    if not callable(getattr(denoiser, "enable_cache", None)):
        what = f"{denoiser.__name__} cannot be cached between steps"
    elif kind in _ONE_PASS and passes > 1:
        what = f"cache={kind} would mix the two passes that {name} makes at each step for guidance"
    elif kind in _ONE_PASS and not hasattr(pipeline, "current_timestep"):
        what = f"{name} does not say its time step, which cache={kind} needs"
    elif kind in _BY_CONTEXT and not _names_passes(pipeline):
        what = f"{name} does not name its passes, which cache={kind} needs"
    if what:
        raise ConfigError(what, where=where, fix="leave out cache, or choose another kind")


def torch_values(values: Any) -> Any:
    """Return numbers as a tensor of float32."""
    import torch

    return torch.as_tensor(values, dtype=torch.float32)


def _names_passes(pipeline: type) -> bool:
    """Return whether a pipeline's call tells its denoiser which pass it is in."""
    try:
        return "cache_context(" in inspect.getsource(pipeline.__call__)
    except (OSError, TypeError):
        return False


def _plain(config: Any) -> dict[str, Any]:
    """Return the settings of a configuration as plain data, without functions."""
    import torch

    plain: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if callable(value) or field.name.endswith("_callback") or value is None:
            continue
        if isinstance(value, torch.Tensor):
            value = [round(number, 6) for number in value.tolist()]
        plain[field.name] = list(value) if isinstance(value, tuple) else value
    return {
        name: str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else value
        for name, value in plain.items()
    }
