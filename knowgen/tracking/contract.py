"""What an experiment tracker does, and what it knows of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Ending = Literal["done", "failed", "interrupted"]
"""How a run or a training ended."""


@dataclass(frozen=True)
class TrackedRun:
    """A run or a training, as it is described to a tracker.

    Attributes:
        name: Name for readers, such as `open_book on knowgen_mini`.
        kind: `run`, `sft` or `grpo`.
        folder: Its directory, absolute.
        config: What decides its results, as plain data without secrets.
        axis: Name of the logged value that a tracker without steps of its own draws curves against.
        earlier: What the tracker recorded of an earlier call on the same directory; empty for a new one.
    """

    name: str
    kind: str
    folder: str
    config: Mapping[str, Any] = field(default_factory=dict)
    axis: str = "done"
    earlier: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the description as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class TrackedImage:
    """An image that is shown to a tracker.

    Attributes:
        path: Its file.
        caption: Text below it.
    """

    path: str
    caption: str


class Tracker(ABC):
    """An experiment tracker. It lives in a process of its own, where its library is imported.

    Every method may raise anything: the tracker is then given up, and the run goes on.

    Args:
        target: What the user wrote after the name, such as a project or a folder; empty for the default.
    """

    def __init__(self, target: str) -> None:
        self.target = target

    @abstractmethod
    def check(self) -> None:
        """Check what can be checked at once and without a network: the library, a login, an address.

        Raises:
            MissingDependencyError: The library is not installed.
            ConfigError: The tracker is not set up.
        """

    @abstractmethod
    def start(self, run: TrackedRun) -> Mapping[str, str]:
        """Begin a run of the tracker, or go on with an earlier one.

        Returns:
            What identifies it, such as `id` and `url`; recorded in the run directory.
        """

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add values to the curves."""

    @abstractmethod
    def figures(self, values: Mapping[str, float]) -> None:
        """Set the final figures."""

    @abstractmethod
    def files(self, paths: Sequence[Path]) -> None:
        """Keep files, such as tables, beside the run."""

    @abstractmethod
    def images(self, images: Sequence[TrackedImage]) -> None:
        """Show images."""

    @abstractmethod
    def close(self, ending: Ending) -> None:
        """End the run of the tracker, and send what is not sent yet."""


def flat_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names.

    Example:
        >>> flat_config({"task": "mini", "generator": {"name": "noise"}, "scorers": [{"name": "pixels"}]})
        {'task': 'mini', 'generator.name': 'noise', 'scorers.0.name': 'pixels'}
    """
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flat_config(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
            flat |= flat_config({str(number): each for number, each in enumerate(value)}, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
