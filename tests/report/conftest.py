"""Runs with made-up scores in real run directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.report_runs import RunMaker


@pytest.fixture
def lab(tmp_path: Path) -> RunMaker:
    """A maker of runs in a fresh folder."""
    return RunMaker(tmp_path)
