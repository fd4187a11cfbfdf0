"""Input of a report: the readable part of a run directory, and runs with their summaries."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from knowgen.core.errors import UsageError
from knowgen.core.records import AgentAnswer, Generation, GroundTruth, ImageRef, Row, Sample, Score
from knowgen.core.spec import RunSpec, canonical
from knowgen.stats.summary import Summary
from knowgen.store.manifest import Manifest

COLOURS = 8
"""Number of system colours defined in `static/report.css`."""

SHAPES: tuple[tuple[str, str], ...] = (
    ("circle", "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z"),
    ("square", "M-4 -4h8v8h-8z"),
    ("triangle", "M0 -5.2L5 3.8H-5z"),
    ("diamond", "M0 -5.6L5.6 0L0 5.6L-5.6 0z"),
    ("wedge", "M0 5.2L5 -3.8H-5z"),
    ("cross", "M-1.6 -5h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4v-3.2h3.4z"),
    ("star", "M0 -5.7L1.7 -2L5.7 -1.6L2.8 1.2L3.5 5.2L0 3.2L-3.5 5.2L-2.8 1.2L-5.7 -1.6L-1.7 -2z"),
    ("hourglass", "M-4.6 -4.8h9.2L1.4 0L4.6 4.8h-9.2L-1.4 0z"),
)
"""Name and SVG outline of each shape, centred on the origin, about 10 units wide."""


@dataclass(frozen=True)
class SystemMarker:
    """Colour and shape of a system.

    Attributes:
        colour: Index of its colour, 0 <= colour < COLOURS.
        shape: Name of its shape.
        outline: SVG path of the shape.
    """

    colour: int
    shape: str
    outline: str


def marks(labels: Sequence[str], since: Sequence[str] = ()) -> list[SystemMarker]:
    """Return a marker for each system, in order; the first 64 are distinct.

    A system has the marker that its name gives, so that it looks the same on all pages and in all figures. Where
    several names give one marker, the first to choose has it and the others have the next that is free.

    Args:
        labels: Names of the systems; what is not a letter or digit does not matter.
        since: When each was made, ISO 8601: the earliest chooses first. In the order of `labels` without any.
    """
    names = ["".join(re.findall(r"\w", label.casefold())).replace("_", "") or label for label in labels]
    order = sorted(range(len(names)), key=lambda at: (since[at], names[at])) if since else range(len(names))
    taken: list[int] = []
    markers: dict[int, SystemMarker] = {}
    for number, at in enumerate(order):
        start = number // COLOURS * COLOURS  # eight by eight, so that eight systems have eight colours and eight shapes
        wanted = int.from_bytes(hashlib.sha256(names[at].encode("utf-8", "replace")).digest()[:4], "big")
        free = ((wanted + step) % COLOURS for step in range(COLOURS))
        taken.append(next(place for place in free if place not in taken[start:]))
        shape, outline = SHAPES[(taken[-1] + number // COLOURS) % len(SHAPES)]
        markers[at] = SystemMarker(taken[-1], shape, outline)
    return [markers[at] for at in range(len(names))]


class RunView(Protocol):
    """The methods of `knowgen.store.run.RunStore` that a report uses; none of them writes."""

    @property
    def path(self) -> Path:
        """The run directory."""
        ...

    @property
    def spec(self) -> RunSpec:
        """Specification of the run."""
        ...

    @property
    def manifest(self) -> Manifest:
        """Versions, machine and time of the run."""
        ...

    def samples(self) -> Iterator[Sample]:
        """Yield the selected samples, in order."""
        ...

    def truth(self, sample_id: str) -> GroundTruth:
        """Return the ground truth of a sample."""
        ...

    def image_path(self, ref: ImageRef) -> Path:
        """Return the path of a stored image."""
        ...

    def answers(self) -> Iterator[tuple[str, AgentAnswer]]:
        """Yield the current answers of an agent with their keys."""
        ...

    def generations(self) -> Iterator[tuple[str, Generation]]:
        """Yield the current generations with their keys."""
        ...

    def notes(self, kind: str) -> Iterator[tuple[str, float, dict[str, Any]]]:
        """Yield the author, time and content of each note of a kind, oldest first."""
        ...

    def scores(self, scorer: str | None = None) -> Iterator[tuple[str, Score]]:
        """Yield the current scores with their keys."""
        ...

    def rows(self, scorer: str) -> Iterator[Row]:
        """Yield one row for every selected sample x repeat x judge repeat."""
        ...


@dataclass(frozen=True)
class ReportRun:
    """A run and its summaries.

    Attributes:
        store: Run directory, open for reading.
        summaries: One summary per scorer and protocol; the first is the headline.
    """

    store: RunView
    summaries: tuple[Summary, ...]


@dataclass(frozen=True)
class ReportSystem:
    """A run with its label and marker on the page.

    Attributes:
        index: Position on the page, from 0.
        label: Label, unique on the page.
        mark: Colour and shape.
        run: Run and its summaries.
        privileged: Whether the generator sees the ground truth.
    """

    index: int
    label: str
    mark: SystemMarker
    run: ReportRun
    privileged: bool


@dataclass(frozen=True)
class ReportView:
    """A scorer and a protocol whose figures the page shows.

    Attributes:
        index: Position on the page, from 0; 0 is shown first.
        scorer: Label of the scorer.
        protocol: Name of the protocol.
        dimensions: Dimensions of the scorer.
        summaries: Summary of each system; None if a run has no such summary.
    """

    index: int
    scorer: str
    protocol: str
    dimensions: tuple[str, ...]
    summaries: tuple[Summary | None, ...]

    @property
    def first(self) -> Summary:
        """First summary of the view."""
        return next(summary for summary in self.summaries if summary is not None)


def systems_of(runs: Sequence[ReportRun]) -> tuple[ReportSystem, ...]:
    """Return the runs with labels and markers, in the given order.

    Raises:
        UsageError: No run is given, or one has no summary.
    """
    if not runs:
        raise UsageError("a report needs at least one run", fix="name a run directory")
    for run in runs:
        if not run.summaries:
            raise UsageError("no summary", where=str(run.store.path), fix="score the run first")
    markers = marks([run.store.spec.system for run in runs], [run.store.manifest.started for run in runs])
    return tuple(
        ReportSystem(index, label, mark, run, run.store.spec.privileged)
        for index, (label, mark, run) in enumerate(zip(_labels(runs), markers, runs, strict=True))
    )


def _arguments(spec: RunSpec) -> str:
    """Return the arguments of a run's generator, with those of its agent if it has one."""
    return canonical(spec.generator.args) if spec.agent is None else spec.label


def _labels(runs: Sequence[ReportRun]) -> list[str]:
    """Name that tell the runs apart: generator, then its arguments, then the folder, then a number."""
    labels = [run.summaries[0].system or run.store.spec.system for run in runs]
    tails = (
        [_arguments(run.store.spec) for run in runs],
        [f"seed {run.store.spec.seed}" for run in runs],
        [run.store.path.name for run in runs],
        [f"run {number}" for number in range(1, len(runs) + 1)],
    )
    for tail in tails:
        clashing = {label for label in labels if labels.count(label) > 1}
        for label in clashing:
            members = [index for index, name in enumerate(labels) if name == label]
            if len({tail[index] for index in members}) > 1:
                for index in members:
                    labels[index] = f"{label} · {tail[index]}"
    return labels


def views_of(systems: Sequence[ReportSystem]) -> tuple[ReportView, ...]:
    """Return every scorer and protocol with a summary; the headline of the first run comes first."""
    pairs: dict[tuple[str, str], None] = {}
    for system in systems:
        for summary in system.run.summaries:
            pairs.setdefault((summary.scorer, summary.protocol))
    views = []
    for index, (scorer, protocol) in enumerate(pairs):
        summaries = tuple(_summary(system, scorer, protocol) for system in systems)
        dimensions: dict[str, None] = {}
        for one in summaries:
            dimensions.update(dict.fromkeys(one.dimensions if one else ()))
        views.append(ReportView(index, scorer, protocol, tuple(dimensions), summaries))
    return tuple(views)


def _summary(system: ReportSystem, scorer: str, protocol: str) -> Summary | None:
    matching = (summary for summary in system.run.summaries if (summary.scorer, summary.protocol) == (scorer, protocol))
    return next(matching, None)
