"""A board, or a folder of boards, as a package: its files as they are, with rows and figures for readers of the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from knowgen.core.errors import ConfigError, DataError
from knowgen.core.spec import fingerprint
from knowgen.core.text import count
from knowgen.leaderboards.figures import BoardFigures, board_figures
from knowgen.leaderboards.folder import BOARD_FILE, IMAGES, RESULT_FILE, Board, read_board, read_boards, result_text
from knowgen.leaderboards.records import SubmittedSample
from knowgen.leaderboards.rows import rows_of
from knowgen.leaderboards.season import SECRET_FILE
from knowgen.report import tables
from knowgen.report.text_table import escape_markdown
from knowgen.store.files import write_text
from knowgen.workflows.board_check import check
from knowgen.workflows.sharing.card import front_matter
from knowgen.workflows.sharing.listing import DATA_FOLDER, allowed_path
from knowgen.workflows.sharing.package import Package, packed, refuse_private
from knowgen.workflows.sharing.private_text import PrivateText

BOARD_FOLDER = "board"
SITE_FILES = frozenset({".git", "__pycache__"})
"""Folders that may be beside the files of a board and are not sent."""


def boards_of(path: Path) -> tuple[Board, ...]:
    """Return the board of a folder, or the boards of a folder of boards.

    Raises:
        DataError: A file of a board is not valid.
    """
    return (read_board(path),) if (path / BOARD_FILE).is_file() else read_boards(path)


def board_package(
    path: Path, stage: Path, repo: str, *, images: bool = True, licence: str = "unknown", keep_paths: bool = False
) -> Package:
    """Prepare and check a board.

    Args:
        path: Its folder, or a folder of boards.
        stage: Empty folder on this machine.
        repo: Repository that it is for, named in the card.
        images: Whether the images of submissions are sent.
        licence: Licence, as the hub names it.
        keep_paths: Whether folders of this machine may be in it.

    Raises:
        ConfigError: There is a key, a folder of this machine or the secret of a season in it.
        DataError: Its check finds an error, or a file is a link or has a name that cannot be sent.
    """
    boards = boards_of(path)
    files = {f"{BOARD_FOLDER}/{name}": file for name, file in _content(path, images=images)}
    _refuse_faulty(path)
    if not images:
        files |= {f"{BOARD_FOLDER}/{name}": file for name, file in _without_images(boards, path, stage)}
    figures = [board_figures(board) for board in boards]
    (stage / DATA_FOLDER).mkdir()
    rows = stage / DATA_FOLDER / "results.jsonl"
    with rows.open("w", encoding="utf-8") as file:
        for each in figures:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(each))
    files[f"{DATA_FOLDER}/{rows.name}"] = rows
    refuse_private(files, PrivateText.of_this_machine(path), path, keep_paths=keep_paths)
    name = boards[0].file.title if len(boards) == 1 else f"{count(len(boards), 'leaderboard')}"
    left_out = () if images else ("the images of submissions, and their names in `result.json`",)
    return packed(
        stage,
        "board",
        name=name,
        identity=fingerprint([[board.name, board.file.task.name] for board in boards]),
        files=files,
        card=_card(figures, name, repo, several=not (path / BOARD_FILE).is_file(), licence=licence, left_out=left_out),
        images=images,
        left_out=left_out,
    )


def _refuse_faulty(path: Path) -> None:
    """Check the submissions, as `knowgen board check` does.

    Raises:
        DataError: There is an error.
    """
    single = (path / BOARD_FILE).is_file()
    root, names = (path.absolute().parent, (path.absolute().name,)) if single else (path, ())
    errors = [each for each in check(root, names).report.every if each.level == "error"]
    if errors:
        fix = f"look at all with `knowgen board check {path}`"
        first = f"{errors[0].check}: {errors[0].where}: {errors[0].what}"
        raise DataError(f"{count(len(errors), 'error')}: {first}", where=str(path), fix=fix)


def _content(path: Path, *, images: bool) -> Iterator[tuple[str, Path]]:
    """Yield the files of a board.

    Raises:
        ConfigError: One is the secret of a season.
        DataError: One is a link or has a name that cannot be sent.
    """
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path)
        if any(part in SITE_FILES or part.startswith(".") for part in relative.parts):
            continue
        if file.name == SECRET_FILE:
            fix = "keep the maintainer's folder of a season apart from the boards"
            raise ConfigError("is the secret of a season", where=str(file), fix=fix)
        if file.is_symlink():
            raise DataError("is a link, which cannot be sent", where=str(file), fix="replace it by the file itself")
        if not file.is_file() or (not images and IMAGES in relative.parts):
            continue
        if not allowed_path(relative.as_posix()):
            fix = "use letters, digits, `.`, `_` and `-`"
            raise DataError("has a name that cannot be sent", where=str(file), fix=fix)
        yield relative.as_posix(), file


def _without_images(boards: tuple[Board, ...], path: Path, stage: Path) -> Iterator[tuple[str, Path]]:
    """Yield each `result.json` as that of a submission without images, so that the copy passes its check.

    The hashes of the scored images stay in it; what is left out are the names of files that are not sent.
    """
    for board in boards:
        for number, submission in enumerate(board.submissions()):
            result = submission.read_result()
            samples = tuple(_without_files(sample) for sample in result.samples)
            draft = stage / f"{board.name}-{number}.json"
            write_text(draft, result_text(result.model_copy(update={"samples": samples})))
            yield (submission.path / RESULT_FILE).relative_to(path).as_posix(), draft


def _without_files(sample: SubmittedSample) -> SubmittedSample:
    generations = tuple(
        each
        if each.image is None
        else each.model_copy(update={"image": each.image.model_copy(update={"thumbnail": "", "file": ""})})
        for each in sample.generations
    )
    return sample.model_copy(update={"generations": generations})


def _rows(figures: BoardFigures) -> Iterator[dict[str, Any]]:
    """Yield one row for each system, sample, repeat and score."""
    board = figures.board
    for system in figures.systems:
        submission = system.submission
        for row in rows_of(submission.read_result(), board.samples):
            values = row.strict.values
            yield {
                "board": board.name,
                "system": submission.system.name,
                "revision": submission.key,
                "sample_id": row.sample_id,
                "category": row.category,
                "difficulty": row.difficulty,
                "repeat": row.repeat,
                "judge_repeat": row.judge_repeat,
                "generation_status": row.generation.value,
                "score_status": row.strict.status.value,
                **{name: values.get(name) for name in board.file.scorer.dimensions},
                "rationale": row.strict.rationale,
            }


def _card(
    figures: list[BoardFigures], name: str, repo: str, *, several: bool, licence: str, left_out: tuple[str, ...]
) -> str:
    """Return the data card: figures with intervals and rank ranges of each board, and how to use the files.

    Args:
        figures: Figures of each board.
        name: Name for readers.
        repo: Repository that it is for.
        several: Whether it is a folder of boards.
        licence: Licence, as the hub names it.
        left_out: What the copy lacks, in words.
    """
    header = front_matter(
        title=name,
        licence=licence,
        tags=["knowgen", "knowgen-board", "leaderboard", "image-generation", "evaluation"],
        configs={"results": f"{DATA_FOLDER}/results.jsonl"},
    )
    about = "Submissions with per-sample scores; all figures are made from them."
    parts = [header, f"# {escape_markdown(name)}", about]
    for each in figures:
        parts += _board(each)
    root = "--root " if several else ""
    commands = ["```bash", f"knowgen pull {repo} -o my-boards", f"knowgen board check {root}my-boards", "```"]
    entries = [
        f"- `{DATA_FOLDER}/results.jsonl`: one row for each system, sample and score",
        f"- `{BOARD_FOLDER}/`: the files of the board",
        "- `knowgen.json`: every file with its hash",
        *(f"- left out: {each}" for each in left_out),
    ]
    return "\n\n".join([*parts, "## Use it", "\n".join(commands), "## What is in it", "\n".join(entries)]) + "\n"


def _board(figures: BoardFigures) -> list[str]:
    file = figures.board.file
    head = ["rank", "system", file.ranking, "coverage", "privileged"]
    lines = ["| " + " | ".join(map(escape_markdown, head)) + " |", "| :-- | :-- | --: | --: | :-- |"]
    for system in figures.systems:
        whole = system.summary.slice()
        scored = f"{whole.coverage.scored}/{whole.coverage.expected}"
        figure = tables.with_interval(whole.figures[file.ranking])
        spec = system.submission.read_result().spec.generator
        cells = [_ranks(system.rank), system.submission.system.name, figure, scored, "yes" if spec.privileged else "no"]
        lines.append("| " + " | ".join(map(escape_markdown, cells)) + " |")
    version = f" {file.task.version}" if file.task.version else ""
    task = f"Task {file.task.name}{version}, scorer {file.scorer.name}, protocol {file.protocol}."
    return [f"## {escape_markdown(file.title)}", escape_markdown(task), "\n".join(lines)]


def _ranks(rank: Any) -> str:
    if rank is None:
        return "-"
    return str(rank.best) if rank.best == rank.worst else f"{rank.best}-{rank.worst}"
