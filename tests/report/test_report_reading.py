"""Reading the page in a browser: the method, dimensions, a figure's own samples, and walking through samples."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from knowgen import __version__
from knowgen.report.html import write_report
from knowgen.stats.protocol import get_protocol
from tests.helpers.report_runs import RunMaker

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """Return a report of two systems on 30 samples."""
    maker = RunMaker(tmp_path_factory.mktemp("reading"))
    samples = maker.samples(30)
    runs = [maker.run(name, samples, quality) for name, quality in (("open_book", 0.8), ("closed_book", 0.3))]
    return write_report(runs, maker.folder / "page"), runs


@pytest.fixture
def view(browser: Any) -> Iterator[Open]:
    """Yield a function that opens a page in a new context."""
    contexts = []

    def open_page(index: Path, address: str = "", width: int = 1440) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, offline=True))
        page = contexts[-1].new_page()
        page.goto(index.as_uri() + address)
        page.wait_for_selector("#match-count:not(:empty)")
        return page

    yield open_page
    for context in contexts:
        context.close()


def until(page: Any, truth: str) -> None:
    """Wait until an expression is true, without the `eval` that the page's content security policy forbids."""
    for _ in range(400):
        if page.evaluate(truth):
            page.wait_for_timeout(60)
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never came true: {truth}")


def values_of(run: Any, dimension: str) -> dict[str, float]:
    """Return the value of each sample in a dimension."""
    rows = run.store.rows("world_check")
    return {row.sample_id: row.strict.values[dimension] for row in rows if dimension in row.strict.values}


def shown(page: Any) -> list[str]:
    """Return the ids of the samples that match, in order, as the page has queued them."""
    text = page.locator("#match-count").inner_text()
    wanted = int(re.match(r"[\d,]+", text)[0])  # type: ignore[index]
    for _ in range(100):
        ids: list[str] = page.eval_on_selector_all("#cards .card", "all => all.map(one => one.dataset.id)")
        if len(ids) >= wanted:
            return ids
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        page.wait_for_timeout(30)
    raise AssertionError(f"{wanted} samples match, {len(ids)} are shown")


def test_the_method_can_be_cited(site: tuple[Path, list[Any]], view: Open) -> None:
    index, runs = site
    text = view(index, "#method").locator("#method").inner_text()
    assert "0.1 F + 0.4 V + 0.4 T + 0.1 A" in text and "averaged over groups" in text
    for words in ("F, faithfulness", "V, visual correctness", "T, text accuracy", "A, aesthetics"):
        assert words in text
    assert (
        f"Protocol strict {get_protocol('strict').version}" in text
        and "a failed or refused generation counts 0 in every dimension" in text
    )
    assert "with fewer than 95% of the expected scores no result is given" in text
    manifest, spec = runs[0].store.manifest, runs[0].store.spec
    assert manifest.started[:10] == datetime.datetime.now(datetime.UTC).date().isoformat()
    for fact in (manifest.started, __version__, manifest.versions["python"], manifest.machine["system"]):
        assert str(fact) in text
    assert f"open_book: {spec.task} {spec.task_version}, {spec.selection.label}, scorer world_check" in text


def test_the_method_names_the_rubric_of_a_judge_with_its_hash(maker: RunMaker, view: Open, tmp_path: Path) -> None:
    run = maker.run("open_book", maker.samples(6), 0.8, scorers=(maker.CHECK, maker.JUDGE))
    text = view(write_report([run], tmp_path / "page"), "#method").locator("#method .run > dl").inner_text()
    assert re.findall(r"Rubric\n+(.*)", text) == [f"tiny-rubric-1, SHA-256 {'ab12' * 16}"], "world_check has none"


def test_samples_are_sorted_and_filtered_by_a_dimension(site: tuple[Path, list[Any]], view: Open) -> None:
    index, runs = site
    page = view(index, "#samples?system=open_book&alone=1")
    form = page.locator("#filters")
    form.locator("select[name=by]").select_option("visual correctness")
    form.get_by_label("Order").select_option("low")
    until(page, "location.hash.includes('sort=low')")
    assert "by=visual" in page.url, "the view can be shared"
    values = values_of(runs[0], "visual_correctness")
    order = [values[name] for name in shown(page)]
    assert len(order) == len(values) and order == sorted(order)
    form.get_by_label("Highest value", exact=True).fill("0.5")
    until(page, "location.hash.includes('max=0.5')")
    page.wait_for_timeout(60)
    assert len(shown(page)) == sum(value <= 0.5 for value in values.values())


def test_a_figure_of_a_dimension_leads_to_the_samples_with_a_value_in_it(
    site: tuple[Path, list[Any]], view: Open
) -> None:
    index, runs = site
    page = view(index)
    head = page.locator(".panel:not([hidden]) table.board")
    figure = head.locator("td[data-label='Text accuracy'] a.figure").first
    figure.click()
    until(page, "location.hash.includes('by=text')")
    page.wait_for_timeout(60)
    system = "open_book" if "system=open_book" in page.url else "closed_book"
    run = runs[0] if system == "open_book" else runs[1]
    assert len(shown(page)) == len(values_of(run, "text_accuracy")) < 30


def test_the_viewer_walks_through_the_samples_of_the_list(site: tuple[Path, list[Any]], view: Open) -> None:
    page = view(site[0], "#samples?system=open_book&alone=1&sort=low")
    ids = shown(page)
    page.locator("#cards .frame").first.click()
    dialog = page.get_by_role("dialog")
    first = dialog.get_attribute("aria-label")
    page.keyboard.press("ArrowDown")
    second = dialog.get_attribute("aria-label")
    assert first != second and dialog.get_by_label("Previous sample").is_visible()
    page.keyboard.press("ArrowUp")
    assert dialog.get_attribute("aria-label") == first
    dialog.get_by_label("Next sample").click()
    assert dialog.get_attribute("aria-label") == second
    for _ in range(len(ids) + 3):
        page.keyboard.press("ArrowDown")
    assert dialog.get_by_label("Next sample").count() == 0, "the list ends"


@pytest.mark.parametrize("width", [1440, 420])
def test_categories_are_closed_in_the_breakdown(site: tuple[Path, list[Any]], view: Open, width: int) -> None:
    page = view(site[0], "#breakdown", width=width)
    assert page.locator(".panel:not([hidden]) .parts").first.is_visible()
    categories = page.locator(".panel:not([hidden]) details.categories").first
    assert not categories.locator("table").is_visible()
    categories.locator("summary").click()
    assert categories.locator("table").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
