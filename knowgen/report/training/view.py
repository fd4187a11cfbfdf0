"""Input of the page of a training: its description, the figures of each step, and its evaluations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from knowgen.core.errors import DataError, UsageError
from knowgen.report.view import SystemMarker, marks
from knowgen.stats.summary import Figure, Summary
from knowgen.store.training_run import TrainingRun

Difference = tuple[str, str, str]
"""Key of a configuration, its value, and the value that it is compared with."""


@dataclass(frozen=True)
class TrainingEvaluation:
    """An evaluation of a training.

    Attributes:
        step: The step; 0 is before the first.
        figure: Its headline with its interval.
        task: Task and scorer of the headline; empty when unknown.
        page: Report of its run; None where there is none.
        run: Its run directory.
    """

    step: int
    figure: Figure
    task: str
    page: Path | None
    run: Path


@dataclass(frozen=True)
class ReportTraining:
    """A training with its label and marker on the page.

    Attributes:
        index: Position on the page, from 0.
        label: Label, unique on the page.
        mark: Colour and shape.
        store: Its directory.
        description: Its description.
        metrics: Figures of each step, in order.
        evaluations: Its evaluations, in order of their steps.
        differences: Where its configuration differs from the published one; None where there is none to compare with.
    """

    index: int
    label: str
    mark: SystemMarker
    store: TrainingRun
    description: Mapping[str, Any]
    metrics: Mapping[int, Mapping[str, float]]
    evaluations: tuple[TrainingEvaluation, ...]
    differences: tuple[Difference, ...] | None = None

    @property
    def method(self) -> str:
        """The method in words, such as GRPO."""
        return {"grpo": "GRPO", "sft": "Fine-tuning"}.get(str(self.description.get("method", "")), "Training")

    @property
    def first(self) -> TrainingEvaluation | None:
        """First evaluation with a headline."""
        return next((each for each in self.evaluations if each.figure.value is not None), None)

    @property
    def best(self) -> TrainingEvaluation | None:
        """Evaluation with the highest headline; the earliest of equal ones."""
        known = [each for each in self.evaluations if each.figure.value is not None]
        return max(known, key=lambda each: (each.figure.value or 0.0, -each.step), default=None)

    @property
    def last(self) -> TrainingEvaluation | None:
        """Last evaluation with a headline."""
        return next((each for each in reversed(self.evaluations) if each.figure.value is not None), None)

    @property
    def stopped(self) -> str:
        """Why it ended early; empty when it is complete, or still runs."""
        return str(self.description.get("stopped") or "")


def trainings_of(
    stores: Sequence[TrainingRun], differences: Sequence[Sequence[Difference] | None] = ()
) -> tuple[ReportTraining, ...]:
    """Return the trainings with labels and markers, in the given order.

    Args:
        stores: Their directories.
        differences: For each, where its configuration differs from the published one.

    Raises:
        UsageError: None is given, or one has neither figures nor evaluations.
        DataError: A directory is not that of a training, or is damaged.
    """
    if not stores:
        raise UsageError("a report needs at least one training", fix="name the output directory of a training")
    labels = _labels([store.path for store in stores])
    padded = [*differences, *[None] * (len(stores) - len(differences))]
    trainings = []
    for index, (store, mark) in enumerate(zip(stores, marks(labels), strict=True)):
        metrics, evaluations = store.metrics(), _evaluations(store)
        if not metrics and not evaluations:
            raise UsageError("no step is recorded", where=str(store.path), fix="wait for the first step to end")
        other = padded[index]
        known = None if other is None else tuple(other)
        trainings.append(
            ReportTraining(index, labels[index], mark, store, store.description(), metrics, evaluations, known)
        )
    return tuple(trainings)


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return names that tell the directories apart: their own, then with that of the folder above, then a number."""
    whole = [path.resolve() for path in paths]
    labels = [path.name for path in whole]
    if len(set(labels)) < len(labels):
        labels = [f"{path.parent.name}/{path.name}" for path in whole]
    return [name if labels.count(name) == 1 else f"{name} · {number}" for number, name in enumerate(labels, 1)]


def _evaluations(store: TrainingRun) -> tuple[TrainingEvaluation, ...]:
    recorded = store.metrics("evaluation")
    folders = {int(path.name) for path in (store.path / "evaluations").glob("[0-9]*") if path.is_dir()}
    return tuple(
        _evaluation(store, step, recorded.get(step, {}).get("headline")) for step in sorted({*recorded, *folders})
    )


def _evaluation(store: TrainingRun, step: int, headline: float | None) -> TrainingEvaluation:
    run = store.evaluation(step)
    page = run / "report" / "index.html"
    shown = page if page.is_file() else None
    summary = _summary(run / "summary.json")
    if summary is not None:
        figure, task = summary.headline, " · ".join(filter(None, (summary.task, summary.scorer)))
    else:
        missing = "" if headline is not None else "it has no headline"
        figure, task = Figure(value=headline, note=missing), ""
    return TrainingEvaluation(step, figure, task, shown, run)


def _summary(path: Path) -> Summary | None:
    """Return the first summary of a run; None where it has none yet.

    Raises:
        DataError: The file is damaged.
    """
    if not path.is_file():
        return None
    try:
        summaries = json.loads(path.read_text(encoding="utf-8"))["summaries"]
        return Summary.model_validate(summaries[0]) if summaries else None
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise DataError("is not a summary of a run", where=str(path), fix="run its evaluation again") from error
