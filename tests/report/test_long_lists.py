"""A list of many samples in a browser: its cards give up their content and get it back, and how many are printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from knowgen.report.html import write_report
from tests.helpers.axe import violations
from tests.helpers.report_pages import Open, until
from tests.helpers.report_runs import RunMaker

SAMPLES = 260


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report of two systems on many samples."""
    maker = RunMaker(tmp_path_factory.mktemp("long"))
    samples = maker.samples(SAMPLES)
    runs = [maker.run(name, samples, skill) for name, skill in (("open_book", 0.8), ("closed_book", 0.3))]
    return write_report(runs, maker.folder / "page")


def filled(page: Any) -> int:
    """Return how many cards have their content."""
    return int(page.evaluate("[...document.querySelectorAll('.card')].filter((one) => one.childElementCount).length"))


@pytest.mark.slow
def test_cards_far_away_give_up_their_content_and_get_it_back(site: Path, view: Open) -> None:
    opened = view(site)
    page = opened.page
    page.locator(".card details > summary").nth(1).click()
    page.wait_for_selector(".card .depth section")
    opened.to_the_end()
    assert page.locator(".card").count() == SAMPLES
    until(
        page, f"[...document.querySelectorAll('.card')].filter((one) => one.childElementCount).length < {SAMPLES // 2}"
    )
    kept = page.evaluate(
        "[...document.querySelectorAll('.card')].findIndex((one) => one.querySelector('.depth section'))"
    )
    assert kept >= 0 and filled(page) > 10, "what the reader opened stays"
    height = page.evaluate("document.documentElement.scrollHeight")
    page.evaluate("document.querySelectorAll('.card')[100].scrollIntoView()")
    until(page, "Boolean(document.querySelectorAll('.card')[100].querySelector('h3'))")
    until(page, "document.querySelectorAll('.card')[100].querySelector('.why').textContent !== ''")
    assert page.locator(".card").nth(100).get_attribute("data-id") == "s100"
    assert page.evaluate("document.documentElement.scrollHeight") == pytest.approx(height, rel=0.15)
    assert -50 < page.locator(".card").nth(100).bounding_box()["y"] < 450, "it stays where it was scrolled to"
    opened.clean()


@pytest.mark.slow
def test_the_samples_that_were_shown_are_printed_up_to_a_number(site: Path, view: Open) -> None:
    opened = view(site)
    page = opened.page
    opened.to_the_end()
    assert not page.locator("#printed").is_visible()
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#printed").inner_text().startswith("96 of these 260 samples are printed")
    cards = "[...document.querySelectorAll('.card')].filter((one) => one.checkVisibility())"
    assert page.evaluate(f"{cards}.length") == 96
    assert page.evaluate(f"{cards}.every((one) => one.querySelector('h3').textContent)")
    opened.clean()


@pytest.mark.slow
def test_few_samples_are_all_printed_without_a_note(site: Path, view: Open) -> None:
    opened = view(site, "#samples?q=number+17")
    page = opened.page
    until(page, "document.querySelectorAll('.card').length === 13")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#printed").inner_text() == ""
    assert page.locator(".card:visible").count() == 13


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.slow
def test_the_viewer_passes_axe(site: Path, view: Open, theme: str) -> None:
    page = view(site, "#samples?q=number+17", theme=theme).page
    page.locator(".card .frame").first.click()
    page.wait_for_selector("#viewer[open] img")
    assert violations(page) == []
