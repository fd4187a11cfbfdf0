"""A builder of runs for the tests of reports, and pages in an offline browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.report_pages import Open, Watched
from tests.helpers.report_runs import RunMaker


@pytest.fixture
def maker(tmp_path: Path) -> RunMaker:
    """Return a builder of runs in an empty folder."""
    return RunMaker(tmp_path)


@pytest.fixture
def view(browser: Any) -> Iterator[Open]:
    """Yield a function that opens pages in new offline contexts."""
    contexts = []

    def open_page(index: Path, address: str = "", *, width: int = 1440, theme: str = "light") -> Watched:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, offline=True)
        contexts.append(context)
        watched = Watched(context.new_page())
        watched.page.goto(index.as_uri() + address)
        watched.page.wait_for_selector("#match-count:not(:empty)")
        return watched

    yield open_page
    for context in contexts:
        context.close()
