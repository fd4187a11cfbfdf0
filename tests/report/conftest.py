"""Runs made by hand, in real run directories, for the tests of reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.report_runs import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A maker of runs in a fresh folder."""
    return Lab(tmp_path)
