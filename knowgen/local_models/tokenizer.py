"""Loading a tokenizer with transformers, from a folder or the cache of the Hugging Face hub."""

from __future__ import annotations

from typing import Any

from knowgen.core.errors import ConfigError, MissingDependencyError, UsageError
from knowgen.core.home import expand_user
from knowgen.core.text import error_summary
from knowgen.local_models.weights import hub_folder, is_hub_name, looks_like_path, offline, require_packages

_FILES = ("*.json", "*.txt", "*.jinja", "*.model")
"""Files of a model besides its weights."""


def load_tokenizer(name: str, revision: str, download: bool, where: str, option: str = "-s ") -> Any:
    """Return a tokenizer of transformers, without running code from the model's repository.

    Args:
        name: Folder, or name on the Hugging Face hub.
        revision: Branch, tag or commit on the hub; empty for the default one.
        download: Whether it may be downloaded from the hub; otherwise it must be in its cache.
        where: Name of the policy in errors.
        option: Beginning of the command-line option that takes `download=true`.

    Raises:
        UsageError: The name is neither a folder nor a hub name.
        MissingDependencyError: The package transformers is missing, or the files are not on this machine.
        ConfigError: The folder lacks a tokenizer, or it cannot be loaded.
    """
    require_packages(where, "transformers")
    folder = expand_user(name)
    if not folder.is_dir():
        if looks_like_path(name):
            raise MissingDependencyError(f"the folder {name} does not exist", where=where, fix="name the tokenizer's")
        if not is_hub_name(name):
            raise UsageError(
                f"the tokenizer {name!r} is neither a folder nor a name on the hub",
                where=where,
                fix=f"name it with {option}tokenizer=FOLDER",
            )
        folder = hub_folder(
            name, revision=revision or None, patterns=_FILES, download=download, where=where, option=option
        )
    from transformers import AutoTokenizer

    try:
        with offline():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a damaged file raises many types
        raise ConfigError(f"the tokenizer cannot be loaded: {error_summary(error, 300)}", where=where) from error
