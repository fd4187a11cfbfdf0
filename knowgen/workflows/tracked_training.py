"""What an experiment tracker gets of a training: its configuration, and the figures of steps and evaluations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from knowgen.store.training_run import MetricKind
from knowgen.tracking.contract import Ending, TrackedRun
from knowgen.tracking.session import Tracking

INTERRUPTED = "interrupted"


def tracked_training(description: Mapping[str, Any], folder: Path) -> TrackedRun:
    """Return the description of a training for trackers.

    Args:
        description: What is written about the training; see `open_training.described`.
        folder: Its directory.
    """
    names = ("method", "backend", "config", "config_hash", "seed", "model", "versions", "steps", "tasks")
    config = {name: description[name] for name in names if name in description}
    return TrackedRun(
        name=f"{description['name']} in {folder.name}",
        kind=str(description["method"]),
        folder=str(folder.absolute()),
        config=config,
        axis="step",
    )


def watch_of(tracking: Tracking) -> Callable[[int, Mapping[str, float], MetricKind], None]:
    """Return what `TrainingRun` calls with the figures of each step: curves of `train/` or `evaluation/`."""

    def watch(step: int, values: Mapping[str, float], kind: MetricKind) -> None:
        tracking.log({f"{kind}/{name}": value for name, value in values.items()}, step)

    return watch


def ending_of_training(stopped: str) -> Ending:
    """Return how a training ended, in the words of a tracker.

    Args:
        stopped: Why it ended early; empty when it is complete.
    """
    return "done" if not stopped else "interrupted" if stopped == INTERRUPTED else "failed"
