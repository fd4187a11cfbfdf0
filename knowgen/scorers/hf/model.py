"""A vision-language model with its processor, loaded into this process through transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from knowgen.core.errors import ConfigError, DataError, MissingDependencyError
from knowgen.core.text import error_summary
from knowgen.local_models.weights import offline
from knowgen.scorers.hf.weights import find_weights_folder, weights_id

_PACKAGES = ("torch", "torchvision", "transformers")

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Number formats a model may be loaded in; `auto` is bfloat16 on a GPU and float32 on a processor."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from and how it is loaded.

    Attributes:
        model: A folder, or a name on the hub.
        revision: On the hub; empty for the default one.
        download: May it be fetched?
        dtype: One of `DTYPES`.
        device_map: How it is spread over devices, as transformers takes it; empty puts it on one device.
    """

    model: str
    revision: str = ""
    download: bool = False
    dtype: str = "auto"
    device_map: str = ""


@dataclass(frozen=True)
class LocalVlm:
    """A model that is ready to be asked.

    Attributes:
        model: As transformers made it, in evaluation mode.
        processor: Makes its inputs; pads on the left.
        weights: From `weights_id`.
        dtype: Number format of the weights, such as `bfloat16`.
    """

    model: Any
    processor: Any
    weights: str
    dtype: str


def load(source: ModelSource, device: str) -> LocalVlm:
    """Loads a model and its processor. Code that comes with a model is never run, and no pickle is opened.

    Args:
        source: What is loaded.
        device: Where it computes, such as `cuda:0` or `cpu`; without effect with a `device_map`.

    Raises:
        MissingDependencyError: A package or the weights are not there.
        DataError: The folder holds no model, or weights are missing in it.
        ConfigError: It is no vision-language model, or cannot be loaded.
    """
    where = f"scorer hf:{source.model}"
    needed = (*_PACKAGES, "accelerate") if source.device_map else _PACKAGES
    if missing := [name for name in needed if find_spec(name) is None]:
        raise MissingDependencyError(
            f"needs {', '.join(missing)}, which is not installed", where=where, fix='pip install "knowgen[models]"'
        )
    folder = find_weights_folder(source.model, source.revision, source.download)
    processor = _processor(folder, where)
    model = _model(folder, source, device, where)
    return LocalVlm(model, processor, weights_id(folder), str(model.dtype).removeprefix("torch."))


def _processor(folder: Path, where: str) -> Any:
    from transformers import AutoProcessor

    processor = _guarded(
        lambda: AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
        "processor",
        where,
    )
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or getattr(processor, "image_processor", None) is None:
        raise ConfigError("is no vision-language model: its processor takes no pictures", where=where)
    if not getattr(processor, "chat_template", None):
        raise ConfigError("brings no chat template, so it cannot be asked", where=where, fix="take an instruct model")
    tokenizer.padding_side = "left"  # a reply begins where its prompt ends
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor


def _model(folder: Path, source: ModelSource, device: str, where: str) -> Any:
    import torch
    from transformers import AutoModelForImageTextToText

    on_processor = not torch.cuda.is_available() if source.device_map else device == "cpu"
    name = source.dtype if source.dtype != "auto" else "float32" if on_processor else "bfloat16"
    move_to_device = {"device_map": source.device_map} if source.device_map else {}
    model, told = _guarded(
        lambda: AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=getattr(torch, name),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **move_to_device,
        ),
        "model",
        where,
    )
    if lacking := sorted(told["missing_keys"]):  # transformers would fill them with random numbers
        raise DataError(f"lacks {len(lacking)} weights, such as {lacking[0]}", where=where, fix="fetch it anew")
    return (model if source.device_map else model.to(device)).eval()


def _guarded(load: Callable[[], Any], what: str, where: str) -> Any:
    """Calls a loader of transformers, which raises whatever a broken file makes it raise."""
    try:
        with offline():  # all files are in the folder; libraries look for others on the hub
            return load()
    except ImportError as error:
        raise MissingDependencyError(
            f"its {what} needs a package that is not installed: {error_summary(error, 300)}",
            where=where,
            fix="install it",
        ) from error
    except Exception as error:
        raise ConfigError(f"its {what} cannot be loaded: {error_summary(error, 300)}", where=where) from error
