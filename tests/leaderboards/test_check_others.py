"""`knowgen board check` compares a submission with others: copies, drift, what a revision lost, what was changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.spec import AgentSpec
from knowgen.leaderboards.check import check_boards
from knowgen.leaderboards.checks.findings import BoardFinding, CheckReport
from knowgen.leaderboards.folder import IMAGES, RESULT_FILE, SYSTEM_FILE, WITHDRAWN_FILE, Board
from knowgen.leaderboards.records import SubmissionResult, SubmittedGeneration
from tests.helpers.checked_boards import (
    digest,
    failed,
    honest,
    make_board,
    make_result,
    the_error,
    the_warning,
    with_generation,
    with_images,
    write_submission,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return make_board(tmp_path / "boards")


def check(board: Board, *names: str, **options: Any) -> CheckReport:
    return check_boards(board.path.parent, names, now=NOW, **options)


# --- between submissions --------------------------------------------------------------------------------------------


def test_images_of_another_system_are_an_error_and_a_single_one_a_warning(board: Board) -> None:
    write_submission(board, make_result(board, "inked"), "inked")
    copied = with_images(board, lambda place: {"sha256": digest("file", "inked", place)} if place < 2 else {})
    write_submission(board, copied)
    assert "2 images of 12 identical to those of inked: 's00', 's01'" in the_error(check(board, "worlds/painted"))
    path = board.path / "painted" / "1" / RESULT_FILE
    path.write_text(path.read_text().replace(digest("file", "inked", 1), digest("of its own")))
    assert "1 image of 12 identical to those of inked: 's00'" in the_warning(check(board, "worlds/painted"))


def test_images_that_look_like_those_of_another_system_are_a_warning(board: Board) -> None:
    write_submission(board, make_result(board, "inked"), "inked")
    write_submission(board, with_images(board, lambda place: {"perceptual": digest("inked", place)}))
    assert "12 images of 12 look the same as those of inked" in the_warning(check(board, "worlds/painted"))


def test_a_copy_is_found_although_its_perceptual_hash_claims_one_colour(board: Board) -> None:
    write_submission(board, make_result(board, "inked"), "inked")
    copied = with_images(
        board, lambda place: {"sha256": digest("file", "inked", place), "perceptual": "80" + "00" * 31}
    )
    write_submission(board, copied)
    for name in ("worlds/painted", "worlds/inked"):
        (line,) = [str(each) for each in check(board, name).every if each.level == "error"]
        assert "12 images of 12 identical to those of" in line


def test_one_colour_images_are_not_copies(board: Board) -> None:
    flat = {"sha256": digest("black"), "perceptual": "80" + "00" * 31}
    for slug in ("painted", "inked"):
        write_submission(board, with_images(board, lambda place: flat if place < 2 else {}, slug), slug)
    assert list(check(board).every) == []


@pytest.mark.parametrize("model", ["inked", "painted"])
def test_only_its_own_image_model_gives_an_agents_fallback_the_image_that_it_gives_alone(
    model: str, board: Board
) -> None:
    write_submission(board, make_result(board, "inked"), "inked")
    spec = make_result(board, model).spec.model_copy(update={"agent": AgentSpec(name="searcher", revision="1")})
    result = with_images(board, lambda place: {"sha256": digest("file", "inked", place)})
    data = {"status": "none", "ending": "no answer"}
    samples = [
        each.model_copy(
            update={
                "generations": tuple(
                    SubmittedGeneration.model_validate({**one.model_dump(), "answer": data, "fallback": "no answer"})
                    for one in each.generations
                )
            }
        )
        for each in result.samples
    ]
    result = honest(result.model_copy(update={"spec": spec, "samples": tuple(samples)}), board)
    adapter = {"generator": "searcher", "revision": "1", "arguments": {"painter": f"{model}.py:Painter"}}
    write_submission(board, result, kind="agent", adapter=adapter)
    found = [str(each) for each in check(board, "worlds/painted").every]
    assert [": 12 images of 12 identical to those of inked" in each for each in found] == [True] * (model != "inked")


def test_revisions_of_one_system_may_share_images(board: Board) -> None:
    write_submission(board, make_result(board))
    write_submission(board, make_result(board, created="2026-02-01T12:00:00+00:00"), revision="2")
    assert list(check(board).every) == []


def test_one_image_for_many_prompts_is_a_warning(board: Board) -> None:
    same = {"sha256": digest("filter"), "perceptual": digest("filtered")}
    result = with_images(board, lambda place: same if place < 3 else {})
    write_submission(board, result)
    assert "was made for 3 prompts: 's00', 's01', 's02'" in the_warning(check(board))


def test_another_version_than_that_of_the_others_is_a_warning(board: Board) -> None:
    for slug in ("inked", "etched"):
        write_submission(board, make_result(board, slug), slug)
    write_submission(board, make_result(board, knowgen="0.3.0"))
    found = the_warning(check(board, "worlds/painted"))
    assert "the version of knowgen is 0.3.0, that of 2 of 2 others is 0.2.0" in found


def test_another_rubric_than_that_of_the_others_is_a_warning(board: Board) -> None:
    for slug in ("inked", "etched"):
        write_submission(board, make_result(board, slug).model_copy(update={"rubric": digest("rubric")}), slug)
    write_submission(board, make_result(board).model_copy(update={"rubric": digest("milder")}))
    found = the_warning(check(board, "worlds/painted"))
    mine, theirs = digest("milder")[:12], digest("rubric")[:12]
    assert f"the rubric is {mine}, that of 2 of 2 others is {theirs}" in found


def test_a_revision_that_lost_a_sample_and_whose_score_moved_is_named(board: Board) -> None:
    write_submission(board, make_result(board, grade=lambda place: 1))
    later = make_result(board, grade=lambda place: 0, created="2026-02-01T12:00:00+00:00")
    write_submission(board, honest(with_generation(later, 3, failed), board), revision="2")
    lost, moved = [str(each) for each in check(board, "worlds/painted/2").every]
    assert "1 sample scored in revision 1 without a score now: 's03'" in lost
    assert "overall is -1.000 from revision 1 (p = " in moved
    assert all(line.startswith("warning") for line in (lost, moved))


def test_a_revision_of_another_system_is_not_put_in_its_folder(board: Board) -> None:
    write_submission(board, make_result(board))
    later = make_result(board, created="2026-02-01T12:00:00+00:00")
    write_submission(board, later, revision="2", name="Mine")
    found = the_error(check(board, "worlds/painted/2"))
    assert (
        "owner: worlds/painted/2/system.yaml: name is 'Mine', other revisions of the folder are of 'painted'" in found
    )
    write_submission(board, later, revision="2", contact="me@example.org")
    assert "contact is 'me@example.org'" in the_warning(check(board, "worlds/painted/2"))


# --- against an earlier state ---------------------------------------------------------------------------------------


def copy_of(board: Board, folder: Path) -> Path:
    """Return a copy of the boards, as the branch that a pull request is for."""
    return Path(shutil.copytree(board.path.parent, folder, symlinks=True))


def test_only_what_changed_is_checked_against_an_earlier_state(board: Board, tmp_path: Path) -> None:
    (write_submission(board, make_result(board, "inked"), "inked") / "notes.txt").touch()
    before = copy_of(board, tmp_path / "before")
    assert check(board, against=before).closing_line() == "0 submissions checked: 0 errors, 0 warnings"
    write_submission(board, make_result(board))
    report = check(board, against=before)
    assert [(each.key, each.findings) for each in report.submissions] == [("painted/1", ())]


def test_a_checkout_that_has_the_boards_is_an_earlier_state_too(board: Board, tmp_path: Path) -> None:
    write_submission(board, make_result(board))
    copy_of(board, tmp_path / "checkout" / board.path.parent.name)
    assert check(board, against=tmp_path / "checkout").submissions == ()
    (tmp_path / "empty").mkdir()
    report = check(board, against=tmp_path / "empty")
    assert len(report.submissions) == 1 and report.notes == (f"{tmp_path / 'empty'} has no board: everything is new",)


def test_nothing_on_the_board_may_change_except_by_a_withdrawal(board: Board, tmp_path: Path) -> None:
    folder = write_submission(board, make_result(board))
    gone = write_submission(board, make_result(board, "inked"), "inked")
    before = copy_of(board, tmp_path / "before")
    (folder / WITHDRAWN_FILE).write_text("date: '2026-05-01'\nreason: The images were lost.\n")
    report = check(board, against=before)
    assert [str(each) for each in report.every] == [] and report.submissions[0].withdrawn

    (folder / SYSTEM_FILE).write_text((folder / SYSTEM_FILE).read_text().replace("2B", "3B"))
    for path in sorted(gone.iterdir()):
        path.unlink()
    gone.rmdir()
    (folder / IMAGES).mkdir()
    (folder / IMAGES / f"{digest('new')}.jpg").write_bytes(b"new")
    found = sorted(each.text for each in check(board, against=before).findings)
    assert found == [
        "unchanged: worlds/inked/1: the revision was deleted; restore it, and withdraw it instead",
        f"unchanged: worlds/painted/1/images/{digest('new')}.jpg: was added to a revision that is on the board; "
        "restore it, and submit changes as a new revision",
        "unchanged: worlds/painted/1/system.yaml: was changed; restore it, and submit changes as a new revision",
    ]


def test_a_board_is_not_changed_together_with_submissions(board: Board, tmp_path: Path) -> None:
    before = copy_of(board, tmp_path / "before")
    (board.path / "board.yaml").write_text((board.path / "board.yaml").read_text() + "min_coverage: 0.1\n")
    assert "1 file of the board changed: 'worlds/board.yaml'" in the_warning(check(board, against=before))
    write_submission(board, make_result(board))
    assert "change a board in a pull request of its own" in the_error(check(board, against=before))


def test_a_new_board_is_named(board: Board, tmp_path: Path) -> None:
    before = copy_of(board, tmp_path / "before")
    write_submission(board, make_result(board))
    shutil.copytree(board.path, board.path.parent / "mine")
    assert "mine/board.yaml: is a new board" in the_warning(check(board, "mine", against=before))


def test_a_link_in_place_of_all_boards_is_an_error(board: Board, tmp_path: Path) -> None:
    before = copy_of(board, tmp_path / "before")
    link = tmp_path / "linked"
    link.symlink_to(before)
    assert "files: linked: is a symbolic link" in the_error(check_boards(link, against=before, now=NOW))


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "slug", "words"),
    [
        ("Inked", "inked-2", "whose folder would be 'inked' and not 'inked-2'"),
        ("Inked", "inked-2", "is that of another system of the board, inked"),
        ("\uff29nked", "nked", "is that of another system of the board, inked"),
        ("Ink\u200bed", "ink-ed", "is not one line of visible characters"),
        ("in\nked", "in-ked", "is not one line of visible characters"),
        (" ", "blank", "is not one line of visible characters"),
    ],
)
def test_a_name_that_looks_like_that_of_another_system_is_an_error(
    name: str, slug: str, words: str, board: Board
) -> None:
    write_submission(board, make_result(board, "inked"), "inked")
    write_submission(board, make_result(board, "other"), slug, name=name)
    report = check(board, f"worlds/{slug}")
    assert not report.ok and words in "\n".join(str(each) for each in report.every)


def test_many_different_images_of_one_colour_are_worth_a_look(board: Board) -> None:
    write_submission(board, with_images(board, lambda place: {"perceptual": "80" + "00" * 31} if place < 3 else {}))
    assert "3 different images are of one colour by their perceptual hashes: 's00'" in the_warning(check(board))


# --- a broken submission does not stop the check of the others ------------------------------------------------------


def twice(result: SubmissionResult) -> SubmissionResult:
    return result.model_copy(update={"samples": (*result.samples, result.samples[0])})


def of_no_protocol(result: SubmissionResult) -> SubmissionResult:
    return result.model_copy(update={"protocol": "generous"})


@pytest.mark.parametrize("broken", [twice, of_no_protocol])
@pytest.mark.parametrize("revision", ["1", "2"])
def test_a_broken_revision_is_named_and_the_others_are_checked(
    broken: Callable[[SubmissionResult], SubmissionResult], revision: str, board: Board
) -> None:
    for name in ("1", "2"):
        result = make_result(board, created=f"2026-0{name}-01T12:00:00+00:00")
        write_submission(board, broken(result) if name == revision else result, revision=name)
    write_submission(board, make_result(board, "zoned"), "zoned")
    report = check(board)
    assert [each.key for each in report.submissions] == ["painted/1", "painted/2", "zoned/1"]
    assert {each.where.split("/")[2] for each in report.every if each.level == "error"} == {revision}
    assert "not compared with revision 1: " in str([str(each) for each in report.every if each.check == "history"])


def test_a_fault_of_the_check_itself_is_a_finding_of_that_submission(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> Iterator[BoardFinding]:
        raise RuntimeError("unforeseen")

    write_submission(board, make_result(board))
    monkeypatch.setattr("knowgen.leaderboards.check.check_facts", fail)
    assert "cannot be checked: RuntimeError: unforeseen" in the_error(check(board))
