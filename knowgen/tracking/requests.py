"""The trackers that a user asked for: `NAME` or `NAME:TARGET`, with `,images=N` for a few images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from knowgen.core.errors import UsageError
from knowgen.core.secrets import refuse_secrets

TRACKERS = {
    "wandb": "knowgen.tracking.wandb:WandbTracker",
    "mlflow": "knowgen.tracking.mlflow:MlflowTracker",
    "tensorboard": "knowgen.tracking.tensorboard:TensorboardTracker",
}
"""The trackers by name: module and class."""

MOST_IMAGES = 100
"""Maximum number of images that are shown to a tracker."""

_IMAGES = re.compile(r",images=(\d+)\Z")


@dataclass(frozen=True)
class TrackerRequest:
    """A tracker that a user asked for.

    Attributes:
        name: Name of the tracker.
        target: Project of wandb, experiment or address of mlflow, folder of tensorboard; empty for the default.
        images: Number of images to show.
    """

    name: str
    target: str = ""
    images: int = 0


def tracker_requests(texts: Sequence[str]) -> tuple[TrackerRequest, ...]:
    """Return the trackers that `--log` names.

    Args:
        texts: Such as `wandb`, `mlflow:my experiment` or `tensorboard:curves,images=8`.

    Raises:
        UsageError: A tracker is unknown or named twice, or the number of images is out of range.
        ConfigError: A text looks like a secret.

    Example:
        >>> tracker_requests(["wandb:my-project,images=4"])
        (TrackerRequest(name='wandb', target='my-project', images=4),)
    """
    refuse_secrets({"log": list(texts)})
    requests = tuple(_request(text) for text in texts)
    names = [request.name for request in requests]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--log names {name} twice", fix="name each tracker once")
    return requests


def _request(text: str) -> TrackerRequest:
    found = _IMAGES.search(text)
    images = int(found[1]) if found else 0
    if images > MOST_IMAGES:
        raise UsageError(f"--log {text}: images must be at most {MOST_IMAGES}")
    name, _, target = (text[: found.start()] if found else text).partition(":")
    if name not in TRACKERS:
        known = ", ".join(TRACKERS)
        raise UsageError(f"unknown tracker {name!r} in --log", fix=f"known are {known}")
    return TrackerRequest(name, target.strip(), images)
