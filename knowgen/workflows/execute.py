"""Execute a plan in a run directory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from knowgen.core.errors import UsageError
from knowgen.core.spec import AgentSpec, GeneratorSpec, RunSpec
from knowgen.core.steps import showing_steps, step
from knowgen.engine.options import EngineOptions, RunOutcome
from knowgen.stats.protocol import get_protocol
from knowgen.store.run import RunStore
from knowgen.tracking.session import Tracking, open_tracking
from knowgen.workflows import artifacts
from knowgen.workflows.cluster import cluster_of
from knowgen.workflows.plan import Plan
from knowgen.workflows.run import Run
from knowgen.workflows.tracked_run import TrackedProgress, ending_of, log_results, tracked_run


def execute(plan: Plan, out: Path | str, before_calls: Callable[[], None] = lambda: None) -> Run:
    """Execute a plan, resuming from stored results, and write summary, tables and page.

    Args:
        plan: The planned run.
        out: The run directory.
        before_calls: Called once, when everything has been checked and before the first call; not where there is
            nothing to do.

    Raises:
        UsageError: `fresh` would delete the images to be scored.
        MissingDependencyError: The library of a tracker is not installed.
        ConfigError: The directory belongs to another run, is locked by another process, or cannot be written, or a
            tracker is not set up.
        DataError: The task's data or the directory is damaged, or the disk is full.
    """
    path, config = Path(out).absolute(), plan.config
    if config.fresh and plan.origin is not None and plan.origin.resolve().is_relative_to(path.resolve()):
        raise UsageError("--fresh would delete the images to be scored", where=str(path), fix="remove --fresh")
    with contextlib.ExitStack() as stack:
        release = stack.enter_context(contextlib.ExitStack())
        release.callback(plan.release)
        tracking = stack.enter_context(open_tracking(config.log))  # a missing login is an error before anything begins
        outcome = _carried_out(plan, path, before_calls, tracking)
        release.close()
        run = Run(path, plan.spec, config.protocol, outcome)
        # after Ctrl-C the user should not wait; the next call writes the outputs
        interrupted = outcome.stopped == "interrupted"
        complete = outcome.all_cached and artifacts.complete(path, plan.spec)
        if plan.scorers and not interrupted and not complete:
            with showing_steps(config.progress), step("writing the report"):
                run.write_outputs()
        if not interrupted:
            log_results(tracking, run)
        tracking.close(ending_of(outcome))
    shown = Path(out) if Path(out).absolute() == path else path  # a plugin may have changed the current folder
    return Run(shown, plan.spec, config.protocol, outcome)


def _carried_out(plan: Plan, path: Path, before_calls: Callable[[], None], tracking: Tracking) -> RunOutcome:
    """Run the engine in the run directory, and send its progress to trackers."""
    from knowgen.engine import run as run_engine

    config = plan.config
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(cluster_of(plan))
        options = EngineOptions.of(
            config,
            gpus=0 if cluster is not None else _gpus(plan, path),
            reading=get_protocol(config.protocol).reading,
            cluster=cluster,
        )
        store = stack.enter_context(RunStore.open(path, plan.spec, fresh=config.fresh))
        if plan.remember is not None:
            plan.remember(store)
        tracking.start(tracked_run(plan.spec, path, config.protocol))
        return run_engine(
            plan.spec,
            plan.task,
            plan.generator,
            plan.scorers,
            store,
            options,
            plan.requests,
            before_calls,
            agent=plan.agent,
            answers=plan.answers,
            progress=TrackedProgress(config.progress, tracking) if tracking else None,
        )


def _gpus(plan: Plan, path: Path) -> int:
    """Return the number of GPUs for the generator; detecting them takes seconds, so a complete run skips it."""
    from knowgen.engine.components import GeneratorHandle
    from knowgen.engine.placement import gpus_for

    if plan.config.workers is not None or not isinstance(plan.generator, GeneratorHandle):
        return 0
    done = not plan.config.fresh and (path / "run.sqlite").is_file() and artifacts.complete(path, plan.spec)
    return 0 if done else gpus_for(plan.generator)


def default_out(spec: RunSpec) -> Path:
    """Return the default run directory: one per task and system, where other arguments are another system.

    Example:
        >>> from knowgen.core.spec import GeneratorSpec, Selection
        >>> duck = GeneratorSpec(name="models/duck.py:Duck", args={"style": "ink"})
        >>> spec = RunSpec(task="knowgen_mini", task_version="1", selection=Selection(n=48), generator=duck)
        >>> default_out(spec).as_posix()
        'reports/knowgen_mini__duck.py-Duck-style-ink'
        >>> default_out(spec.model_copy(update={"name": "Ink duck"})).as_posix()
        'reports/knowgen_mini__Ink-duck'
    """
    parts = [each for each in (spec.agent, spec.generator) if each is not None]
    name = artifacts.slug(spec.name) if spec.name else "-".join(map(_directory_name, parts))
    return Path("reports") / f"{artifacts.slug(spec.task)}__{name}"


def _directory_name(part: AgentSpec | GeneratorSpec) -> str:
    """Return the name of an agent or generator with its arguments, as part of a directory's name."""
    arguments = artifacts.slug(part.label.removeprefix(part.name).replace("/", "-"))
    return artifacts.slug(part.name) + (f"-{arguments}" if part.label != part.name else "")
