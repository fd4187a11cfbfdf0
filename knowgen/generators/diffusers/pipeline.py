"""A pipeline of diffusers: loaded from a folder, called for several prompts at once, described for the record."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knowgen.core.errors import ConfigError, DataError, KnowgenError, MissingDependencyError, UsageError
from knowgen.core.text import error_message, error_summary
from knowgen.generators.diffusers.presets import ClassFacts, PipelineSettings, facts, lacks_class, main_scale
from knowgen.generators.local_weights import Weights
from knowgen.local_models.devices import auto_dtype, is_gpu_fault
from knowgen.local_models.memory import is_out_of_memory
from knowgen.local_models.weights import offline

if TYPE_CHECKING:
    from PIL.Image import Image

QUANTIZATIONS: dict[str, dict[str, Any]] = {
    "bitsandbytes_4bit": {"load_in_4bit": True},
    "bitsandbytes_8bit": {"load_in_8bit": True},
}
"""Backends that need no further word; others are given as {backend, kwargs, parts}."""

OFFLOADS = ("", "model", "sequential")
DTYPES = ("auto", "bfloat16", "float16", "float32")


@dataclass(frozen=True)
class LoadingOptions:
    """How a pipeline is put into memory.

    Attributes:
        device: As torch names it.
        dtype: One of `DTYPES`.
        variant: Form of the weights, such as `fp16`.
        device_map: As diffusers takes it; empty for the whole pipeline on `device`.
        offload: One of `OFFLOADS`: parts wait in the machine's memory until they are needed.
        slicing: Decode pictures one by one.
        tiling: Decode pictures in tiles, which shows at their seams.
        compile: Compile the denoiser.
        quantization: A backend's name, or {backend, kwargs, parts}.
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
    """A loaded pipeline and the settings it draws with.

    Args:
        pipe: Of diffusers.
        way: How pictures are drawn.
        weights: What it was loaded from.
        dtype: In which it computes.
        where: Names the generator in errors.

    Raises:
        UsageError: A setting is none of its class.
    """

    def __init__(self, pipe: Any, way: PipelineSettings, weights: Weights, dtype: str, where: str) -> None:
        self.pipe, self.way, self.weights, self.dtype = pipe, way, weights, dtype
        self.name = type(pipe).__name__
        self.facts: ClassFacts = facts(self.name)
        self.takes = inspect.signature(type(pipe).__call__).parameters
        self._fixed = self._fixed_arguments(where)
        self.digest = weights.digest()

    @property
    def edits(self) -> bool:
        """Can it draw from reference images?"""
        return "image" in self.takes

    def _fixed_arguments(self, where: str) -> dict[str, Any]:
        way = self.way
        scales = {name or main_scale(self.name): scale for name, scale in way.guidance.items()}
        fixed: dict[str, Any] = {**scales, **way.arguments}
        if way.width_height:
            fixed["width"], fixed["height"] = way.width_height
        if way.steps is not None:
            fixed["num_inference_steps"] = way.steps
        asked = [*fixed, *([] if way.negative_prompt is None else ["negative_prompt"])]
        if foreign := [name for name in asked if name not in self.takes]:
            raise UsageError(f"{self.name} takes no {foreign[0]}", where=where, fix="leave that setting out")
        return fixed

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], references: Sequence[Sequence[Image]], noise: str
    ) -> list[Any]:
        """Draws one picture for each prompt, in one pass.

        Args:
            prompts: What to draw, suffix and all.
            seeds: A seed for each; the noise of a picture comes from its seed alone.
            references: For each prompt as many pictures; empty ones where the pass has none.
            noise: Device whose random numbers are drawn.

        Returns:
            For each a PIL image, or a `ValueError` that says what is wrong with it.
        """
        import torch

        generators = [torch.Generator(noise).manual_seed(seed) for seed in seeds]
        negative = self.way.negative_prompt
        several = len(prompts) > 1
        arguments: dict[str, Any] = {
            **self._fixed,
            "prompt": list(prompts) if several else prompts[0],
            "generator": generators if several else generators[0],
        }
        if negative is not None:
            arguments["negative_prompt"] = [negative] * len(prompts) if several else negative
        if references[0]:
            if self.facts.images == "all":
                arguments["image"] = list(references[0])
            else:
                arguments["image"] = [each[0] for each in references] if several else references[0][0]
        if "output_type" in self.takes:
            arguments["output_type"] = "np"
        output = self.pipe(**arguments)
        images = list(output.images)
        if len(images) != len(prompts):
            raise RuntimeError(f"{self.name} gave {len(images)} pictures for {len(prompts)} prompts")
        return [_picture(image) for image in images]

    def settings(self) -> dict[str, Any]:
        """Returns what decides its pictures beside prompt, references and seed, defaults of the class included."""
        scales = {name: self._value(name) for name in ("guidance_scale", "true_cfg_scale") if name in self.takes}
        return {
            "pipeline": self.name,
            "model": self.way.model,
            "revision": self.weights.revision,
            "weights": self.digest,
            "steps": self._value("num_inference_steps"),
            "guidance": scales,
            "negative_prompt": self.way.negative_prompt,
            "suffix": self.way.suffix,
            "arguments": dict(self.way.arguments),
            "scheduler": type(self.pipe.scheduler).__name__ if getattr(self.pipe, "scheduler", None) else "",
            "dtype": self.dtype,
        }

    def _value(self, name: str) -> Any:
        if name in self._fixed:
            return self._fixed[name]
        default = self.takes[name].default if name in self.takes else None
        return default if isinstance(default, int | float | str) else None

    def partner(self, way: PipelineSettings, where: str) -> LoadedPipeline:
        """Returns a pipeline of the same parts that draws from reference images.

        Raises:
            UsageError: The library has none for this class.
        """
        from diffusers import AutoPipelineForImage2Image

        if self.edits:
            return LoadedPipeline(self.pipe, way, self.weights, self.dtype, where)
        try:
            made = AutoPipelineForImage2Image.from_pipe(self.pipe)
        except ValueError as error:
            raise UsageError(
                f"{self.name} cannot draw from reference images", where=where, fix="give -g edit=MODEL"
            ) from error
        made.set_progress_bar_config(disable=True)
        return LoadedPipeline(made, way, self.weights, self.dtype, where)


def _picture(image: Any) -> Any:
    """Turns numbers in [0, 1], height x width x 3, into a PIL image; a PIL image stays."""
    import numpy as np
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    numbers = np.asarray(image, dtype=np.float32)
    if not np.isfinite(numbers).all():
        return ValueError("the model gave numbers that are none (NaN) instead of a picture; try -g dtype=float32")
    return Image.fromarray((numbers * 255).round().clip(0, 255).astype(np.uint8))


def load(way: PipelineSettings, weights: Weights, loading: LoadingOptions, where: str) -> LoadedPipeline:
    """Loads a pipeline.

    Raises:
        MissingDependencyError: The installed library lacks the class, or a package is missing.
        DataError: The folder cannot be loaded.
        ConfigError: It cannot be put where it was asked to be.
    """
    import torch

    kind = _kind(way.pipeline, weights, where)
    dtype = auto_dtype(loading.device, way.dtype) if loading.dtype == "auto" else loading.dtype
    _tell_once()
    more: dict[str, Any] = {
        _dtype_argument(): getattr(torch, dtype),
        "use_safetensors": True,
        "local_files_only": True,
    }
    if loading.variant:
        more["variant"] = loading.variant
    if loading.device_map:
        more["device_map"] = loading.device_map
    if loading.quantization:
        more["quantization_config"] = _quantization(loading.quantization, weights, where)
    try:
        with _quiet(), offline():  # all files are in the folder
            pipe = kind.from_pretrained(str(weights.folder), **more)
        pipe.set_progress_bar_config(disable=True)
        _place(pipe, loading, where)
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
    return LoadedPipeline(pipe, way, weights, dtype, where)


class _Once(logging.Filter):
    """Lets every warning of the libraries through once, cut short: one at every pass would bury the rest."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tells whether a message is new; messages that begin alike are one."""
        text = record.getMessage()
        record.msg, record.args = text[:_WARNING_LETTERS], ()
        new = text[:_ALIKE_LETTERS] not in self._told
        self._told.add(text[:_ALIKE_LETTERS])
        return new


_ALIKE_LETTERS, _WARNING_LETTERS = 60, 200


def _tell_once() -> None:
    from diffusers.utils import logging as ours
    from transformers.utils import logging as theirs

    for name, library in (("diffusers", ours), ("transformers", theirs)):
        library.get_logger(name)  # makes the library's handlers
        for handler in logging.getLogger(name).handlers:
            if not any(isinstance(known, _Once) for known in handler.filters):
                handler.addFilter(_Once())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the progress of loading off the terminal, where a run shows its own."""
    from diffusers.utils import logging as ours
    from transformers.utils import logging as theirs

    loud = [module for module in (ours, theirs) if module.is_progress_bar_enabled()]
    for module in loud:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module in loud:
            module.enable_progress_bar()


def _kind(wanted: str, weights: Weights, where: str) -> Any:
    """Returns the class that loads a folder: the one asked for, the library's for its kind, or the folder's own."""
    import diffusers
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    name = wanted or weights.pipeline
    kind = getattr(diffusers, name, None) if name.isidentifier() else None
    if kind is None or not callable(getattr(kind, "from_pretrained", None)):
        what, _, fix = lacks_class(name).partition("; ")
        raise MissingDependencyError(what, where=where, fix=fix)
    if not wanted and name in {known.__name__ for known in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()}:
        return diffusers.AutoPipelineForText2Image
    return kind


def _dtype_argument() -> str:
    """Returns under which name this diffusers takes a dtype; from 0.42 on it warns of the old one."""
    import diffusers

    numbers = tuple(int(number) for number in diffusers.__version__.split(".")[:2])
    return "dtype" if numbers >= (0, 42) else "torch_dtype"


def _place(pipe: Any, loading: LoadingOptions, where: str) -> None:
    """Puts a pipeline where it is to compute, and has it save memory or time as asked."""
    if loading.offload:
        if loading.device == "cpu":
            raise ConfigError("offload needs an accelerator", where=where, fix="leave out offload")
        start = pipe.enable_model_cpu_offload if loading.offload == "model" else pipe.enable_sequential_cpu_offload
        start(device=loading.device)
    elif not loading.device_map:
        pipe.to(loading.device)
    vae = getattr(pipe, "vae", None)
    for wanted, method in ((loading.slicing, "enable_slicing"), (loading.tiling, "enable_tiling")):
        if wanted:
            if not callable(getattr(vae, method, None)):
                raise ConfigError(f"{type(pipe).__name__} has no VAE with {method}", where=where)
            getattr(vae, method)()
    if loading.compile:
        denoiser = getattr(pipe, "transformer", None) or getattr(pipe, "unet", None)
        if denoiser is None:
            raise ConfigError(f"{type(pipe).__name__} has nothing to compile", where=where, fix="leave out compile")
        denoiser.compile()


def _quantization(wanted: str | Mapping[str, Any], weights: Weights, where: str) -> Any:
    """Returns the library's configuration of a quantization; parts default to the denoiser.

    Raises:
        UsageError: It is not understood.
        MissingDependencyError: Its backend is not installed.
    """
    from diffusers import PipelineQuantizationConfig

    if isinstance(wanted, str):
        if wanted not in QUANTIZATIONS:
            known = ", ".join(QUANTIZATIONS)
            raise UsageError(f"quantization {wanted!r} needs more", where=where, fix=f"{known}, or {{backend, kwargs}}")
        wanted = {"backend": wanted, "kwargs": QUANTIZATIONS[wanted]}
    if not wanted.get("backend") or not wanted.get("kwargs") or set(wanted) - {"backend", "kwargs", "parts"}:
        raise UsageError("quantization takes backend, kwargs and parts", where=where)
    backend = str(wanted["backend"])
    package = backend.partition("_")[0]
    from importlib.util import find_spec

    if package in {"bitsandbytes", "torchao"} and find_spec(package) is None:
        raise MissingDependencyError(f"{backend} is not installed", where=where, fix=f"pip install {package}")
    parts = wanted.get("parts") or [part for part in ("transformer", "unet") if part in weights.parts]
    try:
        return PipelineQuantizationConfig(
            quant_backend=backend, quant_kwargs=dict(wanted["kwargs"]), components_to_quantize=list(parts)
        )
    except (ValueError, TypeError) as error:
        raise UsageError(f"quantization: {error_message(error, 300)}", where=where) from error
