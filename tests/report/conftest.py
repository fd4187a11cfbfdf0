"""A builder of runs for the tests of reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.report_runs import RunMaker


@pytest.fixture
def maker(tmp_path: Path) -> RunMaker:
    """Return a builder of runs in an empty folder."""
    return RunMaker(tmp_path)
