"""A dry run refuses, with the same words, what the run would refuse before its first call."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowgen.cli.main import run
from tests.helpers.small_task import make_task

REFUSED = (
    "--generator hub:nope/x",
    "--generator hub:nope/owner/model",
    "--generator openai:",
    "--generator gemini:",
    "--generator openai:x -g base_url=nonsense",
    "--generator openai:x -g concurrency=-1",
    "--generator gen_searcher -g policy=scripted -g painter=hub:nope/x",
    "--generator gen_searcher -g policy=openai:x -g policy.base_url=nonsense -g painter=painter",
    "--generator gen_searcher -g policy=vllm:x -g policy.base_url=nonsense -g painter=painter",
    "--generator noise --scorer vlm:",
    "--generator noise --scorer vlm:x -s concurrency=-4",
    "--generator noise --scorer answer:x -s attempts=0",
    "--generator noise --log nope",
)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The start of a command line, on a task of one sample."""
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "not-a-real-key")
    task = make_task(tmp_path / "task", ["a red lighthouse"])
    return ["run", "--task", str(task), "--workers", "0"]


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return the exit code and the error of a command line."""
    capsys.readouterr()
    return run(words), capsys.readouterr().err


@pytest.mark.parametrize("words", REFUSED)
def test_what_a_run_refuses_a_dry_run_refuses_too(
    words: str, base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = [] if "--scorer" in words else ["--scorer", "pixels"]
    whole = [*base, *words.split(), *scored, "--out", str(tmp_path / "run")]
    dry = refusal([*whole, "--dry-run"], capsys)
    assert dry == refusal(whole, capsys)
    assert dry[0] in (2, 3) and dry[1].startswith("knowgen: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["file", "file/run", "other"])
def test_a_directory_that_a_run_cannot_use_is_refused(
    place: str, base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("not a run")
    whole = [*base, "--generator", "noise", "--scorer", "pixels", "--out", str(tmp_path / place)]
    code, error = refusal([*whole, "--dry-run"], capsys)
    assert code == refusal(whole, capsys)[0] == 3
    assert ("is a file" in error) is place.startswith("file")


def test_a_missing_key_is_said_and_the_rest_is_still_checked(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    whole = [*base, "--scorer", "pixels", "--out", str(tmp_path / "run"), "--dry-run", "--generator", "openai:x"]
    assert run(whole) == 0
    assert "missing    generator openai:x: the key for api.openai.com is missing" in capsys.readouterr().out
    code, error = refusal([*whole, "-g", "quality=1", "-g", "concurrency=-1"], capsys)
    assert code == 2 and "concurrency" in error
