"""A private season from its first submission to its verification."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from knowgen import api
from knowgen.cli.main import run as knowgen
from knowgen.core.errors import DataError, KnowgenError, UsageError
from knowgen.core.run_config import RunConfig
from knowgen.leaderboards.folder import read_board
from knowgen.leaderboards.records import SystemFile
from knowgen.leaderboards.season import SECRET_FILE, read_season, require_open, write_secret
from knowgen.seasons import reveal as revealing
from knowgen.seasons import scoring, verification
from knowgen.seasons.reveal import close, reveal
from knowgen.seasons.verification import SeasonVerification, verify
from knowgen.workflows import board_submission
from tests.helpers.seasons import SECRET, Season, fixed, system_file

KEY = "half-right/1"


def grey(prompt: str) -> Image.Image:
    """Return a grey image."""
    return Image.new("RGB", (96, 64), "grey")


@pytest.fixture
def same_world(season: Season, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the world in place of building it, which takes seconds."""

    def built(folder: Path, secret: object, workers: int | None = None) -> None:
        assert secret == SECRET
        shutil.copytree(season.places.private / "world", folder)

    monkeypatch.setattr(verification, "build_season_world", built)
    monkeypatch.setattr(verification, "RunConfig", partial(RunConfig, workers=0))


def result_of(season: Season) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((season.places.board / KEY / "result.json").read_text())
    return data


# -- taking part -------------------------------------------------------------------------------------------------------


def test_participants_generate_without_scores(season: Season, tmp_path: Path) -> None:
    run = api.evaluate(str(season.places.public), grey, out=tmp_path / "run", workers=0)
    assert run.spec.scorers == () and run.spec.task_version == season.public.version
    assert [each.status.value for each in run.generations()] == ["ok"] * 3
    with pytest.raises(UsageError, match="has not been scored"):
        _ = run.summary
    with pytest.raises(DataError, match="the ground truths are private"):
        api.score(run.path, "world_check")


@pytest.mark.parametrize(("generator", "scorer"), [("oracle", ()), ("noise", "world_check"), ("noise", "pixels")])
def test_what_needs_ground_truths_is_refused_before_the_run(
    season: Season, tmp_path: Path, generator: str, scorer: str
) -> None:
    with pytest.raises(UsageError, match="private until they are revealed"):
        api.evaluate(str(season.places.public), generator, scorer, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# -- scoring -----------------------------------------------------------------------------------------------------------


def test_a_submission_has_scores_and_nothing_that_gives_answers_away(scored: Season) -> None:
    result = result_of(scored)
    values = [sample["generations"][0]["scores"][0]["strict"]["values"] for sample in result["samples"]]
    assert set(values[0].values()) == {1.0} and values[1]["visual_correctness"] == 0.0
    assert result["spec"]["task_version"] == scored.public.version
    assert [each.key for each in read_board(scored.places.board).submissions()] == [KEY]
    text = "".join(path.read_text() for path in scored.places.board.rglob("*") if path.is_file())
    for sample in scored.truths.samples():
        truth = scored.truths.truth(sample.id)
        assert truth.image is not None and truth.image.sha256 not in text
        assert not [fact for fact in truth.required_text if fact in text and fact not in sample.prompt]
    assert SECRET.seed not in text and SECRET.nonce not in text and "rationale" not in text


def test_time_and_cost_are_those_of_the_generation(season: Season, scored: Season, tmp_path: Path) -> None:
    run = api.evaluate(str(season.places.public), grey, out=tmp_path / "run", workers=0)
    result = read_board(scored.places.board).submission(KEY).read_result()
    system = SystemFile.model_validate(yaml.safe_load(system_file(tmp_path, "any").read_text()))
    timed = scoring.with_source(result, run.path, system)
    made = [each.seconds for each in run.generations()]
    assert [sample.generations[0].seconds for sample in timed.samples] == pytest.approx(made, abs=0.001)
    assert timed.cost.total == 0 and timed.seconds


def test_of_a_folder_of_images_time_and_cost_are_unknown(scored: Season) -> None:
    result = result_of(scored)
    assert result["seconds"] is None and result["cost"]["total"] is None
    assert result["spec"]["generator"]["name"] == "closed_book", "as system.yaml says"


def test_a_revision_is_taken_once_and_not_too_many_of_one_system(scored: Season, tmp_path: Path) -> None:
    copy = scored.copied_to(tmp_path)
    images, system = copy.send(tmp_path)
    with pytest.raises(UsageError, match="half-right/1 is on the board already"):
        copy.score(images, system)
    for revision in ("2", "3"):
        shutil.copytree(copy.places.board / KEY, copy.places.board / "half-right" / revision)
    with pytest.raises(UsageError, match="has 3 revisions, as many as season spring allows"):
        copy.score(images, system_file(tmp_path, "half right", "4"))


def test_a_name_without_a_folder_is_refused_before_anything_is_scored(scored: Season, tmp_path: Path) -> None:
    copy = scored.copied_to(tmp_path)
    sent, system = copy.send(tmp_path)
    in_yaml(system, lambda data: data.update(name="\u65e5\u672c"))
    with pytest.raises(UsageError, match="no letter or digit from which a folder could be named"):
        copy.score(sent, system)


def test_a_submission_that_could_not_be_written_is_not_lost(
    scored: Season, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = scored.copied_to(tmp_path)
    shutil.rmtree(copy.places.board / "half-right")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(board_submission, "folder_draft", full)
        with pytest.raises(KnowgenError, match="No space left"):
            copy.score(*copy.send(tmp_path))
    assert not (copy.places.board / KEY).exists()
    done = copy.score(*copy.send(tmp_path))
    assert done.run is not None and done.run.outcome is not None and done.run.outcome.scored == 0, (
        "the scores were stored"
    )
    assert (copy.places.board / KEY / "result.json").is_file()


def test_other_secrets_tasks_and_privileged_runs_are_refused(scored: Season, tmp_path: Path) -> None:
    copy = scored.copied_to(tmp_path)
    images, _ = copy.send(tmp_path)
    system = system_file(tmp_path, "other", "5")
    privileged = api.evaluate(copy.truths, "oracle", "pixels", limit=1, out=tmp_path / "privileged", workers=0)
    with pytest.raises(UsageError, match="oracle was given ground truths"):
        copy.score(privileged.path, system)
    elsewhere = api.evaluate("knowgen_mini", grey, "pixels", limit=1, out=tmp_path / "elsewhere", workers=0)
    with pytest.raises(UsageError, match="the run is of knowgen_mini"):
        copy.score(elsewhere.path, system)
    shutil.rmtree(copy.places.private)
    copy.places.private.mkdir(mode=0o700)
    write_secret(copy.places.private / SECRET_FILE, SECRET.model_copy(update={"seed": fixed("wrong")}))
    with pytest.raises(DataError, match="not the secret that season spring committed to") as caught:
        copy.score(images, system)
    assert fixed("wrong") not in str(caught.value) and SECRET.seed not in str(caught.value)


def test_a_world_that_is_drawn_otherwise_here_scores_nothing(scored: Season, tmp_path: Path) -> None:
    copy = scored.copied_to(tmp_path)
    file = copy.places.private / "world" / "search" / "pages.jsonl"
    file.write_text(file.read_text().replace(" the ", " a "))
    with pytest.raises(DataError, match=r"pages\.jsonl differs from what was published"):
        copy.score(copy.send(tmp_path)[0], system_file(tmp_path, "other"))


# -- closing and revealing ---------------------------------------------------------------------------------------------


def test_states_follow_each_other(scored: Season, tmp_path: Path) -> None:
    copy = scored.copied_to(tmp_path)
    board, private = copy.places.board, copy.places.private
    with pytest.raises(UsageError, match="is open; close it first"):
        reveal(board, private, "2027-02-01")
    with pytest.raises(UsageError, match="is open, not revealed"):
        verify(board)
    require_open(read_board(board))
    close(board, "2027-01-31")
    with pytest.raises(UsageError, match="was closed on 2027-01-31 already"):
        close(board, "2027-02-02")
    for refused in (
        lambda: require_open(read_board(board)),
        lambda: copy.score(*copy.send(tmp_path, "late")),
    ):
        with pytest.raises(UsageError, match="was closed on 2027-01-31, and takes no more submissions"):
            refused()
    assert SECRET.seed not in (board / "season.yaml").read_text()
    reveal(board, private, "2027-02-01")
    with pytest.raises(UsageError, match="was revealed on 2027-02-01 already"):
        reveal(board, private, "2027-02-02")


def test_a_reveal_that_was_interrupted_is_repeated(
    scored: Season, revealed: Season, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = scored.copied_to(tmp_path)
    close(copy.places.board, "2027-01-31")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(revealing, "write_season", stopped)
        with pytest.raises(KeyboardInterrupt):
            reveal(copy.places.board, copy.places.private, "2027-02-01")
    assert read_season(read_board(copy.places.board)).state == "closed"  # type: ignore[union-attr]
    reveal(copy.places.board, copy.places.private, "2027-02-01")
    expected = {path.relative_to(revealed.places.board): path for path in revealed.places.board.rglob("*.*")}
    assert expected
    for name, path in expected.items():
        assert path.is_dir() or (copy.places.board / name).read_bytes() == path.read_bytes()


def test_a_reveal_publishes_seed_hashes_of_truths_rationales_and_images(revealed: Season) -> None:
    board = read_board(revealed.places.board)
    season = read_season(board)
    assert season is not None and season.revealed is not None
    assert (season.revealed.seed, season.revealed.nonce) == (SECRET.seed, SECRET.nonce)
    truths = [revealed.truths.truth(each.id).image for each in board.samples]
    assert [each.truth.sha256 for each in board.samples if each.truth] == [one.sha256 for one in truths if one]
    for sample in result_of(revealed)["samples"]:
        generation = sample["generations"][0]
        assert (revealed.places.board / KEY / "images" / generation["image"]["file"]).is_file()
        assert generation["scores"][0]["strict"]["rationale"].startswith("Found")


def test_a_submission_without_its_run_is_named_and_kept(scored: Season, tmp_path: Path) -> None:
    copy = scored.copied_to(tmp_path)
    shutil.rmtree(copy.places.private / "runs")
    before = result_of(copy)
    close(copy.places.board, "2027-01-31")
    assert reveal(copy.places.board, copy.places.private, "2027-02-01").without_run == (KEY,)
    assert result_of(copy) == before


# -- verifying ---------------------------------------------------------------------------------------------------------


def test_everything_follows_from_the_revealed_seed(revealed: Season, same_world: None, tmp_path: Path) -> None:
    found = verify(revealed.places.board, public=revealed.places.public, out=tmp_path / "world")
    assert found.findings == [] and found.notes == [] and len(found.passed) == 6
    assert f"{KEY}: 3 images scored again, with the same values" in found.passed
    assert api.load_task(str(tmp_path / "world")).version == revealed.public.version


def in_yaml(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data, sort_keys=False))


def another_seed(season: Season) -> None:
    in_yaml(season.places.board / "season.yaml", lambda data: data["revealed"].update(seed=fixed("other")))


def another_commitment(season: Season) -> None:
    other = SECRET.model_copy(update={"nonce": fixed("other")})
    from knowgen.leaderboards.season import commitment_of

    in_yaml(season.places.board / "season.yaml", lambda data: data.update(commitment=commitment_of(other)))


def another_commitment_with_its_nonce(season: Season) -> None:
    another_commitment(season)
    in_yaml(season.places.board / "season.yaml", lambda data: data["revealed"].update(nonce=fixed("other")))


def another_prompt(season: Season) -> None:
    path = season.places.board / "samples.jsonl"
    path.write_text(path.read_text().replace('"prompt":"', '"prompt":"Quickly: ', 1))


def another_truth(season: Season) -> None:
    path = season.places.board / "samples.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    path.write_text(path.read_text().replace(row["truth"]["sha256"], fixed("other")))


def another_page(season: Season) -> None:
    path = season.places.public / "search" / "pages.jsonl"
    path.write_text(path.read_text().replace(" the ", " a ", 1))


def another_figure(season: Season) -> None:
    path = season.places.board / KEY / "result.json"
    data = json.loads(path.read_text())
    data["claimed"]["overall"] += 0.1
    path.write_text(json.dumps(data))


def a_figure_of_no_board(season: Season) -> None:
    path = season.places.board / KEY / "result.json"
    data = json.loads(path.read_text())
    data["claimed"]["charm"] = 1.0
    path.write_text(json.dumps(data))


def a_result_that_is_broken(season: Season) -> None:
    (season.places.board / KEY / "result.json").write_text("{")


def another_image(season: Season) -> None:
    path = next((season.places.board / KEY / "images").glob("*.png"))
    Image.new("RGB", (64, 64), "blue").save(path)


@pytest.mark.parametrize(
    ("tamper", "finding"),
    [
        (another_seed, "seed and nonce do not give the commitment"),
        (another_commitment, "seed and nonce do not give the commitment"),
        (another_commitment_with_its_nonce, "announced another season than the board's"),
        (another_prompt, "does not follow from the seed"),
        (another_truth, "does not follow from the seed"),
        (another_page, "pages.jsonl is not what was announced"),
        (another_figure, f"{KEY}: claims overall"),
        (a_figure_of_no_board, f"{KEY}: claims charm, which the board does not have"),
        (a_result_that_is_broken, f"{KEY}: "),
        (another_image, "is not the image that was scored"),
    ],
)
def test_what_was_changed_is_found(
    revealed: Season, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tamper: Callable[[Season], None], finding: str
) -> None:
    copy = revealed.copied_to(tmp_path)
    tamper(copy)
    monkeypatch.setattr(
        verification,
        "build_season_world",
        lambda folder, *_: shutil.copytree(revealed.places.private / "world", folder),
    )
    found = verify(copy.places.board, public=copy.places.public, rescore=False)
    assert found.findings and [each for each in found.findings if finding in each]
    assert len(found.findings) == 1 or tamper is another_commitment


@pytest.mark.slow
def test_a_score_that_was_changed_with_its_figures_is_found_by_scoring_again(
    revealed: Season, same_world: None, tmp_path: Path
) -> None:
    copy = revealed.copied_to(tmp_path)
    path = copy.places.board / KEY / "result.json"
    data = json.loads(path.read_text())
    score = data["samples"][1]["generations"][0]["scores"][0]["strict"]
    score["values"] = dict.fromkeys(score["values"], 1.0)
    path.write_text(json.dumps(data))
    board, result = read_board(copy.places.board), read_board(copy.places.board).submission(KEY).read_result()
    data["claimed"] = claimed(board, result)
    path.write_text(json.dumps(data))
    found = verify(copy.places.board)
    assert len(found.findings) == 1 and data["samples"][1]["id"] in found.findings[0]
    assert "scored again" in found.findings[0]


def claimed(board: Any, result: Any) -> dict[str, float | None]:
    from knowgen.leaderboards.rows import rows_of
    from knowgen.stats.aggregate import aggregate

    summary = aggregate(rows_of(result, board.samples), board.file.protocol)
    return {name: figure.value for name, figure in summary.slice().figures.items()}


def test_images_that_are_not_at_hand_are_noted(revealed: Season, same_world: None, tmp_path: Path) -> None:
    copy = revealed.copied_to(tmp_path)
    shutil.rmtree(copy.places.board / KEY / "images")
    found: SeasonVerification = verify(copy.places.board)
    assert found.ok and found.notes == [f"{KEY}: 3 images not at hand, not scored again"]


def test_a_board_of_a_public_task_has_no_season(revealed: Season, tmp_path: Path) -> None:
    copy = revealed.copied_to(tmp_path)
    in_yaml(copy.places.board / "board.yaml", lambda data: data.pop("season"))
    require_open(read_board(copy.places.board))
    for refused in (
        lambda: close(copy.places.board, "2027-01-31"),
        lambda: verify(copy.places.board),
    ):
        with pytest.raises(KnowgenError, match="is not the board of a private season"):
            refused()


# -- the command line --------------------------------------------------------------------------------------------------


def test_a_date_that_is_none_is_refused(season: Season, capsys: pytest.CaptureFixture[str]) -> None:
    assert knowgen(["board", "season", "close", "--board", str(season.places.board), "--date", "31.1.2027"]) == 2
    assert "'31.1.2027' is not a day such as 2026-12-31" in capsys.readouterr().err


def test_the_state_of_a_season_is_printed(season: Season, capsys: pytest.CaptureFixture[str]) -> None:
    assert knowgen(["board", "season", "status", "--board", str(season.places.board)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "season   spring, open, closes on 2027-01-31",
        f"task     {season.public.version}, 3 samples",
        "systems  0 submissions",
        "next     score or close",
    ]


def test_a_run_of_a_season_says_what_to_send(
    season: Season, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    words = ["run", "--task", str(season.places.public), "--generator", "noise", "--workers", "0", "--out", out]
    assert knowgen(words) == 0
    printed = capsys.readouterr().out
    assert "images   3 of 3, not scored: the ground truths are private" in printed
    assert f"send     {out}" in printed


def test_what_is_not_eligible_is_refused_with_its_reason(
    scored: Season, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = scored.copied_to(tmp_path)
    system = system_file(tmp_path, "other")
    in_yaml(system, lambda data: data["adapter"].update(generator="mine.py:Mine"))
    run = api.evaluate(str(copy.places.public), grey, out=tmp_path / "run", workers=0)
    words = ["board", "season", "score", str(run.path), "--workers", "0", "--system", str(system)]
    words += ["--board", str(copy.places.board), "--private", str(copy.places.private)]
    assert knowgen(words) == 3
    assert "not eligible: system.yaml: adapter.generator is 'mine.py:Mine', the run has" in capsys.readouterr().err
    assert not (copy.places.board / "other").exists()
    assert knowgen(["board", "add", str(run.path), "--board", str(copy.places.board), "--system", str(system)]) == 2
    assert "is the board of a private season" in capsys.readouterr().err
    assert knowgen(["board", "pin", str(copy.places.board)]) == 2
