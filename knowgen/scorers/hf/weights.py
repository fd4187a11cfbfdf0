"""The weights of a local judge on this machine: where they are, and which they are."""

from __future__ import annotations

from pathlib import Path

from knowgen.core.errors import DataError, MissingDependencyError, UsageError
from knowgen.local_models.weights import (
    SAFETENSORS,
    content_id,
    hub_folder,
    is_hub_name,
    looks_like_path,
    refuse_pickles,
)

_TEXTS = (".json", ".jinja", ".txt", ".model")
"""Files beside the weights that decide what a model says: configuration, vocabulary, chat template."""


def find_weights_folder(model: str, revision: str, download: bool) -> Path:
    """Return the folder of a model.

    Args:
        model: A folder, or a name on the Hugging Face hub that was downloaded before.
        revision: Branch, tag or commit on the hub; empty for the default one. A folder has none.
        download: Whether it may be fetched from the hub.

    Raises:
        UsageError: It is neither a folder nor a name, or a folder comes with a revision.
        MissingDependencyError: The weights are not on this machine, or cannot be fetched.
        DataError: The folder is not a model, or its weights are pickles.
    """
    where = f"scorer hf:{model}"
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision:
            raise UsageError("a folder has no revision", where=where, fix="leave out revision")
    elif looks_like_path(model):
        raise MissingDependencyError(
            "there is no such folder", where=where, fix="name a folder with config.json and *.safetensors"
        )
    elif not is_hub_name(model):
        raise UsageError("is neither a folder nor a name on the hub", where=where)
    else:
        patterns = [f"*{ending}" for ending in (*_TEXTS, SAFETENSORS)]
        folder = hub_folder(model, revision=revision or None, patterns=patterns, download=download, where=where)
    _check_folder(folder, where)
    return folder


def _check_folder(folder: Path, where: str) -> None:
    if not (folder / "config.json").is_file():
        raise DataError("is not a model: config.json is missing", where=where)
    names = [file.name for file in folder.iterdir()]
    if any(name.endswith(SAFETENSORS) for name in names):
        return
    refuse_pickles(names, "the model", where)
    raise MissingDependencyError(
        "there are no *.safetensors",
        where=where,
        fix="fetch the weights, or give -s download=true for a name on the hub",
    )


def weights_id(folder: Path) -> str:
    """Return what names a model by its content: 12 hex digits over weights, configuration, vocabulary and template."""
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return content_id(folder, (file for file in files if file.is_file() and file.name.endswith((*_TEXTS, SAFETENSORS))))
