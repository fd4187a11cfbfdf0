"""Finding and identifying the weights of a local vision-language model."""

from __future__ import annotations

from pathlib import Path

from knowgen.core.errors import DataError, MissingDependencyError, UsageError
from knowgen.core.home import expand_user
from knowgen.local_models.weights import (
    SAFETENSORS,
    content_id,
    hub_folder,
    is_hub_name,
    looks_like_path,
    refuse_pickles,
)

_TEXTS = (".json", ".jinja", ".txt", ".model")
"""Suffixes of files besides the weights that affect replies: configuration, vocabulary, chat template."""


def find_weights_folder(model: str, revision: str, download: bool, where: str, option: str = "-s ") -> Path:
    """Return the folder of a model.

    Args:
        model: Folder, or name on the Hugging Face hub.
        revision: Branch, tag or commit on the hub; empty for the default one. A folder has none.
        download: Whether the weights may be downloaded from the hub; otherwise they must be in its cache.
        where: Name of the scorer or policy in errors.
        option: Beginning of the command-line option that takes `download=true`.

    Raises:
        UsageError: `model` is neither a folder nor a hub name, or a folder is given with a revision.
        MissingDependencyError: The weights are not on this machine, or cannot be downloaded.
        DataError: The folder is not a model, or its weights are pickles.
    """
    folder = expand_user(model)
    if folder.is_dir():
        if revision:
            raise UsageError("a folder has no revision", where=where, fix="leave out revision")
    elif looks_like_path(model):
        raise MissingDependencyError(
            "the folder does not exist", where=where, fix="name a folder with config.json and *.safetensors"
        )
    elif not is_hub_name(model):
        raise UsageError("neither a folder nor a name on the hub", where=where)
    else:
        patterns = [f"*{ending}" for ending in (*_TEXTS, SAFETENSORS)]
        folder = hub_folder(
            model, revision=revision or None, patterns=patterns, download=download, where=where, option=option
        )
    _check_folder(folder, where, option)
    return folder


def _check_folder(folder: Path, where: str, option: str) -> None:
    if not (folder / "config.json").is_file():
        raise DataError("not a model: config.json is missing", where=where)
    names = [file.name for file in folder.iterdir()]
    if any(name.endswith(SAFETENSORS) for name in names):
        return
    refuse_pickles(names, "the model", where)
    raise MissingDependencyError(
        "there are no *.safetensors",
        where=where,
        fix=f"download the weights, or give {option}download=true for a name on the hub",
    )


def weights_id(folder: Path) -> str:
    """Return the content id of a model: 12 hex digits of a hash over weights, configuration, vocabulary, template."""
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return content_id(folder, (file for file in files if file.is_file() and file.name.endswith((*_TEXTS, SAFETENSORS))))
