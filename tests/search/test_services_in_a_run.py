"""A run with a search service that costs: its budget, its record, and a key that is turned away."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowgen.cli.main import run
from tests.helpers.search_services import KEY, SerperServer

BACKEND = """
from knowgen.search.services.serper import Serper

def paid():
    return Serper(base_url="{url}", key_env="SEARCH_KEY", price=0.001)
"""


def arguments(folder: Path, server: SerperServer, *more: str) -> list[str]:
    (folder / "backend.py").write_text(BACKEND.format(url=server.address))
    words = ["run", "--task", "knowgen_mini", "--generator", "open_book", "-g", "search=backend.py:paid"]
    return [*words, "--scorer", "pixels", "--limit", "3", "--workers", "1", "--out", "out", *more]


def test_the_budget_covers_search_and_the_key_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEARCH_KEY", KEY)
    with SerperServer() as server:
        run(arguments(tmp_path, server, "--budget", "0.001"))
        assert [call.method for call in server.calls] == ["GET", "POST"], "one free check and one search"
    output = capsys.readouterr()
    text = " ".join((output.out + output.err).split())
    assert "$0.001 allows no further call" in text and "a call of search:serper may cost up to $0.0010" in text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5 and not any(KEY.encode() in path.read_bytes() for path in files)


def test_a_wrong_key_ends_the_run_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEARCH_KEY", "a-wrong-key-0123456789")
    with SerperServer() as server:
        assert run(arguments(tmp_path, server)) != 0
    output = capsys.readouterr()
    assert "search:serper answered 403: Unauthorized.; check the key in SEARCH_KEY" in output.out + output.err
