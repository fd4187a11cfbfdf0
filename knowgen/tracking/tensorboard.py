"""TensorBoard: event files in a folder, which `tensorboard --logdir` shows. No server is needed to write them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from knowgen.core.errors import ConfigError, MissingDependencyError
from knowgen.tracking.contract import Ending, TrackedImage, TrackedRun, Tracker, flat_config

FOLDER = "tensorboard"
"""Folder in the run directory, where the user names none."""


class TensorboardTracker(Tracker):
    """Writes event files: `tensorboard:FOLDER`, where each run has a folder of its own."""

    def check(self) -> None:
        """Check that the library is installed, and that the folder is none with other content."""
        try:
            import tensorboard.summary  # noqa: F401
        except ModuleNotFoundError as error:
            fix = "pip install 'knowgen[trackers]'"
            raise MissingDependencyError("tensorboard is not installed", fix=fix) from error
        if self.target and Path(self.target).is_file():
            raise ConfigError("is a file", where=self.target, fix="name a folder in --log tensorboard:FOLDER")

    def start(self, run: TrackedRun) -> Mapping[str, str]:
        """Begin a file of events. TensorBoard reads all files of a folder as one run."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = (
            Path(self.target).absolute() / _own_folder(Path(run.folder)) if self.target else Path(run.folder) / FOLDER
        )
        folder.mkdir(parents=True, exist_ok=True)
        self._writer: Any = EventFileWriter(str(folder))
        rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in flat_config(run.config).items()]
        self._text("config", "\n".join(["| setting | value |", "|---|---|", *rows]))
        return {"folder": f"{Path(self.target).name}/{folder.name}" if self.target else FOLDER}

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add values to the curves."""
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        for name, value in values.items():
            self._add(scalar_pb(name, float(value)), step)

    def figures(self, values: Mapping[str, float]) -> None:
        """Write the final figures as scalars with one value, and as a table."""
        self.log(values, 0)
        rows = [f"| {_cell(name)} | {value:.4g} |" for name, value in values.items()]
        self._text("figures", "\n".join(["| figure | value |", "|---|---|", *rows]))

    def files(self, paths: Sequence[Path]) -> None:
        """Show the Markdown files as text; TensorBoard keeps no others."""
        for path in paths:
            if path.suffix == ".md":
                self._text(f"tables/{path.stem}", path.read_text(encoding="utf-8"))

    def images(self, images: Sequence[TrackedImage]) -> None:
        """Show images, each with its caption as its name."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for image in images:
            size, data = _png(Path(image.path))
            picture = Summary.Image(width=size[0], height=size[1], colorspace=3, encoded_image_string=data)
            self._add(Summary(value=[Summary.Value(tag=f"images/{image.caption}", image=picture)]), 0)

    def close(self, ending: Ending) -> None:
        """Write how the run ended, and close the file."""
        self._text("ending", ending)
        self._writer.close()

    def _text(self, name: str, text: str) -> None:
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._add(text_pb(name, text), 0)

    def _add(self, summary: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))


def _own_folder(run: Path) -> str:
    """Return the name of a run's folder among others, the same for every call on its directory.

    Runs that share a folder of event files would be drawn as one.
    """
    return f"{run.name}-{hashlib.sha256(str(run.absolute()).encode()).hexdigest()[:6]}"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _png(path: Path) -> tuple[tuple[int, int], bytes]:
    """Return size and PNG data of an image, whatever its format."""
    import io

    from knowgen.core.images import open_image

    picture = open_image(path).image
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return picture.size, buffer.getvalue()
