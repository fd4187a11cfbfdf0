"""A diffusers pipeline: load it from a folder, generate several images in one call, describe its settings."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knowgen.core.errors import ConfigError, DataError, KnowgenError, MissingDependencyError, UsageError
from knowgen.core.text import error_message, error_summary
from knowgen.generators.diffusers.presets import (
    PipelineSettings,
    PipelineTraits,
    missing_class,
    pipeline_traits,
)
from knowgen.generators.diffusers.weights import PipelineFiles
from knowgen.local_models.devices import auto_dtype, is_gpu_fault
from knowgen.local_models.memory import is_out_of_memory
from knowgen.local_models.weights import offline

if TYPE_CHECKING:
    from PIL.Image import Image

QUANTIZATIONS: dict[str, dict[str, Any]] = {
    "bitsandbytes_4bit": {"load_in_4bit": True},
    "bitsandbytes_8bit": {"load_in_8bit": True},
}
"""Quantizations with default arguments; others are given as {backend, kwargs, parts}."""

OFFLOADS = ("", "model", "sequential")
GUIDANCE_ARGUMENTS = ("guidance_scale", "true_cfg_scale", "distilled_guidance_scale")
DTYPES = ("auto", "bfloat16", "float16", "float32")


@dataclass(frozen=True)
class LoadingOptions:
    """How a pipeline is loaded into memory.

    Attributes:
        device: Device, as torch names it.
        dtype: One of `DTYPES`.
        variant: Variant of the weights, such as `fp16`.
        device_map: Argument of diffusers of the same name; empty to put the whole pipeline on `device`.
        offload: One of `OFFLOADS`: components stay in main memory until they are needed.
        slicing: Decode images one by one.
        tiling: Decode images in tiles, which leaves visible seams.
        compile: Compile the denoiser.
        quantization: Name of a backend, or {backend, kwargs, parts}.
    """

    device: str
    dtype: str = "auto"
    variant: str = ""
    device_map: str = ""
    offload: str = ""
    slicing: bool = False
    tiling: bool = False
    compile: bool = False
    quantization: str | Mapping[str, Any] = ""


class LoadedPipeline:
    """A loaded pipeline and its settings.

    Args:
        pipe: The pipeline object of diffusers.
        settings: The model and how it generates images.
        files: What it was loaded from.
        dtype: Number format in which it computes.
        where: Names the generator in errors.

    Raises:
        UsageError: A setting is not an argument of its class.
    """

    def __init__(self, pipe: Any, settings: PipelineSettings, files: PipelineFiles, dtype: str, where: str) -> None:
        self.pipe, self.settings, self.files, self.dtype = pipe, settings, files, dtype
        self.name = type(pipe).__name__
        self.traits: PipelineTraits = pipeline_traits(self.name)
        self.parameters = inspect.signature(type(pipe).__call__).parameters
        self._arguments = self._fixed_arguments(where)
        self.digest = files.digest()

    @property
    def takes_references(self) -> bool:
        """Whether it can generate from reference images."""
        return "image" in self.parameters

    @property
    def negative_prompt(self) -> str | None:
        """The negative prompt of every call: that of the settings, else the model's own; None for none."""
        settings = self.settings.negative_prompt
        return self.traits.negative_prompt if settings is None else settings

    def _fixed_arguments(self, where: str) -> dict[str, Any]:
        """Return the arguments that are the same in every call."""
        settings = self.settings
        scales = {name or self.traits.guidance: scale for name, scale in settings.guidance.items()}
        arguments: dict[str, Any] = {**scales, **settings.arguments}
        if settings.width_height:
            arguments["width"], arguments["height"] = settings.width_height
        if settings.steps is not None:
            arguments["num_inference_steps"] = settings.steps
        names = [*arguments, *([] if settings.negative_prompt is None else ["negative_prompt"])]
        if unknown := [name for name in names if name not in self.parameters]:
            raise UsageError(f"{self.name} takes no {unknown[0]}", where=where, fix="leave that setting out")
        return arguments

    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], references: Sequence[Sequence[Image]], noise_device: str
    ) -> list[Any]:
        """Generate one image for each prompt, in one batch.

        Args:
            prompts: Prompts with the suffix.
            seeds: A seed for each prompt; the noise of an image depends on its seed alone.
            references: Reference images of each prompt, the same number for all; empty sequences for none.
            noise_device: Device whose random number generator makes the noise.

        Returns:
            For each prompt a PIL image, or a `ValueError` that says what is wrong with the image.
        """
        import torch

        generators = [torch.Generator(noise_device).manual_seed(seed) for seed in seeds]
        negative = self.negative_prompt
        several = len(prompts) > 1
        arguments: dict[str, Any] = {
            **self._arguments,
            "prompt": list(prompts) if several else prompts[0],
            "generator": generators if several else generators[0],
        }
        if negative is not None:
            arguments["negative_prompt"] = [negative] * len(prompts) if several else negative
        if references[0]:
            if self.traits.images == "all":
                arguments["image"] = list(references[0])
            else:
                arguments["image"] = [images[0] for images in references] if several else references[0][0]
        if "output_type" in self.parameters:
            arguments["output_type"] = "np"
        with _seeded(seeds[0]) if self.traits.global_random else nullcontext():
            output = self.pipe(**arguments)
        images = list(output.images if hasattr(output, "images") else output.image)  # Kandinsky 5 names it `image`
        if len(images) != len(prompts):
            raise RuntimeError(f"{self.name} returned {len(images)} images for {len(prompts)} prompts")
        return [_to_image(image) for image in images]

    def recorded_settings(self) -> dict[str, Any]:
        """Return what decides its images besides prompt, references and seed, defaults of the class included.

        A guidance scale that the model does not apply is None, whatever it was set to.
        """
        names = [name for name in GUIDANCE_ARGUMENTS if name in self.parameters]
        scales = {name: self._value(name) if self._applies(name) else None for name in names}
        return {
            "pipeline": self.name,
            "model": self.settings.model,
            "revision": self.files.revision,
            "weights": self.digest,
            "steps": self._value("num_inference_steps"),
            "guidance": scales,
            "negative_prompt": self.negative_prompt,
            "suffix": self.settings.suffix,
            "arguments": dict(self.settings.arguments),
            "scheduler": type(self.pipe.scheduler).__name__ if getattr(self.pipe, "scheduler", None) else "",
            "dtype": self.dtype,
        }

    def _applies(self, scale: str) -> bool:
        """Return whether the model applies a guidance scale.

        A class with both scales compares with the negative prompt, if there is one, by `true_cfg_scale`; its
        `guidance_scale` is an input of models that were trained with one.
        """
        if scale == "true_cfg_scale":
            return self.negative_prompt is not None
        if "true_cfg_scale" in self.parameters:
            denoiser = getattr(self.pipe, "transformer", None)
            return bool(getattr(getattr(denoiser, "config", None), "guidance_embeds", True))
        return not getattr(self.pipe.config, "is_distilled", False)

    def _value(self, name: str) -> Any:
        """Return the value of an argument, else its default where that is plain data."""
        if name in self._arguments:
            return self._arguments[name]
        default = self.parameters[name].default if name in self.parameters else None
        return default if isinstance(default, int | float | str) else None

    def for_editing(self, settings: PipelineSettings, where: str) -> LoadedPipeline:
        """Return a pipeline of the same components that takes reference images.

        Raises:
            UsageError: diffusers has none for this class.
        """
        from diffusers import AutoPipelineForImage2Image

        if self.takes_references:
            return LoadedPipeline(self.pipe, settings, self.files, self.dtype, where)
        try:
            pipe = AutoPipelineForImage2Image.from_pipe(self.pipe)
        except ValueError as error:
            raise UsageError(
                f"{self.name} cannot generate from reference images", where=where, fix="give -g edit=MODEL"
            ) from error
        pipe.set_progress_bar_config(disable=True)
        return LoadedPipeline(pipe, settings, self.files, self.dtype, where)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Set torch's global random state from a seed inside the block, and restore it afterwards."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _to_image(output: Any) -> Image | ValueError:
    """Return a pipeline's output, numbers in [0, 1] of shape (height, width, 3) or a PIL image, as a PIL image."""
    import numpy as np
    from PIL import Image

    if isinstance(output, Image.Image):
        return output
    values = np.asarray(output, dtype=np.float32)
    if not np.isfinite(values).all():
        return ValueError("the model returned NaN or infinite values instead of an image; try -g dtype=float32")
    return Image.fromarray((values * 255).round().clip(0, 255).astype(np.uint8))


def load_pipeline(
    settings: PipelineSettings, files: PipelineFiles, options: LoadingOptions, where: str
) -> LoadedPipeline:
    """Load a pipeline.

    Raises:
        MissingDependencyError: The installed library lacks the class, or a package is missing.
        DataError: The folder cannot be loaded.
        ConfigError: An option does not fit the device or the class.
    """
    import torch

    pipeline_class = _pipeline_class(settings.pipeline, files, where)
    dtype = auto_dtype(options.device, settings.dtype) if options.dtype == "auto" else options.dtype
    _warn_once()
    arguments: dict[str, Any] = {
        _dtype_argument(): getattr(torch, dtype),
        "use_safetensors": True,
        "local_files_only": True,
    }
    if options.variant:
        arguments["variant"] = options.variant
    if options.device_map:
        arguments["device_map"] = options.device_map
    if options.quantization:
        arguments["quantization_config"] = _quantization(options.quantization, files, where)
    try:
        with _quiet(), offline():  # all files are in the folder
            pipe = pipeline_class.from_pretrained(str(files.folder), **arguments)
        pipe.set_progress_bar_config(disable=True)
        _place(pipe, options, where)
    except KnowgenError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            error_message(error, 300), where=where, fix="pip install -U 'knowgen[models]'"
        ) from error
    except Exception as error:
        if is_out_of_memory(error) or is_gpu_fault(error):
            raise
        raise DataError(f"cannot be loaded: {error_summary(error, 300)}", where=where) from error
    return LoadedPipeline(pipe, settings, files, dtype, where)


class _FirstTimeFilter(logging.Filter):
    """Pass every warning of a library once and shortened; repeated at every batch it would hide the others."""

    def __init__(self) -> None:
        super().__init__()
        self._prefixes: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a message is new; messages with the same beginning count as one."""
        text = record.getMessage()
        record.msg, record.args = text[:_MAX_WARNING_CHARACTERS], ()
        prefix = text[:_PREFIX_CHARACTERS]
        is_new = prefix not in self._prefixes
        self._prefixes.add(prefix)
        return is_new


_PREFIX_CHARACTERS, _MAX_WARNING_CHARACTERS = 60, 200


def _warn_once() -> None:
    """Add the filter to the handlers of diffusers and transformers."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for name, library in (("diffusers", diffusers_logging), ("transformers", transformers_logging)):
        library.get_logger(name)  # creates the library's handlers
        for handler in logging.getLogger(name).handlers:
            if not any(isinstance(known, _FirstTimeFilter) for known in handler.filters):
                handler.addFilter(_FirstTimeFilter())


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the libraries' progress bars of loading, because a run shows its own."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    enabled = [module for module in (diffusers_logging, transformers_logging) if module.is_progress_bar_enabled()]
    for module in enabled:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module in enabled:
            module.enable_progress_bar()


def _pipeline_class(requested: str, files: PipelineFiles, where: str) -> Any:
    """Return the class that loads a folder: the requested one, else the one that diffusers or the folder names."""
    import diffusers
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    name = requested or files.pipeline
    pipeline_class = getattr(diffusers, name, None) if name.isidentifier() else None
    if pipeline_class is None or not callable(getattr(pipeline_class, "from_pretrained", None)):
        problem, _, fix = missing_class(name).partition("; ")
        raise MissingDependencyError(problem, where=where, fix=fix)
    if not requested and name in {known.__name__ for known in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()}:
        return diffusers.AutoPipelineForText2Image
    return pipeline_class


def _dtype_argument() -> str:
    """Return the name of the dtype argument; from diffusers 0.42 on the old name is deprecated."""
    import diffusers

    version = tuple(int(number) for number in diffusers.__version__.split(".")[:2])
    return "dtype" if version >= (0, 42) else "torch_dtype"


def _place(pipe: Any, options: LoadingOptions, where: str) -> None:
    """Move a pipeline to its device, and apply the options that save memory or time.

    Raises:
        ConfigError: An option does not fit the device or the class.
    """
    if options.offload:
        if options.device == "cpu":
            raise ConfigError("offload needs an accelerator", where=where, fix="leave out offload")
        enable = pipe.enable_model_cpu_offload if options.offload == "model" else pipe.enable_sequential_cpu_offload
        enable(device=options.device)
    elif not options.device_map:
        pipe.to(options.device)
    vae = getattr(pipe, "vae", None)
    for requested, method in ((options.slicing, "enable_slicing"), (options.tiling, "enable_tiling")):
        if requested:
            if not callable(getattr(vae, method, None)):
                raise ConfigError(f"{type(pipe).__name__} has no VAE with {method}", where=where)
            getattr(vae, method)()
    if options.compile:
        denoiser = getattr(pipe, "transformer", None) or getattr(pipe, "unet", None)
        if denoiser is None:
            raise ConfigError(f"{type(pipe).__name__} has no denoiser to compile", where=where, fix="leave out compile")
        denoiser.compile()


def _quantization(requested: str | Mapping[str, Any], files: PipelineFiles, where: str) -> Any:
    """Return the diffusers configuration of a quantization. By default only the denoiser is quantized.

    Raises:
        UsageError: The quantization is unknown.
        MissingDependencyError: Its backend is not installed.
    """
    from importlib.util import find_spec

    from diffusers import PipelineQuantizationConfig

    if isinstance(requested, str):
        if requested not in QUANTIZATIONS:
            known = ", ".join(QUANTIZATIONS)
            raise UsageError(
                f"quantization {requested!r} is unknown", where=where, fix=f"give {known}, or {{backend, kwargs}}"
            )
        requested = {"backend": requested, "kwargs": QUANTIZATIONS[requested]}
    if not requested.get("backend") or not requested.get("kwargs") or set(requested) - {"backend", "kwargs", "parts"}:
        raise UsageError("quantization takes backend, kwargs and parts", where=where)
    backend = str(requested["backend"])
    package = backend.partition("_")[0]
    if package in {"bitsandbytes", "torchao"} and find_spec(package) is None:
        raise MissingDependencyError(f"{backend} is not installed", where=where, fix=f"pip install {package}")
    parts = requested.get("parts") or [part for part in ("transformer", "unet") if part in files.components]
    try:
        return PipelineQuantizationConfig(
            quant_backend=backend, quant_kwargs=dict(requested["kwargs"]), components_to_quantize=list(parts)
        )
    except (ValueError, TypeError) as error:
        raise UsageError(f"quantization: {error_message(error, 300)}", where=where) from error
