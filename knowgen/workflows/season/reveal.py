"""Close and reveal a private season."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from knowgen.core.atomic import draft_of
from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.images import open_rgb
from knowgen.core.records import GroundTruth
from knowgen.leaderboards.folder import (
    IMAGES,
    RESULT_FILE,
    SAMPLES_FILE,
    Board,
    Submission,
    read_board,
    result_text,
)
from knowgen.leaderboards.records import BoardSample, SubmissionResult, SubmittedGeneration, TruthHashes
from knowgen.leaderboards.season import Revealed, SeasonFile, season_of, write_season, write_text
from knowgen.leaderboards.submission import result_of
from knowgen.search.leaks import perceptual_hash
from knowgen.store.run import RunStore
from knowgen.tasks.folder import FolderTask
from knowgen.workflows.run import load_run
from knowgen.workflows.season.publish import board_sample, private_secret, run_of, samples_text, season_task
from knowgen.workflows.season.scoring import board_summary


@dataclass(frozen=True)
class RevealedSeason:
    """What a reveal published.

    Attributes:
        season: The season.
        images: Number of images that were added to the submissions.
        without_run: Submissions whose run is not in the private folder, and which stay as they were.
    """

    season: SeasonFile
    images: int = 0
    without_run: tuple[str, ...] = ()


def close(board_path: Path, date: str) -> SeasonFile:
    """Close a season: from now on it takes no submission.

    Args:
        board_path: Folder of the board.
        date: The day, ISO 8601.

    Raises:
        UsageError: It is closed already, or the board has no season.
    """
    board = read_board(board_path)
    season = season_of(board)
    if season.state != "open":
        what = f"season {season.name} was closed on {season.closed} already"
        raise UsageError(what, where=str(board.path), fix="nothing is left to close")
    closed = SeasonFile.model_validate({**season.model_dump(), "closed": date})
    write_season(_file(board), closed)
    return closed


def reveal(board_path: Path, private: Path, date: str) -> RevealedSeason:
    """Reveal a season: its seed and nonce, hashes of the ground truths, and rationales and images of the submissions.

    The announcement gets the seed last, so that a call that was interrupted can be repeated.

    Args:
        board_path: Folder of the board.
        private: Private folder of the season.
        date: The day, ISO 8601.

    Raises:
        UsageError: It is open, or revealed already, or the board has no season.
        DataError: The secret is not that of the season, or draws another world here.
        ConfigError: The board cannot be written.
    """
    board = read_board(board_path)
    season = season_of(board)
    if season.state == "open":
        fix = "close it first: `knowgen board season close`"
        raise UsageError(f"season {season.name} is open", where=str(board.path), fix=fix)
    if season.revealed is not None:
        what = f"season {season.name} was revealed on {season.revealed.date} already"
        raise UsageError(what, where=str(board.path), fix="see `knowgen board season verify`")
    secret = private_secret(private, board)
    task = season_task(private, season, secret)
    revealed = Revealed(date=date, seed=secret.seed, nonce=secret.nonce)
    write_text(board.path / SAMPLES_FILE, samples_text(revealed_samples(task)))
    done = RevealedSeason(season.model_copy(update={"revealed": revealed}))
    for submission in board.submissions():
        run = run_of(private, submission.slug, submission.revision, submission.read_result().spec)
        if not run.is_dir():
            done = replace(done, without_run=(*done.without_run, submission.key))
            continue
        done = replace(done, images=done.images + _complete(submission, board, run))
    write_season(_file(board), done.season)
    return done


def revealed_samples(task: FolderTask) -> list[BoardSample]:
    """Return the lines of a board's `samples.jsonl` with the hashes of the ground truths."""
    return [board_sample(sample, _hashes(task.truth(sample.id))) for sample in task.samples()]


def _hashes(truth: GroundTruth) -> TruthHashes | None:
    if truth.image is None:
        return None
    perceptual = perceptual_hash(open_rgb(truth.image.path)).tobytes().hex()
    return TruthHashes(sha256=truth.image.sha256, perceptual=perceptual)


def _complete(submission: Submission, board: Board, run: Path) -> int:
    """Add rationales, prompts and images to a submission from its run; return the number of images."""
    summary = board_summary(load_run(run), board)
    names: dict[str, str] = {}
    with RunStore.read(run) as store:
        for _, generation in store.generations():
            if (ref := generation.image) is not None:
                path = store.image_path(ref)
                names[ref.sha256] = f"{ref.sha256}{path.suffix}"
                _copy(path, submission.path / IMAGES / names[ref.sha256])
        full = result_of(store, summary)
    write_text(submission.path / RESULT_FILE, result_text(_completed(submission.read_result(), full, names)))
    return len(names)


def _copy(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(exist_ok=True)
        with draft_of(target) as draft:
            shutil.copyfile(source, draft)
    except OSError as error:
        where = str(error.filename or target)
        raise ConfigError(f"cannot be written: {error.strerror}", where=where, fix="check the disk") from error


def _completed(result: SubmissionResult, full: SubmissionResult, names: dict[str, str]) -> SubmissionResult:
    """Return a published result with the texts of the full one, and the names of the files of its images."""
    texts = {(sample.id, one.repeat): one for sample in full.samples for one in sample.generations}

    def completed(sample: str, one: SubmittedGeneration) -> SubmittedGeneration:
        image = one.image and one.image.model_copy(update={"file": names.get(one.image.sha256, "")})
        known = texts[sample, one.repeat]
        scores = tuple(
            was.model_copy(update={"strict": now.strict, "lenient": now.lenient})
            for was, now in zip(one.scores, known.scores, strict=True)
        )
        return one.model_copy(update={"image": image, "used_prompt": known.used_prompt, "scores": scores})

    samples = tuple(
        each.model_copy(update={"generations": tuple(completed(each.id, one) for one in each.generations)})
        for each in result.samples
    )
    return result.model_copy(update={"samples": samples})


def _file(board: Board) -> Path:
    assert board.file.season is not None
    return board.path / board.file.season
