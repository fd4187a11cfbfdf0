"""`knowgen board rerun` makes images of a submission again, and says whether they are the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from knowgen.cli.main import run as knowgen
from knowgen.core.errors import UsageError
from knowgen.core.run_config import RunConfig
from knowgen.leaderboards.folder import RESULT_FILE, SYSTEM_FILE, Board, Submission, read_board
from knowgen.scorers.similarity.pixels import PixelSimilarity
from knowgen.workflows.rerun import rerun
from tests.helpers.rejudged_boards import PIXELS, make_task_board, submit

ALONE = RunConfig(workers=0)
TILES = "tests.helpers.rejudged_boards:Tiles"


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rerun")
    board = make_task_board(folder, 4, "pixels", PixelSimilarity.version, PIXELS)
    submit(board, TILES, "pixels", images="none", generator_args={"refuses": "prompt 3"}, seed=5)
    return folder


@pytest.fixture
def board(once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    shutil.copytree(once, tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    return read_board(tmp_path / "copy" / "boards" / "small")


def call(*words: str) -> int:
    return knowgen(["board", "rerun", "tiles", "--board", "small", "--root", "copy/boards", "--workers", "0", *words])


def change_adapter(board: Board, **changes: object) -> None:
    path = board.submission("tiles").path / SYSTEM_FILE
    data = yaml.safe_load(path.read_text())
    data["adapter"] |= changes
    path.write_text(yaml.safe_dump(data))


def test_a_system_that_repeats_itself_is_identical(board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--ids", "s0,s3") == 0  # the second is refused, now and then
    out = capsys.readouterr().out
    assert "small/tiles/1: identical: 2 images: 2 identical" in out
    assert "submitted - new is +0.000, 0 differ" in out
    assert call("--ids", "s0,s3", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["verdict"] == "identical" and [each["likeness"] for each in data["images"]] == ["identical"] * 2


def test_other_images_and_scores_are_named(board: Board) -> None:
    path = board.submission("tiles").path / RESULT_FILE
    first, second = (board.submission("tiles").read_result().samples[place].generations[0].image for place in (0, 1))
    assert first is not None and second is not None
    text = path.read_text().replace(first.sha256, "0" * 64).replace(second.sha256, "1" * 64)
    path.write_text(text.replace(second.perceptual, "5a" * 32))
    assert call("--ids", "s0,s1") == 3
    result = rerun(board, board.submission("tiles"), ids=["s0", "s1"], config=ALONE)
    assert [(each.sample, each.likeness) for each in result.images] == [("s0", "looks the same"), ("s1", "different")]
    assert result.images[0].bits == 0 and result.verdict == "different"


def test_a_package_that_is_not_installed_is_an_error_and_nothing_is_installed(
    board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    change_adapter(board, package="knowgen-duck==1.2")
    assert call("--samples", "1") == 4
    error = capsys.readouterr().err
    assert "needs the package 'knowgen-duck', which is not installed" in error
    assert "pip install 'knowgen-duck==1.2'" in error
    change_adapter(board, package="click==0.0.1")
    assert call("--samples", "1") == 2
    error = capsys.readouterr().err
    assert "click has version" in error and "the submission 0.0.1; install that version yourself" in error


def test_a_package_name_cannot_carry_a_command(board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    change_adapter(board, package="duck'; rm -rf ~; '")
    assert call("--samples", "1") == 2
    assert "not NAME==VERSION" in capsys.readouterr().err


def of_another_revision(board: Board) -> Submission:
    """Return the submission with another revision of its code."""
    submission = board.submission("tiles")
    path = submission.path / RESULT_FILE
    text = path.read_text()
    assert '"revision":"1"' in text
    path.write_text(text.replace('"revision":"1"', '"revision":"0.9"'))
    return submission


def test_another_revision_of_the_code_is_an_error(board: Board) -> None:
    with pytest.raises(UsageError, match=r"revision is 1 here, 0\.9 in the submission"):
        rerun(board, of_another_revision(board), ids=["s0"], config=ALONE)


@pytest.mark.slow
def test_another_revision_of_the_code_is_noted_where_it_is_allowed(board: Board) -> None:
    submission = of_another_revision(board)
    result = rerun(board, submission, ids=["s0"], any_version=True, config=ALONE)
    assert result.verdict == "identical" and "revision is 1 here" in result.notes[0]


def test_the_samples_must_be_named() -> None:
    assert knowgen(["board", "rerun", "tiles"]) == 2  # without a board


def test_neither_ids_nor_a_number_of_samples_is_an_error(board: Board) -> None:
    submission = board.submission("tiles")
    with pytest.raises(UsageError, match="give --ids A,B or --samples N"):
        rerun(board, submission)
    with pytest.raises(UsageError, match="give --ids A,B or --samples N"):
        rerun(board, submission, ids=["s0"], samples=2)
