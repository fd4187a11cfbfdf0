"""The boards of this repository: they can be read, they fit this version, and their submissions hold."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest
from PIL import Image

from knowgen.core.records import DIMENSIONS
from knowgen.leaderboards.eligibility import result_reasons, sample_reasons, spec_reasons, system_reasons
from knowgen.leaderboards.folder import read_board, read_boards
from knowgen.leaderboards.images import THUMBNAIL_SIDE
from knowgen.leaderboards.pinning import board_samples
from knowgen.leaderboards.rows import rows_of
from knowgen.scorers.vlm.judge import VlmJudge
from knowgen.stats.aggregate import aggregate
from knowgen.stats.protocol import get_protocol
from knowgen.tasks.load import load_task
from knowgen.worlds.checker import WorldCheck

ROOT = Path(__file__).parents[2] / "leaderboards"
VERSIONS = {"vlm:gpt-4.1": VlmJudge.version, "world_check": WorldCheck.version}


def test_the_three_boards_fit_the_scorers_and_protocols_of_this_version() -> None:
    boards = {board.name: board.file for board in read_boards(ROOT)}
    assert set(boards) == {"knowgen-official", "knowgen-strict", "worlds"}
    for file in boards.values():
        assert VERSIONS[file.scorer.name] in file.scorer.versions
        assert file.scorer.dimensions == DIMENSIONS
        assert file.protocol_version == get_protocol(file.protocol).version
        assert file.min_coverage >= get_protocol(file.protocol).min_coverage
    assert boards["knowgen-official"].scorer.args == {"rubric": "upstream"}
    assert boards["knowgen-strict"].scorer.args == {}


def test_the_published_rows_are_those_of_the_paper_and_give_their_own_score() -> None:
    board = read_board(ROOT / "knowgen-official")
    assert board.file.published is not None
    assert board.file.published.arxiv == "2603.28767"
    with (board.path / board.file.published.file).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["system"] for row in rows}) == 21
    for row in rows:
        groups = [
            0.1 * float(row[f"{group}_faithfulness"]) + 0.4 * float(row[f"{group}_visual"])
            + 0.4 * float(row[f"{group}_text"]) + 0.1 * float(row[f"{group}_aesthetics"])
            for group in ("sk", "pop")
        ]  # fmt: skip
        if row["system"] != "BAGEL":  # whose printed score does not follow from its columns
            assert sum(groups) / 2 == pytest.approx(float(row["k_score"]), abs=0.02), row["system"]


def test_the_worlds_board_is_pinned_to_the_bundled_task() -> None:
    board, task = read_board(ROOT / "worlds"), load_task("knowgen_mini")
    assert board.file.task.version == task.version
    samples = {sample.id: sample for sample in board.samples}
    made = board_samples(task)
    for _ in range(3):
        sample = next(made)
        assert samples[sample.id] == sample
    assert [(each.id, each.prompt, each.category, each.difficulty, each.text_required) for each in task.samples()] == [
        (each.id, each.prompt, each.category, each.difficulty, each.text_required) for each in board.samples
    ]


def test_the_first_submissions_are_eligible_and_their_figures_follow_from_their_samples() -> None:
    board = read_board(ROOT / "worlds")
    scores = {}
    for submission in board.submissions():
        result, system = submission.read_result(), submission.system
        rows = list(rows_of(result, board.samples))
        assert spec_reasons(board.file, result.spec, name=board.name) == []
        assert result_reasons(board.file, result, rows) == []
        assert sample_reasons(result, board.samples) == []
        assert system_reasons(system, result.spec) == []
        whole = aggregate(rows, board.file.protocol, dimensions=DIMENSIONS).slice()
        assert result.claimed == {name: figure.value for name, figure in whole.figures.items()}
        scores[system.name] = whole.figures["overall"].value or 0.0
    assert sorted(scores, key=lambda name: scores[name]) == ["Noise", "Closed book", "Open book"]


def test_the_first_submissions_have_small_thumbnails_named_by_their_content() -> None:
    files = sorted((ROOT / "worlds").glob("*/*/images/*"))
    named = {
        one.image.thumbnail
        for submission in read_board(ROOT / "worlds").submissions()
        for sample in submission.read_result().samples
        for one in sample.generations
        if one.image is not None
    }
    assert {file.stem for file in files} == named
    assert sum(file.stat().st_size for file in files) < 2_500_000
    for file in files:
        assert hashlib.sha256(file.read_bytes()).hexdigest() == file.stem
    with Image.open(files[0]) as image:
        assert (image.format, max(image.size)) == ("JPEG", THUMBNAIL_SIDE)
