"""Run a suite: every system on every task, each as one run, one after the other, within one budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from knowgen.core.errors import ConfigError, DataError, KnowgenError
from knowgen.store.files import explain_os_error
from knowgen.store.folder import is_run_directory
from knowgen.store.lock import LOCK_FILE, RunLock
from knowgen.store.run import RunStore
from knowgen.suites import artifacts
from knowgen.suites.plan import SuiteCell, SuitePlan, plan_suite
from knowgen.suites.result import Status, SuiteResult, SuiteRun
from knowgen.suites.status import finished, run_without_results, stored_run
from knowgen.workflows.execute import execute


def run_suite(
    path: Path | str,
    out: Path | str | None = None,
    *,
    only: Sequence[str] = (),
    budget: float | None = None,
    progress: bool = False,
    on_run: Callable[[str], None] = lambda line: None,
) -> SuiteResult:
    """Run every system of a suite file on every task, resuming from stored results; see `execute_suite`.

    Args:
        path: The file, or the stem of one that comes with the package, such as `example`.
        out: The suite's directory; `reports/NAME` when None.
        only: Names of the systems to run now; all when empty. Tables show the stored results of the others.
        budget: Maximum cost in USD of all runs in the directory together; the file's when None.
        progress: Whether to show the progress of each run on stderr.
        on_run: Called with a line, such as `[2/4] open_book on small`, before each run.

    Raises:
        KnowgenError: The file, a name in it or a directory is wrong. Raised before anything is generated or paid.
    """
    target = Path(out) if out is not None else None
    return execute_suite(plan_suite(path, target, only=only, budget=budget, progress=progress), on_run)


def execute_suite(plan: SuitePlan, on_run: Callable[[str], None] = lambda line: None) -> SuiteResult:
    """Run a planned suite, and write tables, pages and suite.json.

    A failed run becomes a row with its reason, and the suite continues with the next run. Finished runs are not
    touched.

    Args:
        plan: The planned suite.
        on_run: Called with a line before each run.

    Raises:
        ConfigError: Another process uses the suite's directory, or it cannot be written.
        DataError: The disk is full.
    """
    suite = plan.source.suite
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(plan.out)
    except OSError as error:
        raise explain_os_error(error, plan.out) from error
    with ExitStack() as stack:
        stack.callback(RunLock(plan.out).release)
        runs: list[SuiteRun] = []
        for number, cell in enumerate(plan.cells, 1):
            if cell.selected:
                on_run(f"[{number}/{len(plan.cells)}] {cell.system} on {cell.task}")
            runs.append(_outcome(plan, cell))
            if runs[-1].status == "interrupted":
                break
        result = SuiteResult(
            path=plan.out,
            name=plan.source.name,
            protocol=suite.config.protocol,
            tasks=plan.tasks,
            systems=tuple(system.name for system in suite.systems),
            runs=tuple(runs),
            budget=plan.budget,
            spent=_spent_if_known(plan.out),
        )
        # after Ctrl-C the user should not wait; the next call writes the outputs
        return result if result.interrupted else replace(result, pages=artifacts.write(result))


def _refuse_foreign(out: Path) -> None:
    """Refuse to write beside files that are not of a suite.

    Raises:
        ConfigError: The folder has content, and neither a suite's record nor a run directory.
    """
    names = sorted(path.name for path in out.iterdir() if path.name != LOCK_FILE and not path.name.startswith("."))
    if names and artifacts.SUITE_FILE not in names and not any(is_run_directory(out / name) for name in names):
        what = f"contains {names[0]!r} and is not the directory of a suite"
        raise ConfigError(what, where=str(out), fix="choose an empty or new folder with --out")


def spent(out: Path, exclude: Path | None = None) -> float:
    """Return the US dollars spent in all run directories of a folder, over all calls.

    Args:
        out: The suite's directory.
        exclude: A run directory that is not counted.

    Raises:
        DataError: A run directory is damaged, so that its cost is unknown.
    """
    total = 0.0
    for path in sorted(out.iterdir()):
        if path != exclude and is_run_directory(path):
            with RunStore.read(path) as store:
                total += store.spent()
    return total


def _spent_if_known(out: Path) -> float | None:
    try:
        return spent(out)
    except DataError:  # the row of the damaged run has the reason
        return None


def _outcome(plan: SuitePlan, cell: SuiteCell) -> SuiteRun:
    """Execute a run unless it is finished or not selected, and return its result."""
    model = plan.model_of(cell.task)
    if cell.plan is None:
        return run_without_results(cell, model, "not_run", cell.reason)
    if not cell.selected:
        return stored_run(cell, cell.plan, "not selected by --only")
    status: Status
    try:
        if finished(cell.plan, cell):
            return stored_run(cell, cell.plan)
        config = cell.plan.config
        if plan.budget is not None:
            # a run's own budget already counts what was spent in its directory, so only the other runs are subtracted
            config = replace(config, budget=max(0.0, plan.budget - spent(plan.out, exclude=cell.path)))
        run = execute(replace(cell.plan, config=config), cell.path)
    except KnowgenError as error:
        status, reason = "failed", str(error)
    except Exception as error:  # noqa: BLE001 - an error in one system must not stop the others
        status, reason = "failed", f"unexpected {type(error).__name__}: {error}"
    else:
        stopped = run.outcome.stopped if run.outcome is not None else ""
        if stopped == "interrupted":
            return run_without_results(cell, model, "interrupted", "interrupted; finished results are saved")
        if not stopped:
            return stored_run(cell, cell.plan)
        reason = run.outcome.stop_reason if run.outcome is not None else ""
        status = "budget" if stopped == "budget" else "incomplete"
    return stored_run(cell, cell.plan, reason, status)
