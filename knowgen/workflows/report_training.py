"""The report of one or more trainings: their directories, and how each differs from the published configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from knowgen.core.errors import UsageError
from knowgen.store.training_run import TrainingRun
from knowgen.training.config import TrainingConfig, bundled_configs, load_config
from knowgen.workflows.artifacts import OneFile

PUBLISHED = "paper"
"""Name of the published configuration in the folder of each method."""


def are_trainings(paths: Sequence[Path]) -> bool:
    """Return whether directories are those of trainings.

    Raises:
        UsageError: Some are, and some are not.
    """
    found = [path for path in paths if TrainingRun.at(path)]
    if found and len(found) < len(paths):
        other = next(path for path in paths if path not in found)
        raise UsageError(
            f"a report shows runs or trainings, not both: {found[0]} is a training",
            where=str(other),
            fix="write two reports",
        )
    return bool(found)


def write_training_report(
    paths: Sequence[Path], out: Path, most_steps: int | None = None, one_file: OneFile | None = None
) -> Path:
    """Write one page of several trainings and return the path of its `index.html`, or of its only file.

    Args:
        paths: Directories of trainings.
        out: Folder of the report, or its file.
        most_steps: Maximum number of steps of each whose episodes are in it; a bounded default when None.
        one_file: What a page in one file has; None for a folder.

    Raises:
        UsageError: No training is given, or one has no step.
        DataError: A training is damaged.
        ConfigError: The folder contains something other than a report.
    """
    from knowgen.report.training.episodes import MOST_STEPS
    from knowgen.report.training.page import write_single_training_page, write_training_page
    from knowgen.report.training.view import trainings_of

    stores = [TrainingRun(path) for path in paths]
    differences = [differences_from_published(store.description()) for store in stores]
    trainings, most = trainings_of(stores, differences), MOST_STEPS if most_steps is None else most_steps
    if one_file is not None:
        return write_single_training_page(trainings, out, most, one_file.images)
    return write_training_page(trainings, out, most)


def differences_from_published(description: Mapping[str, Any]) -> list[tuple[str, str, str]] | None:
    """Return key, value and published value for each option in which a training differs from the published recipe.

    None where the method has no published recipe, or the training records no configuration.
    """
    name = f"{description.get('method', '')}/{PUBLISHED}"
    config = description.get("config")
    if name not in bundled_configs() or not isinstance(config, Mapping):
        return None
    here, published = flattened(config), flattened(load_config(name).model_dump(mode="json"))
    return [
        (key, as_text(here.get(key)), as_text(published.get(key)))
        for key in dict.fromkeys([*published, *here])
        if here.get(key) != published.get(key)
    ]


def changed_values(config: TrainingConfig) -> list[tuple[str, str, str]]:
    """Return key, value and default for each option that differs from its default."""
    sections: dict[str, Any] = {name: {} for name in ("sft", "grpo") if getattr(config, name) is not None}
    defaults = TrainingConfig.model_validate({"method": config.method, "model": {}, **sections})
    here, usual = flattened(config.model_dump(mode="json")), flattened(defaults.model_dump(mode="json"))
    return [
        (key, as_text(here.get(key)), as_text(usual.get(key)))
        for key in dict.fromkeys([*usual, *here])
        if here.get(key) != usual.get(key)
    ]


def flattened(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return the entries of nested mappings by their keys, joined with dots; empty mappings have none.

    Example:
        >>> flattened({"a": {"b": 1}, "c": [2]})
        {'a.b': 1, 'c': [2]}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flattened(value, f"{before}{key}."))
        else:
            flat[f"{before}{key}"] = value
    return flat


def as_text(value: Any) -> str:
    """Return a value as a configuration file has it; a dash for one that is not set."""
    if value is None or value in ("", [], {}):
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
