"""Compute the agreement of all raters of one or more runs from rows and labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import GenerationStatus, Row, ScoreStatus
from knowgen.core.sample_ids import comparable_id
from knowgen.core.steps import step
from knowgen.core.text import count
from knowgen.stats.agreement.labels import Label, LabelFile, read_labels
from knowgen.stats.agreement.measures import RESAMPLES, Image, joint_alphas, pair_agreements
from knowgen.stats.agreement.ranks import rank_agreements
from knowgen.stats.agreement.records import Agreement
from knowgen.stats.protocol import ScoringProtocol, get_protocol


@dataclass(frozen=True)
class RatedSystem:
    """A run whose scorers are compared.

    Attributes:
        name: Name of the run in tables.
        task: Name of the task.
        task_version: Version of the task.
        rows: Rows of each scorer.
    """

    name: str
    task: str
    task_version: str
    rows: Mapping[str, Sequence[Row]]


@step("measuring agreement")
def agreement(
    systems: Sequence[RatedSystem],
    dimensions: Mapping[str, Sequence[str]],
    *,
    labels: Path | None = None,
    protocol: ScoringProtocol | str = "strict",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Agreement:
    """Return the agreement of raters: scorers, panels and people.

    If a scorer has several scores of one image, the first one that is ok counts. A mean would agree better than the
    single score that is used in practice.

    Args:
        systems: One or more runs of one task version.
        dimensions: Dimensions of each scorer; every system has rows of every scorer.
        labels: Path of a file of human labels.
        protocol: Scoring protocol that decides which parsed score counts and how systems are ranked, or its name.
        resamples: Number of bootstrap resamples; 0 for no intervals.
        seed: Seed of the bootstrap.

    Raises:
        UsageError: The systems differ in task, or there are fewer than two raters.
        DataError: The labels are malformed, or rate images that the systems do not have.
    """
    rule = get_protocol(protocol) if isinstance(protocol, str) else protocol
    _check_task(systems)
    ratings = {
        scorer: {
            image: values
            for system in systems
            for image, values in _scored_images(system.name, system.rows[scorer], names, rule)
        }
        for scorer, names in dimensions.items()
    }
    rated: dict[str, Sequence[str]] = dict(dimensions)
    notes = _repeat_notes(systems)
    if labels is not None:
        known = tuple(dict.fromkeys(name for names in dimensions.values() for name in names))
        read = read_labels(labels, known)
        human, unmatched = _human_ratings(read, systems)
        ratings |= human
        rated |= dict.fromkeys(human, read.dimensions)
        notes += _label_notes(read, unmatched)
    if len(ratings) < 2:
        raise UsageError(
            f"one rater ({', '.join(ratings) or 'none'}) is not enough to measure agreement",
            where=", ".join(system.name for system in systems),
            fix="score the run with another scorer, or name a file of labels with --labels",
        )
    pairs = pair_agreements(ratings, rated, resamples=resamples, seed=seed)
    notes += _unshared(ratings, rated)
    ranks = []
    if len(systems) > 1:
        rows = {scorer: [system.rows[scorer] for system in systems] for scorer in dimensions}
        ranks = rank_agreements(rows, dimensions, rule, resamples=resamples, seed=seed)
    return Agreement(
        systems=tuple(system.name for system in systems),
        task=systems[0].task,
        task_version=systems[0].task_version,
        protocol=rule.name,
        raters=tuple(ratings),
        pairs=tuple(pairs),
        together=joint_alphas(ratings, rated, resamples=resamples, seed=seed),
        ranks=tuple(ranks),
        notes=tuple(notes),
    )


def _check_task(systems: Sequence[RatedSystem]) -> None:
    first = systems[0]
    for other in systems[1:]:
        if (other.task, other.task_version) != (first.task, first.task_version):
            raise UsageError(
                f"different tasks: {first.task} {first.task_version} and {other.task} {other.task_version}",
                where=f"{first.name} and {other.name}",
                fix="name runs of one task version",
            )


def _scored_images(
    system: str, rows: Iterable[Row], dimensions: Sequence[str], protocol: ScoringProtocol
) -> list[tuple[Image, dict[str, float]]]:
    """Return the values of each image, from its first score that is ok."""
    first: dict[Image, tuple[int, dict[str, float]]] = {}
    for row in rows:
        parsed = (row.lenient or row.strict) if protocol.reading == "lenient" else row.strict
        if row.generation is not GenerationStatus.OK or parsed.status is not ScoreStatus.OK:
            continue
        image = (system, row.sample_id, row.repeat)
        values = {name: parsed.values[name] for name in dimensions if name in parsed.values and name not in parsed.na}
        if image not in first or row.judge_repeat < first[image][0]:
            first[image] = (row.judge_repeat, values)
    return [(image, values) for image, (_, values) in first.items()]


def _human_ratings(
    labels: LabelFile, systems: Sequence[RatedSystem]
) -> tuple[dict[str, dict[Image, dict[str, float]]], int]:
    """Return the ratings of each person by image, and the number of labels of images that the runs do not have."""
    generated = {
        (system.name, comparable_id(row.sample_id), row.repeat): (system.name, row.sample_id, row.repeat)
        for system in systems
        for rows in system.rows.values()
        for row in rows
        if row.generation is GenerationStatus.OK
    }
    ratings: dict[str, dict[Image, dict[str, float]]] = {}
    unmatched = 0
    for label in labels.labels:
        named = (_system_of(label, systems, labels.path), comparable_id(label.sample), label.repeat)
        if image := generated.get(named):
            ratings.setdefault(label.rater, {})[image] = label.values
        else:
            unmatched += 1
    if not ratings:
        raise DataError(
            "no label matches an image of the runs",
            where=str(labels.path),
            fix="check the sample ids and repeats; ids must match exactly",
        )
    return dict(sorted(ratings.items())), unmatched


def _system_of(label: Label, systems: Sequence[RatedSystem], path: Path) -> str:
    names = [system.name for system in systems]
    if label.system:
        if label.system not in names:
            fix = f"name one of {', '.join(names)}"
            raise DataError(f"unknown system {label.system!r}", where=f"{path}:{label.line}", fix=fix)
        return label.system
    if len(names) > 1:
        raise DataError(
            "the label does not name one of the runs",
            where=f"{path}:{label.line}",
            fix=f"add a column `system` with {', '.join(names)}",
        )
    return names[0]


def _repeat_notes(systems: Sequence[RatedSystem]) -> list[str]:
    repeated = any(row.judge_repeat for system in systems for rows in system.rows.values() for row in rows)
    return ["if an image has several scores of one scorer, the first one that is ok counts"] if repeated else []


def _label_notes(labels: LabelFile, unmatched: int) -> list[str]:
    notes = []
    if unmatched:
        notes.append(f"{count(unmatched, 'label')} of images that the runs do not have: left out")
    if labels.ignored:
        notes.append(f"ignored columns of {labels.path.name}: {', '.join(labels.ignored)}")
    return notes


def _unshared(ratings: Mapping[str, object], dimensions: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a note that names the raters that share no dimension with any other; empty if there are none."""
    unshared = [
        rater
        for rater in ratings
        if not any(set(dimensions[rater]) & set(dimensions[other]) for other in ratings if other != rater)
    ]
    return [f"{', '.join(unshared)}: no dimension in common with another rater"] if unshared else []
