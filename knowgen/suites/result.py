"""What a suite came to: one entry a run, figures by task, means over tasks, pandas and JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from knowgen.api import POLICIES, Run
from knowgen.stats.coverage import no_result
from knowgen.stats.summary import Figure, Summary
from knowgen.suites.macro_mean import MacroMean, mean_figure

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["done", "failed_samples", "failed", "budget", "incomplete", "interrupted", "not_run"]
STANDS: frozenset[Status] = frozenset({"done", "failed_samples"})
"""Runs that went to their end, so that their figures may enter a mean."""

FORMAT = 1


@dataclass(frozen=True)
class SuiteRun:
    """One system on one task.

    Attributes:
        task: What the suite calls the task.
        system: What the suite calls the system.
        path: Its run directory.
        status: `done`; `failed_samples`, done but for some that failed; `failed`, the run itself; `budget`, ended by
            the budget; `incomplete`, from an earlier call that did not end; `interrupted`; `not_run`.
        reason: Why, for every status but `done`.
        summaries: A summary per scorer and policy, the headline's first; of a run without results too.
        run: The run directory; None where there are no results.
        selected: Did it take part in this call?
        results: Numbers of the last drawing and the last judgement; each new one raises one.
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

    def summary(self, policy: str, scorer: str | None = None) -> Summary | None:
        """Returns the summary of a policy and scorer (the first when None); None when there is none."""
        found = (one for one in self.summaries if one.protocol == policy and scorer in (None, one.scorer))
        return next(found, None)


@dataclass(frozen=True)
class SuiteResult:
    """What a suite came to.

    Attributes:
        path: The suite's directory.
        name: Of the suite.
        policy: Policy of the headline.
        tasks: What the suite calls its tasks, in order.
        systems: And its systems.
        runs: Every system on every task, task by task; fewer where the suite was interrupted.
        budget: US dollars for the directory, None for no limit.
        spent: US dollars spent in the directory so far, None where a damaged run does not tell.
        pages: Path of the report page by task; where several tasks have one each.
    """

    path: Path
    name: str
    policy: str
    tasks: tuple[str, ...]
    systems: tuple[str, ...]
    runs: tuple[SuiteRun, ...]
    budget: float | None = None
    spent: float | None = 0.0
    pages: dict[str, Path] = field(default_factory=dict)

    @property
    def interrupted(self) -> bool:
        """Was it ended by a signal?"""
        return any(run.status == "interrupted" for run in self.runs)

    @property
    def exit_code(self) -> int:
        """0 done; 5 the budget ended a run; 6 a run or a sample failed; 130 interrupted. Counts runs of this call."""
        states = {run.status for run in self.runs if run.selected}
        if "interrupted" in states:
            return 130
        if "budget" in states:
            return 5
        return 6 if states - {"done"} else 0

    def of_task(self, task: str) -> tuple[SuiteRun, ...]:
        """Returns the runs of a task, in the order of the systems."""
        return tuple(run for run in self.runs if run.task == task)

    def summaries(self, task: str, policy: str | None = None) -> list[Summary]:
        """Returns the summaries of a task, scorer by scorer, as tables take them.

        Args:
            task: What the suite calls it.
            policy: strict or official; the headline's when None.
        """
        wanted = policy or self.policy
        return [one for run in self.of_task(task) for one in run.summaries if one.protocol == wanted]

    @cached_property
    def means(self) -> tuple[MacroMean, ...]:
        """The mean over tasks by policy, scorer and system; empty for one task, or where no scorer judged them all.

        A system whose run of a task did not come to its end has no mean: one over fewer tasks would be another figure.
        """
        if len(self.tasks) < 2:
            return ()
        order = sorted(POLICIES, key=lambda policy: policy != self.policy)
        return tuple(mean for policy in order for mean in self._means(policy))

    def _means(self, policy: str) -> Iterator[MacroMean]:
        by_task = [{_measure(one): None for one in self.summaries(task, policy)} for task in self.tasks]
        for measure in by_task[0]:
            if not all(measure in others for others in by_task):
                continue
            scorer, _, _, dimensions = measure
            for system in self.systems:
                runs = [run for run in self.runs if run.system == system]
                yield self._mean(runs, policy, scorer, dimensions)

    def _mean(self, runs: list[SuiteRun], policy: str, scorer: str, dimensions: tuple[str, ...]) -> MacroMean:
        figures: dict[str, Figure] = {}
        lacking = []
        for run in runs:
            summary = run.summary(policy, scorer)
            figures[run.task] = summary.headline if summary else Figure(note="not judged by this scorer")
            if summary and summary.no_result:
                figures[run.task] = _without_result(summary)
            if run.status in STANDS and summary and summary.no_result:
                lacking.append(f"{run.task} ({summary.no_result})")
            elif run.status not in STANDS or figures[run.task].value is None:
                lacking.append(f"{run.task} ({run.status.replace('_', ' ')})")
        if lacking:
            figure = Figure(note=f"no mean without {', '.join(lacking)}")
        else:
            figure = mean_figure(list(figures.values()))
        return MacroMean(runs[0].system, scorer, policy, dimensions, figure, figures)

    def to_pandas(self) -> pd.DataFrame:
        """Returns one line a task, system, scorer and policy: headline, interval, dimensions (NaN where none), status.

        Costs are in US dollars, times in seconds.
        """
        import pandas as pd

        return pd.DataFrame([line for run in self.runs for line in _lines(run)])

    def to_json(self) -> dict[str, Any]:
        """Returns plain data, the same for the same results; directories are relative to the suite's."""
        return {
            "format": FORMAT,
            "suite": self.name,
            "policy": self.policy,
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
                    "summaries": [one.model_dump(mode="json") for one in run.summaries],
                }
                for run in self.runs
            ],
            "means": [
                {
                    "system": mean.system,
                    "scorer": mean.scorer,
                    "policy": mean.policy,
                    "mean": mean.figure.model_dump(mode="json"),
                    "by_task": {task: figure.model_dump(mode="json") for task, figure in mean.by_task.items()},
                }
                for mean in self.means
            ],
        }


def _without_result(summary: Summary) -> Figure:
    """Return the headline of a task without a result, also of published arithmetic: none of a mean's parts."""
    head = summary.headline
    partial = head.partial if head.value is None else head.value
    return Figure(partial=partial, n=head.n, note=no_result(summary.no_result))


def _measure(summary: Summary) -> tuple[str, str, str, tuple[str, ...]]:
    """What must be alike for figures of two tasks to share a mean."""
    return summary.scorer, summary.scorer_version, summary.scorer_note, summary.dimensions


def _lines(run: SuiteRun) -> Iterator[dict[str, Any]]:
    for one in run.summaries:
        whole = one.slice()
        yield {
            "task": run.task,
            "system": run.system,
            "scorer": one.scorer,
            "policy": one.protocol,
            "value": one.headline.value,
            "low": one.headline.low,
            "high": one.headline.high,
            "n": one.headline.n,
            **{dimension: whole.figures[dimension].value for dimension in one.dimensions},
            "scored": whole.coverage.scored,
            "expected": whole.coverage.expected,
            "no_result": one.no_result,
            "cost": one.cost,
            "seconds": one.seconds,
            "status": run.status,
            "reason": run.reason,
            "directory": str(run.path),
        }
