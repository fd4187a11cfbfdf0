"""Plan the runs of a suite file: everything is checked before anything is generated or paid."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from knowgen.core import registry, secrets
from knowgen.core.errors import ConfigError, DataError, KnowgenError, UsageError
from knowgen.engine.components import GeneratorHandle
from knowgen.store.manifest import read_manifest, refuse_spec_secrets, spec_difference
from knowgen.suites.schema import ScorerEntry, SuiteSource, SystemEntry, read_suite
from knowgen.tasks.contract import Task
from knowgen.tasks.load import content_folder
from knowgen.workflows import artifacts
from knowgen.workflows.described import open_task
from knowgen.workflows.forecast import forecast
from knowgen.workflows.plan import Plan
from knowgen.workflows.plan import plan as plan_run
from knowgen.workflows.plugin_process import remembered_answers
from knowgen.workflows.resolve import ScorerRequest, resolve_scorer
from knowgen.workflows.selection import select_samples

SHIPPED = "suites"
"""Folder of the suites that come with the package, among the tasks."""


@dataclass(frozen=True)
class SuiteCell:
    """One system on one task.

    Attributes:
        task: Name of the task in the suite.
        system: Name of the system in the suite.
        path: Its run directory.
        plan: The planned run; None when planning failed and the cell is not selected.
        reason: Why planning failed.
        selected: Whether this call runs it.
    """

    task: str
    system: str
    path: Path
    plan: Plan | None
    reason: str = ""
    selected: bool = True


@dataclass(frozen=True)
class SuitePlan:
    """A planned suite.

    Attributes:
        source: The file.
        out: The suite's directory.
        tasks: Names of the tasks, in order.
        cells: Every system on every task, ordered by task.
        budget: Maximum cost in USD of all runs in the directory together.
    """

    source: SuiteSource
    out: Path
    tasks: tuple[str, ...]
    cells: tuple[SuiteCell, ...]
    budget: float | None

    def model_of(self, task: str) -> Plan:
        """Return the plan of any system for a task; a system without a plan is reported by its task and scorers."""
        return next(cell.plan for cell in self.cells if cell.task == task and cell.plan is not None)

    def forecast(self) -> str:
        """Return the planned work and the stored results as text."""
        parts = [forecast(cell.plan, cell.path) for cell in self.cells if cell.selected and cell.plan is not None]
        if self.budget is not None:
            parts.append(f"budget     ${self.budget:g} for all runs in {self.out}")
        return "\n\n".join(parts)


def find_suite(name: Path | str) -> Path:
    """Return the file of a suite, named by its path or, for one that comes with the package, by its stem.

    Raises:
        UsageError: The file does not exist.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = {file.stem: file for file in sorted((content_folder("tasks") / SHIPPED).glob("*.yaml"))}
    if str(name) in shipped:
        return shipped[str(name)]
    near = difflib.get_close_matches(str(name), list(shipped), n=1)
    fix = f"did you mean {near[0]!r}?" if near else f"name a YAML file, or one of {', '.join(shipped) or 'none'}"
    raise UsageError(f"unknown suite {str(name)!r}", fix=fix)


def plan_suite(
    name: Path | str, out: Path | None, *, only: Sequence[str] = (), budget: float | None = None, progress: bool = False
) -> SuitePlan:
    """Read a suite file and plan every run of it.

    Args:
        name: The file, or the stem of one that comes with the package.
        out: The suite's directory; `reports/NAME` when None.
        only: Names of the systems to run in this call; all when empty. The others are planned too, but an error in one
            of them is only recorded as the reason why it has no plan.
        budget: Maximum cost in USD; the file's when None.
        progress: Whether to show the progress of runs on stderr.

    Raises:
        UsageError: A name or argument is wrong; the message names its line.
        DataError: The file or a task is broken, or a task is listed twice.
        ConfigError: A directory contains another run, or an argument looks like a secret.
    """
    secrets.refuse_secrets({"file": name, "out": out, "only": list(only)})
    source = read_suite(find_suite(name))
    selected = _selected(source, only)
    target = out if out is not None else Path("reports") / artifacts.slug(source.name)
    if target.exists() and not target.is_dir():
        raise ConfigError("is a file", where=str(target), fix="choose another --out")
    total = source.suite.config.budget if budget is None else budget
    with remembered_answers():
        _check_scorers(source)
        tasks = _tasks(source)
        cells = tuple(
            _cell(
                source,
                target,
                number,
                index,
                label,
                task,
                selected=system.name in selected,
                budget=total,
                progress=progress,
            )
            for index, (label, task) in enumerate(tasks.items())
            for number, system in enumerate(source.suite.systems)
        )
    folders = [cell.path.name.lower() for cell in cells]
    if clash := next((cell for cell in cells if folders.count(cell.path.name.lower()) > 1), None):
        raise DataError(
            f"two runs would use the directory {clash.path.name!r}",
            where=str(source.path),
            fix="rename one of the systems or tasks with `name:`",
        )
    return SuitePlan(source, target, tuple(tasks), cells, total)


def _selected(source: SuiteSource, only: Sequence[str]) -> set[str]:
    names = [system.name for system in source.suite.systems]
    for name in only:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            fix = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
            raise UsageError(f"no system {name!r} in this suite", where=str(source.path), fix=fix)
    return set(only) or set(names)


@contextmanager
def _located(place: str) -> Iterator[None]:
    """Add to an error the place in the suite file that it comes from."""
    try:
        yield
    except KnowgenError as error:
        error.where = f"{place}: {error.where}" if error.where else place
        raise


def _check_scorers(source: SuiteSource) -> None:
    """Report a wrong scorer with its own line, before it is planned with every system."""
    for index, entry in enumerate(source.suite.scorers):
        with _located(source.where("scorers", index)):
            resolve_scorer(
                _beside(source.path.parent, entry.scorer, "scorers"),
                entry.args,
                in_worker=source.suite.config.workers != 0,
            )


def _tasks(source: SuiteSource) -> dict[str, Task]:
    """Load every task once.

    Raises:
        DataError: Two tasks have the same name, or are the same task, which a mean over tasks would count twice.
    """
    tasks: dict[str, Task] = {}
    folder = source.path.parent
    for index, entry in enumerate(source.suite.tasks):
        place = source.where("tasks", index)
        with _located(place):
            task = open_task(_beside(folder, entry.task, "tasks"), in_worker=source.suite.config.workers != 0)
            version = task.version
            select_samples(task, limit=entry.limit, ids=entry.ids)
        label = entry.name or task.name
        if label in tasks:
            raise DataError(
                f"duplicate task name {label!r}", where=place, fix="remove it, or give it another name with `name:`"
            )
        for other, earlier in tasks.items():
            if (earlier.name, earlier.version) == (task.name, version):
                raise DataError(f"is the same task as {other!r}", where=place, fix="list each task once")
        tasks[label] = task
    return tasks


def _beside(folder: Path, name: str, kind: registry.Kind) -> str:
    """Read a path in a name relative to the folder of the suite file.

    Args:
        folder: Folder of the suite file.
        name: A registered name, `module:Class`, a task's folder, or `file.py:Class`.
        kind: Kind of the plugin.
    """
    base, colon, rest = name.partition(":")
    if base in registry.entries(kind):
        return name
    if kind == "tasks" and not colon and ("/" in name or name.startswith(".") or (folder / name).exists()):
        return str(folder / name)
    if base.endswith(".py"):
        return f"{folder / base}{colon}{rest}"
    return name


def _cell(
    source: SuiteSource,
    out: Path,
    number: int,
    index: int,
    label: str,
    task: Task,
    *,
    selected: bool,
    budget: float | None,
    progress: bool,
) -> SuiteCell:
    system = source.suite.systems[number]
    path = out / f"{artifacts.slug(label)}__{artifacts.slug(system.name)}"
    try:
        plan = _planned(source, number, index, task, budget=budget, progress=progress)
        earlier = read_manifest(path)
        if earlier is not None and (differs := spec_difference(earlier.spec, plan.spec)):
            raise ConfigError(
                f"contains another run than {source.where('systems', number)} describes: {differs}",
                where=str(path),
                fix="choose another --out, or remove that folder",
            )
    except KnowgenError as error:
        if selected:
            raise
        return SuiteCell(label, system.name, path, None, reason=str(error), selected=False)
    return SuiteCell(label, system.name, path, plan, selected=selected)


def _planned(source: SuiteSource, number: int, index: int, task: Task, *, budget: float | None, progress: bool) -> Plan:
    """Plan one run."""
    suite, folder = source.suite, source.path.parent
    system, entry = suite.systems[number], suite.tasks[index]
    config = replace(
        suite.config,
        limit=entry.limit,
        ids=entry.ids,
        seed=suite.config.seed if system.seed is None else system.seed,
        generator_args=_arguments_beside(folder, system),
        budget=budget,
        progress=progress,
    )
    scorers = [ScorerRequest(_beside(folder, each.scorer, "scorers"), each.args) for each in suite.scorers]
    with _located(source.where("systems", number)):
        plan = plan_run(task, _beside(folder, system.generator, "generators"), scorers, config)
    plan = _as_written(plan, system, suite.scorers)
    with _located(str(source.path)):
        refuse_spec_secrets(plan.spec)
    return plan


def _as_written(plan: Plan, system: SystemEntry, scorers: Sequence[ScorerEntry]) -> Plan:
    """Record the names of generator and scorers as the file has them.

    Paths are resolved relative to the file's folder. Recording resolved paths would make the run depend on the machine
    and the current folder.
    """
    if not isinstance(plan.generator, GeneratorHandle):
        raise TypeError("a suite generates images, so its plans have a generator")
    handles = plan.scorers
    if scorers:
        handles = tuple(
            replace(handle, spec=handle.spec.model_copy(update={"name": entry.scorer}))
            for handle, entry in zip(plan.scorers, scorers, strict=True)
        )
    agent = plan.agent
    written = str(system.args.get("painter") or plan.generator.spec.name) if agent is not None else system.generator
    generator = plan.generator.spec.model_copy(update={"name": written})
    if agent is not None:
        parts = {
            role: part.model_copy(update={"name": system.args[role]}) if _is_file(system.args.get(role)) else part
            for role, part in agent.spec.parts.items()
        }
        named = agent.spec.model_copy(update={"name": system.generator, "parts": parts})
        agent = replace(agent, spec=named)
    updates = {
        "generator": generator,
        "scorers": tuple(each.spec for each in handles),
        "agent": None if agent is None else agent.spec,
    }
    return replace(
        plan,
        spec=plan.spec.model_copy(update=updates),
        generator=replace(plan.generator, spec=generator),
        scorers=handles,
        agent=agent,
    )


def _arguments_beside(folder: Path, system: SystemEntry) -> dict[str, Any]:
    """Return the arguments of a system, with files of an agent's parts relative to the folder of the suite file."""
    named: dict[str, registry.Kind] = {"painter": "generators", "policy": "policies"}
    return {
        name: _beside(folder, value, named[name]) if name in named and _is_file(value) else value
        for name, value in system.args.items()
    }


def _is_file(value: Any) -> bool:
    """Return whether an argument names a plugin as `file.py:Class`."""
    return isinstance(value, str) and value.partition(":")[0].endswith(".py")
