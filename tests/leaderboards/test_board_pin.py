"""`knowgen board pin`: the version in `board.yaml`, and the samples with hashes in place of ground truths."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from knowgen.cli.main import run
from knowgen.leaderboards.figures import current
from knowgen.leaderboards.folder import Board, read_board
from tests.helpers.board_runs import add, make_board, make_run, small_task, write_system


def board_of_folder(folder: Path, *, pinned: bool = False) -> Board:
    """Write a board whose task is a folder relative to its own."""
    small_task(folder)
    return make_board(folder, pinned=pinned, task={"name": "../../small"})


def pin(board: Board, *options: str) -> int:
    return run(["board", "pin", board.name, "--root", str(board.path.parent), *options])


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    return line


def change_task(folder: Path) -> None:
    samples = folder / "small" / "samples.jsonl"
    samples.write_text(samples.read_text().replace('"six"', '"sixty"'))


@pytest.mark.parametrize(
    ("name", "loaded"),
    [
        ("birds.py:Birds", "{board}/birds.py:Birds"),
        ("data", "{board}/data"),
        ("vlm:birds.py", "vlm:birds.py"),
        ("elsewhere.py:Birds", "elsewhere.py:Birds"),
        ("birds", "birds"),
    ],
)
def test_files_and_folders_are_those_of_the_board_wherever_a_command_is_given(
    tmp_path: Path, name: str, loaded: str
) -> None:
    board = board_of_folder(tmp_path)
    (board.path / "birds.py").write_text("")
    (board.path / "data").mkdir()
    (board.path / "data" / "task.yaml").write_text("")
    assert board.beside(name) == loaded.format(board=board.path)


def test_the_samples_of_the_task_are_written_with_hashes_of_its_truths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = board_of_folder(tmp_path)
    assert pin(board) == 0
    assert "small: pinned to ../../small 1-" in capsys.readouterr().out
    lines = [json.loads(line) for line in (board.path / "samples.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == ["one", "two", "three", "four", "five", "six"]
    for number, line in enumerate(lines):
        truth = (tmp_path / "small" / "truth" / f"s{number}.png").read_bytes()
        assert line["truth"]["sha256"] == hashlib.sha256(truth).hexdigest()
        assert len(line["truth"]["perceptual"]) == 64
        assert set(line) == {"id", "prompt", "category", "difficulty", "text_required", "truth"}
    assert read_board(board.path).file.task.version is not None


@pytest.mark.parametrize(
    "task",
    [
        "task:\n  name: ../../small  # the data\n  # not pinned yet\n  version:  # written by pin\n",
        "task:\n  name: ../../small\n  version: null\n",
        'task:\n    name: "../../small"\n    version: "0"  # an old one\n',
        "task:\n  name: ../../small\n",
        "task:\n    name: ../../small # the data\n",
        "task: {name: ../../small}\n",
        "task: {version: , name: ../../small}\n",
        "task: {version: old, name: ../../small} # flow\n",
    ],
)
def test_comments_and_order_of_the_board_file_stay(tmp_path: Path, task: str) -> None:
    board = board_of_folder(tmp_path)
    file = board.path / "board.yaml"
    rest = file.read_text().replace("task:\n  name: ../../small\n", "")
    file.write_text(f"# a board\n{task}# and the rest\n{rest}# the end\n")
    expected = yaml.safe_load(file.read_text())
    assert pin(board) == 0
    text, version = file.read_text(), read_board(board.path).file.task.version
    assert yaml.safe_load(text) == {**expected, "task": {**expected["task"], "version": version}}
    comments = [part for line in task.splitlines() for part in [line.partition("#")[2]] if part]
    for comment in ("a board", "and the rest", "the end", *comments):
        assert comment in text
    assert text.replace(f'"{version}"', "").split() != text.split()
    assert pin(board) == 0
    assert file.read_text() == text


def test_another_version_than_the_one_asked_for_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = board_of_folder(tmp_path)
    assert pin(board, "--task-version", "1-000000000000") == 2
    assert "the task on this machine has version 1-" in error_line(capsys)
    assert not (board.path / "samples.jsonl").exists()
    assert read_board(board.path).file.task.version is None


def test_a_board_with_submissions_is_moved_only_by_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = board_of_folder(tmp_path, pinned=True)
    made = make_run(tmp_path)
    assert add(board, made.path, write_system(made.path, tmp_path)) == 0
    assert pin(board) == 0  # to the same version
    change_task(tmp_path)
    before = (board.path / "board.yaml").read_text()
    capsys.readouterr()
    assert pin(board) == 2
    assert "1 submission of the board would be of another version of the task" in error_line(capsys)
    assert (board.path / "board.yaml").read_text() == before
    assert pin(board, "--force") == 0
    output = capsys.readouterr()
    assert f"(before: {board.file.task.version})" in output.out
    assert output.err.strip() == "warning: of another version of the task, and no longer shown: painted/1"
    moved = read_board(board.path)
    assert moved.samples[5].prompt == "sixty"
    assert current(list(moved.submissions()), moved.file.task.version) == []


def test_the_samples_of_a_season_are_not_pinned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = make_board(tmp_path, pinned=False, season="season.yaml")
    assert pin(board) == 2
    assert "use `knowgen board season`" in error_line(capsys)


def test_a_task_that_is_not_prepared_is_one_line_that_says_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KNOWGEN_DATA", str(tmp_path / "data"))
    board = make_board(tmp_path, pinned=False, task={"name": "knowgen"})
    assert pin(board) == 3
    assert "knowgen task prepare knowgen" in error_line(capsys)
