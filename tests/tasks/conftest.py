"""A hub, a data folder and a command line that know nothing of this machine's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.archive_data import Command
from tests.helpers.hub_server import HubServer


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own, for this process and those it starts."""
    folder = tmp_path / "data"
    monkeypatch.setenv("KNOWGEN_DATA", str(folder))
    monkeypatch.setenv("KNOWGEN_CACHE", "off")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that commands of this test ask."""
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def knowgen(home: Path) -> Command:
    """Runs the command line in a process of its own."""

    def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "knowgen", *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment}, check=False
        )

    return run
