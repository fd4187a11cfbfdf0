"""Load a diffusers pipeline from a folder, onto its devices and with the options that make it faster or smaller."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from knowgen.core.errors import ConfigError, DataError, KnowgenError, MissingDependencyError, UsageError
from knowgen.core.text import error_message, error_summary
from knowgen.generators.diffusers.attention import set_attention
from knowgen.generators.diffusers.checks import check_before_loading
from knowgen.generators.diffusers.compilation import Compilation
from knowgen.generators.diffusers.glm_image import read_references
from knowgen.generators.diffusers.lora import load_adapters
from knowgen.generators.diffusers.options import LoadingOptions
from knowgen.generators.diffusers.pipeline import LoadedPipeline
from knowgen.generators.diffusers.placement import denoiser_of, place
from knowgen.generators.diffusers.presets import PipelineSettings, missing_class
from knowgen.generators.diffusers.quantization import quantization_config
from knowgen.generators.diffusers.step_cache import StepCache
from knowgen.generators.diffusers.weights import PipelineFiles
from knowgen.local_models.devices import auto_dtype, is_gpu_fault
from knowgen.local_models.memory import is_out_of_memory
from knowgen.local_models.on_cpu import report_on_cpu
from knowgen.local_models.read_ahead import read_ahead
from knowgen.local_models.weights import offline, require_packages


def load_pipeline(
    settings: PipelineSettings, files: PipelineFiles, options: LoadingOptions, where: str
) -> LoadedPipeline:
    """Load a pipeline.

    Raises:
        MissingDependencyError: The installed library lacks the class, or a package is missing.
        DataError: The folder cannot be loaded, or an adapter does not fit.
        UsageError: An option is unknown.
        ConfigError: An option does not fit the device or the class.
    """
    pipeline_class = _pipeline_class(settings.pipeline, files, where)
    _check_components(settings.pipeline or files.pipeline, files, where)
    with _quiet(), offline():
        check_before_loading(pipeline_class, files, options, where)
    dtype = auto_dtype(options.device, settings.dtype) if options.dtype == "auto" else options.dtype
    if options.device.startswith("cpu"):
        quantized = options.quantization is not None or options.gguf is not None
        report_on_cpu(sum(files.parameters(options.variant).values()), dtype, where, quantized=quantized)
    _warn_once()
    try:
        with _quiet(), offline(), _side_by_side(files.weight_files(options.variant)):  # all files are in the folder
            loads = _loading_class(pipeline_class, settings.pipeline)
            pipe = loads.from_pretrained(str(files.folder), **_arguments(files, options, dtype, where))
            pipe.set_progress_bar_config(disable=True)
            read_references(pipe)
            load_adapters(pipe, options.adapters, where)
            place(pipe, options, where)
            loaded = LoadedPipeline(pipe, settings, files, dtype, where)
            _accelerate(loaded, options, where)
    except KnowgenError:
        raise
    except ImportError as error:
        what = error_message(error, 300)
        fix = "" if "pip install" in what else "pip install -U 'knowgen[models]'"
        raise MissingDependencyError(what, where=where, fix=fix) from error
    except Exception as error:
        if is_out_of_memory(error) or is_gpu_fault(error):
            raise
        raise DataError(f"cannot be loaded: {error_summary(error, 300)}", where=where) from error
    loaded.options = {**options.recorded(), **({"components": dict(files.sources)} if files.sources else {})}
    return loaded


def _arguments(files: PipelineFiles, options: LoadingOptions, dtype: str, where: str) -> dict[str, Any]:
    """Return the arguments of `from_pretrained`."""
    import torch

    arguments: dict[str, Any] = {
        _dtype_argument(): getattr(torch, dtype),
        "use_safetensors": True,
        "local_files_only": True,
    }
    if options.variant:
        arguments["variant"] = options.variant
    if options.device_map:
        arguments["device_map"] = options.device_map
    if options.quantization is not None:
        arguments["quantization_config"] = quantization_config(
            options.quantization, files.libraries, dtype, options.device, where
        )
    if options.gguf is not None:
        name = files.denoiser
        arguments[name] = _gguf_denoiser(files, options.gguf, dtype, where)
    return arguments


def _gguf_denoiser(files: PipelineFiles, path: Path, dtype: str, where: str) -> Any:
    """Return the denoiser of a pipeline with weights from a GGUF file.

    Raises:
        MissingDependencyError: gguf is not installed.
        ConfigError: The class cannot be loaded from one file.
        DataError: The file does not fit.
    """
    import diffusers
    import torch

    require_packages(where, "gguf", extra="quantization")
    name = files.denoiser
    denoiser_class = getattr(diffusers, files.classes.get(name, ""), None)
    if not callable(getattr(denoiser_class, "from_single_file", None)):
        raise ConfigError(f"{files.pipeline} has no denoiser that is loaded from a GGUF file", where=where)
    computing = getattr(torch, dtype)
    try:
        return denoiser_class.from_single_file(  # type: ignore[union-attr]
            str(path), config=str(files.folder), subfolder=name, local_files_only=True,
            quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=computing),
            **{_dtype_argument(): computing},
        )  # fmt: skip
    except Exception as error:
        if is_out_of_memory(error) or is_gpu_fault(error):
            raise
        what = f"gguf: {path.name} does not fit {files.classes[name]}: {error_message(error, 200)}"
        raise DataError(what, where=where, fix="give a file of this model") from error


def _accelerate(loaded: LoadedPipeline, options: LoadingOptions, where: str) -> None:
    """Apply the options that make a denoiser faster: attention, then cache, then compiling, which includes both."""
    if not (options.attention or options.cache or options.compilation):
        return
    denoiser = denoiser_of(loaded.pipe)
    if options.attention:
        set_attention(loaded.name, denoiser, options.attention, options.device, where)
    if options.cache:
        loaded.cache = StepCache(loaded.pipe, denoiser, options.cache, loaded.steps, loaded.passes, where)
        if loaded.cache.one_at_a_time:
            loaded.traits = loaded.traits.model_copy(update={"batch": "none"})
    if options.compilation:
        loaded.compilation = Compilation(denoiser, options.compilation, where)


def _check_components(name: str, files: PipelineFiles, where: str) -> None:
    """Check that a class has the components that come from other models; diffusers would leave others out.

    Raises:
        UsageError: It has no such component.
    """
    import diffusers

    expected = inspect.signature(getattr(diffusers, name).__init__).parameters
    if unknown := [component for component in files.sources if component not in expected]:
        fix = f"its components are {', '.join(files.components)}"
        raise UsageError(f"components: {name} has no {unknown[0]}", where=where, fix=fix)


@contextmanager
def _side_by_side(paths: Sequence[Path]) -> Iterator[None]:
    """Read the files of a model side by side, unless diffusers' variable in the environment says otherwise.

    Args:
        paths: The files.
    """
    from diffusers.models import modeling_utils

    name = "HF_ENABLE_PARALLEL_LOADING"
    before = getattr(modeling_utils, name, None)
    if name in os.environ or before is None:
        yield
        return
    setattr(modeling_utils, name, True)
    try:
        with read_ahead(paths):
            yield
    finally:
        setattr(modeling_utils, name, before)


class _FirstTimeFilter(logging.Filter):
    """Pass every warning of a library once and shortened; repeated at every batch it would hide the others."""

    def __init__(self) -> None:
        super().__init__()
        self._prefixes: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a message is new; messages with the same beginning count as one."""
        if record.name.partition(".")[0] not in _LIBRARIES:
            return True  # a handler may be shared with other loggers
        text = record.getMessage()
        record.msg, record.args = text[:_MAX_WARNING_CHARACTERS], ()
        prefix = text[:_PREFIX_CHARACTERS]
        is_new = prefix not in self._prefixes
        self._prefixes.add(prefix)
        return is_new


_LIBRARIES = frozenset({"diffusers", "transformers"})
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
    """Return the class of a pipeline: the requested one, else the one that the folder names."""
    import diffusers

    name = requested or files.pipeline
    pipeline_class = getattr(diffusers, name, None) if name.isidentifier() else None
    if pipeline_class is None or not callable(getattr(pipeline_class, "from_pretrained", None)):
        problem, _, fix = missing_class(name).partition("; ")
        raise MissingDependencyError(problem, where=where, fix=fix)
    return pipeline_class


def _loading_class(pipeline_class: Any, requested: str) -> Any:
    """Return the class that loads a pipeline: one that was not requested may be replaced by diffusers."""
    from diffusers import AutoPipelineForText2Image
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    automatic = not requested and pipeline_class in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()
    return AutoPipelineForText2Image if automatic else pipeline_class


def _dtype_argument() -> str:
    """Return the name of the dtype argument; from diffusers 0.42 on the old name is deprecated."""
    import diffusers

    version = tuple(int(number) for number in diffusers.__version__.split(".")[:2])
    return "dtype" if version >= (0, 42) else "torch_dtype"
