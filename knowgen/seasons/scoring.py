"""Score what was sent to a private season, and add it to the board without anything that shows a ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.errors import UsageError
from knowgen.core.run_config import RunConfig
from knowgen.core.spec import GeneratorSpec, RunSpec, fingerprint
from knowgen.core.text import one_line
from knowgen.core.yaml_files import read_yaml
from knowgen.core.yaml_schema import yaml_record
from knowgen.leaderboards.changed_results import changed_generations, without_answers
from knowgen.leaderboards.eligibility import system_reasons
from knowgen.leaderboards.folder import Board, read_board
from knowgen.leaderboards.records import SubmissionResult, SubmittedCost, SubmittedGeneration, SystemFile
from knowgen.leaderboards.season import require_open, season_of
from knowgen.leaderboards.submission import machine_words
from knowgen.leaderboards.template import slug_of
from knowgen.seasons.publish import RUNS, private_secret, runs_of, season_task
from knowgen.stats.summary import Summary
from knowgen.store.folder import is_run_directory
from knowgen.store.run import UNPRICED_NOTE, RunStore
from knowgen.tasks.folder import FolderTask
from knowgen.workflows import artifacts
from knowgen.workflows.board_submission import add_submission
from knowgen.workflows.execute import execute
from knowgen.workflows.plan import Plan, plan_scoring
from knowgen.workflows.run import Run


@dataclass(frozen=True)
class ScoredSubmission:
    """What was sent, and what became of it.

    Attributes:
        run: The run directory of its scores in the private folder, with ground truths; None if nothing was scored.
        path: Folder of the submission on the board; None if scoring was interrupted, or it is not eligible.
        reasons: Why it is not eligible, one line each.
    """

    run: Run | None = None
    path: Path | None = None
    reasons: tuple[str, ...] = ()


def score(
    source: Path,
    board_path: Path,
    private: Path,
    system_path: Path,
    *,
    pattern: str | None = None,
    config: RunConfig | None = None,
) -> ScoredSubmission:
    """Score the images of a system, and write its submission. A call that was interrupted goes on where it stopped.

    Args:
        source: A run directory of the season's public task, or a folder of images named by sample id.
        board_path: Folder of the board.
        private: Private folder of the season.
        system_path: The submitter's `system.yaml`.
        pattern: Pattern of the file names in a folder of images.
        config: How the scoring is executed.

    Raises:
        UsageError: The season is closed, the revision is there already or one too many, or the run was given ground
            truths.
        DataError: A file is missing or not valid, or the secret is not that of the season.
        ConfigError: A folder cannot be written.
    """
    board = read_board(board_path)
    require_open(board)
    system = yaml_record(SystemFile, read_yaml(system_path))
    slug = slug_of(system.name)
    if not slug:
        what = f"name {one_line(system.name, 80)!r} has no letter or digit from which a folder could be named"
        raise UsageError(what, where=str(system_path), fix="add one of a to z or 0 to 9")
    _require_new(board, slug, system.revision)
    task = season_task(private, season_of(board), private_secret(private, board))
    plan = _plan(source, board, task, {**vars(config or RunConfig()), "out": private / RUNS, "pattern": pattern})
    if reasons := system_reasons(system, stated_spec(plan.spec, source, system)):
        plan.release()
        return ScoredSubmission(reasons=tuple(reasons))
    out = runs_of(private, slug, system.revision) / fingerprint(plan.spec.directory_identity())[:12]
    run = execute(plan, out)
    if run.outcome is not None and run.outcome.stopped:
        return ScoredSubmission(run)
    added = add_submission(
        run.path,
        board,
        system_path,
        season_form=lambda result: without_answers(with_source(result, source, system)),
    )
    return ScoredSubmission(run, added.path, added.reasons)


def _require_new(board: Board, slug: str, revision: str) -> None:
    """Raise `UsageError` if a revision is on the board, or the system has as many as the season allows."""
    season, where = season_of(board), str(board.path)
    known = [each.revision for each in board.submissions() if each.slug == slug]
    if revision in known:
        fix = "give the new revision another name in system.yaml"
        raise UsageError(f"{slug}/{revision} is on the board already", where=where, fix=fix)
    if len(known) >= season.revisions:
        what = f"{slug} has {len(known)} revisions, as many as season {season.name} allows"
        raise UsageError(what, where=where, fix="submit to the next season")


def _plan(source: Path, board: Board, task: FolderTask, settings: Mapping[str, Any]) -> Plan:
    """Return the plan of scoring images for a board.

    Raises:
        UsageError: The images were made from ground truths, or do not fit the board.
    """
    config = RunConfig(**{**settings, "protocol": board.file.protocol})
    plan = plan_scoring(source, (board.file.scorer.name,), task, config=config)
    try:
        if plan.spec.privileged:
            what = f"{plan.spec.label} was given ground truths"
            raise UsageError(what, where=str(source), fix="submit a system that was not")
        if (version := plan.spec.scorers[0].version) not in board.file.scorer.versions:
            what = f"{board.file.scorer.name} has version {version} here, and the board {board.file.scorer.versions[0]}"
            raise UsageError(what, where=str(board.path), fix="score all submissions with one version")
        if plan.spec.repeats < board.file.repeats:
            what = f"has {plan.spec.repeats} images per sample, and the board needs {board.file.repeats}"
            raise UsageError(what, where=str(source), fix="generate with --repeats")
    except UsageError:
        plan.release()
        raise
    return plan


def board_summary(run: Run, board: Board) -> Summary:
    """Return the summary of a run under scorer and protocol of a board."""
    return run.summarise(board.file.protocol, board.file.scorer.name)


def with_source(result: SubmissionResult, source: Path, system: SystemFile) -> SubmissionResult:
    """Return a result with what the run that scored the images does not know: how they were generated.

    A run directory has recorded time, cost and machine. Of a folder of images only the submitter knows the generator.

    Args:
        result: Result of the run that scored.
        source: The run directory or folder of images.
        system: The submitter's `system.yaml`.
    """
    if is_run_directory(source):
        return _with_run(result, source)
    changes = {"cost": SubmittedCost(), "seconds": None, "machine": ""}
    spec = stated_spec(result.spec, source, system)
    unknown = changed_generations(result, lambda sample, one: one.model_copy(update={"seconds": None, "cost": None}))
    return unknown.model_copy(update={**changes, "spec": spec})


def stated_spec(spec: RunSpec, source: Path, system: SystemFile) -> RunSpec:
    """Return the specification of what was sent: as recorded in a run, and as `system.yaml` says of a folder."""
    if is_run_directory(source):
        return spec
    adapter = system.adapter
    generator = GeneratorSpec(
        name=adapter.generator, args=adapter.arguments, revision=adapter.revision, search=adapter.search
    )
    return spec.model_copy(update={"generator": generator})


def _with_run(result: SubmissionResult, source: Path) -> SubmissionResult:
    with RunStore.read(source) as store:
        seconds, machine = store.seconds(), machine_words(store.manifest.machine)
        unpriced = any(True for _ in store.notes(UNPRICED_NOTE))
        made = {(each.sample_id, each.repeat): each.seconds for _, each in store.generations()}
        for _, answer in store.answers():
            made[answer.sample_id, answer.repeat] = made.get((answer.sample_id, answer.repeat), 0.0) + answer.seconds

    def timed(sample: str, one: SubmittedGeneration) -> SubmittedGeneration:
        seconds = made.get((sample, one.repeat))
        changes = {"seconds": None if seconds is None else round(seconds, 3)}
        return one.model_copy(update=changes | ({"cost": None} if unpriced else {}))

    cost = SubmittedCost() if unpriced else result.cost.model_copy(update={"total": artifacts.cost_of(source)})
    timed_result = changed_generations(result, timed)
    return timed_result.model_copy(update={"cost": cost, "seconds": round(seconds, 3), "machine": machine})
