"""Write the index of a folder of runs and trainings: what each found, and a link to its report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from knowgen.core.text import count
from knowgen.report.folder import report_draft
from knowgen.report.headline import score_words
from knowgen.report.numbers import in_words
from knowgen.report.output import GENERATOR, FolderOutput
from knowgen.report.page import environment
from knowgen.report.view import SystemMarker, marks
from knowgen.stats.summary import Figure, Summary

STATIC = ("report.css", "theme.js")


@dataclass(frozen=True)
class IndexedRun:
    """A run on the page.

    Attributes:
        place: Its directory below the folder.
        page: Its report.
        day: Day on which the directory was created; empty when unknown.
        summaries: Summary of each scorer under the protocol of its headline.
        privileged: Whether the generator sees the ground truth.
    """

    place: str
    page: Path
    day: str
    summaries: tuple[Summary, ...]
    privileged: bool


@dataclass(frozen=True)
class IndexedTraining:
    """A training on the page.

    Attributes:
        place: Its directory below the folder.
        page: Its report.
        day: Day of its last step; empty when unknown.
        method: The method in words.
        answer: What it gained, in a sentence.
        steps: Number of its steps.
        best: The best headline of its evaluations; None without one.
    """

    place: str
    page: Path
    day: str
    method: str
    answer: str
    steps: int
    best: Figure | None


@dataclass(frozen=True)
class OtherDirectory:
    """A run or training whose report was not written: its directory below the folder, and the reason."""

    place: str
    reason: str


@dataclass(frozen=True)
class _Row:
    """A run in one table; `system` and `figure` are what the macros of figures read."""

    run: IndexedRun
    summary: Summary
    system: _System
    link: str

    @property
    def figure(self) -> Figure:
        return self.summary.headline


@dataclass(frozen=True)
class _System:
    label: str
    mark: SystemMarker


@dataclass(frozen=True)
class _Group:
    """Runs that may be compared: the same samples, judged by the same scorer under the same protocol."""

    anchor: str
    title: str
    facts: tuple[tuple[str, str], ...]
    score: str
    rows: tuple[_Row, ...]


def write_index(
    folder: str,
    runs: Sequence[IndexedRun],
    trainings: Sequence[IndexedTraining],
    others: Sequence[OtherDirectory],
    out: Path,
) -> Path:
    """Write the index and return the path of its `index.html`.

    Args:
        folder: Name of the folder.
        runs: Runs with a report.
        trainings: Trainings with a report.
        others: Directories without a report, and why.
        out: Folder to write; an earlier report is replaced. Links to the reports are relative to it.

    Raises:
        ConfigError: `out` is a file, or a folder with other content.
        DataError: The folder cannot be written.
    """
    with report_draft(out) as draft:
        output = FolderOutput(draft, STATIC)
        output.page(_render(output, folder, runs, trainings, others, out))
    return out / "index.html"


def _render(
    output: FolderOutput,
    folder: str,
    runs: Sequence[IndexedRun],
    trainings: Sequence[IndexedTraining],
    others: Sequence[OtherDirectory],
    out: Path,
) -> str:
    groups = _groups(runs, out)
    parts = [
        count(len(runs), "run") if runs else "",
        count(len(trainings), "training") if trainings else "",
        f"{len(others)} without a report" if others else "",
    ]
    return (
        environment()
        .get_template("runs_index.html")
        .render(
            output=output,
            generator=GENERATOR,
            folder=folder,
            title=", ".join(part for part in parts if part) or "no runs",
            groups=groups,
            trainings=[(each, _relative(each.page, out)) for each in trainings],
            others=others,
        )
    )


def _groups(runs: Sequence[IndexedRun], out: Path) -> list[_Group]:
    members: dict[tuple[str, ...], list[tuple[IndexedRun, Summary]]] = {}
    for run in runs:
        for summary in run.summaries:
            members.setdefault(_comparable(summary), []).append((run, summary))
    titles = _titles(list(members))
    return [
        _group(number, title, pairs, out)
        for number, (title, pairs) in enumerate(zip(titles, members.values(), strict=True))
    ]


def _comparable(summary: Summary) -> tuple[str, ...]:
    """Return what two summaries must share for a higher figure to mean a better system."""
    return (
        summary.task, summary.task_version, summary.selection, summary.scorer, summary.scorer_version,
        summary.protocol, summary.protocol_version, ",".join(summary.dimensions),
    )  # fmt: skip


def _titles(keys: Sequence[tuple[str, ...]]) -> list[str]:
    """Return a heading for each group: task and scorer, with a number where that does not tell them apart."""
    names = [f"{key[0]}, {key[3]}" for key in keys]
    seen: dict[str, int] = {}
    titles = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        titles.append(name if names.count(name) == 1 else f"{name} ({seen[name]})")
    return titles


def _group(number: int, title: str, pairs: Sequence[tuple[IndexedRun, Summary]], out: Path) -> _Group:
    ordered = sorted(pairs, key=_order)
    first = ordered[0][1]
    by_place = sorted(range(len(ordered)), key=lambda at: ordered[at][0].place)
    markers = dict(zip(by_place, marks([ordered[at][1].system for at in by_place]), strict=True))
    rows = tuple(
        _Row(run, summary, _System(f"{summary.system} ({run.place})", markers[at]), _relative(run.page, out))
        for at, (run, summary) in enumerate(ordered)
    )
    score = score_words(first.dimensions)
    facts = (
        ("Task", f"{first.task} {first.task_version}"),
        ("Selection", first.selection or "unknown"),
        ("Scorer", f"{first.scorer} {first.scorer_version}".strip()),
        ("Protocol", f"{first.protocol} {first.protocol_version}".strip()),
        ("Dimensions", ", ".join(map(in_words, first.dimensions))),
    )
    return _Group(f"group-{number}", title, facts, score[:1].upper() + score[1:], rows)


def _order(pair: tuple[IndexedRun, Summary]) -> tuple[Any, ...]:
    """Best first; then those that see the ground truth, and those without a result."""
    run, summary = pair
    value = None if summary.no_result else summary.headline.value
    return (value is None, run.privileged, -(value or 0.0), run.place)


def _relative(page: Path, out: Path) -> str:
    return quote(os.path.relpath(page.resolve(), out.resolve()))
