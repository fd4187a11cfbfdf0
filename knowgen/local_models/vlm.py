"""Loading a vision-language model and its processor with transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from knowgen.core.errors import ConfigError, DataError, MissingDependencyError
from knowgen.core.text import error_summary
from knowgen.local_models.devices import auto_dtype
from knowgen.local_models.on_cpu import report_on_cpu
from knowgen.local_models.quiet import quiet_libraries
from knowgen.local_models.vlm_weights import find_weights_folder, weights_id
from knowgen.local_models.weight_sizes import folder_parameters
from knowgen.local_models.weights import offline

_PACKAGES = ("torch", "torchvision", "transformers")

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Number formats of the weights; `auto` is bfloat16 on a GPU and float32 on a CPU."""


@dataclass(frozen=True)
class ModelSource:
    """Where to find a model and how to load it.

    Attributes:
        model: Folder, or name on the Hugging Face hub.
        revision: Branch, tag or commit on the hub; empty for the default one.
        download: Whether the weights may be downloaded from the hub.
        dtype: Number format of the weights, one of `DTYPES`.
        device_map: Placement over several devices as in transformers; empty for one device.
        where: Name of the scorer or policy in errors.
        option: Beginning of the command-line option that takes `download=true`.
        attention: Attention implementation of transformers, such as `sdpa`; empty for its default.
    """

    model: str
    revision: str = ""
    download: bool = False
    dtype: str = "auto"
    device_map: str = ""
    where: str = ""
    option: str = "-s "
    attention: str = ""


@dataclass(frozen=True)
class LocalVlm:
    """A loaded model.

    Attributes:
        model: Model of transformers, in evaluation mode.
        processor: Processor of transformers, which pads on the left.
        weights: Content id of the model, from `weights_id`.
        dtype: Number format of the weights, such as `bfloat16`.
    """

    model: Any
    processor: Any
    weights: str
    dtype: str


def load(source: ModelSource, device: str) -> LocalVlm:
    """Load a model and its processor, without running code from the model's repository or opening pickles.

    Args:
        source: Model to load.
        device: Device such as `cuda:0` or `cpu`; ignored where `source` has a `device_map`.

    Raises:
        MissingDependencyError: A package or the weights are missing.
        DataError: The folder is not a model, or some of its weights are missing.
        ConfigError: The model is not a vision-language model, or cannot be loaded.
    """
    where = source.where or source.model
    needed = (*_PACKAGES, "accelerate") if source.device_map else _PACKAGES
    if missing := [name for name in needed if find_spec(name) is None]:
        raise MissingDependencyError(
            f"needs {', '.join(missing)}, which is not installed", where=where, fix='pip install "knowgen[models]"'
        )
    folder = find_weights_folder(source.model, source.revision, source.download, where, source.option)
    processor = load_processor(folder, where)
    model = _model(folder, source, device, where)
    return LocalVlm(model, processor, weights_id(folder), str(model.dtype).removeprefix("torch."))


def load_processor(folder: Path, where: str) -> Any:
    """Return the processor of a vision-language model; errors as in `load`."""
    from transformers import AutoProcessor

    processor = _load_part(
        lambda: AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
        "processor",
        where,
    )
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or getattr(processor, "image_processor", None) is None:
        raise ConfigError("not a vision-language model: its processor takes no images", where=where)
    if not getattr(processor, "chat_template", None):
        raise ConfigError("the chat template is missing", where=where, fix="use an instruct model")
    tokenizer.padding_side = "left"  # generation continues at the end of the prompt
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor


def _model(folder: Path, source: ModelSource, device: str, where: str) -> Any:
    import torch
    from transformers import AutoModelForImageTextToText

    if source.device_map:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = "cpu" if accelerator is None else accelerator.type
    name = source.dtype if source.dtype != "auto" else auto_dtype(device)
    if device.startswith("cpu"):
        report_on_cpu(_parameters(folder), name, where)
    options = {"device_map": source.device_map, "attn_implementation": source.attention}
    model, report = _load_part(
        lambda: AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=getattr(torch, name),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **{name: value for name, value in options.items() if value},
        ),
        "model",
        where,
    )
    if missing := sorted(report["missing_keys"]):  # transformers would initialise them at random
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"weights are missing: {missing[0]}{more}", where=where, fix="download the model again")
    placed = bool(source.device_map) or device == "cpu"  # where it was loaded, or was sharded by DeepSpeed
    return (model if placed else model.to(device)).eval()


def _parameters(folder: Path) -> int:
    """Return the number of parameters of a model; 0 where its files are damaged, about which loading gives an error."""
    try:
        return folder_parameters(folder)
    except (ValueError, KeyError, TypeError):
        return 0


def _load_part(load: Callable[[], Any], what: str, where: str) -> Any:
    """Call a loader of transformers.

    Args:
        load: Loader, which may raise any exception for a damaged file.
        what: Name of the part in errors.
        where: Name of the scorer or policy in errors.

    Raises:
        MissingDependencyError: A package is missing.
        ConfigError: The loader failed.
    """
    try:
        with quiet_libraries(), offline():  # all files are in the folder, but libraries look for others on the hub
            return load()
    except ImportError as error:
        raise MissingDependencyError(
            f"the {what} needs a package that is not installed: {error_summary(error, 300)}",
            where=where,
            fix="install it",
        ) from error
    except Exception as error:
        raise ConfigError(f"the {what} cannot be loaded: {error_summary(error, 300)}", where=where) from error
