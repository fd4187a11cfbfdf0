"""The status of a run of a suite, and its entry in the result, with or without stored results."""

from __future__ import annotations

from knowgen.core.errors import DataError
from knowgen.core.records import GenerationStatus, ParsedScore, Row, ScoreStatus
from knowgen.core.text import count
from knowgen.stats.aggregate import aggregate
from knowgen.stats.summary import Figure, Summary
from knowgen.store.folder import is_run_directory
from knowgen.store.manifest import spec_difference
from knowgen.store.run import RunStore
from knowgen.suites.plan import SuiteCell
from knowgen.suites.result import COMPLETE, Status, SuiteRun
from knowgen.workflows import artifacts
from knowgen.workflows.plan import Plan
from knowgen.workflows.run import PROTOCOLS, Run


def status_of(store: RunStore) -> tuple[Status, str]:
    """Return the status of a run and its reason, from its rows."""
    failed: set[tuple[str, int]] = set()
    missing: set[tuple[str, int]] = set()
    failed_scores = missing_scores = 0
    for scorer in store.spec.scorers:
        for row in store.rows(scorer.name):
            if row.generation is GenerationStatus.NOT_RUN:
                missing.add((row.sample_id, row.repeat))
            elif row.generation is not GenerationStatus.OK:
                failed.add((row.sample_id, row.repeat))
            else:
                failed_scores += row.strict.status is ScoreStatus.FAILED
                missing_scores += row.strict.status is ScoreStatus.NOT_RUN
    if missing or missing_scores:
        return "incomplete", f"{_both(len(missing), missing_scores)} not run yet"
    if failed or failed_scores:
        return "failed_samples", f"{_both(len(failed), failed_scores)} failed"
    return "done", ""


def _both(generations: int, scores: int) -> str:
    parts = [count(generations, "generation") if generations else "", count(scores, "score") if scores else ""]
    return " and ".join(part for part in parts if part)


def finished(plan: Plan, cell: SuiteCell) -> bool:
    """Return whether a run is done, its image files are intact and its outputs are written.

    Such a run is not opened for writing, so that calling the suite again does not touch its files.

    Raises:
        DataError: The directory is damaged.
    """
    if not is_run_directory(cell.path) or not artifacts.complete(cell.path, plan.spec):
        return False
    with RunStore.read(cell.path) as store:
        if store.spec.model_dump(mode="json") != plan.spec.model_dump(mode="json") or status_of(store)[0] != "done":
            return False
        return all(each.image is not None and store.image_ok(each.image) for _, each in store.generations())


def stored_run(cell: SuiteCell, plan: Plan, reason: str = "", status: Status | None = None) -> SuiteRun:
    """Return a run with the results in its directory.

    Args:
        cell: The system and task.
        plan: Plan of the run; defines what is missing when there are no results.
        reason: Reason for `status`, or for the lack of results.
        status: Status of the run; read from its rows when None.
    """
    try:
        if not is_run_directory(cell.path):
            return run_without_results(cell, plan, status or "not_run", reason)
        with RunStore.read(cell.path) as store:
            has_results = next(store.samples(), None) is not None and not spec_difference(store.spec, plan.spec)
            stored_status, stored_reason = status_of(store)
            run, results = Run(cell.path, store.spec, plan.config.protocol), tuple(store.last_numbers())
        if not has_results:
            return run_without_results(cell, plan, status or "not_run", reason)
        summaries = run.summaries()
    except DataError as error:
        return run_without_results(cell, plan, "failed", reason or str(error))
    if status is None:
        status, reason = stored_status, stored_reason
    return _suite_run(cell, status, reason, summaries, run=run, results=results)


def run_without_results(cell: SuiteCell, plan: Plan, status: Status, reason: str) -> SuiteRun:
    """Return a run without results: every generation and score counts as not run.

    Args:
        cell: The system and task.
        plan: Plan of this run, or of another system on the same task.
        status: Status of the run.
        reason: Reason for the status.
    """
    spec = plan.spec
    order = sorted(PROTOCOLS, key=lambda protocol: protocol != plan.config.protocol)
    missing = ParsedScore(status=ScoreStatus.NOT_RUN, reason=reason)
    summaries = []
    for scorer in spec.scorers:
        rows = [
            Row(
                sample_id=sample.id,
                category=sample.category,
                group=sample.group,
                difficulty=sample.difficulty,
                text_required=sample.text_required,
                repeat=repeat,
                judge_repeat=judge_repeat,
                generation=GenerationStatus.NOT_RUN,
                generation_reason=reason,
                strict=missing,
            )
            for sample in plan.task.samples()
            for repeat in range(spec.repeats)
            for judge_repeat in range(spec.judge_repeats_of(scorer))
        ]
        summaries += [
            aggregate(
                rows,
                protocol,
                dimensions=scorer.dimensions,
                task=spec.task,
                task_version=spec.task_version,
                scorer=scorer.name,
                scorer_version=scorer.version,
                scorer_note=scorer.note,
                selection=spec.selection.label,
            )
            for protocol in order
        ]
    return _suite_run(cell, status, reason, summaries)


def _suite_run(
    cell: SuiteCell,
    status: Status,
    reason: str,
    summaries: list[Summary] | tuple[Summary, ...],
    *,
    run: Run | None = None,
    results: tuple[int, ...] = (),
) -> SuiteRun:
    """Return a run whose summaries have the suite's name of the system and a note on an incomplete status."""
    notes = () if status in COMPLETE else (f"{status.replace('_', ' ')}: {reason}",)
    named = []
    for each in summaries:
        has_figures = status in COMPLETE or each.slice().coverage.scored
        update = {
            "system": cell.system,
            "notes": (*notes, *each.notes),
            "fit_for_board": each.fit_for_board and not notes,
        }
        named.append((each if has_figures else _without_figures(each, reason)).model_copy(update=update))
    return SuiteRun(
        task=cell.task,
        system=cell.system,
        path=cell.path,
        status=status,
        reason=reason,
        summaries=tuple(named),
        run=run,
        selected=cell.selected,
        results=results,
    )


def _without_figures(summary: Summary, reason: str) -> Summary:
    """Return a summary without figures, for a run without results, where the official arithmetic would give 0."""
    slices = tuple(
        part.model_copy(update={"figures": {name: Figure(note=reason) for name in part.figures}})
        for part in summary.slices
    )
    return summary.model_copy(update={"slices": slices})
