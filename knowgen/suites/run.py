"""Carries a suite out: every system on every task as a run of its own, one after the other, within one budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from knowgen.core.errors import DataError, KnowgenError
from knowgen.store.folder import is_run_directory
from knowgen.store.images import explain_os_error
from knowgen.store.lock import RunLock
from knowgen.store.run import RunStore
from knowgen.suites import artifacts as written
from knowgen.suites.plan import SuiteCell, SuitePlan, prepare
from knowgen.suites.result import Status, SuiteResult, SuiteRun
from knowgen.suites.status import finished, row_of, there
from knowgen.workflows.execute import execute


def run_suite(
    path: Path | str,
    out: Path | str | None = None,
    *,
    only: Sequence[str] = (),
    budget: float | None = None,
    progress: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> SuiteResult:
    """Runs every system of a suite file on every task, going on from what is there; see `carry_out`.

    Args:
        path: The file, or the stem of one that comes with the package, such as `example`.
        out: The suite's directory; `reports/NAME` when None.
        only: Systems that are run now; all when empty. Tables show the others as they are.
        budget: US dollars for all runs of the directory together, in place of the file's.
        progress: Show the progress of each run on stderr.
        say: Told in a line what is about to be run.

    Raises:
        KnowgenError: The file, a name in it or a directory is wrong; found before anything is drawn or paid.
    """
    target = Path(out) if out is not None else None
    return carry_out(prepare(path, target, only=only, budget=budget, progress=progress), say)


def carry_out(prepared: SuitePlan, say: Callable[[str], None] = lambda line: None) -> SuiteResult:
    """Carries out a suite that was made ready, and writes tables, pages and suite.json.

    A run that fails is a row with its reason, and the next one begins. A finished run is left as it is.

    Raises:
        ConfigError: Another process holds the suite's directory, or it cannot be written.
        DataError: The disk is full.
    """
    suite = prepared.source.suite
    try:
        prepared.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, prepared.out) from error
    with ExitStack() as stack:
        stack.callback(RunLock(prepared.out).release)
        runs: list[SuiteRun] = []
        for number, cell in enumerate(prepared.cells, 1):
            if cell.selected:
                say(f"[{number}/{len(prepared.cells)}] {cell.system} on {cell.task}")
            runs.append(_outcome(prepared, cell))
            if runs[-1].status == "interrupted":
                break
        result = SuiteResult(
            path=prepared.out,
            name=prepared.source.name,
            protocol=suite.config.protocol,
            tasks=prepared.tasks,
            systems=tuple(system.name for system in suite.systems),
            runs=tuple(runs),
            budget=prepared.budget,
            spent=_spent_if_known(prepared.out),
        )
        # whoever presses Ctrl-C waits for nothing more; the next call writes the outputs
        return result if result.interrupted else replace(result, pages=written.write(result))


def spent(out: Path, but: Path | None = None) -> float:
    """Returns US dollars spent in all run directories of a folder, over all their runs.

    Args:
        out: The suite's directory.
        but: A run directory that is not counted.

    Raises:
        DataError: A run directory is damaged, so what was spent in it is not known.
    """
    total = 0.0
    for path in sorted(out.iterdir()):
        if path != but and is_run_directory(path):
            with RunStore.read(path) as store:
                total += store.spent()
    return total


def _spent_if_known(out: Path) -> float | None:
    try:
        return spent(out)
    except DataError:  # the row of that run says so
        return None


def _outcome(prepared: SuitePlan, cell: SuiteCell) -> SuiteRun:
    """Runs a cell, or finds out how it stands where there is nothing to do."""
    model = prepared.model_of(cell.task)
    if cell.plan is None:
        return row_of(cell, model, "not_run", cell.reason)
    if not cell.selected:
        return there(cell, cell.plan, "left out by --only")
    status: Status
    try:
        if finished(cell.plan, cell):
            return there(cell, cell.plan)
        config = cell.plan.config
        if prepared.budget is not None:
            # a run's budget counts all that was ever spent in its directory; what others spent is not there for it
            config = replace(config, budget=max(0.0, prepared.budget - spent(prepared.out, but=cell.path)))
        run = execute(replace(cell.plan, config=config), cell.path)
    except KnowgenError as error:
        status, reason = "failed", str(error)
    except Exception as error:  # noqa: BLE001 - one system's fault must not cost the others their turn
        status, reason = "failed", f"unexpected {type(error).__name__}: {error}"
    else:
        stopped = run.outcome.stopped if run.outcome is not None else ""
        if stopped == "interrupted":
            return row_of(cell, model, "interrupted", "interrupted; what was finished is kept")
        if not stopped:
            return there(cell, cell.plan)
        reason = run.outcome.refusal if run.outcome is not None and stopped == "budget" else stopped
        status = "budget" if stopped == "budget" else "incomplete"
    return there(cell, cell.plan, reason, status)
