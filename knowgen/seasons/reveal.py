"""Close and reveal a private season."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from knowgen.core.errors import UsageError
from knowgen.leaderboards.changed_results import changed_generations
from knowgen.leaderboards.folder import (
    IMAGES,
    RESULT_FILE,
    SAMPLES_FILE,
    Board,
    Submission,
    read_board,
    result_text,
)
from knowgen.leaderboards.images import SubmissionImages
from knowgen.leaderboards.records import SubmissionResult, SubmittedGeneration
from knowgen.leaderboards.season import Revealed, SeasonFile, season_of, write_season, write_text
from knowgen.leaderboards.submission import result_of, with_images
from knowgen.seasons.publish import private_secret, runs_of, samples_text, season_task
from knowgen.seasons.scoring import board_summary
from knowgen.store.folder import is_run_directory
from knowgen.store.run import RunStore
from knowgen.workflows.run import load_run


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
    write_text(board.path / SAMPLES_FILE, samples_text(task))
    done = RevealedSeason(season.model_copy(update={"revealed": revealed}))
    for submission in board.submissions():
        run = _run_of(submission, private)
        if run is None:
            done = replace(done, without_run=(*done.without_run, submission.key))
            continue
        done = replace(done, images=done.images + _complete(submission, board, run))
    write_season(_file(board), done.season)
    return done


def _run_of(submission: Submission, private: Path) -> Path | None:
    """Return the run directory whose images a submission has; None if it is not in the private folder."""
    submitted = {
        (sample.id, one.repeat, one.image.sha256)
        for sample in submission.read_result().samples
        for one in sample.generations
        if one.image is not None
    }
    for path in sorted(runs_of(private, submission.slug, submission.revision).glob("*")):
        if not is_run_directory(path):
            continue
        with RunStore.read(path) as store:
            found = {(made.sample_id, made.repeat, made.image.sha256) for _, made in store.generations() if made.image}
        if found == submitted:
            return path
    return None


def _complete(submission: Submission, board: Board, run: Path) -> int:
    """Add rationales, prompts and images to a submission from its run; return the number of images."""
    summary = board_summary(load_run(run), board)
    with RunStore.read(run) as store:
        full = with_images(store, result_of(store, summary), SubmissionImages(submission.path / IMAGES, "full"))
    result = _completed(submission.read_result(), full)
    write_text(submission.path / RESULT_FILE, result_text(result))
    return sum(one.image is not None for sample in result.samples for one in sample.generations)


def _completed(result: SubmissionResult, full: SubmissionResult) -> SubmissionResult:
    """Return a published result with the texts of the full one, and the names of the files of its images."""
    known = {(sample.id, one.repeat): one for sample in full.samples for one in sample.generations}

    def completed(sample: str, one: SubmittedGeneration) -> SubmittedGeneration:
        other = known[sample, one.repeat]
        scores = tuple(
            was.model_copy(update={"strict": now.strict, "lenient": now.lenient})
            for was, now in zip(one.scores, other.scores, strict=True)
        )
        return one.model_copy(update={"image": other.image, "used_prompt": other.used_prompt, "scores": scores})

    return changed_generations(result, completed)


def _file(board: Board) -> Path:
    assert board.file.season is not None
    return board.path / board.file.season
