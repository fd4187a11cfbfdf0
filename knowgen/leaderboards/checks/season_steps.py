"""Closing and revealing a private season change files of its board, and no others may change with them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from knowgen.core.errors import KnowgenError
from knowgen.core.text_files import numbered_lines, parse_strict_json, read_text
from knowgen.leaderboards.changed_results import changed_generations, without_answers
from knowgen.leaderboards.checks.findings import BoardFinding, error
from knowgen.leaderboards.folder import IMAGES, RESULT_FILE, SAMPLES_FILE, validated
from knowgen.leaderboards.records import BoardSample, SubmissionResult, SubmittedGeneration
from knowgen.leaderboards.season import SEASON_FILE, SeasonFile, SeasonSecret, commitment_of, read_season_file

_RESTORE = "restore it: an announcement is never changed"


@dataclass(frozen=True)
class SeasonStep:
    """What happened to a season between two states of its board.

    Attributes:
        files: Changed files that belong to it, as `board/file` or `board/system/revision/file`.
        notes: What happened, in words.
        findings: What is not allowed.
    """

    files: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    findings: tuple[BoardFinding, ...] = ()


def season_step(board: str, root: Path, earlier: Path, changed: Collection[str]) -> SeasonStep:
    """Return what happened to the season of a board. Nothing, where its file did not change.

    Closing adds a date. A reveal adds the seed and nonce that the season committed to, hashes of ground truths to the
    board's samples, and texts and images to its submissions; their scores stay. Whether hashes and images are the true
    ones, `knowgen board season verify` shows, which builds the world.

    Args:
        board: Name of the board's folder.
        root: The folder of boards.
        earlier: Its earlier state.
        changed: Files that are new, gone or different, as paths below the folder of boards.
    """
    name = f"{board}/{SEASON_FILE}"
    if name not in changed or not (earlier / name).is_file():
        return SeasonStep()
    try:
        before, now = read_season_file(earlier / name), read_season_file(root / name)
    except KnowgenError as fault:
        return SeasonStep(findings=(error("unchanged", name, fault.what, fault.fix or "correct the file"),))
    if problem := _problem(before, now):
        return SeasonStep(findings=(error("unchanged", name, problem, _RESTORE),))
    if now.revealed is None:
        return SeasonStep(frozenset({name}), (f"{board}: season {now.name} was closed on {now.closed}",))
    files = {each for each in changed if _belongs_to_reveal(each, board, root, earlier)}
    return SeasonStep(
        frozenset({name, *files}),
        (f"{board}: season {now.name} was revealed: compare it with its seed by `knowgen board season verify`",),
    )


def late_revisions(board: str, earlier: Path, new: Collection[str]) -> Iterator[BoardFinding]:
    """Yield an error for every new revision of a season that was not open any more."""
    path = earlier / board / SEASON_FILE
    if not path.is_file():
        return
    season = read_season_file(path)
    for revision in sorted(new) if season.state != "open" else ():
        what = f"season {season.name} was closed on {season.closed}, and takes no more submissions"
        yield error("season", revision, what, "submit to the next season")


def _problem(before: SeasonFile, now: SeasonFile) -> str:
    """Return what is wrong with the change of a season; empty if it was closed, revealed or both."""
    if before.announced != now.announced:
        names = [
            name for name in SeasonFile.model_fields if getattr(before.announced, name) != getattr(now.announced, name)
        ]
        return f"{', '.join(names)} changed after the season was announced"
    if before.closed is not None and now.closed != before.closed:
        return "the day on which the season was closed changed"
    if before.revealed is not None and now.revealed != before.revealed:
        return "what was revealed changed"
    if now.revealed is not None:
        facts = {"name": now.name, "samples": now.samples, "world": now.world}
        secret = SeasonSecret.model_validate({**facts, "seed": now.revealed.seed, "nonce": now.revealed.nonce})
        if commitment_of(secret) != now.commitment:
            return "the revealed seed and nonce do not give the commitment"
    return ""


def _belongs_to_reveal(name: str, board: str, root: Path, earlier: Path) -> bool:
    """Return whether a reveal changes a file in this way."""
    before, now = earlier / name, root / name
    if not name.startswith(f"{board}/") or now.is_symlink() or not now.is_file():
        return False
    parts = name.split("/")
    if len(parts) == 5 and parts[3] == IMAGES:  # the check of images compares it with its digest in the result
        return not before.exists()
    if not before.is_file():
        return False
    try:
        if parts[1:] == [SAMPLES_FILE]:
            return _without_truths(before) == _without_truths(now)
        if len(parts) == 4 and parts[3] == RESULT_FILE:
            return _without_texts(before) == _without_texts(now)
    except KnowgenError:
        return False  # it is reported as changed, and by the check of its content
    return False


def _without_truths(path: Path) -> list[BoardSample]:
    lines = [(f"{path}:{number}", line) for number, line in numbered_lines(path) if line.strip()]
    samples = [validated(BoardSample, parse_strict_json(line, where), where) for where, line in lines]
    return [each.model_copy(update={"truth": None}) for each in samples]


def _without_texts(path: Path) -> SubmissionResult:
    def without_files(_: str, generation: SubmittedGeneration) -> SubmittedGeneration:
        image = generation.image
        named = image and image.model_copy(update={"file": "", "thumbnail": ""})
        return generation.model_copy(update={"image": named})

    result = validated(SubmissionResult, parse_strict_json(read_text(path), str(path)), path)
    return changed_generations(without_answers(result), without_files)
