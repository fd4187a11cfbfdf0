"""A folder with a small task, generator and scorer for the tests of the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.run_config import RunConfig
from tests.helpers.small_task import GENERATOR, SCORER, make_task


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the current folder, with the task `small`, `my_generator.py` and `my_scorer.py`."""
    make_task(tmp_path / "small", ["one", "two two", "three three three", "four", "fiver", "sixers"])
    (tmp_path / "my_generator.py").write_text(GENERATOR)
    (tmp_path / "my_scorer.py").write_text(SCORER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_generator", "my_scorer"):
        sys.modules.pop(name, None)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the plugins of users in this process, unless a test names `workers`: a run starts three processes."""
    build = RunConfig.__init__

    def init(config: RunConfig, *, workers: int | None = None, **fields: Any) -> None:
        build(config, workers=0 if workers is None else workers, **fields)

    monkeypatch.setattr(RunConfig, "__init__", init)
