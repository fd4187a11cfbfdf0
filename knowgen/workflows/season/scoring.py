"""Score what was sent to a private season, and add it to the board without anything that shows a ground truth."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.atomic import folder_draft, write_file
from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.run_config import RunConfig
from knowgen.core.yaml_files import read_yaml
from knowgen.leaderboards.folder import (
    RESULT_FILE,
    SYSTEM_FILE,
    Board,
    Submission,
    read_board,
    result_text,
    validated,
)
from knowgen.leaderboards.records import SLUG, SubmissionResult, SubmittedCost, SubmittedGeneration, SystemFile
from knowgen.leaderboards.season import require_open, season_of
from knowgen.leaderboards.submission import result_of
from knowgen.stats.summary import Summary
from knowgen.store.folder import is_run_directory
from knowgen.store.run import RunStore
from knowgen.tasks.folder import FolderTask
from knowgen.workflows import artifacts
from knowgen.workflows.execute import execute
from knowgen.workflows.plan import Plan, plan_scoring
from knowgen.workflows.run import Run
from knowgen.workflows.season.publish import RUNS, private_secret, run_of, season_task


@dataclass(frozen=True)
class ScoredSubmission:
    """A submission that was scored.

    Attributes:
        run: Its run directory in the private folder, with ground truths.
        submission: Its folder on the board; None if scoring was interrupted.
    """

    run: Run
    submission: Submission | None = None


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
        DataError: A file is missing or not valid, the secret is not that of the season, or too little could be scored.
        ConfigError: A folder cannot be written.
    """
    board = read_board(board_path)
    require_open(board)
    system = read_system(system_path)
    slug = slug_of(system, system_path)
    _require_new(board, slug, system.revision)
    secret = private_secret(private, board)
    task = season_task(private, season_of(board), secret)
    plan = _plan(source, board, task, {**vars(config or RunConfig()), "out": private / RUNS, "pattern": pattern})
    run = execute(plan, run_of(private, slug, system.revision, plan.spec))
    if run.outcome is not None and run.outcome.stopped:
        return ScoredSubmission(run)
    summary = board_summary(run, board)
    if summary.no_result:
        fix = "see the reasons, and repeat the same command"
        raise ConfigError(f"not enough could be scored: {summary.no_result}", where=str(source), fix=fix)
    require_open(board)  # it may have been closed meanwhile
    with RunStore.read(run.path) as store:
        result = with_source(without_answers(result_of(store, summary)), source)
    folder = board.path / slug / system.revision
    try:
        with folder_draft(folder) as draft:
            write_file(draft / SYSTEM_FILE, system_path.read_bytes())
            write_file(draft / RESULT_FILE, result_text(result))
    except OSError as error:
        where = str(error.filename or folder)
        raise ConfigError(f"cannot be written: {error.strerror}", where=where, fix="check the disk") from error
    return ScoredSubmission(run, Submission(folder, board.name, slug, system.revision))


def read_system(path: Path) -> SystemFile:
    """Return the content of a submitter's `system.yaml`.

    Raises:
        DataError: It is missing or not valid.
    """
    return validated(SystemFile, read_yaml(path).data, path)


def slug_of(system: SystemFile, where: Path) -> str:
    """Return the name of a system's folder on a board.

    Raises:
        UsageError: The system's name has no letter or digit for it.
    """
    slug = artifacts.slug(system.name).lower().lstrip("._-")
    if not re.fullmatch(SLUG, slug):
        raise UsageError(f"the name {system.name!r} gives no folder name", where=str(where), fix="use Latin letters")
    return slug


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


def with_source(result: SubmissionResult, source: Path) -> SubmissionResult:
    """Return a result with time and cost of the generation, which the run that scored its images does not know.

    Args:
        result: Result of the run that scored.
        source: A run directory, which knows them, or a folder of images, which does not.
    """
    if not is_run_directory(source):
        return result.model_copy(update={"cost": SubmittedCost(), "seconds": None})
    with RunStore.read(source) as store:
        seconds = store.seconds()
        made = {(each.sample_id, each.repeat): each for _, each in store.generations()}

    def timed(sample: str, generation: SubmittedGeneration) -> SubmittedGeneration:
        known = made.get((sample, generation.repeat))
        if known is None:
            return generation
        return generation.model_copy(update={"seconds": known.seconds, "cost": known.usage.cost})

    samples = tuple(
        each.model_copy(update={"generations": tuple(timed(each.id, one) for one in each.generations)})
        for each in result.samples
    )
    cost = SubmittedCost(total=artifacts.cost_of(source))
    return result.model_copy(update={"samples": samples, "cost": cost, "seconds": seconds})


def without_answers(result: SubmissionResult) -> SubmissionResult:
    """Return a result without texts that give answers away, which follow when the season is revealed.

    Rationales name what was found and what was missed, and the prompts of agents state what they found.
    """

    def cleared(generation: SubmittedGeneration) -> SubmittedGeneration:
        scores = tuple(
            each.model_copy(
                update={
                    name: reading.model_copy(update={"rationale": ""})
                    for name, reading in (("strict", each.strict), ("lenient", each.lenient))
                    if reading is not None
                }
            )
            for each in generation.scores
        )
        return generation.model_copy(update={"used_prompt": "", "scores": scores})

    samples = tuple(
        each.model_copy(update={"generations": tuple(cleared(one) for one in each.generations)})
        for each in result.samples
    )
    return result.model_copy(update={"samples": samples})
