"""The directory of a training: is it that of this configuration, and what is written about the training."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any

from knowgen.core.errors import ConfigError
from knowgen.core.home import expand_user
from knowgen.core.spec import fingerprint
from knowgen.local_models.vlm_weights import weights_id
from knowgen.local_models.weights import versions
from knowgen.store.files import explain_os_error
from knowgen.store.lock import LOCK_FILE
from knowgen.store.training_ledger import SPENDING_FILES
from knowgen.store.training_run import TrainingRun
from knowgen.training.config import ModelConfig, TrainingConfig

PACKAGES = ("knowgen", "torch", "transformers", "trl", "verl", "peft", "accelerate", "datasets")


def open_directory(
    run: TrainingRun, description: Mapping[str, Any], *, may_change: Collection[str], fresh: bool
) -> None:
    """Check that a directory is empty or that of the same training, and write its description.

    Args:
        run: The directory, which exists and is locked.
        description: What the training is now; see `described`.
        may_change: Dotted names of values and sections of the configuration that may differ from those before, with
            `*` for any text.
        fresh: Whether an earlier training in it is removed first.

    Raises:
        ConfigError: It holds something else, or another training, or cannot be written.
        DataError: Its description is damaged.
    """
    folder = run.path
    entries = [entry for entry in folder.iterdir() if entry.name != LOCK_FILE]
    if entries and not TrainingRun.at(folder):
        fix = "choose another --out"
        raise ConfigError("holds files and is not the directory of a training", where=str(folder), fix=fix)
    # one that failed before its first step has a description, and a record of what it spent
    begun = any(entry.name != TrainingRun.DESCRIPTION and not entry.match(SPENDING_FILES) for entry in entries)
    if begun and not fresh:
        _refuse_other(run.description(), description, may_change, str(folder))
    try:
        for entry in entries if fresh else ():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        run.describe(description)
    except OSError as error:
        raise explain_os_error(error, folder) from error


def described(config: TrainingConfig, name: str, **more: Any) -> dict[str, Any]:
    """Return the description of a training.

    Args:
        config: Its configuration.
        name: Name of the configuration.
        more: Further entries.
    """
    values = config.model_dump(mode="json")
    return {
        "method": config.method,
        "backend": config.backend,
        "name": name,
        "config": values,
        "config_hash": fingerprint(values)[:12],
        "seed": config.seed,
        "model": model_id(config.model),
        "versions": versions(*PACKAGES),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **more,
    }


def model_id(model: ModelConfig) -> str:
    """Return what identifies a model: the content id of its folder, or its name with its revision."""
    folder = expand_user(model.path)
    if any(folder.glob("*.safetensors")):
        return weights_id(folder)
    return f"{model.path}@{model.revision}" if model.revision else model.path


def _refuse_other(before: Mapping[str, Any], now: Mapping[str, Any], may_change: Collection[str], where: str) -> None:
    """Check that a description is that of the same training.

    Raises:
        ConfigError: It is not. The message names the first value that differs.
    """
    fix = "choose another --out, or start again with --fresh"
    earlier, later = _flat(before.get("config")), _flat(now["config"])
    for name in dict.fromkeys((*later, *earlier)):
        if not _may_change(name, may_change) and earlier.get(name) != later.get(name):
            what = f"the training began with {name}={earlier.get(name)!r}, not {later.get(name)!r}"
            raise ConfigError(what, where=where, fix=fix)
    for name, word in (("model", "model"), ("tasks", "tasks")):
        if name in before and before[name] != now.get(name):
            raise ConfigError(f"the training began with another {word}", where=where, fix=fix)


def _may_change(name: str, names: Collection[str]) -> bool:
    return any(fnmatchcase(name, each) or name.startswith(f"{each}.") for each in names)


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items() if isinstance(values, Mapping) else ():
        nested = isinstance(value, Mapping) and value
        flat |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat
