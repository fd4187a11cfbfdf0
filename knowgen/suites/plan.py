"""From a suite file to runs that are made ready: everything is understood and checked, nothing is drawn or paid."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from knowgen import api, assemble, outputs
from knowgen.core import registry, secrets
from knowgen.core.errors import ConfigError, DataError, KnowgenError, UsageError
from knowgen.dry_run import forecast
from knowgen.engine.components import GeneratorHandle
from knowgen.store.manifest import difference, read_manifest, refuse_secrets
from knowgen.suites.schema import ScorerEntry, SuiteSource, SystemEntry, read_suite
from knowgen.tasks.contract import Task
from knowgen.tasks.load import content_folder, load_task

SHIPPED = "suites"
"""Folder of the suites that come with the package, among the tasks."""


@dataclass(frozen=True)
class SuiteCell:
    """One system on one task.

    Attributes:
        task: What the suite calls the task.
        system: What the suite calls the system.
        path: Its run directory.
        plan: The run made ready; None where that failed and the cell does not take part in this call.
        reason: Why there is no plan.
        selected: Does it take part in this call?
    """

    task: str
    system: str
    path: Path
    plan: api.Plan | None
    reason: str = ""
    selected: bool = True


@dataclass(frozen=True)
class SuitePlan:
    """A suite made ready.

    Attributes:
        source: The file.
        out: The suite's directory.
        tasks: What the suite calls its tasks, in order.
        cells: Every system on every task, task by task.
        budget: US dollars for all runs in the directory together.
    """

    source: SuiteSource
    out: Path
    tasks: tuple[str, ...]
    cells: tuple[SuiteCell, ...]
    budget: float | None

    def model_of(self, task: str) -> api.Plan:
        """Returns a plan for a task, from which a system that has none takes task, selection and scorers."""
        return next(cell.plan for cell in self.cells if cell.task == task and cell.plan is not None)

    def forecast(self) -> str:
        """Says what would be done and what is there already."""
        parts = [forecast(cell.plan, cell.path) for cell in self.cells if cell.selected and cell.plan is not None]
        if self.budget is not None:
            parts.append(f"budget     ${self.budget:g} for all runs in {self.out}")
        return "\n\n".join(parts)


def find_suite(name: Path | str) -> Path:
    """Returns the file of a suite, named by its path or, for one that comes with the package, by its stem.

    Raises:
        UsageError: There is no such file.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = {file.stem: file for file in sorted((content_folder("tasks") / SHIPPED).glob("*.yaml"))}
    if str(name) in shipped:
        return shipped[str(name)]
    near = difflib.get_close_matches(str(name), list(shipped), n=1)
    fix = f"did you mean {near[0]!r}?" if near else f"name a YAML file, or one of {', '.join(shipped) or 'none'}"
    raise UsageError(f"there is no suite file {str(name)!r}", fix=fix)


def prepare(
    name: Path | str, out: Path | None, *, only: Sequence[str] = (), budget: float | None = None, progress: bool = False
) -> SuitePlan:
    """Reads a suite file and makes every run of it ready.

    Args:
        name: The file, or the stem of one that comes with the package.
        out: The suite's directory; `reports/NAME` when None.
        only: Systems that take part in this call; all when empty. The others are planned too, but a fault of theirs
            is kept as the reason why they have no plan.
        budget: In place of the file's.
        progress: Show the progress of runs on stderr.

    Raises:
        UsageError: A name or argument is wrong, with the line it stands on.
        DataError: The file or a task is broken, or two tasks are one.
        ConfigError: A directory holds another run, or an argument looks like a secret.
    """
    secrets.refuse_secrets({"file": name, "out": out, "only": list(only)})
    source = read_suite(find_suite(name))
    selected = _selected(source, only)
    target = out if out is not None else Path("reports") / outputs.slug(source.name)
    if target.exists() and not target.is_dir():
        raise ConfigError("is a file", where=str(target), fix="choose another --out")
    _check_scorers(source)
    tasks = _tasks(source)
    total = source.suite.budget if budget is None else budget
    cells = tuple(
        _cell(
            source, target, number, index, label, task, wanted=system.name in selected, budget=total, progress=progress
        )
        for index, (label, task) in enumerate(tasks.items())
        for number, system in enumerate(source.suite.systems)
    )
    folders = [cell.path.name.lower() for cell in cells]
    if clash := next((cell for cell in cells if folders.count(cell.path.name.lower()) > 1), None):
        raise DataError(f"two runs would lie in {clash.path.name!r}", where=str(source.path), fix="use other names")
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
def _told(place: str) -> Iterator[None]:
    """Says of an error where in the suite file it comes from."""
    try:
        yield
    except KnowgenError as error:
        error.where = f"{place}: {error.where}" if error.where else place
        raise


def _check_scorers(source: SuiteSource) -> None:
    """Finds a wrong scorer by its own line, before it is planned with every system."""
    for index, entry in enumerate(source.suite.scorers):
        with _told(source.where("scorers", index)):
            assemble.scorer_handle(_beside(source.path.parent, entry.scorer, "scorers"), entry.args)


def _tasks(source: SuiteSource) -> dict[str, Task]:
    """Loads every task once.

    Raises:
        DataError: Two have one name, or are one task: a mean over tasks would count it twice.
    """
    found: dict[str, Task] = {}
    folder = source.path.parent
    for index, entry in enumerate(source.suite.tasks):
        place = source.where("tasks", index)
        with _told(place):
            task = load_task(_beside(folder, entry.task, "tasks"))
            version = task.version
            assemble.choose(task, limit=entry.limit, ids=entry.ids)
        label = entry.name or task.name
        if label in found:
            raise DataError(
                f"a second task is called {label!r}", where=place, fix="leave it out, or give it a `name:` of its own"
            )
        for other, earlier in found.items():
            if (earlier.name, earlier.version) == (task.name, version):
                raise DataError(f"is the same task as {other!r}", where=place, fix="name each task once")
        found[label] = task
    return found


def _beside(folder: Path, name: str, kind: registry.Kind) -> str:
    """Reads a path in a name from the folder of the suite file.

    Args:
        folder: Where the suite file lies.
        name: A registered name, `module:Class`, a task's folder, or `file.py:Class`.
        kind: What it names.
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
    wanted: bool,
    budget: float | None,
    progress: bool,
) -> SuiteCell:
    system = source.suite.systems[number]
    path = out / f"{outputs.slug(label)}__{outputs.slug(system.name)}"
    try:
        plan = _planned(source, number, index, task, budget=budget, progress=progress)
        earlier = read_manifest(path)
        if earlier is not None and (differs := difference(earlier.spec, plan.spec)):
            raise ConfigError(
                f"holds another run than {source.where('systems', number)} asks for: {differs}",
                where=str(path),
                fix="choose another --out, or remove that folder",
            )
    except KnowgenError as error:
        if wanted:
            raise
        return SuiteCell(label, system.name, path, None, reason=str(error), selected=False)
    return SuiteCell(label, system.name, path, plan, selected=wanted)


def _planned(
    source: SuiteSource, number: int, index: int, task: Task, *, budget: float | None, progress: bool
) -> api.Plan:
    """Plans one run; each scorer is planned with its own arguments, so that two of one kind may differ in them."""
    suite, folder = source.suite, source.path.parent
    system, entry = suite.systems[number], suite.tasks[index]
    settings = api.Settings(
        policy=suite.policy,
        limit=entry.limit,
        ids=entry.ids,
        seed=suite.seed if system.seed is None else system.seed,
        repeats=suite.repeats,
        judge_repeats=suite.judge_repeats,
        concurrency=suite.concurrency,
        schedule=suite.schedule,
        workers=suite.workers,
        timeout=suite.timeout,
        budget=budget,
        progress=progress,
    )
    generator = _beside(folder, system.generator, "generators")
    wanted = [(_beside(folder, each.scorer, "scorers"), each.args) for each in suite.scorers]
    with _told(source.where("systems", number)):
        plans = [
            api.plan(task, generator, names, generator_args=system.args, scorer_args=args, settings=settings)
            for names, args in [([name], args) for name, args in wanted] or [([], {})]
        ]
    plan = _as_written(plans, system, suite.scorers)
    with _told(str(source.path)):
        refuse_secrets(plan.spec)
    return plan


def _as_written(plans: Sequence[api.Plan], system: SystemEntry, scorers: Sequence[ScorerEntry]) -> api.Plan:
    """Joins the plans of one run, one a scorer, and names things as the file does.

    A path that was read from the file's folder would make another run of it on another machine, or from another
    current folder.
    """
    first = plans[0]
    if not isinstance(first.generator, GeneratorHandle):
        raise TypeError("a suite draws, so its plans hold a generator")
    handles = first.scorers
    if scorers:
        handles = tuple(
            replace(plan.scorers[0], spec=plan.scorers[0].spec.model_copy(update={"name": entry.scorer}))
            for plan, entry in zip(plans, scorers, strict=True)
        )
    drawn_by = first.generator.spec.model_copy(update={"name": system.generator})
    spec = first.spec.model_copy(update={"generator": drawn_by, "scorers": tuple(each.spec for each in handles)})
    return replace(first, spec=spec, generator=replace(first.generator, spec=drawn_by), scorers=handles)
