"""Read runs into the sample gallery: one entry per sample and repeat, with one cell per system."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path

from knowgen.core.records import (
    DIMENSIONS,
    AgentAnswer,
    Generation,
    GenerationStatus,
    GroundTruth,
    ImageRef,
    Row,
    Sample,
)
from knowgen.core.steps import counted
from knowgen.report.details import generation_details, rubric_words, score_details, truth_details
from knowgen.report.script_json import ScriptJson, as_script_json, script_list
from knowgen.report.trajectory import (
    PackedTrajectory,
    pack,
    recorded_details,
    recorded_images,
    seen_images,
    trajectory_details,
)
from knowgen.report.view import ReportSystem, ReportView
from knowgen.stats.agent_figures import AgentFigures, agent_figures
from knowgen.stats.protocol import ScoringProtocol, get_protocol
from knowgen.stats.values import STATES, read_values
from knowgen.store.rows import answer_cost

STATE_WORDS = {
    "scored": "scored",
    "generation_failed": "generation failed",
    "generation_refused": "generation refused",
    "generation_unavailable": "generation unavailable",
    "generation_not_run": "not generated",
    "score_failed": "score failed",
    "score_refused": "score refused",
    "score_not_run": "not scored",
    "not_applicable": "not applicable",
}
"""Label of each state of `knowgen.stats.values.STATES`."""

BATCH = 256
"""Number of images whose scores are read at once."""

NO_DETAILS = ScriptJson("")

CellValues = tuple[str, float | None, list[float | None]]
"""State, weighted mean and values by dimension of the scores of one image."""

SampleKey = tuple[str, str]
"""Task version and sample id: the same id in another version of the task is another sample."""


@dataclass(frozen=True, slots=True)
class ImageScore:
    """Score of an image under one view.

    Attributes:
        state: One of `STATES`.
        overall: Weighted mean of the dimensions that apply, None if it is not scored.
        values: Value of each dimension.
        reason: Why it is not scored; empty if it is.
    """

    state: str
    overall: float | None
    values: list[float | None]
    reason: str


@dataclass(slots=True)
class GalleryCell:
    """Result of one system for one sample and repeat.

    What is shown when the sample is opened is kept as JSON: of all samples together, values would take several times
    the memory.

    Attributes:
        image: Digest of its image; empty if there is none.
        readings: Score by view; None if the system has no such view.
        generation: Details of the generation; empty without one.
        scores: Details of each score.
        trajectory: Trajectory of its agent; None without one.
    """

    image: str = ""
    readings: list[ImageScore | None] = field(default_factory=list)
    generation: ScriptJson = NO_DETAILS
    scores: list[ScriptJson] = field(default_factory=list)
    trajectory: PackedTrajectory | None = None

    def details(self) -> ScriptJson:
        """Return the details that are shown when the sample is opened: those of the generation with its `scores`."""
        own = self.generation.removeprefix("{").removesuffix("}")
        scores = [f'"scores":{script_list(self.scores)}'] if self.scores else []
        return ScriptJson(f"{{{','.join([*([own] if own else []), *scores])}}}")


@dataclass(frozen=True, slots=True)
class GalleryTruth:
    """A ground truth.

    Attributes:
        required_text: Text that the image must show.
        details: Details that are shown when the sample is opened.
    """

    required_text: list[str]
    details: ScriptJson


@dataclass(slots=True)
class GalleryEntry:
    """One sample and repeat, with a cell for each system; None if the run does not have the sample."""

    sample: Sample
    task_version: str
    repeat: int
    cells: list[GalleryCell | None]


@dataclass(frozen=True)
class Problem:
    """A reason why results are missing.

    Attributes:
        system: Index of the system.
        view: Index of the view.
        state: One of `STATES`, never `scored`.
        reason: Stored reason.
        count: Number of samples and repeats with this reason.
    """

    system: int
    view: int
    state: str
    reason: str
    count: int


@dataclass
class PartSpending:
    """Paid calls, cost and tokens of one part of an agent; the cost is None if a price is not known."""

    calls: int = 0
    cost: float | None = 0.0
    tokens: int = 0


@dataclass
class Spending:
    """Cost and time of one system; costs in US dollars are None if a price is not known.

    `cached` is the number of scores whose replies come from earlier runs; `parts` are those of an agent, by name.
    """

    answers: int = 0
    answer_seconds: list[float] = field(default_factory=list)
    agent_cost: float | None = 0.0
    parts: dict[str, PartSpending] = field(default_factory=dict)
    generations: int = 0
    generation_seconds: list[float] = field(default_factory=list)
    generation_cost: float | None = 0.0
    scores: int = 0
    scoring_seconds: float = 0.0
    scoring_cost: float | None = 0.0
    tokens: int = 0
    cached: int = 0


@dataclass
class Gallery:
    """Content of the page on single samples.

    `rubrics` are those of each system's scores, by scorer; `agents` are the figures of each system's agent, empty for a
    system without one.
    """

    entries: list[GalleryEntry]
    truths: dict[SampleKey, GalleryTruth]
    truth_images: dict[SampleKey, str]
    images: list[tuple[ImageRef, Path | None]]
    problems: list[Problem]
    spending: list[Spending]
    rubrics: list[dict[str, list[str]]]
    agents: list[tuple[AgentFigures, ...]]


def collect(systems: Sequence[ReportSystem], views: Sequence[ReportView]) -> Gallery:
    """Read all runs once, in order."""
    entries: dict[tuple[SampleKey, int], GalleryEntry] = {}
    gallery = Gallery([], {}, {}, [], [], [], [], [])
    problems: Counter[tuple[int, int, str, str]] = Counter()
    for system in systems:
        cells = _cells(system, gallery)
        _read_views(system, views, cells, problems)
        gallery.agents.append(_agent(system))
        _add_entries(system, cells, entries, gallery, len(systems))
    gallery.entries = list(entries.values())
    gallery.problems = [Problem(*key, count) for key, count in problems.items()]
    return gallery


def _cells(system: ReportSystem, gallery: Gallery) -> dict[tuple[str, int], GalleryCell]:
    """Return the cells of one system by sample and repeat, with their details, and add its spending."""
    store, cells, spending = system.run.store, dict[tuple[str, int], GalleryCell](), Spending()
    rubrics: dict[str, list[str]] = {}
    fallbacks = _fallbacks(system)
    for _, answer in store.answers():
        _spend_answer(spending, answer)
        key = (answer.sample_id, answer.repeat)
        cell = cells.setdefault(key, GalleryCell())
        cell.trajectory = pack(trajectory_details(answer, fallbacks.get(key, "")))
        gallery.images += [(image, store.image_path(image)) for image in seen_images(answer)]
    for _, generation in store.generations():
        cell = cells.setdefault((generation.sample_id, generation.repeat), GalleryCell())
        cell.generation = as_script_json(generation_details(generation))
        if cell.trajectory is None:
            recorded = recorded_details(generation)
            cell.trajectory = None if recorded is None else pack(recorded)
            gallery.images += recorded_images(generation)
        if generation.image is not None:
            cell.image = generation.image.sha256
            gallery.images.append((generation.image, store.image_path(generation.image)))
        _spend_generation(spending, generation)
    for _, score in store.scores():
        cell = cells.setdefault((score.sample_id, score.repeat), GalleryCell())
        cell.scores.append(as_script_json(score_details(score)))
        if (rubric := rubric_words(score)) and rubric not in rubrics.setdefault(score.scorer, []):
            rubrics[score.scorer].append(rubric)
        spending.scores += 1
        spending.scoring_seconds += score.seconds
        spending.scoring_cost = _add(spending.scoring_cost, score.usage.cost)
        spending.tokens += score.usage.input_tokens + score.usage.output_tokens
        spending.cached += bool(score.attempts) and all(attempt.cached for attempt in score.attempts)
    gallery.spending.append(spending)
    gallery.rubrics.append(rubrics)
    return cells


def _spend_answer(spending: Spending, answer: AgentAnswer) -> None:
    spending.answers += 1
    spending.answer_seconds.append(answer.seconds)
    spending.agent_cost = _add(spending.agent_cost, answer_cost(answer))
    for used in answer.usage:
        part = spending.parts.setdefault(used.part, PartSpending())
        part.calls += used.calls
        part.cost = _add(part.cost, used.usage.cost if used.usage.cost is not None or used.calls else 0.0)
        part.tokens += used.usage.input_tokens + used.usage.output_tokens
        spending.tokens += used.usage.input_tokens + used.usage.output_tokens


def _spend_generation(spending: Spending, generation: Generation) -> None:
    if generation.status is GenerationStatus.NOT_RUN:
        return
    spending.generations += 1
    spending.generation_seconds.append(generation.seconds)
    spending.generation_cost = _add(spending.generation_cost, generation.usage.cost)
    spending.tokens += generation.usage.input_tokens + generation.usage.output_tokens


def _add(total: float | None, cost: float | None) -> float | None:
    return None if total is None or cost is None else total + cost


def _read_views(
    system: ReportSystem,
    views: Sequence[ReportView],
    cells: dict[tuple[str, int], GalleryCell],
    problems: Counter[tuple[int, int, str, str]],
) -> None:
    """Read the rows of each scorer once, for all views of that scorer."""
    by_scorer: dict[str, list[ReportView]] = {}
    for view in views:
        if view.summaries[system.index] is not None:
            by_scorer.setdefault(view.scorer, []).append(view)
    for scorer, its_views in by_scorer.items():
        images = counted(_by_image(system.run.store.rows(scorer)), f"reading values of {scorer}")
        while batch := list(islice(images, BATCH)):
            read = [_read_images([rows for _, rows in batch], view) for view in its_views]
            for number, (key, _) in enumerate(batch):
                cell = cells.setdefault(key, GalleryCell())
                cell.readings.extend([None] * (len(views) - len(cell.readings)))
                for view, scores in zip(its_views, read, strict=True):
                    score = cell.readings[view.index] = scores[number]
                    if score.state != "scored":
                        problems[system.index, view.index, score.state, score.reason] += 1


def _read_images(images: Sequence[Sequence[Row]], view: ReportView) -> list[ImageScore]:
    read = read_cells(images, get_protocol(view.protocol), view.dimensions)
    return [
        ImageScore(state, overall, values, "" if state == "scored" else _reason(rows, state))
        for rows, (state, overall, values) in zip(images, read, strict=True)
    ]


def _fallbacks(system: ReportSystem) -> dict[tuple[str, int], str]:
    """Return why answers of an agent were not used, by sample and repeat."""
    if system.run.store.spec.agent is None:
        return {}
    return {(each.sample_id, each.repeat): each.fallback for _, each in system.run.store.generations() if each.fallback}


def _agent(system: ReportSystem) -> tuple[AgentFigures, ...]:
    store = system.run.store
    if store.spec.agent is None:
        return ()
    return agent_figures(
        store.samples(),
        store.spec.repeats,
        (answer for _, answer in store.answers()),
        (generation for _, generation in store.generations()),
    )


def _by_image(rows: Iterator[Row]) -> Iterator[tuple[tuple[str, int], list[Row]]]:
    """Yield the rows of each image; stores yield them sample by sample."""
    for key, group in groupby(rows, key=lambda row: (row.sample_id, row.repeat)):
        yield key, list(group)


def _reason(rows: Sequence[Row], state: str) -> str:
    if state.startswith("generation"):
        return next((row.generation_reason for row in rows if row.generation_reason), "")
    read = (row.strict.reason or (row.lenient.reason if row.lenient else "") for row in rows)
    return next((reason for reason in read if reason), "")


def read_cell(rows: Sequence[Row], protocol: ScoringProtocol, dimensions: tuple[str, ...]) -> CellValues:
    """Read the scores of one image under a protocol.

    Returns:
        State, weighted mean of the dimensions that apply, and values by dimension, in [0, 1]. An image without a score
        has no values, whatever the protocol counts for it.
    """
    return read_cells([rows], protocol, dimensions)[0]


def read_cells(
    images: Sequence[Sequence[Row]], protocol: ScoringProtocol, dimensions: tuple[str, ...]
) -> list[CellValues]:
    """Read the scores of several images under a protocol at once, each by itself; see `read_cell`.

    Args:
        images: Rows of each image.
        protocol: Scoring protocol.
        dimensions: Dimensions that the scorer gives values for.
    """
    alone = [  # each image takes the place of a sample, whose scores are never combined with those of another
        row.model_copy(update={"sample_id": f"{number:09d}", "repeat": 0})
        for number, rows in enumerate(images)
        for row in rows
    ]
    read = read_values(alone, protocol, dimensions)
    states = read.coverage[:, : len(STATES)]
    tables = read.table.transpose(1, 2, 0).tolist()  # image, dimension, slice
    weights = protocol.weights if dimensions == DIMENSIONS else (1.0,) * len(dimensions)
    return [
        _cell_values(table, weights) if scored else (STATES[state], None, [None] * len(table))
        for table, scored, state in zip(tables, states[:, 0].tolist(), states.argmax(axis=1).tolist(), strict=True)
    ]


def _cell_values(table: Sequence[Sequence[float]], weights: Sequence[float]) -> CellValues:
    values: list[float | None] = []
    for column in table:
        known = [value for value in column if not math.isnan(value)]
        values.append(sum(known) / len(known) if known else None)
    applying = [(weight, value) for weight, value in zip(weights, values, strict=True) if value is not None]
    total = sum(weight for weight, _ in applying)
    return "scored", sum(weight * value for weight, value in applying) / total if total else None, values


def _add_entries(
    system: ReportSystem,
    cells: dict[tuple[str, int], GalleryCell],
    entries: dict[tuple[SampleKey, int], GalleryEntry],
    gallery: Gallery,
    n_systems: int,
) -> None:
    store = system.run.store
    version = f"{store.spec.task} {store.spec.task_version}"
    for sample in store.samples():
        key = (version, sample.id)
        if key not in gallery.truths:
            truth = store.truth(sample.id)
            details = truth_details(truth)
            gallery.truths[key] = GalleryTruth(details["required_text"], as_script_json(details))
            gallery.truth_images[key] = _truth_image(truth, gallery)
        for repeat in range(store.spec.repeats):
            cell = cells.get((sample.id, repeat))
            if cell is None:
                continue
            blank: list[GalleryCell | None] = [None] * n_systems
            entry = entries.setdefault((key, repeat), GalleryEntry(sample, version, repeat, blank))
            entry.cells[system.index] = cell


def _truth_image(truth: GroundTruth, gallery: Gallery) -> str:
    if truth.image is None:
        return ""
    gallery.images.append((truth.image, truth.image.path))
    return truth.image.sha256
