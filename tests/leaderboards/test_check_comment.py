"""The Markdown comment of a check: where a submission stands, and hostile text that stays text."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from knowgen.cli.main import run as knowgen
from knowgen.leaderboards.check import check_boards
from knowgen.leaderboards.checks.comment import code, comment
from knowgen.leaderboards.folder import RESULT_FILE, Board
from tests.helpers.checked_boards import Grade, make_board, make_result, write_submission
from tests.helpers.report_pages import HOSTILE

MANY = 60
"""Number of samples, enough for intervals."""

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def grades(seed: int, *values: float) -> Grade:
    """Return values of samples, drawn at random."""
    drawn = random.Random(seed).choices(values, k=MANY)
    return lambda place: drawn[place]


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """A board with a good, a middling and a bad system, and two revisions of the middling one."""
    board = make_board(tmp_path / "boards", MANY)
    write_submission(board, make_result(board, "good", grades(1, 0.5, 1, 1)), "good")
    write_submission(board, make_result(board, "bad", grades(2, 0, 0, 0.5)), "bad")
    for revision, values in (("1", (0, 0.5)), ("2", (0, 0.5, 0.5, 1))):
        created = f"2026-0{revision}-01T12:00:00+00:00"
        write_submission(
            board, make_result(board, "middling", grades(3, *values), created=created), "middling", revision
        )
    return board


def rows(text: str) -> list[list[str]]:
    """Return the cells of the table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_a_comment_compares_a_new_submission_with_the_board(board: Board, tmp_path: Path) -> None:
    text = comment(check_boards(board.path.parent, ["worlds/middling/2"], now=NOW), board.path.parent)
    assert "**No error.** 1 submission checked: 0 errors, " in text
    (row,) = rows(text)
    assert row[:2] == ["`middling`", "`2`"]
    assert re.fullmatch(r"\d(–\d)?", row[4])
    assert re.fullmatch(r"−0\.\d+ \(−0\.\d+ to −0\.\d+\) `good`", row[5])
    assert re.fullmatch(r"\+0\.\d+ \(\+0\.\d+ to \+0\.\d+\) `bad`", row[6])
    assert re.fullmatch(r"\+0\.\d+.* `1`", row[7])
    assert row[8] == "0"


def test_an_earlier_revision_and_a_broken_submission_have_no_rank(board: Board) -> None:
    path = board.path / "bad" / "1" / RESULT_FILE
    path.write_text(path.read_text().replace('"overall":', '"overal":'))
    text = comment(check_boards(board.path.parent, now=NOW), board.path.parent)
    found = {(row[0], row[1]): row for row in rows(text)}
    assert found["`middling`", "`1`"][4] == "not its current one"
    assert found["`bad`", "`1`"][2:8] == ["–"] * 6 and found["`bad`", "`1`"][8] == "2"
    assert "**Not accepted.**" in text and "claimed.overal is not a figure of the board" in text


def test_the_command_writes_the_comment(board: Board, tmp_path: Path) -> None:
    words = ["board", "check", "worlds/good", "--root", str(board.path.parent), "--markdown", str(tmp_path / "c.md")]
    assert knowgen(words) == 0
    assert (tmp_path / "c.md").read_text().startswith("## Leaderboard check\n")


@pytest.mark.parametrize("text", [*HOSTILE, "@everyone", "![x](https://example.org/x.png)", "`", "``", "a|b", "a\\|b"])
def test_hostile_text_stays_in_its_code_span(text: str) -> None:
    span = code(text, 1000)
    assert span[0] == span[-1] == "`" and "`" not in span[1:-1]
    assert "|" not in span and "\n" not in span and span.isprintable()


def test_hostile_text_of_a_submission_is_nowhere_outside_of_code(board: Board) -> None:
    hostile = "@all <img src=x> [a](https://b.example) `c|d` #1 www.example.org"
    path = board.path / "good" / "1" / RESULT_FILE
    path.write_text(path.read_text().replace('"id":"s03"', f'"id":"{hostile}"'))
    (board.path / "good" / "1" / "@all <b>|`.txt").touch()
    text = comment(check_boards(board.path.parent, ["worlds/good"], now=NOW), board.path.parent)
    assert text.count("@all") >= 2
    outside = re.sub(r"`[^`\n]*`", "", text)
    for part in ("@", "<", "[a]", "example", "#1", "www"):
        assert part not in outside.replace("## ", "").replace("#### ", "")
