"""Images of a submission judged again: a faked score and a tampered image are named, an honest judge is not accused."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knowgen.cli.main import run as knowgen
from knowgen.core.errors import UsageError
from knowgen.core.records import DIMENSIONS, ParsedScore, ScoreStatus
from knowgen.leaderboards.checks.rejudged import Rejudged
from knowgen.leaderboards.folder import IMAGES, RESULT_FILE, Board, Submission, read_board
from knowgen.scorers.similarity.pixels import PixelSimilarity
from knowgen.scorers.vlm.judge import VlmJudge
from knowgen.workflows.board_check import Rejudging, check, named_boards
from knowgen.workflows.rejudge import draw, rejudge
from tests.helpers.checked_boards import digest, make_board, make_result, picture
from tests.helpers.judge_server import Call, JudgeServer, Step, good
from tests.helpers.rejudged_boards import PIXELS, fake, make_task_board, perfect, submit

TILES = "tests.helpers.rejudged_boards:Tiles"
JUDGE = "judge-2026-01-01"


@pytest.fixture(scope="module")
def measured_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board of eight samples with an honest submission that has all images, measured by `pixels`."""
    folder = tmp_path_factory.mktemp("measured")
    board = make_task_board(folder, 8, "pixels", PixelSimilarity.version, PIXELS)
    submit(board, TILES, "pixels")
    return folder


@pytest.fixture
def measured(measured_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """A copy of it, in the current folder."""
    shutil.copytree(measured_once, tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    return read_board(tmp_path / "copy" / "boards" / "small")


def again(board: Board, number: int = 8, **options: Any) -> Rejudged:
    return rejudge(board, board.submission("tiles"), number, seed=1, workers=0, **options)


def lines(result: Rejudged) -> list[str]:
    return [str(each) for each in result.findings()]


def test_honest_scores_of_a_scorer_that_measures_are_confirmed(measured: Board) -> None:
    result = again(measured, 5)
    assert lines(result) == [] and result.complete and result.measured
    assert (result.drawn, result.test.n, result.test.differing) == (5, 5, 0)
    assert result.line() == (
        "small/tiles/1: 5 of 5 images judged again (seed 1): 0 other values; raised scores of 28 % of the images "
        "would be found with 80 % power"
    )


def test_a_faked_score_of_a_scorer_that_measures_is_named(measured: Board) -> None:
    submission = measured.submission("tiles")
    fake(submission, measured, [3], lambda one: one.model_copy(update={"values": {**one.values, "ssim": 0.99}}))
    assert knowgen(["board", "check", "copy/boards/small"]) == 0  # it agrees with itself
    (line,) = lines(again(measured))
    assert "result.json, sample 's3': ssim is 0.99, pixels gives 0." in line and line.startswith("error")


def test_a_score_that_is_claimed_to_be_missing_is_named(measured: Board) -> None:
    submission = measured.submission("tiles")
    gone = ParsedScore(status=ScoreStatus.NOT_APPLICABLE, reason="too hard")
    fake(submission, measured, [3, 5], lambda one: gone)
    assert knowgen(["board", "check", "copy/boards/small"]) == 0  # some samples may have nothing to compare with
    (line,) = lines(again(measured))
    assert line.startswith("error") and "2 scores claimed to be not_applicable, pixels scores them: 's3', 's5'" in line


def test_a_perceptual_hash_that_hides_a_copy_is_named(measured: Board) -> None:
    shutil.copytree(submission_images(measured), "sent")
    shutil.rmtree(submission_images(measured))
    path = measured.submission("tiles").path / RESULT_FILE
    data = json.loads(path.read_text())
    for place, sample in enumerate(data["samples"]):
        image = sample["generations"][0]["image"]
        image |= {"file": "", "thumbnail": ""} | ({"perceptual": digest("any", place)} if place < 2 else {})
    path.write_text(json.dumps(data))
    assert knowgen(["board", "check", "copy/boards/small"]) == 0
    (line,) = lines(again(measured, images=[Path("sent")]))
    assert line.startswith("error") and "2 images of another perceptual hash: 's0', 's1'" in line


def submission_images(board: Board) -> Path:
    return board.submission("tiles").path / IMAGES


def test_a_tampered_image_is_named_by_its_hash(measured: Board, capsys: pytest.CaptureFixture[str]) -> None:
    submission = measured.submission("tiles")
    image = submission.read_result().samples[2].generations[0].image
    assert image is not None
    path = submission.path / IMAGES / image.file
    picture(5).save(path)
    result = again(measured)
    assert result.tampered == (str(path),) and result.without_file == ("s2",) and not result.complete
    assert f"{image.sha256}.png: the content is not that of its hash: it was changed" in lines(result)[0]
    assert knowgen(["board", "check", "copy/boards/small"]) == 3
    assert f"images/{image.file}: the content is not that of its name" in capsys.readouterr().out


@pytest.mark.slow
def test_images_are_found_in_other_folders_by_their_content(measured: Board, tmp_path: Path) -> None:
    (tmp_path / "sent").mkdir()
    for number, path in enumerate(sorted((measured.submission("tiles").path / IMAGES).glob("*.png"))):
        path.rename(tmp_path / "sent" / f"picture {number}.png")
    assert again(measured).test.n == 0
    result = again(measured, images=[tmp_path / "sent"], out=tmp_path / "found")
    assert result.test.n == 8 and result.complete and lines(result) == []


@pytest.mark.slow
def test_images_that_nobody_gives_leave_the_check_incomplete(
    measured: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(measured.submission("tiles").path / IMAGES)
    path = measured.submission("tiles").path / RESULT_FILE
    text = path.read_text()
    data = json.loads(text)
    for sample in data["samples"]:
        image = sample["generations"][0]["image"]
        text = text.replace(image["file"], "").replace(image["thumbnail"], "")
    path.write_text(text)
    words = [
        "board",
        "check",
        "small/tiles",
        "--root",
        str(measured.path.parent),
        "--rejudge",
        "3",
        "--seed",
        "1",
        "--workers",
        "0",
    ]
    assert knowgen(words) == 6
    assert "3 drawn images not found: " in capsys.readouterr().out
    assert knowgen([*words, "--images", "copy/runs/Tiles", "--markdown", "comment.md"]) == 0
    assert "3 of 3 images judged again (seed 1)" in (tmp_path / "comment.md").read_text()


def test_another_version_of_the_scorer_is_an_error(measured: Board) -> None:
    file = measured.path / "board.yaml"
    file.write_text(file.read_text().replace(PixelSimilarity.version, "pixels-0"))
    with pytest.raises(UsageError, match=r"pixels has version '.*' here, the board accepts 'pixels-0'"):
        again(read_board(measured.path))


def test_options_of_judging_again_need_it() -> None:
    assert knowgen(["board", "check", "--seed", "1"]) == 2


def test_boards_are_named_by_paths_too(measured: Board) -> None:
    assert named_boards(Path("leaderboards"), ["copy/boards/small/tiles"]) == (Path("copy/boards"), ("small/tiles",))
    assert named_boards(Path("leaderboards"), ["copy/boards"]) == (Path("copy/boards"), ())
    assert named_boards(Path("copy/boards"), ["small"]) == (Path("copy/boards"), ("small",))


# --- the draw -------------------------------------------------------------------------------------------------------


def test_images_are_drawn_from_every_group_with_a_seed(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    result = make_result(board)
    drawn = draw(result, board, 4, "1")
    assert draw(result, board, 4, "1") == drawn != draw(result, board, 4, "2")
    categories = {sample.id: sample.category for sample in board.samples}
    groups = [categories[each.sample] in ("biology", "physics") for each in drawn]
    assert sorted(groups) == [False, False, True, True]
    assert len(draw(result, board, 100, "1")) == 12


# --- a judge --------------------------------------------------------------------------------------------------------


def noisy(seed: int, best: float = 0.5) -> Any:
    """Return a judge that gives each dimension 0, 0.5 or 1 at random, whatever it is asked."""
    generator = random.Random(seed)

    def answer(call: Call) -> Step:
        values = {name: generator.choice((0, 0.5, best)) for name in DIMENSIONS}
        return Step(reply=good(**values), model=JUDGE)

    return answer


@pytest.fixture(scope="module")
def judged_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board of 24 samples with a submission whose scores a noisy judge gave."""
    folder = tmp_path_factory.mktemp("judged")
    with JudgeServer(noisy(1)) as server:
        address = {"base_url": server.url}
        board = make_task_board(folder, 24, "vlm:any", VlmJudge.version, DIMENSIONS, judges=[JUDGE], args=address)
        submit(board, TILES, "vlm:any", scorer_args=address)
    return folder


@pytest.fixture
def judged(judged_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Board, JudgeServer]]:
    shutil.copytree(judged_once, tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    with JudgeServer(noisy(2)) as server:
        yield read_board(tmp_path / "copy" / "boards" / "small"), server


def test_a_noisy_judge_does_not_accuse_an_honest_submission(judged: tuple[Board, JudgeServer]) -> None:
    board, server = judged
    result = again(board, 24, scorer_args={"base_url": server.url})
    assert len(server.calls) == 24  # no stored reply was used
    assert not result.measured and result.complete and lines(result) == []
    assert result.test.differing > 10 and result.test.p is not None and result.test.p > 0.01
    assert "would be found with 80 % power at level 0.01" in result.line()


def test_scores_that_a_noisy_judge_cannot_have_given_are_found(judged: tuple[Board, JudgeServer]) -> None:
    board, server = judged
    fake(board.submission("tiles"), board, range(0, 24, 2), perfect)
    checked = check(board.path.parent, rejudging=Rejudging(24, seed=1, scorer_args={"base_url": server.url}))
    (finding,) = checked.report.every
    assert finding.level == "error" and "above those of judging 24 images again (p = " in finding.what
    assert finding.where.startswith("small/tiles/1/result.json")
    assert checked.to_json()["rejudged"][0]["test"]["n"] == 24


def test_another_judge_than_the_boards_compares_nothing(judged: tuple[Board, JudgeServer]) -> None:
    board, server = judged
    server.script = (Step(reply=good(), model="judge-2027"),)
    result = again(board, 4, scorer_args={"base_url": server.url})
    assert not result.complete
    assert "judged again by 'judge-2027', which the board does not accept" in lines(result)[-1]


def test_a_judge_that_fails_leaves_the_check_incomplete(judged: tuple[Board, JudgeServer]) -> None:
    board, server = judged
    server.script = (Step(reply="I cannot say.", model=JUDGE),)
    result = again(board, 3, scorer_args={"base_url": server.url, "attempts": 1})
    assert result.test.n == 0 and len(result.failed) == 3 and not result.complete
    assert "3 images not judged again" in lines(result)[0]


# --- worlds, as on the board that comes with the project ------------------------------------------------------------


@pytest.mark.slow
def test_a_faked_score_of_the_world_check_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The submission is the one that is in the repository; the baseline makes its images again."""
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).resolve().parents[2] / "leaderboards"
    shutil.copytree(root / "worlds", "boards/worlds")
    board = read_board(Path("boards/worlds"))
    words = ["run", "--task", "knowgen_mini", "--generator", "closed_book", "--out", "run"]
    assert knowgen(words) == 0
    submission: Submission = board.submission("closed-book")
    ask = ["board", "check", "boards/worlds/closed-book", "--rejudge", "6", "--seed", "4", "--images", "run"]
    assert knowgen(ask) == 0
    fake(submission, board, range(48), perfect)
    assert knowgen([*ask, "--out", "again"]) == 3
