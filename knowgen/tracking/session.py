"""The trackers of one run or training, as one object. Nothing here can stop or delay the run."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from knowgen.core.atomic import write_file
from knowgen.core.secrets import mask_secrets
from knowgen.core.text import parse_json
from knowgen.tracking.contract import Ending, TrackedImage, TrackedRun
from knowgen.tracking.requests import tracker_requests
from knowgen.tracking.tracker_process import CLOSE_SECONDS, INTERRUPTED_SECONDS, TrackerProcess

RECORD_FILE = "trackers.json"
"""File in the directory of a run or training: what identifies the runs of the trackers."""


def to_stderr(line: str) -> None:
    """Write a warning on stderr."""
    sys.stderr.write(f"warning: {line}\n")
    sys.stderr.flush()


class Tracking:
    """Sends what happens to every tracker that was asked for; without any, all methods do nothing.

    Opening it starts the trackers' processes and checks them; see `open_tracking`.

    Args:
        trackers: The processes of the trackers, with the number of images each is shown.
    """

    def __init__(self, trackers: Sequence[tuple[TrackerProcess, int]] = ()) -> None:
        self._trackers = tuple(trackers)
        self._folder: Path | None = None
        self._earlier: dict[str, dict[str, str]] = {}
        self._closed = False

    def __bool__(self) -> bool:
        """Return whether any tracker was asked for."""
        return bool(self._trackers)

    def __enter__(self) -> Tracking:
        """Return the object itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the trackers; an error ends their runs as failed or interrupted."""
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.close("done" if kind is None else "interrupted" if interrupted else "failed")

    def start(self, run: TrackedRun) -> None:
        """Begin a run of every tracker, or go on with the one that an earlier call on the directory recorded."""
        if not self._trackers:
            return
        self._folder = Path(run.folder)
        self._earlier = _recorded(self._folder)
        plain = mask_secrets(run.to_json())
        for tracker, _ in self._trackers:
            begun = replace(TrackedRun(**plain), earlier=self._earlier.get(tracker.name, {}))
            tracker.send({"do": "start", "run": begun.to_json()})

    def log(self, values: Mapping[str, float | None], step: int) -> None:
        """Add values to the curves.

        Args:
            values: Values by name; those that are None or not finite are left out.
            step: Place on the axis.
        """
        known = _finite(values)
        self._send({"do": "log", "values": known, "step": step}, known)

    def figures(self, values: Mapping[str, float | None]) -> None:
        """Set the final figures; see `log`."""
        known = _finite(values)
        self._send({"do": "figures", "values": known}, known)

    def files(self, paths: Sequence[Path]) -> None:
        """Keep files beside the run."""
        self._send({"do": "files", "paths": [str(path) for path in paths]}, paths)

    @property
    def images_wanted(self) -> int:
        """Largest number of images that a tracker is to show."""
        return max((images for _, images in self._trackers), default=0)

    def images(self, images: Sequence[TrackedImage]) -> None:
        """Show images, to each tracker as many as were asked for."""
        for tracker, wanted in self._trackers:
            shown = [{"path": each.path, "caption": mask_secrets(each.caption)} for each in images[:wanted]]
            if shown:
                tracker.send({"do": "images", "images": shown})

    def close(self, ending: Ending = "done") -> None:
        """End the runs of the trackers, and record what identifies them; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        until = time.monotonic() + (INTERRUPTED_SECONDS if ending == "interrupted" else CLOSE_SECONDS)
        for tracker, _ in self._trackers:
            tracker.end(ending)
        try:
            for tracker, _ in self._trackers:
                tracker.wait(until - time.monotonic())
        finally:
            for tracker, _ in self._trackers:
                tracker.kill()
            self._record()

    def _send(self, request: dict[str, Any], content: Any) -> None:
        for tracker, _ in self._trackers if content else ():
            tracker.send(request)

    def _record(self) -> None:
        """Write what identifies the runs of the trackers, without anything secret."""
        references = {tracker.name: tracker.reference for tracker, _ in self._trackers if tracker.reference}
        begun = {name: _without_secrets(reference) for name, reference in references.items()}
        if self._folder is None or not begun or not self._folder.is_dir():
            return
        text = json.dumps({**self._earlier, **begun}, indent=1, sort_keys=True) + "\n"
        try:
            write_file(self._folder / RECORD_FILE, text)
        except OSError as error:
            to_stderr(f"{self._folder / RECORD_FILE} cannot be written ({error.strerror})")


def open_tracking(names: Sequence[str] | None, warn: Callable[[str], None] = to_stderr) -> Tracking:
    """Start the trackers that a user asked for, and check that each can be used.

    Args:
        names: Such as `wandb:my-project`; see `tracker_requests`. None for no tracker.
        warn: Takes one line for each tracker that is given up later.

    Raises:
        UsageError: A tracker is unknown.
        MissingDependencyError: The library of a tracker is not installed.
        ConfigError: A tracker is not set up, for example without a login.
    """
    requests = tracker_requests(names or ())
    started: list[tuple[TrackerProcess, int]] = []
    try:
        for request in requests:
            started.append((TrackerProcess(request.name, request.target, warn), request.images))
        for tracker, _ in started:
            tracker.wait_until_ready()
    except BaseException:
        for tracker, _ in started:
            tracker.kill()
        raise
    return Tracking(started)


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def _recorded(folder: Path) -> dict[str, dict[str, str]]:
    """Return what earlier calls on a directory recorded; nothing where the file is missing or damaged."""
    try:
        data = parse_json((folder / RECORD_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(data, dict):
        return {}
    return {
        str(name): {str(key): str(value) for key, value in each.items()}
        for name, each in data.items()
        if isinstance(each, dict)
    }


def _without_secrets(reference: Mapping[str, str]) -> dict[str, str]:
    """Return a reference without user names, passwords and queries in addresses."""
    return {name: mask_secrets(_bare(value) if "://" in value else value) for name, value in reference.items()}


def _bare(address: str) -> str:
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", parts.fragment))
