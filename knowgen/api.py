"""The Python interface: evaluate a generator, score pictures, load runs, compare them.

Example:
    >>> run = knowgen.evaluate("knowgen_mini", my_function, limit=8)
    >>> print(run.summary.headline.value)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from knowgen import outputs
from knowgen.comparing import agree, compare, panel_rows, panel_summary
from knowgen.core.errors import UsageError
from knowgen.dry_run import forecast
from knowgen.engine.options import EngineOptions
from knowgen.planning import Plan, Settings, plan, plan_scoring
from knowgen.runs import POLICIES, Run, load_run
from knowgen.stats.aggregate import aggregate
from knowgen.store.run import RunStore
from knowgen.tasks.contract import Task
from knowgen.tasks.load import load_task


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
    options = EngineOptions(
        concurrency=settings.concurrency,
        schedule=settings.schedule,
        budget=settings.budget,
        timeout=settings.timeout,
        workers=_workers(plan, path),
        progress=settings.progress,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(plan.release)
        store = stack.enter_context(RunStore.open(path, plan.spec, fresh=settings.fresh))
        if plan.remember is not None:
            plan.remember(store)
        outcome = run_engine(plan.spec, plan.task, plan.generator, plan.scorers, store, options, plan.requests)
    run = Run(path, plan.spec, settings.policy, outcome)
    if outcome.stopped == "interrupted":
        return run  # whoever presses Ctrl-C waits for nothing more; the next call writes the outputs
    if not outcome.all_cached or not outputs.complete(path, plan.spec):
        outputs.write(run.path, run.spec, run.summaries())
        write_report([run], path / "report")
    return run


def _workers(plan: Plan, path: Path) -> int:
    """Returns how many processes draw; a run that is complete is not asked about its GPUs, which takes seconds."""
    from knowgen.engine.components import GeneratorHandle
    from knowgen.engine.placement import workers_for

    if plan.settings.workers is not None:
        return plan.settings.workers
    if not isinstance(plan.generator, GeneratorHandle):
        return 0
    done = not plan.settings.fresh and (path / "run.sqlite").is_file() and outputs.complete(path, plan.spec)
    return 0 if done else workers_for(plan.generator)


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
    "POLICIES",
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
