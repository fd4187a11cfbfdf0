"""`knowgen board check` names what is wrong with a submission, in one line, and accepts one that is right."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import UsageError
from knowgen.core.records import FailureCause, ParsedScore, ScoreStatus
from knowgen.core.spec import Selection
from knowgen.leaderboards.check import check_boards
from knowgen.leaderboards.checks.findings import BoardFinding, CheckReport
from knowgen.leaderboards.folder import IMAGES, REPLIES_FILE, RESULT_FILE, SYSTEM_FILE, WITHDRAWN_FILE, Board
from knowgen.leaderboards.records import SubmissionResult, SubmittedGeneration, SubmittedScore
from tests.helpers.checked_boards import (
    changed_image,
    digest,
    failed,
    honest,
    make_board,
    make_result,
    picture,
    the_error,
    with_generation,
    with_images,
    with_pictures,
    write_replies,
    write_submission,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return make_board(tmp_path / "boards")


def check(board: Board, *names: str, **options: Any) -> CheckReport:
    return check_boards(board.path.parent, names, now=NOW, **options)


def grades(place: int) -> float:
    return (0, 0.5, 1)[place % 3]


# --- what is right --------------------------------------------------------------------------------------------------


def test_good_submissions_pass_without_a_word(board: Board) -> None:
    replied = write_submission(board, make_result(board))
    write_replies(replied, board, grades)
    pictured = with_pictures(make_result(board, "inked", lambda place: 0.5), board, "inked", full=(1, 2))
    write_submission(board, pictured, "inked")
    report = check(board)
    assert [str(each) for each in report.every] == []
    assert report.closing_line() == "2 submissions checked: 0 errors, 0 warnings"


def test_a_failed_generation_and_a_refused_score_are_states_and_not_faults(board: Board) -> None:
    result = with_generation(make_result(board), 1, failed)
    assert list(check_of(board, honest(result, board)).every) == []


def check_of(board: Board, result: SubmissionResult, **changes: Any) -> CheckReport:
    write_submission(board, result, **changes)
    return check(board)


# --- one fault each -------------------------------------------------------------------------------------------------


Break = Callable[[Board], None]
BROKEN: dict[str, tuple[Break, tuple[str, ...]]] = {}


def broken(*words: str) -> Callable[[Break], Break]:
    """Register a way to break a submission, and words of the line that must name it."""

    def register(function: Break) -> Break:
        BROKEN[function.__name__] = (function, words)
        return function

    return register


def change_result(board: Board, change: Callable[[dict[str, Any]], object]) -> None:
    """Write a submission whose result is changed as plain data, in its usual form: a line for each sample."""
    folder = write_submission(board, make_result(board))
    data = json.loads((folder / RESULT_FILE).read_text())
    change(data)
    samples = ",\n".join(json.dumps(each) for each in data.pop("samples"))
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(data.items())]
    (folder / RESULT_FILE).write_text("{\n" + ",\n".join([*lines, f'"samples": [\n{samples}\n]']) + "\n}\n")


def change_samples(board: Board, change: Callable[[SubmissionResult], SubmissionResult]) -> None:
    """Write a submission whose claims follow from its changed samples."""
    write_submission(board, honest(change(make_result(board)), board))


def score_of(data: dict[str, Any], place: int) -> dict[str, Any]:
    score: dict[str, Any] = data["samples"][place]["generations"][0]["scores"][0]
    return score


@broken("schema: worlds/painted/1/system.yaml:4: author: unknown field", "did you mean 'authors'?")
def an_unknown_field(board: Board) -> None:
    folder = write_submission(board, make_result(board))
    text = (folder / SYSTEM_FILE).read_text()
    (folder / SYSTEM_FILE).write_text(text.replace("kind: image_model\n", "kind: image_model\nauthor: me\n"))


@broken("schema: worlds/painted/1/result.json:", "sample 's02', generations.0.status", "got 'fine'")
def an_unknown_status(board: Board) -> None:
    change_result(board, lambda data: data["samples"][2]["generations"][0].update(status="fine"))


@broken("schema: worlds/painted/1/result.json: invalid JSON: NaN is not a JSON number")
def a_value_that_is_not_a_number(board: Board) -> None:
    change_result(board, lambda data: score_of(data, 1)["strict"]["values"].update(aesthetics=float("nan")))


@broken("schema: worlds/painted/1/system.yaml: revision is '2', the folder is '1'", "give both the same name")
def another_revision_than_its_folder(board: Board) -> None:
    write_submission(board, make_result(board), **{"revision": "1"})
    path = board.path / "painted" / "1" / SYSTEM_FILE
    path.write_text(path.read_text().replace("revision: '1'\nkind", "revision: '2'\nkind"))


@broken("files: worlds/painted/1/notes.txt: is not a file of a submission; remove it")
def an_unknown_file(board: Board) -> None:
    (write_submission(board, make_result(board)) / "notes.txt").write_text("see my homepage")


@broken("files: worlds/painted/1/result.json: is a symbolic link", "links are not followed")
def a_link(board: Board) -> None:
    folder = write_submission(board, make_result(board))
    (folder / RESULT_FILE).rename(board.path.parent / "elsewhere.json")
    (folder / RESULT_FILE).symlink_to(board.path.parent / "elsewhere.json")


@broken("files: worlds/painted/.. 2: the name '.. 2' is not allowed", "lower-case letters")
def a_folder_with_another_name(board: Board) -> None:
    write_submission(board, make_result(board), "painted", ".. 2")


@broken("files: worlds/painted/1/system.yaml: is missing; make the submission with `knowgen board add`")
def a_missing_file(board: Board) -> None:
    (write_submission(board, make_result(board)) / SYSTEM_FILE).unlink()


@broken("ids: worlds/painted/1/result.json: 1 sample of the board missing: 's05'", "covers all samples")
def a_missing_sample(board: Board) -> None:
    change_samples(board, lambda one: one.model_copy(update={"samples": (*one.samples[:5], *one.samples[6:])}))


@broken("ids: worlds/painted/1/result.json: 1 sample that the board does not have: 'new'")
def an_unknown_sample(board: Board) -> None:
    extra = {"id": "new"}
    change_samples(
        board, lambda one: one.model_copy(update={"samples": (*one.samples, one.samples[0].model_copy(update=extra))})
    )


@broken("ids: worlds/painted/1/result.json: 1 sample more than once: 's03'")
def a_sample_twice(board: Board) -> None:
    change_result(board, lambda data: data["samples"].append(data["samples"][3]))


@broken("ids: worlds/painted/1/result.json, sample 's04': has judge repeats 0, 0 instead of 0")
def a_judge_repeat_twice(board: Board) -> None:
    change_result(board, lambda data: data["samples"][4]["generations"][0]["scores"].append(score_of(data, 4)))


@broken("ids: worlds/painted/1/result.json: the samples are not in the order of the task")
def samples_out_of_order(board: Board) -> None:
    change_result(board, lambda data: data["samples"].reverse())


@broken("states: worlds/painted/1/result.json, sample 's02': the generation is ok and has no image")
def an_ok_generation_without_an_image(board: Board) -> None:
    change_samples(board, lambda one: with_generation(one, 2, lambda each: each.model_copy(update={"image": None})))


@broken("states: worlds/painted/1/result.json, sample 's04': the score is ok, without an image")
def a_score_without_an_image(board: Board) -> None:
    def change(one: SubmittedGeneration) -> SubmittedGeneration:
        score = SubmittedScore(strict=one.scores[0].strict)
        return failed(one).model_copy(update={"scores": (score,)})

    change_samples(board, lambda one: with_generation(one, 4, change))


@broken("states: worlds/painted/1/result.json, sample 's01': the generation failed without a reason")
def a_failure_without_a_reason(board: Board) -> None:
    change_samples(board, lambda one: with_generation(one, 1, lambda each: failed(each, reason=" ")))


def with_value(dimension: str, value: float) -> Callable[[SubmissionResult], SubmissionResult]:
    def change(one: SubmittedGeneration) -> SubmittedGeneration:
        strict = one.scores[0].strict
        values = {**strict.values, dimension: value}
        score = one.scores[0].model_copy(update={"strict": strict.model_copy(update={"values": values})})
        return one.model_copy(update={"scores": (score,)})

    return lambda result: with_generation(result, 3, change)


@broken(
    "values: worlds/painted/1/result.json, sample 's03': aesthetics of the strict score is 1.5; values are in [0, 1]"
)
def a_value_out_of_range(board: Board) -> None:
    change_samples(board, with_value("aesthetics", 1.5))


@broken("values: worlds/painted/1/result.json, sample 's03': aesthetics of the strict score is 0.7", "one of 0, 0.5, 1")
def a_value_off_the_grid(board: Board) -> None:
    change_samples(board, with_value("aesthetics", 0.7))


@broken("figures: worlds/painted/1/result.json: claimed.overall is 0.9, the scores give 0.3")
def a_raised_figure(board: Board) -> None:
    change_result(board, lambda data: data["claimed"].update(overall=0.9))


@broken("figures: worlds/painted/1/result.json: coverage.scored is 11, the scores give 12")
def another_coverage(board: Board) -> None:
    change_result(board, lambda data: data["coverage"].update(scored=11))


@broken("figures: worlds/painted/1/result.json: judges.judge-2026-01-01 is 13, the scores give 12")
def another_number_of_judges(board: Board) -> None:
    change_result(board, lambda data: data["judges"].update({"judge-2026-01-01": 13}))


@broken("eligibility: worlds/painted/1/result.json: another version of the task", "the board made_up 1-abcdef012345")
def another_task_version(board: Board) -> None:
    change_result(board, lambda data: data["spec"].update(task_version="1-fedcba543210"))


@broken("eligibility: worlds/painted/1/result.json: only a part of the task")
def a_selection(board: Board) -> None:
    selection = Selection(kind="limit", n=12, hash="abc").model_dump(mode="json")
    change_result(board, lambda data: data["spec"].update(selection=selection))


@broken("eligibility: worlds/painted/1/result.json: another version of vlm:judge: the run has 'knowgen-old'")
def another_scorer_version(board: Board) -> None:
    def change(data: dict[str, Any]) -> None:
        data["scorer"]["version"] = data["spec"]["scorers"][0]["version"] = "knowgen-old"

    change_result(board, change)


@broken("eligibility: worlds/painted/1/result.json: painted.py:Painter is privileged")
def a_privileged_generator(board: Board) -> None:
    change_result(board, lambda data: data["spec"]["generator"].update(privileged=True))


@broken("eligibility: worlds/painted/1/result.json: the judge has moved: 12 scores from judge-2027")
def another_judge(board: Board) -> None:
    def change(data: dict[str, Any]) -> None:
        data["judges"] = {"judge-2027": 12}
        for place in range(12):
            score_of(data, place)["judge"] = "judge-2027"

    change_result(board, change)


@broken("eligibility: worlds/painted/1/result.json: another protocol")
def another_protocol_version(board: Board) -> None:
    change_result(board, lambda data: data.update(protocol_version="1"))


@broken("eligibility: worlds/painted/1/result.json: 1 generation failed for reasons outside the system (no network)")
def an_outage(board: Board) -> None:
    outage = {"cause": FailureCause.INFRASTRUCTURE}
    change_samples(
        board, lambda one: with_generation(one, 1, lambda each: failed(each, "no network").model_copy(update=outage))
    )


@broken("eligibility: worlds/painted/1/system.yaml: adapter.generator is 'other', the run has 'painted.py:Painter'")
def another_adapter(board: Board) -> None:
    write_submission(board, make_result(board), adapter={"generator": "other", "revision": "1"})


@broken("facts: worlds/painted/1/result.json: cost.total is -1; a cost is 0 or more US dollars")
def a_negative_cost(board: Board) -> None:
    change_result(board, lambda data: data["cost"].update(total=-1.0))


@broken("facts: worlds/painted/1/result.json: created in the future: 2026-07-01T00:00:00+00:00", "correct the clock")
def created_in_the_future(board: Board) -> None:
    change_result(board, lambda data: data.update(created="2026-07-01T00:00:00+00:00"))


@broken("images: worlds/painted/1/images/", "the content is not that of its name: it was changed (sample 's02')")
def a_tampered_image(board: Board) -> None:
    result = with_pictures(make_result(board), board)
    folder = write_submission(board, result)
    image = result.samples[2].generations[0].image
    assert image is not None
    picture(999).save(folder / IMAGES / f"{image.thumbnail}.jpg")


@broken("images: worlds/painted/1/images/", "does not look like the image (sample 's02')", "at most 60 may")
def a_thumbnail_of_another_image(board: Board) -> None:
    result = with_pictures(make_result(board), board)
    other = {"perceptual": digest("another image")}
    write_submission(
        board,
        changed_image(result, 2, other),
    )


@broken("images: worlds/painted/1/images/", "does not open: 800x600 pixels", "(sample 's02')")
def a_thumbnail_that_is_too_large(board: Board) -> None:
    result = with_pictures(make_result(board), board)
    folder = board.path / "painted" / "1" / IMAGES
    image = result.samples[2].generations[0].image
    assert image is not None
    path = folder / f"{image.thumbnail}.jpg"
    picture(2, (800, 600)).save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(folder / f"{digest}.jpg")
    write_submission(board, changed_image(result, 2, {"thumbnail": digest}))


@broken("images: worlds/painted/1/images: 1 file named in result.json missing")
def a_missing_thumbnail(board: Board) -> None:
    result = with_pictures(make_result(board), board)
    folder = write_submission(board, result)
    min((folder / IMAGES).iterdir()).unlink()


@broken("images: worlds/painted/1/images: 1 file that result.json does not name")
def an_image_too_many(board: Board) -> None:
    folder = write_submission(board, make_result(board))
    (folder / IMAGES).mkdir()
    picture(1).save(folder / IMAGES / f"{digest('one')}.jpg")


@broken("images: worlds/painted/1/images/", "is 64x48 PNG, result.json says 128x48 PNG")
def another_size(board: Board) -> None:
    result = with_pictures(make_result(board), board, full=(0,))
    smaller = {"width": 128}
    write_submission(
        board,
        changed_image(result, 0, smaller),
    )


@broken("truth: worlds/painted/1/result.json: 2 images of 12 identical to the ground truth: 's00', 's01'")
def images_of_the_ground_truth(board: Board) -> None:
    write_submission(board, with_images(board, lambda at: {"sha256": digest("truth file", at)} if at < 2 else {}))


@broken("truth: worlds/painted/1/result.json: 3 images of 12 the same picture as the ground truth")
def images_that_look_like_the_ground_truth(board: Board) -> None:
    def near(place: int) -> dict[str, str]:
        bits = int(digest("truth", place), 16) ^ (2**50 - 1)  # 50 of 256 bits differ
        return {"perceptual": f"{bits:064x}"} if place < 3 else {}

    write_submission(board, with_images(board, near))


@broken("states: worlds/painted/1/result.json, sample 's00': the score is not applicable")
def a_score_that_does_not_apply(board: Board) -> None:
    def change(one: SubmittedGeneration) -> SubmittedGeneration:
        none = ParsedScore(status=ScoreStatus.NOT_APPLICABLE, reason="too hard")
        score = one.scores[0].model_copy(update={"strict": none, "lenient": None})
        return one.model_copy(update={"scores": (score,)})

    change_samples(board, lambda one: with_generation(one, 0, change))


@broken("values: worlds/painted/1/result.json, sample 's00': visual_correctness of the strict score is not applicable")
def a_dimension_that_always_applies(board: Board) -> None:
    def change(one: SubmittedGeneration) -> SubmittedGeneration:
        strict = one.scores[0].strict
        values = {name: value for name, value in strict.values.items() if name != "visual_correctness"}
        part = strict.model_copy(update={"values": values, "na": ("visual_correctness",)})
        return one.model_copy(update={"scores": (one.scores[0].model_copy(update={"strict": part}),)})

    change_samples(board, lambda one: with_generation(one, 0, change))


@broken("eligibility: worlds/painted/1/result.json: 2 scorers of the run are named vlm:judge")
def another_scorer_of_the_same_name(board: Board) -> None:
    def change(data: dict[str, Any]) -> None:
        data["scorer"] = {**data["scorer"], "args": {"base_url": "http://127.0.0.1:1/v1"}}
        data["spec"]["scorers"].append(data["scorer"])

    change_result(board, change)


@broken("schema: worlds/painted/1/result.json: a text has \\ud800 alone, which is half of a character")
def half_a_character(board: Board) -> None:
    change_result(board, lambda data: data.update(machine="\ud800 cores"))


@broken("files: worlds/painted/1/\\xff: is not a file of a submission")
def a_name_of_other_bytes(board: Board) -> None:
    (write_submission(board, make_result(board)) / os.fsdecode(b"\xff")).write_text("")


@broken("replies: worlds/painted/1/replies.jsonl, sample 's00'", "aesthetics 0.0 is stored, they give 1.0")
def replies_that_give_other_values(board: Board) -> None:
    folder = write_submission(board, make_result(board))
    write_replies(folder, board, lambda place: 1 if place == 0 else grades(place))
    lines = (folder / REPLIES_FILE).read_text()
    assert lines.count("\n") == 12


@pytest.mark.parametrize("name", BROKEN)
def test_a_submission_with_one_fault_is_refused_with_one_line(name: str, board: Board) -> None:
    change, words = BROKEN[name]
    change(board)
    findings = [each for each in check(board_again(board)).every if each.level == "error"]
    lines = [str(each) for each in findings]
    if name == "an_outage":  # on a board of twelve samples, one is more than may be missing
        assert "No result: 1 of 12 generations failed" in lines.pop(0)
    assert len(lines) == 1, lines
    for part in words:
        assert part in lines[0], lines[0]
    assert "\n" not in lines[0]


def board_again(board: Board) -> Board:
    """Return the board as it is on disk."""
    return Board(board.path, board.file)


@pytest.mark.parametrize("field", ["repeats", "judge_repeats"])
def test_an_enormous_number_of_repeats_is_an_error_and_takes_no_memory(field: str, board: Board) -> None:
    change_result(board, lambda data: data["spec"].update({field: 10**15}))
    (first, *_) = [str(each) for each in check(board).every if each.level == "error"]
    assert "repeats 0 instead of 0, 1, 2, 3, 4 and more" in first


# --- hostile files --------------------------------------------------------------------------------------------------


def test_nothing_outside_the_folder_is_read(board: Board, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"key": "of the machine"}')
    folder = write_submission(board, make_result(board))
    for name in (SYSTEM_FILE, RESULT_FILE):
        (folder / name).unlink()
        (folder / name).symlink_to(secret)
    (folder / IMAGES).symlink_to(tmp_path)
    (board.path / "linked").symlink_to(board.path / "painted")
    lines = [str(each) for each in check(board).every]
    assert [line.split(": ")[1] for line in lines] == [
        "worlds/linked",
        "worlds/painted/1/images",
        "worlds/painted/1/result.json",
        "worlds/painted/1/system.yaml",
    ]
    assert all("is a symbolic link" in line for line in lines) and "machine" not in str(lines)


@pytest.mark.parametrize("name", ["", "board.yaml", "samples.jsonl"])
def test_a_board_whose_files_are_links_is_not_read(name: str, board: Board, tmp_path: Path) -> None:
    path = board.path / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    report = check(board)
    assert f"files: {'/'.join(filter(None, ('worlds', name)))}: is a symbolic link" in the_error(report)
    assert report.submissions == ()


def test_a_pipe_does_not_hold_up_the_check(board: Board) -> None:
    folder = write_submission(board, make_result(board))
    (folder / RESULT_FILE).unlink()
    os.mkfifo(folder / RESULT_FILE)
    assert "result.json: is not a regular file" in the_error(check(board))


def test_control_characters_of_a_submission_are_not_printed(board: Board) -> None:
    change_result(board, lambda data: data["samples"][0].update(id="\x1b[31m\u202eevil"))
    text = "\n".join(str(each) for each in check(board).every)
    assert "evil" in text and text.replace("\n", "").isprintable()


def test_a_board_that_is_not_valid_is_named(board: Board) -> None:
    (board.path / "board.yaml").write_text("title: Worlds\n")
    assert "board: worlds/board.yaml:1: task: is missing" in the_error(check(board))


def test_an_unknown_name_is_an_error_with_the_known_ones(board: Board) -> None:
    write_submission(board, make_result(board))
    with pytest.raises(UsageError, match=r"no board or submission 'worlds/inked'; there are .*worlds/painted/1"):
        check(board, "worlds/inked")


def test_a_withdrawn_submission_needs_a_reason_and_nothing_else(board: Board) -> None:
    folder = write_submission(board, make_result(board))
    (folder / RESULT_FILE).write_text((folder / RESULT_FILE).read_text().replace("s03", "s30"))
    (folder / WITHDRAWN_FILE).write_text("date: '2026-05-01'\nreason: A sample was renamed.\n")
    assert list(check(board).every) == []
    (folder / WITHDRAWN_FILE).write_text("date: '2026-05-01'\n")
    assert "withdrawn.yaml:1: reason: is missing" in the_error(check(board))


def test_findings_are_plain_data_too(board: Board) -> None:
    change_result(board, lambda data: data["claimed"].update(overall=0.9))
    data = check(board).to_json()
    assert data["ok"] is False
    (submission,) = data["submissions"]
    (finding,) = submission["findings"]
    assert BoardFinding(**finding).level == "error" and submission["submission"] == "painted/1"
    assert json.loads(json.dumps(data)) == data
