"""What a user sees of busy services and rejected accounts: one line, the right exit code, and a run that resumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowgen.cli.main import run
from knowgen.store.run import RunStore
from tests.helpers.judge_server import JudgeServer, Step, good

KEY = "sk-test-0123456789abcdef"


def command(out: Path, *words: str) -> list[str]:
    return [
        "run", "--task", "knowgen_mini", "--generator", "closed_book", "--limit", "6", "--out", str(out),
        "--scorer", "vlm:x", "-s", "cache=false", *words,
    ]  # fmt: skip


def test_without_a_key_the_run_fails_before_it_makes_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert run(command(tmp_path / "out")) == 3
    assert "the key for api.openai.com is missing" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_rejected_key_is_found_before_anything_is_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    rejected = Step(status=401, error="Incorrect API key provided")
    with JudgeServer([rejected], pages={"/v1/models": rejected}) as server:
        assert run(command(tmp_path / "out", "-s", f"base_url={server.url}", "-s", "key_env=SOME_KEY")) == 3
        assert server.calls == []
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "401" in error and "vlm:x" in error
    assert not (tmp_path / "out").exists()


def test_a_key_that_is_rejected_later_ends_the_run_without_a_failed_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with JudgeServer([Step(status=401, error="Incorrect API key provided")]) as server:
        assert run(command(out, "-s", f"base_url={server.url}")) == 3
        assert 3 <= len(server.calls) <= 12
        captured = capsys.readouterr()
        assert "401" in captured.err and captured.out == "", "no figure is shown"
        server.script = [Step(reply=good())]
        assert run(command(out, "-s", f"base_url={server.url}")) in (0, 6)
    with RunStore.read(out) as store:
        scores = [score for _, score in store.scores()]
    assert len(scores) == 6
    assert not [score for score in scores if "401" in score.strict.reason], "nothing was failed for the key"


def test_a_stated_wait_of_a_day_stops_the_run_at_once_and_the_same_command_resumes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with JudgeServer([Step(status=429, headers={"Retry-After": "86400"})]) as server:
        assert run(command(out, "-s", f"base_url={server.url}")) == 6
        captured = capsys.readouterr()
        (line,) = [line for line in captured.err.splitlines() if line.startswith("stopped")]
        assert "vlm:x asks to wait 24 h (the endpoint answered 429" in line and "--patience" in line
        assert "6 of 6 scores not run yet" in captured.out
        server.script = [Step(reply=good(), tokens=(10, 10))]
        run(command(out, "-s", f"base_url={server.url}"))
        captured = capsys.readouterr()
        assert "not run yet" not in captured.out and "stopped" not in captured.err


def test_patience_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command(tmp_path / "out", "--patience", "-1")) == 2
    assert "patience must be a number >= 0" in capsys.readouterr().err
