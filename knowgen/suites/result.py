"""The result of a suite: its runs, figures by task, means over tasks, and their export to pandas and JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from knowgen.stats.coverage import no_result
from knowgen.stats.summary import Figure, Summary
from knowgen.suites.macro_mean import MacroMean, mean_figure
from knowgen.workflows.run import PROTOCOLS, Run

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["done", "failed_samples", "failed", "budget", "incomplete", "interrupted", "not_run"]
COMPLETE: frozenset[Status] = frozenset({"done", "failed_samples"})
"""Status of runs that attempted every sample. Only their figures enter a mean."""

FORMAT = 1
"""Version of the format of suite.json."""


@dataclass(frozen=True)
class SuiteRun:
    """One system on one task.

    Attributes:
        task: Name of the task in the suite.
        system: Name of the system in the suite.
        path: Its run directory.
        status: `done`; `failed_samples`, where some generations or scores failed; `failed`, where the run itself raised
            an error; `budget`, stopped by the budget; `incomplete`, not finished by an earlier call; `interrupted`; or
            `not_run`.
        reason: Reason for a status other than `done`.
        summaries: One summary per scorer and protocol, the headline's protocol first; also of a run without results.
        run: The run; None when there are no results.
        selected: Whether this call ran it.
        results: Sequence numbers of its last generation and last score; every new result increases one of them.
    """

    task: str
    system: str
    path: Path
    status: Status
    reason: str
    summaries: tuple[Summary, ...]
    run: Run | None = None
    selected: bool = True
    results: tuple[int, ...] = ()

    def summary(self, protocol: str, scorer: str | None = None) -> Summary | None:
        """Return the summary of a protocol and scorer (the first scorer when None); None when there is none."""
        matching = (each for each in self.summaries if each.protocol == protocol and scorer in (None, each.scorer))
        return next(matching, None)


@dataclass(frozen=True)
class SuiteResult:
    """The result of a suite.

    Attributes:
        path: The suite's directory.
        name: Name of the suite.
        protocol: Scoring protocol of the headline.
        tasks: Names of the tasks in the suite, in order.
        systems: Names of the systems in the suite, in order.
        runs: Every system on every task, ordered by task; fewer when the suite was interrupted.
        budget: Maximum cost in USD of all runs in the directory; None for no limit.
        spent: Cost in USD of all runs in the directory so far; None when a damaged run makes it unknown.
        pages: Path of the report page of each task that has results.
    """

    path: Path
    name: str
    protocol: str
    tasks: tuple[str, ...]
    systems: tuple[str, ...]
    runs: tuple[SuiteRun, ...]
    budget: float | None = None
    spent: float | None = 0.0
    pages: dict[str, Path] = field(default_factory=dict)

    @property
    def interrupted(self) -> bool:
        """Whether a signal stopped the suite."""
        return any(run.status == "interrupted" for run in self.runs)

    @property
    def exit_code(self) -> int:
        """Exit code for the runs of this call: 0 done; 5 budget reached; 6 a run or sample failed; 130 interrupted."""
        states = {run.status for run in self.runs if run.selected}
        if "interrupted" in states:
            return 130
        if "budget" in states:
            return 5
        return 6 if states - {"done"} else 0

    def of_task(self, task: str) -> tuple[SuiteRun, ...]:
        """Return the runs of a task, in the order of the systems."""
        return tuple(run for run in self.runs if run.task == task)

    def summaries(self, task: str, protocol: str | None = None) -> list[Summary]:
        """Return the summaries of a task, one per system and scorer.

        Args:
            task: Name of the task in the suite.
            protocol: Scoring protocol, strict or official; the headline's when None.
        """
        selected = protocol or self.protocol
        return [each for run in self.of_task(task) for each in run.summaries if each.protocol == selected]

    @cached_property
    def means(self) -> tuple[MacroMean, ...]:
        """The mean over tasks of each protocol, scorer and system; empty when no scorer has scored two or more tasks.

        A system with an incomplete run has no mean, because a mean over fewer tasks could not be compared with others.
        """
        if len(self.tasks) < 2:
            return ()
        order = sorted(PROTOCOLS, key=lambda protocol: protocol != self.protocol)
        return tuple(mean for protocol in order for mean in self._means(protocol))

    def _means(self, protocol: str) -> Iterator[MacroMean]:
        by_task = [{_measure(each): None for each in self.summaries(task, protocol)} for task in self.tasks]
        for measure in by_task[0]:
            if not all(measure in others for others in by_task):
                continue
            scorer, _, _, dimensions = measure
            for system in self.systems:
                runs = [run for run in self.runs if run.system == system]
                yield self._mean(runs, protocol, scorer, dimensions)

    def _mean(self, runs: list[SuiteRun], protocol: str, scorer: str, dimensions: tuple[str, ...]) -> MacroMean:
        figures: dict[str, Figure] = {}
        missing = []
        for run in runs:
            summary = run.summary(protocol, scorer)
            figures[run.task] = summary.headline if summary else Figure(note="not scored by this scorer")
            if summary and summary.no_result:
                figures[run.task] = _without_result(summary)
            if run.status in COMPLETE and summary and summary.no_result:
                missing.append(f"{run.task} ({summary.no_result})")
            elif run.status not in COMPLETE or figures[run.task].value is None:
                missing.append(f"{run.task} ({run.status.replace('_', ' ')})")
        if missing:
            figure = Figure(note=f"no mean without {', '.join(missing)}")
        else:
            figure = mean_figure(list(figures.values()))
        return MacroMean(runs[0].system, scorer, protocol, dimensions, figure, figures)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per task, system, scorer and protocol: headline, interval, dimensions, coverage and status.

        Missing values are NaN. Costs are in US dollars, times in seconds.
        """
        import pandas as pd

        return pd.DataFrame([row for run in self.runs for row in _rows(run)])

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data, with directories relative to the suite's; equal for equal results."""
        return {
            "format": FORMAT,
            "suite": self.name,
            "protocol": self.protocol,
            "budget": self.budget,
            "spent": self.spent,
            "tasks": list(self.tasks),
            "systems": list(self.systems),
            "runs": [
                {
                    "task": run.task,
                    "system": run.system,
                    "directory": run.path.relative_to(self.path).as_posix(),
                    "status": run.status,
                    "reason": run.reason,
                    "results": list(run.results),
                    "spec": None if run.run is None else run.run.spec.model_dump(mode="json"),
                    "summaries": [each.model_dump(mode="json") for each in run.summaries],
                }
                for run in self.runs
            ],
            "means": [
                {
                    "system": mean.system,
                    "scorer": mean.scorer,
                    "protocol": mean.protocol,
                    "mean": mean.figure.model_dump(mode="json"),
                    "by_task": {task: figure.model_dump(mode="json") for task, figure in mean.by_task.items()},
                }
                for mean in self.means
            ],
        }


def _without_result(summary: Summary) -> Figure:
    """Return the headline of a task without a result: its value, if any, becomes a partial one that enters no mean."""
    head = summary.headline
    partial = head.partial if head.value is None else head.value
    return Figure(partial=partial, n=head.n, note=no_result(summary.no_result))


def _measure(summary: Summary) -> tuple[str, str, str, tuple[str, ...]]:
    """Return what must be equal for the figures of two tasks to be averaged: scorer, version, note and dimensions."""
    return summary.scorer, summary.scorer_version, summary.scorer_note, summary.dimensions


def _rows(run: SuiteRun) -> Iterator[dict[str, Any]]:
    for summary in run.summaries:
        whole = summary.slice()
        yield {
            "task": run.task,
            "system": run.system,
            "scorer": summary.scorer,
            "protocol": summary.protocol,
            "selection": summary.selection,
            "value": summary.headline.value,
            "low": summary.headline.low,
            "high": summary.headline.high,
            "n": summary.headline.n,
            **{dimension: whole.figures[dimension].value for dimension in summary.dimensions},
            "scored": whole.coverage.scored,
            "expected": whole.coverage.expected,
            "no_result": summary.no_result,
            "cost": summary.cost,
            "seconds": summary.seconds,
            "status": run.status,
            "reason": run.reason,
            "directory": str(run.path),
        }
