"""What a report reads: the reading side of a run directory, and the runs with their summaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from knowgen.errors import UsageError
from knowgen.records import Generation, GroundTruth, ImageRef, Row, Sample, Score
from knowgen.report.palette import Mark, marks
from knowgen.spec import RunSpec, canonical
from knowgen.stats.summary import Summary


class RunView(Protocol):
    """The part of `knowgen.store.run.RunStore` that a report needs; it never writes."""

    @property
    def path(self) -> Path:
        """The run directory."""
        ...

    @property
    def spec(self) -> RunSpec:
        """What was run."""
        ...

    def samples(self) -> Iterator[Sample]:
        """The selection, in order."""
        ...

    def truth(self, sample_id: str) -> GroundTruth:
        """The ground truth of a sample."""
        ...

    def image_path(self, ref: ImageRef) -> Path:
        """Where a stored picture lies."""
        ...

    def generations(self) -> Iterator[tuple[str, Generation]]:
        """Current drawings with their keys."""
        ...

    def notes(self, what: str) -> Iterator[tuple[str, float, dict[str, Any]]]:
        """Who left a note of a kind, when, and what it says, oldest first."""
        ...

    def scores(self, scorer: str | None = None) -> Iterator[tuple[str, Score]]:
        """Current judgements with their keys."""
        ...

    def rows(self, scorer: str) -> Iterator[Row]:
        """Every selected sample x repeat x judge repeat exactly once."""
        ...


@dataclass(frozen=True)
class ReportRun:
    """A run and its summaries.

    Attributes:
        store: The run, open for reading.
        summaries: One a scorer and protocol; the first is the headline.
    """

    store: RunView
    summaries: tuple[Summary, ...]


@dataclass(frozen=True)
class System:
    """A run as the page names and draws it.

    Attributes:
        index: Position on the page, from 0.
        label: Its name, unique on the page.
        mark: Colour and shape.
        run: The run.
        privileged: Does the generator see the ground truth?
    """

    index: int
    label: str
    mark: Mark
    run: ReportRun
    privileged: bool


@dataclass(frozen=True)
class View:
    """One way to read the page: a scorer and a protocol.

    Attributes:
        index: Position on the page, from 0; 0 is shown first.
        scorer: Label of the scorer.
        protocol: Name of the protocol.
        dimensions: What the scorer gives values for.
        summaries: By system, None where a run has no such summary.
    """

    index: int
    scorer: str
    protocol: str
    dimensions: tuple[str, ...]
    summaries: tuple[Summary | None, ...]

    @property
    def first(self) -> Summary:
        """The first summary there is."""
        return next(summary for summary in self.summaries if summary is not None)


def systems_of(runs: Sequence[ReportRun]) -> tuple[System, ...]:
    """Names and marks the runs, in the order given.

    Raises:
        UsageError: There is no run, or one has no summary.
    """
    if not runs:
        raise UsageError("a report needs at least one run", fix="name a run directory")
    for run in runs:
        if not run.summaries:
            raise UsageError("has no summary", where=str(run.store.path), fix="score the run first")
    labels = _labels(runs)
    return tuple(
        System(index, label, mark, run, run.store.spec.generator.privileged)
        for index, (label, mark, run) in enumerate(zip(labels, marks(labels), runs, strict=True))
    )


def _labels(runs: Sequence[ReportRun]) -> list[str]:
    """Names that tell the runs apart: generator, then its arguments, then the folder, then a number."""
    labels = [run.summaries[0].system or run.store.spec.generator.name for run in runs]
    tails = (
        [canonical(run.store.spec.generator.args) for run in runs],
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


def views_of(systems: Sequence[System]) -> tuple[View, ...]:
    """Returns every scorer and protocol that a run was summed up under; the headline of the first run comes first."""
    pairs: dict[tuple[str, str], None] = {}
    for system in systems:
        for summary in system.run.summaries:
            pairs.setdefault((summary.scorer, summary.protocol))
    views = []
    for index, (scorer, protocol) in enumerate(pairs):
        found = tuple(_summary(system, scorer, protocol) for system in systems)
        dimensions: dict[str, None] = {}
        for held in found:
            dimensions.update(dict.fromkeys(held.dimensions if held else ()))
        views.append(View(index, scorer, protocol, tuple(dimensions), found))
    return tuple(views)


def _summary(system: System, scorer: str, protocol: str) -> Summary | None:
    wanted = (summary for summary in system.run.summaries if (summary.scorer, summary.protocol) == (scorer, protocol))
    return next(wanted, None)
