"""Run directories, and a browser that opens their reports."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.report_runs import RunMaker

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def maker(tmp_path: Path) -> RunMaker:
    """Return a builder of runs in an empty folder."""
    return RunMaker(tmp_path)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Yield Chromium; skip without it, but fail where CI is set.

    The scope is one module, because the browser occupies the thread's event loop.
    """
    path = next((candidate for name in NAMES if (candidate := shutil.which(name))), None)
    if path is None:
        reason = f"no browser on the path (looked for {', '.join(NAMES)})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()
