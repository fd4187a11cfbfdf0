"""The trajectories of an agent, its figures, and where search helped, in a real browser that is offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from knowgen.report.html import write_report
from tests.helpers.report_pages import HOSTILE, Open, until
from tests.helpers.report_runs import RunMaker
from tests.helpers.trajectories import answer_in, searched_answer


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report of an agent and a system without search, on samples s000 to s023."""
    maker = RunMaker(tmp_path_factory.mktemp("agent-site"))
    maker.failing = False
    samples = maker.samples(24)
    runs = [maker.run("plain", samples, 0.3), maker.run("agent", samples, 0.9, agent=searched_answer)]
    return write_report(runs, maker.folder / "page")


def open_trajectory(page: Any) -> Any:
    page.locator(".trajectory > summary").first.click()
    page.wait_for_selector(".timeline .end")
    return page.locator(".trajectories").first


def test_a_trajectory_shows_each_step_with_images_time_cost_and_faults(site: Path, view: Open) -> None:
    opened = view(site, "#samples?id=s001")
    page = opened.page
    line = page.locator(".trajectory > summary").first.inner_text()
    assert "answer, 3 steps, 3 calls, 1 reference, 2 blocked" in line
    assert not any("trajectories-" in url for url in opened.requests), "it is loaded when it is opened"
    shown = open_trajectory(page)
    assert any(url.endswith("data/trajectories-0.js") for url in opened.requests)
    assert shown.locator("h5").all_inner_texts() == [
        "Round 1 · search",
        "Round 2 · image_search",
        "Last call · answer",
        "Answer",
    ]
    text = shown.inner_text()
    for words in (
        "What is Teld?", "policy 0.50 s, 100 tokens in, 20 out, $0.0100 · tools 0.25 s", "leak blocked",
        "blocked: robots blocked", "120 tokens cut from the results", "Asked: Answer now.", "A lighthouse, Teld.",
        "1 chosen reference", "the stripes of Teld", "3 paid calls", "3.00 s",
    ):  # fmt: skip
        assert words in text, words
    page.locator(".pictures").scroll_into_view_if_needed()
    until(page, "[...document.querySelectorAll('.pictures img')].every((one) => one.naturalWidth > 0)")
    assert page.locator(".pictures img").count() == 3
    assert page.get_by_alt_text("chosen reference, IMG_002: Teld").count() == 1
    opened.clean()


def test_an_ending_without_an_answer_and_its_faults_are_shown(site: Path, view: Open) -> None:
    opened = view(site, "#samples?id=s005")
    text = open_trajectory(opened.page).inner_text()
    for words in ("no answer", "Search failed: Teld", "the reply was cut at its maximum length", "No reference image"):
        assert words in text, words
    opened.clean()


def test_a_trajectory_is_opened_and_read_with_the_keyboard(site: Path, view: Open) -> None:
    page = view(site, "#samples?id=s001").page
    page.locator(".trajectory > summary").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".timeline .end")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "What it was shown"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "what it was shown, Round 1 · search"
    assert page.evaluate("document.activeElement.textContent") == "Teld was lit in 1898."
    steps = page.get_by_role("list").filter(has=page.locator(".end"))
    assert steps.get_by_role("listitem").count() == 4


@pytest.mark.parametrize("width", [390, 1280])
def test_the_sections_of_an_agent_fit_the_screen(site: Path, view: Open, width: int) -> None:
    opened = view(site, "#samples?id=s001", width=width)
    opened.unfold()
    open_trajectory(opened.page)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    table = opened.page.locator("#agent table").first
    assert table.get_by_role("row").count() == 2
    assert "24/24" in table.inner_text()
    opened.clean()


def test_where_search_helped_shows_both_images_and_leads_to_the_sample(site: Path, view: Open) -> None:
    opened = view(site, "#search")
    page = opened.page
    section = page.locator("#search")
    assert section.locator("details").first.evaluate("(one) => one.open")
    assert "agent (search) minus plain (no search)" in section.locator(".lede").inner_text()
    first = section.locator(".paired > li").first
    assert first.locator("figure").count() == 2
    name = first.locator("a.figure").inner_text().removeprefix("sample ")
    first.locator("a.figure").click()
    until(page, "document.querySelectorAll('.card').length === 1")
    assert opened.ids() == [name]
    page.locator("#agent").evaluate("(one) => (one.querySelector('details').open = true)")
    page.locator("#agent").get_by_role("link", name="hard").click()
    until(page, "document.querySelectorAll('.card').length > 1")
    assert len(opened.ids()) == 8
    opened.clean()


def test_hostile_trajectories_are_shown_as_text(view: Open, tmp_path: Path) -> None:
    maker = RunMaker(tmp_path)
    words = " ".join(HOSTILE)
    samples = maker.samples(6)
    runs = [maker.run("plain", samples, 0.3), maker.run(HOSTILE[1], samples, 0.9, agent=answer_in(words))]
    opened = view(write_report(runs, tmp_path / "page"), "#samples?id=s001")
    opened.unfold()
    shown = open_trajectory(opened.page)
    assert "<script>alert(1)</script>" in shown.inner_text() and "{{ 7 * 7 }}" in shown.inner_text()
    assert opened.page.locator("main script, main [onerror], main svg[onload]").count() == 0
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= opened.page.viewport_size["width"]
    opened.clean()
