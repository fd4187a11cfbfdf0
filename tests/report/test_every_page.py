"""What holds for every page that belongs to a report: hostile texts are inert, axe-core finds nothing, no error."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.axe import violations
from tests.helpers.report_pages import HOSTILE, Watched, until
from tests.helpers.report_site import ADDRESS, PAGES, SINGLE, Site

Show = Callable[..., Watched]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Return pages in which every text attempts an injection."""
    return Site(tmp_path_factory.mktemp("pages"))


@pytest.fixture
def show(browser: Any, site: Site) -> Iterator[Show]:
    """Yield a function that opens a page with all that is folded open."""
    contexts = []

    def open_page(name: str, width: int = 1440, theme: str = "light") -> Watched:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, offline=True))
        watched = Watched(contexts[-1].new_page())
        watched.page.goto(site.page(name).as_uri())
        everything_open(watched.page)
        return watched

    yield open_page
    for context in contexts:
        context.close()


def everything_open(page: Any) -> None:
    """Open all that is folded, and wait for what is loaded then."""
    if page.locator("#match-count").count():
        page.wait_for_selector("#match-count:not(:empty)")
    if page.locator("#sides").count():
        page.wait_for_selector("#sides[data-shown]")
    for _ in range(2):  # what was opened has folds of its own
        page.evaluate(
            "for (const one of document.querySelectorAll('main details'))"
            " one.open = !one.matches('.card:nth-child(n + 4) *')"
        )
        until(
            page,
            "[...document.querySelectorAll('details[open] > .depth, details[open] > .trajectories')]"
            ".every((one) => one.childElementCount)",
        )


def script_free(page: Any) -> None:
    """Assert that no text of a run became an element, an attribute that runs something, or an address."""
    assert page.locator("main script:not([type]), svg[onload], img[onerror], img:not([alt])").count() == 0
    attributes = "[...document.querySelectorAll('*')].flatMap((one) => [...one.attributes])"
    assert page.evaluate(f"{attributes}.filter((one) => one.name.startsWith('on')).length") == 0
    addresses = page.evaluate(
        "[...document.querySelectorAll('[href], [src], [action], [data]')]"
        ".map((one) => one.getAttribute('href') || one.getAttribute('src') || '')"
    )
    assert addresses
    harmless = re.compile(r"(#|img/|static/|data/|\.\./|evaluations/|https://|data:image/|data:text/plain|[\w-]+/|$)")
    assert [each for each in addresses if not harmless.match(each)] == []


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.slow
def test_hostile_texts_are_shown_as_text(name: str, show: Show) -> None:
    opened = show(name)
    shown = opened.page.evaluate("document.body.textContent")
    assert any(text in shown for text in HOSTILE) or "<script>alert(1)</script>" in shown
    script_free(opened.page)
    if name in ("report", "comparison", "single report", "trajectory"):
        assert ADDRESS in shown or opened.page.locator(f'[title^="{ADDRESS}"]').count(), "an address is shown as text"
    opened.clean()


SIZES = [(390, "dark"), (1440, "light")]
OTHERS = [(390, "light"), (1440, "dark")]
VIEWS = [(name, *size) for name in PAGES for size in (SIZES if name in SINGLE else [*SIZES, *OTHERS])]
"""Pages, widths and colours; the pages of one file have the elements of the others."""


@pytest.mark.parametrize(("name", "width", "theme"), VIEWS)
@pytest.mark.slow
def test_axe_finds_no_violation_of_wcag_a_or_aa(name: str, width: int, theme: str, show: Show) -> None:
    opened = show(name, width, theme)
    assert violations(opened.page) == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.clean()


@pytest.mark.slow
def test_the_check_finds_a_fault(browser: Any) -> None:
    page = browser.new_page()
    page.set_content("<!doctype html><html lang=en><title>t</title><main><h1>h</h1><img src='data:,'></main>")
    assert [line.split(":")[0] for line in violations(page)] == ["image-alt"]
    page.close()


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.slow
def test_a_page_of_one_file_needs_nothing_else(name: str, site: Site, show: Show, tmp_path: Path) -> None:
    moved = tmp_path / "moved.html"
    moved.write_bytes(site.page(name).read_bytes())
    opened = show(name)
    page = opened.page
    opened.requests.clear()
    page.goto(moved.as_uri())
    everything_open(page)
    until(page, "[...document.images].filter((one) => one.checkVisibility()).length > 0")
    page.evaluate("for (const one of document.images) one.loading = 'eager'")
    until(page, "[...document.images].every((one) => one.complete && one.naturalWidth > 0)")
    assert {url for url in opened.requests if not url.startswith("data:")} == {moved.as_uri()}
    assert opened.complaints == []


# -- on paper ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.slow
def test_on_paper_a_page_is_light_open_and_whole(name: str, site: Site, browser: Any) -> None:
    context = browser.new_context(viewport={"width": 718, "height": 1000}, color_scheme="dark", offline=True)
    page = context.new_page()
    page.goto(site.page(name).as_uri())
    page.evaluate("document.documentElement.dataset.theme = 'dark'")  # chosen by the reader
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    controls = ".tools, .filters, .top nav, .skip, .measure"
    assert page.evaluate(f"[...document.querySelectorAll('{controls}')].every((one) => !one.checkVisibility())")
    folded = "[...document.querySelectorAll('main details:not(.card > footer > details)')]"
    inside = "[...one.children].filter((each) => !each.matches('summary, .measure, [hidden] *, [hidden]'))"
    seen = "each.checkVisibility({ contentVisibilityAuto: true })"
    assert page.evaluate(f"{folded}.every((one) => {inside}.every((each) => {seen}))")
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    cut_off = (
        "[...document.querySelectorAll('main pre, main .wide, main p, main h3')].filter((one) => one.checkVisibility()"
        " && getComputedStyle(one).overflowY !== 'visible' && one.scrollHeight > one.clientHeight + 1).length"
    )
    assert page.evaluate(cut_off) == 0
    parts = "[...document.querySelectorAll('main tr, main figure, main img')].filter((one) => one.checkVisibility())"
    assert page.evaluate(f"{parts}.every((one) => getComputedStyle(one).breakInside === 'avoid')")
    context.close()
