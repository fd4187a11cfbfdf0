"""Pages of a site in an offline browser, and a run of the small task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from knowgen.workflows.run import Run
from tests.helpers.board_runs import make_run
from tests.helpers.report_pages import Watched


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Watched]]:
    """Yield a function that opens a page of a site in a new offline context."""
    contexts = []

    def open_page(path: Path, address: str = "", *, width: int = 1440, theme: str = "light", **options: Any) -> Watched:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, offline=True, **options
        )
        contexts.append(context)
        watched = Watched(context.new_page())
        watched.page.goto(path.as_uri() + address)
        return watched

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the small task, and of a run of it that no test changes."""
    return tmp_path_factory.mktemp("small")


@pytest.fixture(scope="session")
def made(small_runs: Path) -> Run:
    """Return a run of the small task that is eligible."""
    return make_run(small_runs)
