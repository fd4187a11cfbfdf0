"""Fine-tuning of a policy in the directory of a training: begin, go on, or say that it is complete."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowgen.core.errors import ConfigError, UsageError
from knowgen.local_models.quiet import quiet_libraries
from knowgen.local_models.weights import versions
from knowgen.store.files import explain_os_error
from knowgen.store.training_run import TrainingRun
from knowgen.training.config import TrainingConfig
from knowgen.training.sft.trainer import SelectedConversations, SftTools, require_training_packages, train_sft

if TYPE_CHECKING:
    from knowgen.training.models import PolicyModel

_PACKAGES = ("knowgen", "torch", "transformers", "trl", "peft", "accelerate", "datasets")
_MAY_CHANGE = ("checkpoints", "evaluation", "keep_episodes")
"""Sections that may differ when a training is continued: they do not change its next step."""


@dataclass(frozen=True)
class FineTuned:
    """What a fine-tuning left.

    Attributes:
        folder: Directory of the training.
        weights: Folder of the exported model; it exists once the training is complete.
        steps: Number of optimizer steps, earlier calls included.
        stopped: Why it ended early; empty when it is complete.
        used: Number of conversations; 0 where the training was complete before.
        left_out: Why each of the other conversations was not used.
    """

    folder: Path
    weights: Path
    steps: int
    stopped: str = ""
    used: int = 0
    left_out: list[str] = field(default_factory=list)


def fine_tune(
    config: TrainingConfig,
    out: Path,
    *,
    name: str,
    fresh: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> FineTuned:
    """Fine-tune a policy on conversations, or continue an earlier call on the same directory.

    Args:
        config: The configuration; its method is `sft`.
        out: Directory of the training.
        name: Name of the configuration in errors.
        fresh: Whether an earlier training in the directory is removed first.
        report: Called with a line on what happens.

    Raises:
        UsageError: The configuration is one of another method, or names no model or no conversations.
        MissingDependencyError: A package or the weights are missing.
        ConfigError: The directory belongs to something else, or the model cannot be trained.
        DataError: A conversation, the model or the directory is damaged.
    """
    if config.method != "sft":
        raise UsageError(f"the method is {config.method}", where=name, fix=f"use `knowgen train {config.method}`")
    require_training_packages(name)
    run, main = TrainingRun(out), os.environ.get("RANK", "0") == "0"
    if main:
        open_directory(run, config, fresh=fresh)
    if not fresh and (done := _complete(run)) is not None:
        return done
    description: dict[str, Any] = {
        "method": config.method,
        "config": config.model_dump(mode="json"),
        "versions": versions(*_PACKAGES),
        "model": config.model.path,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    known: list[SelectedConversations] = []

    def started(selected: SelectedConversations, policy: PolicyModel) -> None:
        known.append(selected)
        counts = {"conversations": len(selected.numbers), "left_out": len(selected.left_out)}
        description.update(weights=policy.weights, **counts)
        run.describe(description)

    tools = SftTools(out, name, resume=True, report=report, started=started)
    try:
        with quiet_libraries():
            result = train_sft(config, tools)
    except OSError as error:
        raise explain_os_error(error, out) from error
    if main:
        run.describe({**description, "steps": result.steps, "stopped": result.stopped})
    selected = known[0] if known else None
    return FineTuned(
        out,
        result.weights,
        result.steps,
        result.stopped,
        used=len(selected.numbers) if selected else 0,
        left_out=selected.left_out if selected else [],
    )


def open_directory(run: TrainingRun, config: TrainingConfig, *, fresh: bool) -> None:
    """Check that a directory is empty or that of the same training, and create it.

    Raises:
        ConfigError: It holds something else, or a training with another configuration, or cannot be written.
        DataError: Its description is damaged.
    """
    folder = run.path
    try:
        if TrainingRun.at(folder):
            if fresh:
                shutil.rmtree(folder)
            else:
                _check_same(run.description().get("config"), config, folder)
        elif folder.exists() and any(folder.iterdir()):
            fix = "choose another --out"
            raise ConfigError("holds files and is not the directory of a training", where=str(folder), fix=fix)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, folder) from error


def _check_same(stored: Any, config: TrainingConfig, folder: Path) -> None:
    """Check that the configuration is the one that a training began with.

    Raises:
        ConfigError: It is another one. The message names the first value that differs.
    """
    before = _flat(stored) if isinstance(stored, Mapping) else {}
    now = _flat(config.model_dump(mode="json"))
    for name in dict.fromkeys((*now, *before)):
        if name.split(".")[0] not in _MAY_CHANGE and before.get(name) != now.get(name):
            raise ConfigError(
                f"the training began with {name}={before.get(name)!r}, not {now.get(name)!r}",
                where=str(folder),
                fix="choose another --out, or delete it with --fresh",
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping) and value
        flat |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def _complete(run: TrainingRun) -> FineTuned | None:
    """Return the result of a training that is complete, None for any other."""
    weights = run.path / "model"
    if not TrainingRun.at(run.path) or not (weights / "config.json").is_file():
        return None
    description = run.description()
    if description.get("stopped") != "" or "steps" not in description:
        return None
    return FineTuned(run.path, weights, int(description["steps"]))
