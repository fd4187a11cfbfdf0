"""`knowgen board withdraw`: a reason that stays with the files, and what the board shows then."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from knowgen.cli.main import run
from knowgen.leaderboards.folder import Board, read_board
from tests.helpers.board_runs import Painted, add, make_board, make_run, write_system


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a board with two revisions of a system."""
    folder = tmp_path_factory.mktemp("shared")
    board = make_board(folder)
    for number in (1, 2):
        made = make_run(folder, f"run{number}", Painted(size=60 + number))
        assert add(board, made.path, write_system(made.path, folder, revision=str(number))) == 0
    return folder


@pytest.fixture
def board(shared: Path, tmp_path: Path) -> Board:
    shutil.copytree(shared / "leaderboards", tmp_path / "leaderboards")
    return read_board(tmp_path / "leaderboards" / "small")


def withdraw(board: Board, key: str, *options: str, reason: str = "a wrong seed") -> int:
    words = [key, "--board", board.name, "--root", str(board.path.parent), "--reason", reason, *options]
    return run(["board", "withdraw", *words])


def test_a_withdrawn_revision_keeps_its_files_and_the_board_shows_the_one_before(
    board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert withdraw(board, "painted/2", "--date", "2026-11-30", reason="made with: the wrong seed\nsee #4") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("small: painted/2 is withdrawn; its files stay in ")
    assert second == "the board shows revision 1 of painted now"
    folder = board.path / "painted/2"
    assert sorted(file.name for file in folder.iterdir()) == ["result.json", "system.yaml", "withdrawn.yaml"]
    written = yaml.safe_load((folder / "withdrawn.yaml").read_text())
    assert written == {"date": "2026-11-30", "reason": "made with: the wrong seed\nsee #4"}
    assert withdraw(board, "painted") == 0  # the only one that is left
    assert capsys.readouterr().out.splitlines()[1] == "the board no longer shows painted"


@pytest.mark.parametrize(
    ("key", "options", "reason", "line"),
    [
        ("painted", (), "x", "'painted' has several revisions; name one: painted/1, painted/2"),
        ("other/1", (), "x", "no submission 'other/1'; the board has painted/1, painted/2"),
        ("painted/1", ("--date", "30.11.2026"), "x", "give --reason, and --date as YYYY-MM-DD"),
        ("painted/1", ("--date", "2026-02-30"), "x", "give --reason, and --date as YYYY-MM-DD"),
        ("painted/1", (), "  ", "give --reason, and --date as YYYY-MM-DD"),
        ("painted/1", (), "the key sk-proj-abcdefghijkl was used", "looks like a key"),
    ],
)
def test_what_cannot_be_withdrawn_is_one_line(
    board: Board, capsys: pytest.CaptureFixture[str], key: str, options: tuple[str, ...], reason: str, line: str
) -> None:
    capsys.readouterr()
    assert withdraw(board, key, *options, reason=reason) in (2, 3)
    (error,) = capsys.readouterr().err.splitlines()
    assert line in error
    assert not list(board.path.rglob("withdrawn.yaml"))


def test_a_submission_is_withdrawn_once(board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    assert withdraw(board, "painted/1", "--date", "2026-11-30") == 0
    capsys.readouterr()
    assert withdraw(board, "painted/1", reason="another") == 2
    assert "painted/1 is withdrawn since 2026-11-30: a wrong seed" in capsys.readouterr().err
