"""`knowgen board add`: what is refused and why, and what is written of a run that is eligible."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knowgen.cli.main import run
from knowgen.core.errors import UsageError
from knowgen.core.records import Attempt, Sample
from knowgen.leaderboards.eligibility import spec_reasons
from knowgen.leaderboards.folder import Board
from knowgen.leaderboards.records import SubmissionResult, SubmittedReply
from knowgen.leaderboards.rows import rows_of
from knowgen.scorers.vlm.judge import VlmJudge
from knowgen.scorers.vlm.rubric import rubric_hash
from knowgen.stats.aggregate import aggregate
from knowgen.store.run import RunStore
from knowgen.workflows.board_submission import add_submission, board_of_run, scorer_defaults, withdraw
from knowgen.workflows.run import Run, load_run
from tests.helpers.board_runs import (
    Knowing,
    Painted,
    add,
    added,
    make_board,
    make_run,
    refusals,
    small_task,
    submissions,
    the_only,
    write_system,
)
from tests.helpers.judge_server import JudgeServer, Step, good
from tests.helpers.processes import start_python


@pytest.fixture
def board(tmp_path: Path, small_runs: Path) -> Board:
    return make_board(tmp_path, task={"name": str(small_task(small_runs))})


# --- what is written ------------------------------------------------------------------------------------------------


def test_an_eligible_run_is_added_with_the_figures_of_its_summary(board: Board, tmp_path: Path) -> None:
    made = make_run(tmp_path, generator=Painted(fails="three"), repeats=2)
    made.write_outputs()
    submission = added(board, made.path)
    assert submission.key == "painted/1"
    assert sorted(each.name for each in submission.path.iterdir()) == ["result.json", "system.yaml"]
    result = submission.read_result()
    assert result.claimed == {name: figure.value for name, figure in made.summary.slice().figures.items()}
    assert result.coverage == made.summary.slice().coverage
    assert [sample.id for sample in result.samples] == ["s0", "s1", "s2", "s3", "s4", "s5"]


def test_the_rows_of_a_submission_give_the_same_summary_as_those_of_the_run(board: Board, tmp_path: Path) -> None:
    made = make_run(tmp_path, generator=Painted(fails="three", refuses="four"), repeats=2)
    result = added(board, made.path).read_result()
    dimensions = result.scorer.dimensions
    for protocol in ("strict", "official"):
        of_board = aggregate(rows_of(result, board.samples), protocol, dimensions=dimensions)
        assert of_board == aggregate(made.rows(), protocol, dimensions=dimensions)


def test_a_result_has_the_hash_of_every_image_and_rounded_times(made: Run, board: Board, tmp_path: Path) -> None:
    result = added(board, made.path).read_result()
    with RunStore.read(made.path) as store:
        images = [each.image.sha256 for _, each in store.generations() if each.image is not None]
    generations = [one for sample in result.samples for one in sample.generations]
    assert [one.image.sha256 for one in generations if one.image is not None] == images
    assert all(one.image is not None and re.fullmatch("[0-9a-f]{64}", one.image.perceptual) for one in generations)
    assert all(one.seconds is not None and one.seconds == round(one.seconds, 3) for one in generations)
    assert [one.cost for one in generations] == [0.0] * 6
    assert "cores" in result.machine
    assert load_run(made.path).spec == result.spec


def test_system_yaml_is_kept_as_the_submitter_wrote_it(made: Run, board: Board, tmp_path: Path) -> None:
    system = write_system(made.path, tmp_path)
    system.write_text(f"# a remark of ours\n{system.read_text()}")
    assert add(board, made.path, system) == 0
    assert (board.path / "painted/1/system.yaml").read_bytes() == system.read_bytes()


def test_thumbnails_are_small_named_by_their_content_and_the_same_every_time(board: Board, tmp_path: Path) -> None:
    made = make_run(tmp_path, generator=Painted(size=900))
    system = write_system(made.path, tmp_path)
    assert add(board, made.path, system, "--images", "thumbnails") == 0
    files = sorted((board.path / "painted/1/images").iterdir())
    assert [file.stem for file in files] == [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert {file.suffix for file in files} == {".jpg"}
    with Image.open(files[0]) as image:
        assert (image.format, image.size) == ("JPEG", (384, 20))
    named = {one.image.thumbnail for sample in the_only(board).read_result().samples for one in sample.generations
             if one.image is not None}  # fmt: skip
    assert named == {file.stem for file in files}
    again = make_board(tmp_path, board="again")
    assert add(again, made.path, system, "--images", "thumbnails") == 0
    assert sorted(file.name for file in (again.path / "painted/1/images").iterdir()) == [file.name for file in files]


def test_full_images_are_the_scored_files(made: Run, board: Board, tmp_path: Path) -> None:
    result = added(board, made.path, "--images", "full").read_result()
    for sample in result.samples:
        image = sample.generations[0].image
        assert image is not None
        kept = board.path / "painted/1/images" / image.file
        assert image.file == f"{image.sha256}.png"
        assert hashlib.sha256(kept.read_bytes()).hexdigest() == image.sha256


def test_what_looks_like_a_key_is_masked_in_the_result(board: Board, tmp_path: Path) -> None:
    key = "hf_" + "abcdefghij" * 3
    made = make_run(tmp_path, generator=Painted(fails="three", reason="rejected"))
    with sqlite3.connect(made.path / "run.sqlite") as database:  # as a version that does not know the format stored it
        sql = "update generations set reason = replace(reason, 'rejected', ?), record = replace(record, 'rejected', ?)"
        database.execute(sql, (key, key))
    database.close()
    submission = added(board, made.path)
    text = (submission.path / "result.json").read_text()
    assert key not in text
    assert "[key]" in text


def test_a_dry_run_checks_everything_and_writes_nothing(
    made: Run, board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert add(board, made.path, None, "--dry-run") == 0
    assert "eligible for small; nothing was written" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    system = write_system(made.path, tmp_path, revision="UPPER")
    assert add(board, made.path, system, "--dry-run") == 3
    assert submissions(board) == []


def test_raw_replies_are_kept_when_asked_for_and_give_the_scores_again(tmp_path: Path) -> None:
    with JudgeServer([Step(reply="no JSON"), Step()]) as server:
        args = {"base_url": server.url, "price_call": 0, "concurrency": 1}
        made = make_run(tmp_path, scorers=["vlm:tiny"], scorer_args=args)
    scorer = {
        "name": "vlm:tiny", "args": {"base_url": server.url}, "versions": [VlmJudge.version],
        "judges": ["judge-2026-01-01"], "dimensions": list(VlmJudge.dimensions),
    }  # fmt: skip
    board = make_board(tmp_path, scorer=scorer)
    submission = added(board, made.path, "--replies")
    result = submission.read_result()
    assert result.judges == {"judge-2026-01-01": 6}
    assert result.rubric == rubric_hash()
    lines = (submission.path / "replies.jsonl").read_text().splitlines()
    replies = [SubmittedReply.model_validate(json.loads(line)) for line in lines]
    assert len(replies) == 7
    (unreadable,) = [reply.sample for reply in replies if reply.reply == "no JSON"]
    asked = [(reply.attempt, reply.reply) for reply in replies if reply.sample == unreadable]
    assert asked == [(0, "no JSON"), (1, good())]
    samples = {sample.id: sample for sample in result.samples}
    for name in samples:
        attempts = [Attempt(reply=each.reply, error=each.error) for each in replies if each.sample == name]
        strict, lenient, _ = VlmJudge.reparse(attempts, Sample(id=name, prompt="", text_required=True))
        score = samples[name].generations[0].scores[0]
        assert (score.strict.values, score.lenient and score.lenient.values) == (strict.values, lenient.values)


# --- what is refused ------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a part of the task": ({}, {"limit": 4}, "only a part of the task (4 stratified"),
    "a shard": ({}, {"shard": "1/2"}, "only shard 1/2 of a run: merge the shards"),
    "privileged": ({}, {"generator": Knowing()}, "is privileged: it receives the ground truth"),
    "coverage": ({"min_coverage": 1}, {"generator": Painted(offline="three")},
                 "No result: 1 of 6 generations failed for reasons outside the system"),
    "infrastructure": ({}, {"generator": Painted(offline="three")},
                       "1 generation failed for reasons outside the system (the call is not in the recording)"),
    "repeats": ({"repeats": 3}, {"repeats": 2}, "2 images per sample, the board needs 3: run it with `--repeats 3`"),
    "another scorer": ({"scorer": {"name": "world_check", "versions": ["3.3"], "dimensions": ["a"]}}, {},
                       "not scored by world_check, the board's scorer, but by pixels"),
    "another scorer version": ({"scorer": {"name": "pixels", "versions": ["pixels-2"], "dimensions": ["ssim"]}}, {},
                               "another version of pixels: the run has 'pixels-3.3', the board accepts 'pixels-2'"),
    "other dimensions": ({"scorer": {"name": "pixels", "versions": ["pixels-3.3"], "dimensions": ["ssim"]}}, {},
                         "pixels has the dimensions ssim, lab_histogram_intersection"),
    "another protocol version": ({"protocol_version": "1"}, {}, "another protocol: its figures are those of strict 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_run_that_is_not_eligible_is_refused_with_its_reason(
    made: Run, small_runs: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields, options, reason = REFUSED[name]
    board = make_board(tmp_path, task={"name": str(small_task(small_runs))}, **fields)
    made = make_run(tmp_path, **options) if options else made
    assert add(board, made.path, write_system(made.path, tmp_path)) == 3
    assert any(line.startswith(reason) or reason in line for line in refusals(capsys)), reason
    assert submissions(board) == []
    assert not (board.path / "painted").exists()


def test_results_that_are_still_to_come_are_named(
    board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_run(tmp_path)
    with sqlite3.connect(made.path / "run.sqlite") as database:
        database.execute("delete from scores where sample_id = 's2'")
        database.execute("delete from generations where sample_id = 's2'")
    database.close()
    assert add(board, made.path, write_system(made.path, tmp_path)) == 3
    assert "incomplete: 1 generation not run yet" in refusals(capsys)


def test_all_reasons_are_given_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = make_board(tmp_path, repeats=2)
    made = make_run(tmp_path, generator=Knowing(offline="three"), limit=5)
    assert add(board, made.path, write_system(made.path, tmp_path, open_weights="perhaps", name="")) == 3
    text = "\n".join(refusals(capsys))
    for part in ("privileged", "only a part", "the board needs 2", "outside the system", "name: is empty", "open_w"):
        assert part in text


def test_a_board_that_is_not_pinned_takes_nothing_and_says_how_to_pin_it(
    made: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = make_board(tmp_path, pinned=False)
    assert add(board, made.path, write_system(made.path, tmp_path)) == 3
    assert refusals(capsys) == ["the task of the board is not pinned: a maintainer runs `knowgen board pin small`"]


def test_another_version_of_the_task_is_refused(
    board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = small_task(tmp_path) / "samples.jsonl"
    samples.write_text(samples.read_text().replace('"six"', '"sixty"'))
    made = make_run(tmp_path)
    assert add(board, made.path, write_system(made.path, tmp_path)) == 3
    (reason,) = refusals(capsys)
    assert re.fullmatch(r"another version of the task: the run has small 1-\w{12}, the board \S+ 1-\w{12}", reason)


def test_other_arguments_of_the_scorer_are_refused_and_defaults_are_not(
    made: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = {"name": "vlm:judge", "args": {"rubric": "upstream"}, "versions": ["1"], "dimensions": ["x"]}
    board = make_board(tmp_path, scorer=scorer)
    spec = made.spec.scorers[0].model_copy(
        update={
            "name": "vlm:judge",
            "args": {"temperature": 0.0, "max_tokens": 9},
            "version": "1",
            "dimensions": ("x",),
        }
    )
    assert spec_reasons(
        board.file,
        made.spec.model_copy(update={"scorers": (spec,)}),
        name="small",
        scorer_defaults=scorer_defaults("vlm:judge"),
    ) == [
        "vlm:judge was run with max_tokens=9, the board has max_tokens=8192: score the run again with the board's "
        "argument",
        "vlm:judge was run with rubric=own, the board has rubric=upstream: score the run again with the board's "
        "argument",
    ]


def test_a_run_that_was_changed_is_refused_by_its_verification(
    board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_run(tmp_path)
    with RunStore.read(made.path) as store:
        image = next(each.image for _, each in store.generations())
        assert image is not None
        store.image_path(image).write_bytes(b"another")
    assert add(board, made.path, write_system(made.path, tmp_path)) == 3
    assert any(line.startswith("does not verify: images: sample 's0'") for line in refusals(capsys))


# --- revisions ------------------------------------------------------------------------------------------------------


def test_a_revision_is_never_replaced(
    made: Run, board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submission = added(board, made.path)
    before = {file: file.read_bytes() for file in submission.path.rglob("*") if file.is_file()}
    other = make_run(tmp_path, "other", Painted(size=80))
    capsys.readouterr()
    assert add(board, other.path, write_system(other.path, tmp_path)) == 3
    assert refusals(capsys) == ["the revision painted/1 exists already: give it another one (taken: 1)"]
    assert {file: file.read_bytes() for file in submission.path.rglob("*") if file.is_file()} == before
    assert add(board, other.path, write_system(other.path, tmp_path, revision="2")) == 0
    assert submissions(board) == ["painted/1", "painted/2"]


def test_a_revision_with_less_than_an_earlier_one_is_refused_until_that_is_withdrawn(
    board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = make_run(tmp_path, repeats=2)
    added(board, more.path)
    fewer = make_run(tmp_path, "fewer", Painted(size=80))
    system = write_system(fewer.path, tmp_path, revision="2")
    capsys.readouterr()
    assert add(board, fewer.path, system) == 3
    assert refusals(capsys) == [
        "the earlier revision 1 has 12 scores that count, this one 6: complete the run, or withdraw that revision"
    ]
    withdraw(board, "painted", "a wrong seed")
    assert add(board, fewer.path, system) == 0


def test_two_systems_cannot_share_a_folder(
    made: Run, board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    added(board, made.path, name="Painted 2")
    capsys.readouterr()
    assert add(board, made.path, write_system(made.path, tmp_path, name="painted-2", revision="2")) == 3
    assert refusals(capsys) == [
        "system.yaml: the folder painted-2 is that of the system 'Painted 2': choose another name"
    ]


# --- which board ----------------------------------------------------------------------------------------------------


def test_the_board_is_found_by_task_and_scorer(made: Run, board: Board, tmp_path: Path) -> None:
    assert board_of_run(board.path.parent, made.spec).name == "small"
    make_board(tmp_path, board="twin")
    with pytest.raises(UsageError, match="give --board: small, twin"):
        board_of_run(board.path.parent, made.spec)
    other = made.spec.model_copy(update={"task": "birds", "task_version": "2"})
    with pytest.raises(UsageError, match="no board for birds and pixels"):
        board_of_run(board.path.parent, other)


def test_arguments_decide_between_boards_of_one_judge(tmp_path: Path) -> None:
    scorer = {"name": "vlm:judge", "versions": ["1"], "dimensions": ["x"]}
    root = make_board(tmp_path, board="own", scorer=scorer).path.parent
    make_board(tmp_path, board="published", scorer={**scorer, "args": {"rubric": "upstream"}})
    spec = make_run(tmp_path).spec
    for args, name in (({}, "own"), ({"temperature": 0.0}, "own"), ({"rubric": "upstream"}, "published")):
        judge = spec.scorers[0].model_copy(update={"name": "vlm:judge", "args": args})
        assert board_of_run(root, spec.model_copy(update={"scorers": (judge,)})).name == name


def test_an_unknown_board_is_one_line_with_those_that_exist(
    made: Run, board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["board", "add", str(made.path), "--board", "smal", "--root", str(board.path.parent)]) == 2
    assert capsys.readouterr().err.strip().endswith("no board 'smal'; it has small")


# --- failures while it is written -----------------------------------------------------------------------------------


def test_a_process_that_is_killed_leaves_no_half_submission(made: Run, board: Board, tmp_path: Path) -> None:
    system = write_system(made.path, tmp_path)
    code = f"""
import os, signal
from pathlib import Path
from knowgen.leaderboards import images
from knowgen.leaderboards.folder import read_board
from knowgen.workflows.board_submission import add_submission
keep, calls = images.SubmissionImages.keep, []
def killed(self, *given):
    calls.append(keep(self, *given))
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return calls[-1]
images.SubmissionImages.keep = killed
add_submission(Path({str(made.path)!r}), read_board(Path({str(board.path)!r})), Path({str(system)!r}), images="full")
"""
    assert start_python("-c", code).wait() == -signal.SIGKILL
    left = [path.name for path in (board.path / "painted").iterdir()]
    assert len(left) == 1
    assert left[0].startswith(".")
    assert submissions(board) == []
    assert add(board, made.path, system, "--images", "full") == 0
    assert [path.name for path in (board.path / "painted").iterdir()] == ["1"]
    assert len(list((board.path / "painted/1/images").iterdir())) == 2 * 6


def test_an_error_while_it_is_written_leaves_nothing(
    made: Run, board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    system = write_system(made.path, tmp_path)

    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert add(board, made.path, system, "--images", "thumbnails") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "the disk is full" in line
    assert sorted(path.name for path in board.path.iterdir()) == ["board.yaml", "samples.jsonl"]


def test_a_revision_that_appears_meanwhile_is_not_replaced(
    made: Run, board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = write_system(made.path, tmp_path)
    from knowgen.workflows import board_submission

    writing = board_submission._Adding.write

    def overtaken(self: Any, draft: Path, *given: Any, **options: Any) -> None:
        writing(self, draft, *given, **options)
        (board.path / "painted/1").mkdir()
        (board.path / "painted/1/other").write_text("first")

    monkeypatch.setattr(board_submission._Adding, "write", overtaken)
    done = add_submission(made.path, board, system)
    assert done.reasons == ("the revision painted/1 exists already",)
    assert [path.name for path in (board.path / "painted/1").iterdir()] == ["other"]


def test_the_file_of_a_result_is_read_back_as_it_was(made: Run, board: Board, tmp_path: Path) -> None:
    path = added(board, made.path).path / "result.json"
    first = SubmissionResult.model_validate(json.loads(path.read_text()))
    assert first == the_only(board).read_result()
