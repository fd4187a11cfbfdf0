"""From rows and labels to the agreement of all raters of one or more runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import GenerationStatus, Row, ScoreStatus
from knowgen.core.text import count
from knowgen.stats.agreement.labels import Label, LabelFile, read_labels
from knowgen.stats.agreement.measures import RESAMPLES, Picture, pair_agreements, together
from knowgen.stats.agreement.ranks import rank_agreements
from knowgen.stats.agreement.records import Agreement
from knowgen.stats.protocol import ScoringProtocol, get_protocol


@dataclass(frozen=True)
class RatedSystem:
    """A run as agreement sees it.

    Attributes:
        name: As tables show it.
        task: Name of its task.
        task_version: Its version.
        rows: By scorer, what the statistics read.
    """

    name: str
    task: str
    task_version: str
    rows: Mapping[str, Sequence[Row]]


def agreement(
    systems: Sequence[RatedSystem],
    dimensions: Mapping[str, Sequence[str]],
    *,
    labels: Path | None = None,
    protocol: ScoringProtocol | str = "strict",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Agreement:
    """Says how far raters agree.

    Of several judgements of one picture by one scorer the first that is ok counts: a mean would be more sure than any
    judgement that is made in use.

    Args:
        systems: One or more, of one task version.
        dimensions: By scorer, what it gives values for; each system has rows of each of them.
        labels: A file of what people said.
        protocol: Says which reading of a judgement counts, and how systems are ranked.
        resamples: Of the bootstrap; 0 for no intervals.
        seed: Of the bootstrap.

    Raises:
        UsageError: The systems differ in task, or there are fewer than two raters.
        DataError: The labels are broken, or rate what the systems do not have.
    """
    rule = get_protocol(protocol) if isinstance(protocol, str) else protocol
    _check_task(systems)
    ratings = {
        scorer: {
            picture: values
            for system in systems
            for picture, values in _judged(system.name, system.rows[scorer], names, rule)
        }
        for scorer, names in dimensions.items()
    }
    rated: dict[str, Sequence[str]] = dict(dimensions)
    notes = _repeat_notes(systems)
    if labels is not None:
        known = tuple(dict.fromkeys(name for names in dimensions.values() for name in names))
        read = read_labels(labels, known)
        people, lost = _people(read, systems)
        ratings |= people
        rated |= dict.fromkeys(people, read.dimensions)
        notes += _label_notes(read, lost)
    if len(ratings) < 2:
        raise UsageError(
            f"one rater ({', '.join(ratings) or 'none'}) has nobody to agree with",
            where=", ".join(system.name for system in systems),
            fix="score the run with another judge, or name a file of labels with --labels",
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
        together=together(ratings, rated, resamples=resamples, seed=seed),
        ranks=tuple(ranks),
        notes=tuple(notes),
    )


def _check_task(systems: Sequence[RatedSystem]) -> None:
    first = systems[0]
    for other in systems[1:]:
        if (other.task, other.task_version) != (first.task, first.task_version):
            raise UsageError(
                f"task {first.task} {first.task_version} here, {other.task} {other.task_version} there",
                where=f"{first.name} and {other.name}",
                fix="name runs of one task version",
            )


def _judged(
    system: str, rows: Iterable[Row], dimensions: Sequence[str], protocol: ScoringProtocol
) -> list[tuple[Picture, dict[str, float]]]:
    """Returns the values of each picture: those of the first judgement that is ok."""
    found: dict[Picture, tuple[int, dict[str, float]]] = {}
    for row in rows:
        reading = (row.lenient or row.strict) if protocol.reading == "lenient" else row.strict
        if row.generation is not GenerationStatus.OK or reading.status is not ScoreStatus.OK:
            continue
        picture = (system, row.sample_id, row.repeat)
        values = {
            name: reading.values[name] for name in dimensions if name in reading.values and name not in reading.na
        }
        if picture not in found or row.judge_repeat < found[picture][0]:
            found[picture] = (row.judge_repeat, values)
    return [(picture, values) for picture, (_, values) in found.items()]


def _people(
    labels: LabelFile, systems: Sequence[RatedSystem]
) -> tuple[dict[str, dict[Picture, dict[str, float]]], int]:
    """Returns what each person gave by picture, and how many labels rate pictures that the runs do not have."""
    drawn = {
        (system.name, row.sample_id, row.repeat)
        for system in systems
        for rows in system.rows.values()
        for row in rows
        if row.generation is GenerationStatus.OK
    }
    found: dict[str, dict[Picture, dict[str, float]]] = {}
    lost = 0
    for label in labels.labels:
        picture = (_system_of(label, systems, labels.path), label.sample, label.repeat)
        if picture in drawn:
            found.setdefault(label.rater, {})[picture] = label.values
        else:
            lost += 1
    if not found:
        raise DataError(
            "rates no picture of the runs",
            where=str(labels.path),
            fix="are these the labels of these runs? ids are compared to the letter",
        )
    return dict(sorted(found.items())), lost


def _system_of(label: Label, systems: Sequence[RatedSystem], path: Path) -> str:
    names = [system.name for system in systems]
    if label.system:
        if label.system not in names:
            raise DataError(f"unknown system {label.system!r}", where=f"{path}:{label.line}", fix=", ".join(names))
        return label.system
    if len(names) > 1:
        raise DataError(
            "does not say which of the runs it rates",
            where=f"{path}:{label.line}",
            fix=f"add a column `system` with {', '.join(names)}",
        )
    return names[0]


def _repeat_notes(systems: Sequence[RatedSystem]) -> list[str]:
    repeated = any(row.judge_repeat for system in systems for rows in system.rows.values() for row in rows)
    return ["of several judgements of a picture the first that is ok counts"] if repeated else []


def _label_notes(labels: LabelFile, lost: int) -> list[str]:
    notes = []
    if lost:
        notes.append(f"{count(lost, 'label')} of pictures that the runs do not have: left out")
    if labels.ignored:
        notes.append(f"columns of {labels.path.name} that were not read: {', '.join(labels.ignored)}")
    return notes


def _unshared(ratings: Mapping[str, object], dimensions: Mapping[str, Sequence[str]]) -> list[str]:
    """Names the raters that share no dimension with any other."""
    lonely = [
        rater
        for rater in ratings
        if not any(set(dimensions[rater]) & set(dimensions[other]) for other in ratings if other != rater)
    ]
    return [f"{', '.join(lonely)}: no dimension in common with another rater"] if lonely else []
