"""Verify a revealed season: build its world from the revealed seed, and compare everything that was published."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from knowgen.core.errors import DataError, KnowgenError, UsageError
from knowgen.core.run_config import RunConfig
from knowgen.core.scratch import ScratchFolder
from knowgen.core.steps import counted
from knowgen.core.text import count
from knowgen.leaderboards.folder import IMAGES, Board, Submission, read_board
from knowgen.leaderboards.pinning import board_samples
from knowgen.leaderboards.records import SubmissionResult, SubmittedImage
from knowgen.leaderboards.rows import rows_of
from knowgen.leaderboards.season import (
    SEASON_FILE,
    Revealed,
    SeasonFile,
    SeasonSecret,
    commitment_of,
    read_season_file,
    season_of,
)
from knowgen.seasons.publish import build_season_world, world_faults
from knowgen.stats.aggregate import aggregate
from knowgen.tasks.folder import FolderTask
from knowgen.workflows.execute import execute
from knowgen.workflows.plan import plan_scoring
from knowgen.worlds.season import PUBLISHED, published_hashes

_TOLERANCE = 1e-9
"""Difference of figures that rounding may cause."""


@dataclass
class SeasonVerification:
    """What was compared.

    Attributes:
        passed: A line for each thing that is as it must be.
        findings: A line for each that is not.
        notes: A line for each that could not be compared.
    """

    passed: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def add(self, good: str, faults: list[str]) -> None:
        """Add the outcome of one comparison: the line for no faults, and the faults."""
        if faults:
            self.findings += faults
        else:
            self.passed.append(good)


def verify(
    board_path: Path,
    *,
    public: Path | None = None,
    out: Path | None = None,
    rescore: bool = True,
    workers: int | None = None,
    progress: bool = False,
) -> SeasonVerification:
    """Verify a revealed season.

    Args:
        board_path: Folder of the board.
        public: A copy of the public folder as it was published; None without one.
        out: Folder in which the world is built and left, as a task with ground truths; None for a temporary one.
        rescore: Whether images of submissions are scored again.
        workers: Number of processes that build the world; the number of cores if None.
        progress: Whether progress is shown on stderr.

    Raises:
        UsageError: The season is not revealed, or the board has none.
        DataError: A file of the board is missing or not valid.
        ConfigError: A folder cannot be written.
    """
    board = read_board(board_path)
    season = season_of(board)
    if season.revealed is None:
        fix = "wait until it is revealed"
        raise UsageError(f"season {season.name} is {season.state}, not revealed", where=str(board.path), fix=fix)
    found = SeasonVerification()
    secret = _revealed_secret(season, season.revealed)
    broken = [] if commitment_of(secret) == season.commitment else ["seed and nonce do not give the commitment"]
    found.add("seed and nonce give the commitment", broken)
    if public is not None:
        found.add("the public folder is what was announced", _public_faults(public, season))
    if broken:
        found.notes.append("nothing else can be compared: the revealed seed is not the season's")
        return found
    with ScratchFolder("knowgen.season.") as scratch:
        world = out or scratch / "world"
        build_season_world(world, secret, workers)
        task, faults = FolderTask(world), world_faults(world, season)
        if task.version != season.task_version:
            faults.append(f"the task has version {task.version}, not {season.task_version}")
        found.add("prompts and corpus follow from the seed", faults)
        found.add("prompts and hashes of ground truths on the board follow from the seed", _sample_faults(board, task))
        check = _SubmissionCheck(found, board, task, scratch, rescore=rescore and not faults, progress=progress)
        for submission in board.submissions():
            try:
                check.verify(submission)
            except DataError as error:  # the others are verified all the same
                found.findings.append(f"{submission.key}: {error}")
    return found


def _revealed_secret(season: SeasonFile, revealed: Revealed) -> SeasonSecret:
    return SeasonSecret(
        name=season.name, samples=season.samples, world=season.world, seed=revealed.seed, nonce=revealed.nonce
    )


def _public_faults(public: Path, season: SeasonFile) -> list[str]:
    """Return how a public folder differs from the announcement, and the announcement in it from the board's."""
    faults = []
    if read_season_file(public / SEASON_FILE) != season.announced:
        faults.append(f"{public / SEASON_FILE} announced another season than the board's {SEASON_FILE}")
    found = published_hashes(public)
    faults += [
        f"{public / name} is not what was announced" for name in PUBLISHED if found.get(name) != season.files.get(name)
    ]
    return faults


def _sample_faults(board: Board, task: FolderTask) -> list[str]:
    """Return which samples of a board do not follow from the seed."""
    expected = {each.id: each for each in board_samples(task)}
    given = {each.id: each for each in board.samples}
    differing = [name for name in expected if name not in given or given[name] != expected[name]]
    differing += [name for name in given if name not in expected]
    return [f"sample {name} of the board does not follow from the seed" for name in differing]


@dataclass(frozen=True)
class _SubmissionCheck:
    """How the submissions of a board are verified, and where the outcome goes."""

    found: SeasonVerification
    board: Board
    task: FolderTask
    scratch: Path
    rescore: bool
    progress: bool

    def verify(self, submission: Submission) -> None:
        """Compare the figures of a submission with its scores, and its scores with its images."""
        result, key, found = submission.read_result(), submission.key, self.found
        faults = _figure_faults(result, self.board)
        found.add(f"{key}: figures follow from its scores", [f"{key}: {fault}" for fault in faults])
        here: dict[tuple[str, int], Path] = {}
        missing, changed = 0, list[str]()
        for place, image in counted(list(_images(result)), f"checking images of {key}"):
            path = submission.path / IMAGES / image.file
            if not image.file or not path.is_file():
                missing += 1
            elif hashlib.sha256(path.read_bytes()).hexdigest() != image.sha256:
                changed.append(f"{key}: {IMAGES}/{image.file} is not the image that was scored")
            else:
                here[place] = path
        found.findings += changed
        if missing:
            found.notes.append(f"{key}: {count(missing, 'image')} not at hand, not scored again")
        if not self.rescore or not here or changed:
            return
        try:
            faults = self._score_faults(result, here)
        except KnowgenError as error:
            found.findings.append(f"{key}: cannot be scored again: {error}")
            return
        good = f"{key}: {count(len(here), 'image')} scored again, with the same values"
        found.add(good, [f"{key}: {fault}" for fault in faults])

    def _score_faults(self, result: SubmissionResult, images: dict[tuple[str, int], Path]) -> list[str]:
        """Score images again and return which samples have other values than claimed."""
        name, protocol = self.board.file.scorer.name, self.board.file.protocol
        with ScratchFolder("images.", self.scratch) as folder:
            sent = folder / "sent"
            sent.mkdir()
            for (sample, repeat), path in counted(images.items(), "copying images"):
                shutil.copyfile(path, sent / f"{sample}_{repeat}{path.suffix}")
            config = RunConfig(out=folder / "run", protocol=protocol, progress=self.progress)
            plan = plan_scoring(sent, (name,), self.task, config=config)
            if (version := plan.spec.scorers[0].version) != result.scorer.version:
                raise DataError(f"{name} has version {version} here, not {result.scorer.version}")
            rows = execute(plan, folder / "run").rows()
        again = {(row.sample_id, row.repeat): row.strict for row in rows}
        claimed = {
            (sample.id, one.repeat): one.scores[0].strict
            for sample in result.samples
            for one in sample.generations
            if (sample.id, one.repeat) in images and one.scores
        }
        unclaimed = images.keys() - claimed.keys()
        without = [f"sample {place[0]} repeat {place[1]}: has an image and no score" for place in unclaimed]
        return sorted(without) + [
            f"sample {place[0]} repeat {place[1]}: claims {was.values}, scored again {again[place].values}"
            for place, was in claimed.items()
            if (was.status, was.values) != (again[place].status, again[place].values)
        ]


def _figure_faults(result: SubmissionResult, board: Board) -> list[str]:
    """Return which claimed figures do not follow from the scores of a result."""
    file = board.file
    if result.spec.task_version != file.task.version:
        return [f"is of task version {result.spec.task_version}, not {file.task.version}"]
    summary = aggregate(
        rows_of(result, board.samples),
        file.protocol,
        dimensions=file.scorer.dimensions,
        system=result.spec.system,
        task=file.task.name,
        task_version=result.spec.task_version,
        scorer=file.scorer.name,
        scorer_version=result.scorer.version,
        selection=result.spec.selection.label,
    )
    unknown = sorted(result.claimed.keys() - summary.slice().figures.keys())
    faults = [f"claims {name}, which the board does not have" for name in unknown]
    for name, figure in summary.slice().figures.items():
        claimed = result.claimed.get(name)
        same = claimed == figure.value
        if claimed is not None and figure.value is not None:
            same = abs(claimed - figure.value) <= _TOLERANCE
        if not same:
            faults.append(f"claims {name} {claimed}, and its scores give {figure.value}")
    return faults


def _images(result: SubmissionResult) -> Iterator[tuple[tuple[str, int], SubmittedImage]]:
    """Yield each scored image with its sample and repeat."""
    for sample in result.samples:
        for one in sample.generations:
            if one.image is not None:
                yield (sample.id, one.repeat), one.image
