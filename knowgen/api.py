"""The Python interface: evaluate a generator, score pictures, load runs, compare them.

Example:
    >>> run = knowgen.evaluate("knowgen_mini", my_function, limit=8)
    >>> print(run.summary.headline.value)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowgen import outputs
from knowgen.dry_run import forecast
from knowgen.engine.options import Options, Outcome
from knowgen.errors import UsageError
from knowgen.planning import Plan, Settings, plan, plan_scoring
from knowgen.records import Row
from knowgen.spec import RunSpec
from knowgen.stats.aggregate import aggregate
from knowgen.stats.summary import Summary
from knowgen.store.run import RunStore
from knowgen.tasks.contract import Task
from knowgen.tasks.load import load_task

if TYPE_CHECKING:
    import pandas as pd

    from knowgen.stats.agreement_records import Agreement
    from knowgen.stats.comparison import Comparison

POLICIES = ("strict", "official")


@dataclass
class Run:
    """A run directory and what it says.

    Attributes:
        path: The directory.
        spec: What was run.
        policy: Policy of the headline.
        outcome: What the last call did; None for a run that was only loaded.
    """

    path: Path
    spec: RunSpec
    policy: str = "strict"
    outcome: Outcome | None = None
    _cache: dict[tuple[str, str], Summary] = field(default_factory=dict, repr=False)

    @property
    def summary(self) -> Summary:
        """The headline policy under the first scorer."""
        return self.summarise()

    def summarise(self, policy: str | None = None, scorer: str | None = None) -> Summary:
        """Aggregates the run.

        Args:
            policy: strict or official; the headline's when None.
            scorer: Label of a scorer; the first when None.

        Raises:
            UsageError: The run has no such scorer, or there is no such policy.
        """
        wanted, label = policy or self.policy, self._label(scorer)
        if (wanted, label) not in self._cache:
            self._cache[wanted, label] = outputs.summarise(self.path, self.spec, wanted, label, self.cost)
        return self._cache[wanted, label]

    @cached_property
    def cost(self) -> float | None:
        """US dollars spent in the directory; None where a call was paid at an unknown price."""
        return outputs.cost_of(self.path)

    def summaries(self, policies: Sequence[str] = POLICIES) -> tuple[Summary, ...]:
        """Returns a summary per scorer and policy, the headline's first."""
        order = sorted(policies, key=lambda policy: policy != self.policy)
        return tuple(self.summarise(policy, scorer.name) for scorer in self.spec.scorers for policy in order)

    def rows(self, scorer: str | None = None) -> list[Row]:
        """Returns what the statistics read, one row a generation and judgement."""
        with RunStore.read(self.path) as store:
            return list(store.rows(self._label(scorer)))

    def to_pandas(self) -> pd.DataFrame:
        """Returns one line a sample, repeat, scorer and judge repeat, with values by dimension (NaN where none)."""
        import pandas as pd

        lines = [
            {
                **row.model_dump(mode="json", exclude={"strict", "lenient"}),
                "scorer": scorer.name,
                "score": row.strict.status.value,
                **{dimension: row.strict.values.get(dimension) for dimension in scorer.dimensions},
                "reason": row.strict.reason,
                "rationale": row.strict.rationale,
            }
            for scorer in self.spec.scorers
            for row in self.rows(scorer.name)
        ]
        return pd.DataFrame(lines)

    def report(self, out: Path | str | None = None) -> Path:
        """Writes the page of this run alone and returns its path."""
        return write_report([self], Path(out) if out else self.path / "report")

    def _label(self, scorer: str | None) -> str:
        names = [each.name for each in self.spec.scorers]
        if scorer is None:
            if not names:
                raise UsageError("has not been scored", where=str(self.path), fix="`knowgen score RUN --scorer S`")
            return names[0]
        if scorer not in names:
            known = ", ".join(names)
            raise UsageError(f"no scorer {scorer!r} in this run", where=str(self.path), fix=f"it has {known}")
        return scorer


def execute(plan: Plan, out: Path | str) -> Run:
    """Carries out a plan in a run directory, going on from what is there, and writes summary, tables and page.

    Raises:
        ConfigError: The directory belongs to another run, is held by another process, or cannot be written.
        DataError: The task's data or the directory is damaged, or the disk is full.
    """
    from knowgen.engine import run as run_engine

    path, settings = Path(out), plan.settings
    if settings.fresh and plan.origin is not None and plan.origin.resolve().is_relative_to(path.resolve()):
        raise UsageError("--fresh would erase the pictures that are to be scored", where=str(path), fix="leave it out")
    options = Options(
        concurrency=settings.concurrency,
        schedule=settings.schedule,
        budget=settings.budget,
        timeout=settings.timeout,
        workers=settings.workers,
        progress=settings.progress,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(plan.release)
        store = stack.enter_context(RunStore.open(path, plan.spec, fresh=settings.fresh))
        if plan.remember is not None:
            plan.remember(store)
        outcome = run_engine(plan.spec, plan.task, plan.generator, plan.scorers, store, options)
    run = Run(path, plan.spec, settings.policy, outcome)
    if outcome.stopped == "interrupted":
        return run  # whoever presses Ctrl-C waits for nothing more; the next call writes the outputs
    if not outcome.all_cached or not outputs.complete(path, plan.spec):
        outputs.write(run.path, run.spec, run.summaries())
        write_report([run], path / "report")
    return run


def evaluate(
    task: str | Task,
    generator: str | Callable[..., Any] | object,
    scorers: Sequence[str] | str = (),
    *,
    out: Path | str | None = None,
    generator_args: Mapping[str, Any] | None = None,
    scorer_args: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Run:
    """Draws a task's prompts and scores the pictures.

    Args:
        task: Name or folder of a task, or a task.
        generator: Name, class, object with one of the three methods, or a function `draw(prompt[, references, seed])`.
        scorers: One or more scorer names; the task's own when empty.
        out: Run directory; `reports/TASK__GENERATOR` when None.
        generator_args: Arguments of the generator.
        scorer_args: Arguments of the scorer.
        settings: Fields of `Settings`, such as limit=8, seed=1, repeats=3, budget=5.0.

    Returns:
        The run; `run.summary.headline` is the K-Score with its interval.

    Raises:
        KnowgenError: What is wrong, where, and how to mend it.
    """
    names = (scorers,) if isinstance(scorers, str) else tuple(scorers)
    ready = plan(
        task, generator, names, generator_args=generator_args, scorer_args=scorer_args, settings=Settings(**settings)
    )
    return execute(ready, out if out is not None else default_out(ready.spec.task, ready.spec.generator.name))


def default_out(task: str, system: str) -> Path:
    """Returns `reports/TASK__SYSTEM`, fit for a file name."""
    return Path("reports") / f"{outputs.slug(task)}__{outputs.slug(system)}"


def score(
    source: Path | str, scorers: Sequence[str] | str = (), *, out: Path | str | None = None, **arguments: Any
) -> Run:
    """Scores pictures that exist already; arguments as in `plan_scoring`.

    Args:
        source: A run directory, an official results file, or a folder of pictures (with `task`).
        scorers: One or more scorer names.
        out: Run directory; the source itself when it is a run and this is None.
        arguments: `task`, `scorer_args`, `settings`.
    """
    names = (scorers,) if isinstance(scorers, str) else tuple(scorers)
    ready = plan_scoring(source, names, out=out, **arguments)
    if out is None:
        out = ready.source or default_out(ready.spec.task, ready.spec.generator.name)
    return execute(ready, out)


def load_run(path: Path | str) -> Run:
    """Opens a run directory for reading.

    Raises:
        DataError: It is no run directory, or a damaged one.
    """
    with RunStore.read(Path(path)) as store:
        return Run(Path(path), store.spec)


def compare(
    first: Run,
    second: Run,
    *,
    policy: str = "strict",
    scorer: str | None = None,
    panel: Sequence[str] = (),
    quorum: int | None = None,
) -> Comparison:
    """Compares two runs sample by sample.

    Args:
        first: The baseline.
        second: The other; differences are second minus first.
        policy: Name of a policy, such as strict or official.
        scorer: Whose judgements; the first that both runs share when None.
        panel: Labels of scorers whose judgements are combined, instead of one scorer.
        quorum: Fewest of them that must have judged a drawing; more than half when None.

    Raises:
        UsageError: The runs answer different task versions, or were judged by different scorers.
    """
    from knowgen.stats.compare import check_comparable
    from knowgen.stats.compare import compare as paired

    if panel and scorer:
        raise UsageError("a scorer and a panel exclude each other", fix="name one of them")
    label = None if panel else scorer or _shared_scorer(first, second)
    a, b = (
        panel_summary(run, panel, quorum, policy) if panel else run.summarise(policy, label) for run in (first, second)
    )
    check_comparable(a, b)
    names = outputs.distinct_names([(run.path, run.spec.generator.name) for run in (first, second)])
    rows = [panel_rows(run, panel, quorum) if panel else run.rows(label) for run in (first, second)]
    return paired(
        rows[0],
        rows[1],
        policy,
        dimensions=a.dimensions,
        a_name=names[0],
        b_name=names[1],
        task=a.task,
        task_version=a.task_version,
        scorer=a.scorer,
        scorer_note=a.scorer_note,
    )


def panel_rows(run: Run, members: Sequence[str], quorum: int | None = None) -> list[Row]:
    """Returns the rows of a panel of a run's scorers: `aggregate` reads them like those of one scorer.

    Args:
        run: The run.
        members: Labels of its scorers.
        quorum: Fewest of them that must have judged a drawing; more than half when None.

    Raises:
        UsageError: The run has no such scorer, or the members do not give values for the same dimensions.
    """
    from knowgen.stats.panel import panel_of
    from knowgen.stats.panel import panel_rows as combined

    panel = panel_of(members, quorum)
    rows = {member: run.rows(member) for member in panel.members}
    return combined(panel, rows, _panel_dimensions(run, panel.members))


def panel_summary(run: Run, members: Sequence[str], quorum: int | None = None, policy: str | None = None) -> Summary:
    """Aggregates a run as a panel of its scorers judged it; arguments as in `panel_rows`."""
    from knowgen.spec import fingerprint
    from knowgen.stats.panel import panel_of

    panel, known = panel_of(members, quorum), {each.name: each for each in run.spec.scorers}
    rows = panel_rows(run, members, quorum)
    versions = [known[member].version for member in panel.members]
    return aggregate(
        rows,
        policy or run.policy,
        dimensions=_panel_dimensions(run, panel.members),
        system=run.spec.generator.name,
        task=run.spec.task,
        task_version=run.spec.task_version,
        scorer=panel.label,
        scorer_version=fingerprint(versions)[:12],
        scorer_note="lower median of the members",
        selection=run.spec.selection.label,
    )


def _panel_dimensions(run: Run, members: Sequence[str]) -> tuple[str, ...]:
    known = {each.name: tuple(each.dimensions) for each in run.spec.scorers}
    found = {member: known[member] for member in members}
    first = found[members[0]]
    for member, dimensions in found.items():
        if set(dimensions) != set(first):
            raise UsageError(
                f"{members[0]} gives {', '.join(first)}, {member} {', '.join(dimensions)}",
                where="panel",
                fix="name scorers of the same dimensions",
            )
    return first


def agree(
    runs: Sequence[Run],
    *,
    labels: Path | str | None = None,
    panel: Sequence[str] = (),
    quorum: int | None = None,
    policy: str = "strict",
) -> Agreement:
    """Says how far the scorers of one or more runs agree, with each other and with people.

    Args:
        runs: Of one task version; scorers that all of them have take part.
        labels: A CSV file of what people said, as in `knowgen.stats.labels`.
        panel: Labels of scorers whose panel takes part as one more rater.
        quorum: Of the panel.
        policy: Says which reading of a judgement counts, and how systems are ranked.

    Raises:
        UsageError: The runs differ in task, or there are fewer than two raters.
        DataError: The labels are broken, or rate what the runs do not have.
    """
    from knowgen.stats.agree import System, agreement
    from knowgen.stats.panel import panel_of

    if not runs:
        raise UsageError("no run to look at", fix="name one or more run directories")
    names = outputs.distinct_names([(run.path, run.spec.generator.name) for run in runs])
    shared = [each for each in runs[0].spec.scorers if all(_has(run, each.name) for run in runs)]
    dimensions = {each.name: tuple(each.dimensions) for each in shared}
    sat = panel_of(panel, quorum).label if panel else ""
    if panel:
        dimensions[sat] = _panel_dimensions(runs[0], [runs[0]._label(member) for member in panel])
    systems = [
        System(
            name,
            run.spec.task,
            run.spec.task_version,
            {each: panel_rows(run, panel, quorum) if each == sat else run.rows(each) for each in dimensions},
        )
        for name, run in zip(names, runs, strict=True)
    ]
    return agreement(systems, dimensions, labels=Path(labels) if labels else None, policy=policy)


def _has(run: Run, scorer: str) -> bool:
    return scorer in {each.name for each in run.spec.scorers}


def _shared_scorer(first: Run, second: Run) -> str:
    ours, theirs = ([scorer.name for scorer in run.spec.scorers] for run in (first, second))
    shared = next((name for name in ours if name in theirs), None)
    if shared is None:
        raise UsageError(
            f"no scorer has judged both runs: {', '.join(ours) or 'none'} there, {', '.join(theirs) or 'none'} here",
            where=f"{first.path} and {second.path}",
            fix="score one of them anew with `knowgen score RUN --scorer S`",
        )
    return shared


def write_report(runs: Sequence[Run], out: Path) -> Path:
    """Writes one page of several runs and returns the path of its `index.html`.

    Raises:
        UsageError: No run was given, or a run has not been scored.
        ConfigError: The folder holds something that is no report.
    """
    from knowgen.report.html import ReportRun
    from knowgen.report.html import write_report as write_page

    if not runs:
        raise UsageError("no run to report on", fix="name one or more run directories")
    names = outputs.distinct_names([(run.path, run.spec.generator.name) for run in runs])
    with contextlib.ExitStack() as stack:
        pages = [
            ReportRun(
                store=stack.enter_context(RunStore.read(run.path)),
                summaries=tuple(each.model_copy(update={"system": name}) for each in run.summaries()),
            )
            for run, name in zip(runs, names, strict=True)
        ]
        return write_page(pages, out)


def export(run: Run, form: str, out: Path, *, scorer: str | None = None) -> int:
    """Writes a run's results for other tools.

    Args:
        run: The run.
        form: official, jsonl, parquet or csv.
        out: The file.
        scorer: Whose judgements; the first scorer when None.

    Returns:
        The number of rows written.
    """
    label = run.summarise(scorer=scorer).scorer
    with RunStore.read(run.path) as store:
        return outputs.export(store, form, out, label)


__all__ = [
    "Plan",
    "Run",
    "Settings",
    "aggregate",
    "agree",
    "compare",
    "evaluate",
    "execute",
    "export",
    "forecast",
    "load_run",
    "load_task",
    "panel_rows",
    "panel_summary",
    "plan",
    "plan_scoring",
    "score",
    "write_report",
]
