"""Read runs into what the sample gallery shows: one entry a sample and repeat, with one cell a system."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from knowgen.core.records import DIMENSIONS, Generation, GenerationStatus, GroundTruth, ImageRef, Row, Sample
from knowgen.report.details import generation_details, score_details, truth_details
from knowgen.report.view import ReportSystem, ReportView
from knowgen.stats.protocol import ScoringProtocol, get_protocol
from knowgen.stats.values import STATES, read_values

STATE_WORDS = {
    "scored": "scored",
    "generation_failed": "generation failed",
    "generation_refused": "refused",
    "generation_not_run": "not drawn",
    "score_failed": "score failed",
    "score_not_run": "not judged",
    "not_applicable": "not applicable",
}
"""Each state of `knowgen.stats.values.STATES` in words."""

SampleKey = tuple[str, str]
"""Task version and sample id: the same id in another version of the task is another sample."""


@dataclass(frozen=True)
class ImageScore:
    """What a image comes to under one view.

    Attributes:
        state: One of `STATES`.
        overall: Weighted mean of the dimensions that apply, None where it is not scored.
        values: By dimension.
        reason: Why it is not scored, empty when it is.
    """

    state: str
    overall: float | None
    values: list[float | None]
    reason: str


@dataclass
class GalleryCell:
    """What one system made of one sample and repeat.

    Attributes:
        image: Digest of its image, empty when there is none.
        readings: By view; None where the system has no such view.
        details: What is shown when a reader opens the sample.
    """

    image: str = ""
    readings: list[ImageScore | None] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class GalleryEntry:
    """One sample and repeat, with a cell a system; a system that did not take part has None."""

    sample: Sample
    task_version: str
    repeat: int
    cells: list[GalleryCell | None]


@dataclass(frozen=True)
class Problem:
    """A way in which results are missing.

    Attributes:
        system: Index of the system.
        view: Index of the view.
        state: One of `STATES`, never `scored`.
        reason: As it was stored.
        count: Samples and repeats with it.
    """

    system: int
    view: int
    state: str
    reason: str
    count: int


@dataclass
class Spending:
    """Money and time of one system; dollars are None where a price is not known.

    `kept` counts scores whose reply an earlier run had paid for.
    """

    generations: int = 0
    generation_seconds: list[float] = field(default_factory=list)
    generation_cost: float | None = 0.0
    scores: int = 0
    judging_seconds: float = 0.0
    judging_cost: float | None = 0.0
    tokens: int = 0
    kept: int = 0


@dataclass
class Gallery:
    """Everything the page shows of single samples."""

    entries: list[GalleryEntry]
    truths: dict[SampleKey, dict[str, Any]]
    truth_images: dict[SampleKey, str]
    images: list[tuple[ImageRef, Path | None]]
    troubles: list[Problem]
    spending: list[Spending]


def collect(systems: Sequence[ReportSystem], views: Sequence[ReportView]) -> Gallery:
    """Read all runs once, in order; linear in the number of results."""
    entries: dict[tuple[SampleKey, int], GalleryEntry] = {}
    found = Gallery([], {}, {}, [], [], [])
    troubles: Counter[tuple[int, int, str, str]] = Counter()
    for system in systems:
        cells = _cells(system, found)
        for view in views:
            _read_view(system, view, len(views), cells, troubles)
        _file_under_samples(system, cells, entries, found, len(systems))
    found.entries = list(entries.values())
    found.troubles = [Problem(*key, count) for key, count in troubles.items()]
    return found


def _cells(system: ReportSystem, found: Gallery) -> dict[tuple[str, int], GalleryCell]:
    """Cells of one system by sample and repeat, with their details, and what they cost."""
    store, cells, spending = system.run.store, dict[tuple[str, int], GalleryCell](), Spending()
    for _, generation in store.generations():
        cell = cells.setdefault((generation.sample_id, generation.repeat), GalleryCell())
        cell.details = generation_details(generation)
        if generation.image is not None:
            cell.image = generation.image.sha256
            found.images.append((generation.image, store.image_path(generation.image)))
        _spend_generation(spending, generation)
    for _, score in store.scores():
        cell = cells.setdefault((score.sample_id, score.repeat), GalleryCell())
        cell.details.setdefault("scores", []).append(score_details(score))
        spending.scores += 1
        spending.judging_seconds += score.seconds
        spending.judging_cost = _add(spending.judging_cost, score.usage.cost)
        spending.tokens += score.usage.input_tokens + score.usage.output_tokens
        spending.kept += bool(score.attempts) and all(attempt.cached for attempt in score.attempts)
    found.spending.append(spending)
    return cells


def _spend_generation(spending: Spending, generation: Generation) -> None:
    if generation.status is GenerationStatus.NOT_RUN:
        return
    spending.generations += 1
    spending.generation_seconds.append(generation.seconds)
    spending.generation_cost = _add(spending.generation_cost, generation.usage.cost)
    spending.tokens += generation.usage.input_tokens + generation.usage.output_tokens


def _add(total: float | None, cost: float | None) -> float | None:
    return None if total is None or cost is None else total + cost


def _read_view(
    system: ReportSystem,
    view: ReportView,
    n_views: int,
    cells: dict[tuple[str, int], GalleryCell],
    troubles: Counter[tuple[int, int, str, str]],
) -> None:
    if view.summaries[system.index] is None:
        return
    protocol = get_protocol(view.protocol)
    for key, rows in _by_image(system.run.store.rows(view.scorer)):
        cell = cells.setdefault(key, GalleryCell())
        cell.readings.extend([None] * (n_views - len(cell.readings)))
        state, overall, values = read_cell(rows, protocol, view.dimensions)
        reason = "" if state == "scored" else _reason(rows, state)
        cell.readings[view.index] = ImageScore(state, overall, values, reason)
        if state != "scored":
            troubles[system.index, view.index, state, reason] += 1


def _by_image(rows: Iterator[Row]) -> Iterator[tuple[tuple[str, int], list[Row]]]:
    """Rows of one image come together, since stores yield them sample by sample."""
    for key, group in groupby(rows, key=lambda row: (row.sample_id, row.repeat)):
        yield key, list(group)


def _reason(rows: Sequence[Row], state: str) -> str:
    if state.startswith("generation"):
        return next((row.generation_reason for row in rows if row.generation_reason), "")
    read = (row.strict.reason or (row.lenient.reason if row.lenient else "") for row in rows)
    return next((reason for reason in read if reason), "")


def read_cell(
    rows: Sequence[Row], protocol: ScoringProtocol, dimensions: tuple[str, ...]
) -> tuple[str, float | None, list[float | None]]:
    """Read the scores of one image as a protocol does.

    Returns:
        Its state, the weighted mean of the dimensions that apply to it, and the values by dimension, in [0, 1]. A
        image without score has no values, whatever the protocol counts for it: a failure is a state.
    """
    read = read_values(rows, protocol, dimensions)
    counts = read.coverage[:, : len(STATES)].sum(axis=0)
    if counts[0] == 0:
        return STATES[int(counts.argmax())], None, [None] * len(dimensions)
    values: list[float | None] = []
    for column in range(len(dimensions)):
        known = [float(value) for value in read.table[:, :, column].ravel() if not math.isnan(value)]
        values.append(sum(known) / len(known) if known else None)
    weights = protocol.weights if dimensions == DIMENSIONS else (1.0,) * len(dimensions)
    applying = [(weight, value) for weight, value in zip(weights, values, strict=True) if value is not None]
    total = sum(weight for weight, _ in applying)
    return "scored", sum(weight * value for weight, value in applying) / total if total else None, values


def _file_under_samples(
    system: ReportSystem,
    cells: dict[tuple[str, int], GalleryCell],
    entries: dict[tuple[SampleKey, int], GalleryEntry],
    found: Gallery,
    n_systems: int,
) -> None:
    store = system.run.store
    version = f"{store.spec.task} {store.spec.task_version}"
    for sample in store.samples():
        key = (version, sample.id)
        if key not in found.truths:
            truth = store.truth(sample.id)
            found.truths[key] = truth_details(truth)
            found.truth_images[key] = _truth_image(truth, found)
        for repeat in range(store.spec.repeats):
            cell = cells.get((sample.id, repeat))
            if cell is None:
                continue
            blank: list[GalleryCell | None] = [None] * n_systems
            entry = entries.setdefault((key, repeat), GalleryEntry(sample, version, repeat, blank))
            entry.cells[system.index] = cell


def _truth_image(truth: GroundTruth, found: Gallery) -> str:
    if truth.image is None:
        return ""
    found.images.append((truth.image, truth.image.path))
    return truth.image.sha256
