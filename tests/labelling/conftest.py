"""Runs of three systems with names that appear nowhere else, and plans to label them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knowgen.core.records import Sample
from knowgen.labelling.items import LabelPlan, make_plan
from tests.helpers.report_pages import Watched
from tests.helpers.report_runs import RunMaker, plain_image

SYSTEMS = ("quokka_painter", "zebrafish_agent", "wombat_oracle")
SIZES = {"quokka_painter": (96, 64), "zebrafish_agent": (200, 120), "wombat_oracle": (48, 40)}

Plans = Callable[..., LabelPlan]


def draw(sample: Sample, system: str) -> Image.Image:
    """Return an image whose size depends on the system."""
    return plain_image(sample, system).resize(SIZES.get(system, (96, 64)))


def make_runs(
    folder: Path, samples: int, systems: Sequence[str] = SYSTEMS, prompts: Sequence[str] = (), **settings: Any
) -> list[tuple[str, Path]]:
    """Write runs of some systems and return their names and directories; `settings` are attributes of the maker."""
    folder.mkdir(exist_ok=True)
    maker = RunMaker(folder, draw)
    maker.failing = False
    for name, value in settings.items():
        setattr(maker, name, value)
    made = [maker.run(name, maker.samples(samples, prompts), 0.6) for name in systems]
    return [(name, run.store.path) for name, run in zip(systems, made, strict=True)]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    """Return name and directory of three runs of six samples."""
    return make_runs(tmp_path_factory.mktemp("runs"), 6)


@pytest.fixture
def plans(runs: list[tuple[str, Path]]) -> Plans:
    """Return a function that makes a plan of the runs."""
    return lambda mode="rate", **options: make_plan(runs, mode, **options)


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Watched]]:
    """Yield a function that opens an address in a new context."""
    contexts = []

    def open_page(address: str, *, width: int = 1440, theme: str = "light") -> Watched:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        contexts.append(context)
        watched = Watched(context.new_page())
        watched.page.goto(address)
        return watched

    yield open_page
    for context in contexts:
        context.close()
