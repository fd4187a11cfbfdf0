"""How a run of a suite stands: what lies in its directory, and a row for it, be there results or not."""

from __future__ import annotations

from knowgen.core.errors import DataError
from knowgen.core.records import GenerationStatus, ParsedScore, Row, ScoreStatus
from knowgen.core.text import count
from knowgen.stats.aggregate import aggregate
from knowgen.stats.summary import Figure, Summary
from knowgen.store.folder import is_run_directory
from knowgen.store.manifest import difference
from knowgen.store.run import RunStore
from knowgen.suites.plan import SuiteCell
from knowgen.suites.result import STANDS, Status, SuiteRun
from knowgen.workflows import artifacts
from knowgen.workflows.plan import Plan
from knowgen.workflows.run import PROTOCOLS, Run


def standing(store: RunStore) -> tuple[Status, str]:
    """Tells from the rows of a run how it stands, and why."""
    failed: set[tuple[str, int]] = set()
    waiting: set[tuple[str, int]] = set()
    judgements = unjudged = 0
    for scorer in store.spec.scorers:
        for row in store.rows(scorer.name):
            if row.generation is GenerationStatus.NOT_RUN:
                waiting.add((row.sample_id, row.repeat))
            elif row.generation is not GenerationStatus.OK:
                failed.add((row.sample_id, row.repeat))
            else:
                judgements += row.strict.status is ScoreStatus.FAILED
                unjudged += row.strict.status is ScoreStatus.NOT_RUN
    if waiting or unjudged:
        return "incomplete", f"{_both(len(waiting), unjudged)} not run yet"
    if failed or judgements:
        return "failed_samples", f"{_both(len(failed), judgements)} failed"
    return "done", ""


def _both(drawings: int, judgements: int) -> str:
    parts = [count(drawings, "drawing") if drawings else "", count(judgements, "judgement") if judgements else ""]
    return " and ".join(part for part in parts if part)


def finished(plan: Plan, cell: SuiteCell) -> bool:
    """Tells whether a run is done with nothing to try again, its pictures sound and its outputs written.

    Such a run is not opened for writing, so that a suite that is called again leaves it untouched.

    Raises:
        DataError: The directory is damaged.
    """
    if not is_run_directory(cell.path) or not artifacts.complete(cell.path, plan.spec):
        return False
    with RunStore.read(cell.path) as store:
        if store.spec.model_dump(mode="json") != plan.spec.model_dump(mode="json") or standing(store)[0] != "done":
            return False
        return all(each.image is not None and store.image_ok(each.image) for _, each in store.generations())


def there(cell: SuiteCell, plan: Plan, reason: str = "", status: Status | None = None) -> SuiteRun:
    """Returns the row of a run from what lies in its directory.

    Args:
        cell: The run.
        plan: Of the run; says what a run without results lacks.
        reason: Why it is `status`, or why there is nothing.
        status: How it stands; read from the directory when None.
    """
    try:
        if not is_run_directory(cell.path):
            return row_of(cell, plan, status or "not_run", reason)
        with RunStore.read(cell.path) as store:
            held = next(store.samples(), None) is not None and not difference(store.spec, plan.spec)
            found, why = standing(store)
            run, results = Run(cell.path, store.spec, plan.config.protocol), tuple(store.last_numbers())
        if not held:
            return row_of(cell, plan, status or "not_run", reason)
        own = run.summaries()
    except DataError as error:
        return row_of(cell, plan, "failed", reason or str(error))
    status, why = (status, reason) if status is not None else (found, why)
    return _row(cell, status, why, own, run=run, results=results)


def row_of(cell: SuiteCell, plan: Plan, status: Status, reason: str) -> SuiteRun:
    """Returns the row of a run without results: every drawing and judgement counts as not run.

    Args:
        cell: The run.
        plan: Of this run, or of another system's on the same task.
        status: How it stands.
        reason: Why.
    """
    spec = plan.spec
    order = sorted(PROTOCOLS, key=lambda protocol: protocol != plan.config.protocol)
    missing = ParsedScore(status=ScoreStatus.NOT_RUN, reason=reason)
    found = []
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
            for judge_repeat in range(spec.judgements(scorer))
        ]
        found += [
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
    return _row(cell, status, reason, found)


def _row(
    cell: SuiteCell,
    status: Status,
    reason: str,
    summaries: list[Summary] | tuple[Summary, ...],
    *,
    run: Run | None = None,
    results: tuple[int, ...] = (),
) -> SuiteRun:
    """Names the summaries as the suite does, and lets tables say why a run is not what it should be."""
    notes = () if status in STANDS else (f"{status.replace('_', ' ')}: {reason}",)
    named = []
    for one in summaries:
        told = one if status in STANDS or one.slice().coverage.scored else _without_figures(one, reason)
        fit = one.fit_for_board and not notes
        named.append(
            told.model_copy(
                update={"system": cell.system, "notes": (*notes, *one.notes), "fit_for_board": fit},
            )
        )
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
    """Takes the figures out of the summary of a run that came to nothing: the published arithmetic would give 0."""
    slices = tuple(
        part.model_copy(update={"figures": {name: Figure(note=reason) for name in part.figures}})
        for part in summary.slices
    )
    return summary.model_copy(update={"slices": slices})
