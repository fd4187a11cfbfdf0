"""Runs and boards that are sent to a hub and fetched from it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import markdown
import pytest
import yaml
from huggingface_hub import constants
from PIL import Image

import knowgen
from knowgen.cli.main import run as command_line
from knowgen.clients.hub import HubDataset
from knowgen.core.errors import ConfigError, DataError, KnowgenError, UsageError
from knowgen.store.lock import RunLock
from knowgen.workflows.sharing.pull import pull
from knowgen.workflows.sharing.push import PushOptions, push
from knowgen.workflows.verify import verify
from tests.helpers.hub_server import READ_TOKEN, REVOKED_TOKEN, WRITE_TOKEN, HubServer
from tests.helpers.report_pages import HOSTILE

REPO = "me/noise-on-mini"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Yield a hub that this process uses, with a token that may write."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the local hub speaks LFS
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def plain(prompt: str, seed: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (seed % 256, len(prompt) % 256, ord(prompt[-2])))


plain.revision = "1"  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a run of four samples."""
    path = tmp_path_factory.mktemp("made") / "run"
    knowgen.evaluate("knowgen_mini", plain, "pixels", limit=4, out=path, workers=0)
    return path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """Return a run directory that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def files_of(hub: HubServer, repo: str = REPO) -> dict[str, bytes]:
    return hub.commits[repo, hub.heads[repo]]


def change(run: Path, sql: str, *values: Any) -> None:
    connection = sqlite3.connect(run / "run.sqlite")
    with connection:
        connection.execute(sql, values)
    connection.close()


def test_a_pushed_run_comes_back_and_verifies_scores_and_compares(hub: HubServer, run: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    pushed = push(run, REPO, show=lines.append)
    assert pushed.sent == len(files_of(hub)) - 1 and "4 images" in lines[0]  # the hub adds .gitattributes
    pulled = pull(REPO, tmp_path / "copy", show=lines.append)
    assert (pulled.kind, pulled.truths, pulled.commit) == ("run", 4, pushed.commit) and "kB" in lines[-1]
    assert not list(tmp_path.glob("*.partial"))
    assert verify(pulled.path).ok
    copy, first = knowgen.load_run(pulled.path), knowgen.load_run(run)
    assert copy.spec == first.spec and copy.summary.headline == first.summary.headline
    assert [row.sample_id for row in copy.rows()] == [row.sample_id for row in first.rows()]
    assert knowgen.compare(copy, first).paired == 4


@pytest.mark.slow
def test_a_fetched_run_is_shown_with_its_ground_truths_and_scored_again(
    hub: HubServer, run: Path, tmp_path: Path
) -> None:
    push(run, REPO)
    copy = pull(REPO, tmp_path / "copy").path
    page = knowgen.load_run(copy).report(tmp_path / "page")
    first = knowgen.load_run(run).report(tmp_path / "first")
    assert len(list((page.parent / "img").iterdir())) == len(list((first.parent / "img").iterdir()))
    again = knowgen.score(copy, "pixels", workers=0)
    assert again.outcome is not None and again.outcome.score_cached == 4
    other = knowgen.score(copy, "world_check", workers=0)
    assert other.outcome is not None and other.outcome.scored == 4 and verify(copy).ok


def test_an_unchanged_run_is_not_sent_again_and_a_changed_one_only_where_it_changed(hub: HubServer, run: Path) -> None:
    push(run, REPO)
    before, sent = files_of(hub), len(hub.uploaded)
    again = push(run, REPO)
    assert (again.sent, again.kept) == (0, len(before) - 1) and len(hub.uploaded) == sent
    without = push(run, REPO, PushOptions(images=False))
    assert without.removed == 4 and not any("/images/" in path for path in files_of(hub))
    assert len(hub.uploaded) == sent  # the card and the listing are small files in git
    push(run, REPO)
    assert files_of(hub) == before and len(hub.uploaded) == sent


def test_a_push_that_was_interrupted_goes_on(
    hub: HubServer, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("knowgen.workflows.sharing.push.COMMIT_FILES", 2)
    upload, calls = HubDataset.upload, iter([True, False, True, True])

    def failing(self: HubDataset, *arguments: Any) -> str:
        if not next(calls):
            raise DataError("the line is cut")
        return upload(self, *arguments)

    monkeypatch.setattr(HubDataset, "upload", failing)
    with pytest.raises(DataError, match="the line is cut"):
        push(run, REPO)
    assert len(hub.uploaded) == 2
    with pytest.raises(DataError, match=r"has no knowgen.json.*not complete"):
        pull(REPO, tmp_path / "copy")
    assert push(run, REPO).kept == 2
    assert len(hub.uploaded) == len(set(hub.uploaded)) == 6  # 4 images, run.sqlite, the rows
    assert verify(pull(REPO, tmp_path / "copy").path).ok


def test_the_copy_has_no_host_no_folder_and_no_truth_path(hub: HubServer, run: Path, tmp_path: Path) -> None:
    reason = f"no such file: {run}/images/x.png, see {Path.home()}/notes and /home/ann/x but https://a.org/home/ann"
    change(run, "insert into notes (at, who, what, record) values (1, 'pixels', 'x', ?)", json.dumps(reason))
    assert json.loads((run / "run.json").read_text())["machine"]["host"]
    push(run, REPO)
    files = files_of(hub)
    machine = json.loads(files["run/run.json"])["machine"]
    assert "host" not in machine and machine["cores"]
    whole = b"".join(files.values())
    for private in (str(tmp_path), "/home/ann/x", str(Path(knowgen.__file__).parents[1])):
        assert private.encode() not in whole
    assert b"https://a.org/home/ann" in files["run/run.sqlite"] and b"[run]/images/x.png" in files["run/run.sqlite"]
    assert "[run]" not in (run / "run.sqlite").read_text(errors="replace")  # the run itself stays as it is
    assert not any(path.startswith("run/logs") or "report" in path or "tracker" in path for path in files)


def test_a_key_is_refused_wherever_it_is_and_never_printed(hub: HubServer, run: Path) -> None:
    key = "sk-ant-api03-abcdefgh12345678"
    change(run, "insert into notes (at, who, what, record) values (1, 'pixels', 'x', ?)", json.dumps({"said": key}))
    with pytest.raises(ConfigError, match=r"run.sqlite, notes, 1 contains what looks like a key") as caught:
        push(run, REPO)
    assert key not in str(caught.value) and not hub.requests


def test_a_folder_of_this_machine_that_decides_the_result_needs_consent(hub: HubServer, run: Path) -> None:
    manifest = json.loads((run / "run.json").read_text())
    manifest["git"] = f"{run}/x"  # said about the run: taken out
    manifest["spec"]["name"] = f"{Path.home()}/models/a"
    (run / "run.json").write_text(json.dumps(manifest))
    (run / "summary.json").unlink()
    with pytest.raises(ConfigError, match=r"run/run.json:\d+ (a folder of this machine|a user's home).*--keep-paths"):
        push(run, REPO)
    push(run, REPO, PushOptions(keep_paths=True))
    assert b"[run]/x" in files_of(hub)["run/run.json"]


def test_what_does_not_verify_or_is_in_use_is_refused(hub: HubServer, run: Path) -> None:
    lock = RunLock(run)
    with pytest.raises(ConfigError, match="is in use by process"):
        push(run, REPO)
    lock.release()
    summary = run / "summary.json"
    summary.write_text(summary.read_text().replace('"value": 0.', '"value": 0.9', 1))
    with pytest.raises(DataError, match=r"1 finding: summary: .*knowgen verify"):
        push(run, REPO)
    image = next((run / "images").glob("*/*"))
    image.write_bytes(b"another image")
    with pytest.raises(DataError, match="finding"):
        push(run, REPO)
    assert not hub.requests and not (run / "run.lock").exists()


def test_the_card_is_yaml_and_text_that_no_name_of_the_run_can_break(hub: HubServer, run: Path) -> None:
    name = f"{HOSTILE[0]} ---\n[x](javascript:alert(1)) | `a` **b** {HOSTILE[1]}"
    manifest = json.loads((run / "run.json").read_text())
    manifest["spec"]["name"] = name
    (run / "run.json").write_text(json.dumps(manifest))
    (run / "summary.json").unlink()
    push(run, REPO, PushOptions(licence="cc-by-4.0"))
    card = files_of(hub)["README.md"].decode()
    _, header, text = card.split("---\n", 2)
    meta = yaml.safe_load(header)
    assert meta["license"] == "cc-by-4.0" and {"knowgen", "knowgen-run"} < set(meta["tags"])
    assert meta["configs"] == [
        {"config_name": "pixels", "data_files": [{"split": "test", "path": "data/pixels.parquet"}], "default": True}
    ]
    assert "data/pixels.parquet" in files_of(hub)
    html = markdown.markdown(text, extensions=["tables", "fenced_code"])
    assert html.count("<table>") == 5 and "alert(1)" in html  # shown as it is written
    for active in ("<script", "<img", "<a ", "<strong>b", "<code>a"):
        assert active not in html
    for fact in ("protocol strict", "protocol official", "4/4", "knowgen verify", f"knowgen pull {REPO}", "$0"):
        assert fact in text
    huggingface_hub.DatasetCard(card).validate  # noqa: B018 - the library reads the card


@pytest.mark.parametrize(
    ("token", "error", "words"),
    [
        ("", ConfigError, "no token for the hub; run `hf auth login`, or set HF_TOKEN"),
        (READ_TOKEN, ConfigError, "the token may not do this; use a token with write access to me"),
        (REVOKED_TOKEN, ConfigError, "the hub does not accept the token; run `hf auth login` again"),
    ],
)
def test_a_token_that_may_not_is_one_line(
    hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch, token: str, error: type[KnowgenError], words: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(error) as caught:
        push(run, REPO)
    assert words in str(caught.value) and "hf_madeup" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_private_repository_stays_private(
    hub: HubServer, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(run, REPO, PushOptions(private=True, revision="v1"))
    assert hub.private == {REPO} and "run/run.json" not in files_of(hub)
    with pytest.raises(ConfigError, match="exists already and is public"):
        hub.commit("me/public", {})
        push(run, "me/public", PushOptions(private=True))
    assert hub.commits["me/public", hub.heads["me/public"]] == {}
    assert pull(REPO, tmp_path / "copy", "v1").files > 4
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(DataError, match="does not exist or is private; check the name, and set HF_TOKEN"):
        pull(REPO, tmp_path / "other", "v1")


def test_what_is_missing_or_away_is_one_line(
    hub: HubServer, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(run, REPO)
    with pytest.raises(UsageError, match="OWNER/NAME"):
        pull("nothing", tmp_path / "copy")
    with pytest.raises(DataError, match="unknown revision 'v9'; give a branch, tag or commit"):
        pull(REPO, tmp_path / "copy", "v9")
    with pytest.raises(ConfigError, match="exists already; choose a new folder"):
        pull(REPO, tmp_path)
    with pytest.raises(UsageError, match="neither a run nor a board.yaml"):
        push(tmp_path, REPO)
    hub.commit("me/other", {"rows.json": b"[]"})
    with pytest.raises(ConfigError, match=r"holds other files, such as 'rows.json'; choose another repository"):
        push(run, "me/other")
    with pytest.raises(DataError, match=r"has no knowgen.json"):
        pull("me/other", tmp_path / "copy")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="the hub cannot be reached"):
        pull(REPO, tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.slow
def test_another_run_is_not_replaced_unasked(hub: HubServer, run: Path, tmp_path: Path) -> None:
    push(run, REPO)
    other = tmp_path / "other"
    knowgen.evaluate("knowgen_mini", plain, "pixels", limit=4, seed=5, out=other, workers=0)
    with pytest.raises(ConfigError, match="holds another run, of .*plain.*--replace"):
        push(other, REPO)
    assert push(other, REPO, PushOptions(replace=True)).removed == 4
    assert verify(pull(REPO, tmp_path / "copy").path).ok


def test_a_dry_run_checks_everything_and_calls_no_one(
    hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    assert push(run, REPO, PushOptions(dry_run=True)).sent > 8
    assert not hub.requests


def _listed(hub: HubServer, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the listing of a repository, as a hostile owner could."""
    files = dict(files_of(hub))
    listing = json.loads(files["knowgen.json"])
    change(listing)
    hub.commit(REPO, {**files, "knowgen.json": json.dumps(listing).encode()})


def test_a_hostile_repository_writes_nothing_outside(hub: HubServer, run: Path, tmp_path: Path) -> None:
    push(run, REPO)
    good = dict(files_of(hub))
    entry = {"sha256": "0" * 64, "size": 2}
    paths = (
        "run/../../evil",
        "/etc/evil",
        "run/.git/config",
        "run\\x",
        "run/a/./b",
        "run/ü",
        "run/con",
        "run/images/x ",
    )
    for path in paths:
        _listed(hub, lambda listing, path=path: listing["files"].update({path: entry}))  # type: ignore[misc]
        with pytest.raises(DataError, match="path that is not allowed"):
            pull(REPO, tmp_path / "copy")
        hub.commit(REPO, good)
    hub.commit(REPO, {**good, "run/setup.py": b"hi"})
    _listed(hub, lambda listing: listing["files"].update({"run/setup.py": entry}))
    with pytest.raises(DataError, match="does not belong to a run"):
        pull(REPO, tmp_path / "copy")
    hub.commit(REPO, {path: data for path, data in good.items() if path != "run/summary.json"})
    with pytest.raises(DataError, match=r"run/summary.json is missing"):
        pull(REPO, tmp_path / "copy")
    other = {path: data if not path.startswith("run/images") else data[:-1] + b"x" for path, data in good.items()}
    hub.commit(REPO, other)
    with pytest.raises(DataError, match="has another content than listed"):
        pull(REPO, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    hub.commit(REPO, good)
    assert verify(pull(REPO, tmp_path / "copy").path).ok


def test_what_an_interrupted_pull_left_of_another_repository_is_not_in_the_copy(
    hub: HubServer, run: Path, tmp_path: Path
) -> None:
    push(run, REPO)
    for name in ("images/aa/stray.png", "run.sqlite-wal", "notes/setup.py"):
        stray = tmp_path / "copy.partial" / "run" / name
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_bytes(b"of another repository")
    copy = pull(REPO, tmp_path / "copy").path
    files = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    sent = {path.removeprefix("run/") for path in files_of(hub) if path.startswith("run/")}
    assert files == sent
    assert verify(copy).ok


def test_a_database_with_a_trigger_is_refused(hub: HubServer, run: Path, tmp_path: Path) -> None:
    from knowgen.workflows.sharing.pull import _check_database

    change(run, "create trigger evil after insert on notes begin delete from scores; end")
    with pytest.raises(DataError, match=r"run.sqlite has a trigger"):
        _check_database(run / "run.sqlite", REPO)


BOARDS = Path(knowgen.__file__).parents[1] / "leaderboards"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """Return a board with one submission."""
    path = tmp_path / "boards" / "worlds"
    shutil.copytree(BOARDS / "worlds" / "noise", path / "noise")
    for name in ("board.yaml", "samples.jsonl"):
        shutil.copy(BOARDS / "worlds" / name, path / name)
    return path


@pytest.mark.slow
def test_boards_with_their_images_come_back_as_they_were(hub: HubServer, tmp_path: Path) -> None:
    push(BOARDS, "me/boards")
    pulled = pull("me/boards", tmp_path / "copy")
    assert pulled.kind == "board"
    first, copy = (
        {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (BOARDS, pulled.path)
    )
    assert copy == first and any(path.endswith(".jpg") for path in copy)
    files = files_of(hub, "me/boards")
    card = files["README.md"].decode()
    assert card.count("## ") >= 4 and "| rank | system | overall | coverage |" in card
    assert "knowgen board check --root my-boards" in card and "## Worlds" in card
    rows = [json.loads(line) for line in files["data/results.jsonl"].decode().splitlines()]
    assert len(rows) == 3 * 48 and {row["score_status"] for row in rows} == {"ok"}
    assert push(BOARDS, "me/boards").sent == 0


def test_a_board_without_its_images_passes_its_check(hub: HubServer, board: Path, tmp_path: Path) -> None:
    push(board, REPO, PushOptions(images=False))
    copy = pull(REPO, tmp_path / "boards" / "copy").path
    assert not list(copy.rglob("*.jpg"))
    assert command_line(["board", "check", str(copy)]) == 0
    full, without = (json.loads(next(root.glob("noise/*/result.json")).read_text()) for root in (board, copy))
    images = [[one["image"] for each in result["samples"] for one in each["generations"]] for result in (full, without)]
    assert all(image.pop("thumbnail") for image in images[0])
    assert images[0] == images[1]
    assert "names in" in files_of(hub)["README.md"].decode()


def test_a_board_that_is_faulty_or_has_a_secret_is_refused(hub: HubServer, board: Path) -> None:
    result = next(board.glob("*/*/result.json"))
    text = result.read_text()
    result.write_text(text.replace('"faithfulness":', '"faithfullness":', 1))
    with pytest.raises(DataError, match=r"errors?: .*knowgen board check"):
        push(board, REPO)
    result.write_text(text)
    for file, words in ((board / "secret.yaml", "is the secret of a season"), (board / "link", "is a link")):
        file.symlink_to(result) if words == "is a link" else file.write_text("seed: 1\n")
        with pytest.raises(KnowgenError, match=words):
            push(board, REPO)
        file.unlink()
    assert not hub.requests


def test_a_run_of_a_private_season_is_refused(hub: HubServer, run: Path) -> None:
    (run.parent / "secret.yaml").write_text("seed: 1\n")
    with pytest.raises(ConfigError, match="belongs to the private season"):
        push(run, REPO)
    assert not hub.requests


def test_the_commands_say_what_they_did_and_how_to_go_on(
    hub: HubServer, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line(["push", str(run), REPO, "--no-images"]) == 0
    said = capsys.readouterr()
    assert f"pushed   {hub.url}/datasets/{REPO} at " in said.out and f"knowgen pull {REPO}\n" in said.out
    assert "checked, " in said.err and WRITE_TOKEN not in said.out + said.err
    assert command_line(["pull", REPO, "-o", str(tmp_path / "copy")]) == 0
    said = capsys.readouterr()
    assert f"knowgen verify {tmp_path / 'copy'}" in said.out and "its images were not sent" in said.err
    assert command_line(["pull", REPO, "-o", str(tmp_path / "copy")]) == 3
    assert capsys.readouterr().err.count("\n") == 1
