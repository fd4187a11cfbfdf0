"""Fixtures of all tests: separate caches, so that no test gets the replies of another one, and a browser."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.helpers")

_numbers = itertools.count()

ROOT = str(Path(__file__).parents[1])
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def cache_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("caches"))


@pytest.fixture(autouse=True)
def own_caches(cache_base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", f"{cache_base}/{next(_numbers)}")


@pytest.fixture(autouse=True)
def own_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the folders and modules that a test made importable, as the next process would."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        file = str(getattr(sys.modules[name], "__file__", None) or "")
        if file.startswith(tempfile.gettempdir()) and not file.startswith(ROOT):  # a checkout may be in that folder
            del sys.modules[name]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Yield Chromium; skip without it, but fail where CI is set.

    The scope is one module, because the browser occupies the thread's event loop.
    """
    path = next((each for each in map(shutil.which, BROWSERS) if each), None)
    if path is None:
        reason = f"no browser on the path (looked for {', '.join(BROWSERS)})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()
