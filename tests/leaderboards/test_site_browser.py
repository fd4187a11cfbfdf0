"""The site of boards, opened from a folder in a real browser that is offline."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knowgen.leaderboards.folder import read_boards
from knowgen.leaderboards.site.build import build_site
from tests.helpers.axe import violations
from tests.helpers.report_pages import HOSTILE, Watched, until
from tests.helpers.site_boards import BoardMaker

Visit = Callable[..., Watched]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a board's pages: five systems on 96 samples, published rows, a withdrawn system."""
    root = tmp_path_factory.mktemp("site")
    maker = BoardMaker(root / "boards", samples=96)
    maker.write()
    maker.add("gen-searcher", 0.72, day=3, kind="agent", search=True, cost=0.12, failed=[3, 7], unjudged=[5])
    maker.add("flux-pro", 0.70, day=4, open_weights=False, cost=0.05, authors=["Black Forest Labs"])
    maker.add("qwen-image", 0.5, day=5, cost=0.0012)
    maker.add("noise", 0.1, day=6, kind="baseline", cost=0.0)
    maker.add("dear-model", 0.45, day=7, cost=None)
    maker.add("bad-model", 0.9, day=8, withdrawn="its images were taken from the ground truth")
    maker.publish(url="https://example.org/paper")
    return build_site(read_boards(maker.root), root / "site").parent / "main"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a board in which every text attempts an injection."""
    root = tmp_path_factory.mktemp("hostile")
    everything = " ".join(HOSTILE)
    # known categories as well, so that the systems have a result to compare
    categories = (*HOSTILE, *("biology", "film") * 6)
    maker = BoardMaker(
        root / "boards", samples=96, prompts=HOSTILE, categories=categories, rationale=everything, title=HOSTILE[0]
    )
    maker.write(description=everything)
    texts: dict[str, Any] = {
        "authors": list(HOSTILE),
        "notes": everything,
        "contact": "javascript:alert(1)",
        "training_data": "</textarea>" + HOSTILE[2],
        "parameters": everything[:60],
        "licence": everything[:60],
        "links": [{"title": HOSTILE[4][:60], "url": 'https://x.example/"><script>alert(1)</script>'}],
        "adapter": {
            "generator": HOSTILE[1],
            "package": HOSTILE[0],
            "commit": HOSTILE[2],
            "arguments": {HOSTILE[0]: HOSTILE[1]},
        },
    }
    named = (("one", 0.9, HOSTILE[0]), ("two", 0.5, HOSTILE[1]), ("three", 0.1, HOSTILE[3]))
    for slug, strength, name in named:
        maker.add(slug, strength, failed=[1], name=name, **texts)
    maker.add("gone", 0.4, name=HOSTILE[5], withdrawn=everything)
    maker.publish(f'system,kind,k_score\n"{HOSTILE[2]}",<b>1</b>,12.5\n', url="javascript:alert(1)")
    return build_site(read_boards(maker.root), root / "site").parent / "main"


def names(page: Any) -> list[str]:
    """Return the names of the systems shown in the ranking, in order."""
    shown: list[str] = page.locator("#ranking-table tbody tr:visible th bdi").all_inner_texts()
    return shown


def complete(page: Any) -> None:
    """Wait until a page shows everything that its scripts add."""
    if page.locator("#match-count").count():
        until(page, "document.getElementById('match-count').textContent !== ''")
    if page.locator("#cards").count():
        page.wait_for_selector("#cards .card")
        until(page, "document.querySelectorAll('#cards .why:not(:empty), #cards .state').length > 0")
    if page.locator("#comparison").count():
        compared(page)


def compared(page: Any) -> None:
    """Wait until a comparison is shown."""
    page.wait_for_selector("#comparison[data-shown]")


BY_SCORE = ["Gen Searcher", "Flux Pro", "Qwen Image", "Dear Model", "Noise"]


# -- the ranking -------------------------------------------------------------------------------------------------------


def test_the_ranking_is_sorted_and_filtered_in_the_address(site: Path, visit: Visit) -> None:
    opened = visit(site / "index.html")
    page = opened.page
    until(page, "document.getElementById('match-count').textContent !== ''")
    assert sorted(names(page)) == sorted(BY_SCORE)
    cost = page.locator("#ranking-table th[data-key=cost]")
    cost.get_by_role("button").click()
    until(page, "location.hash.includes('sort=cost-up')")
    assert names(page) == ["Noise", "Qwen Image", "Flux Pro", "Gen Searcher", "Dear Model"]
    assert cost.get_attribute("aria-sort") == "ascending"
    cost.get_by_role("button").click()
    until(page, "location.hash.includes('sort=cost-down')")
    assert names(page) == ["Gen Searcher", "Flux Pro", "Qwen Image", "Noise", "Dear Model"]  # unknown costs stay last
    page.locator("#filters [name=open]").select_option("yes")
    until(page, "location.hash.includes('open=yes')")
    assert names(page) == ["Gen Searcher", "Qwen Image", "Noise", "Dear Model"]
    assert page.locator("#match-count").inner_text() == "4 of 5 systems"
    page.reload()
    until(page, "document.getElementById('match-count').textContent === '4 of 5 systems'")
    assert names(page) == ["Gen Searcher", "Qwen Image", "Noise", "Dear Model"]
    page.go_back()
    until(page, "!location.hash.includes('open=')")
    assert len(names(page)) == 5
    page.locator("#filters [name=q]").fill("forest labs")
    until(page, "document.querySelectorAll('#ranking-table tbody tr:not([hidden])').length === 1")
    assert names(page) == ["Flux Pro"]
    opened.clean()


@pytest.mark.slow
def test_the_figures_of_a_part_replace_those_of_the_whole(site: Path, visit: Visit) -> None:
    opened = visit(site / "index.html")
    page = opened.page
    whole = page.locator("#ranking-table tbody").inner_text()
    page.locator("#filters [name=part]").select_option("difficulty:hard")
    page.wait_for_selector("#ranking-table[data-part='difficulty:hard']")
    assert "of hard (32 samples)" in page.locator("#ranking-table caption").inner_text()
    for name in names(page)[1:3]:
        slug = name.lower().replace(" ", "-")
        value = page.locator("#ranking-table tbody tr", has_text=name).locator("td.lead").inner_text().split()[0]
        other = visit(site / f"system-{slug}.html").page
        assert (
            other.locator(".own-figures tr", has_text="hard").locator("td.num").nth(1).inner_text().split()[0] == value
        )
    page.locator("#filters [name=part]").select_option("")
    until(page, "document.getElementById('ranking-table').dataset.part === ''")
    assert page.locator("#ranking-table tbody").inner_text() == whole
    opened.clean()


def test_without_scripts_the_tables_are_complete(site: Path, visit: Visit) -> None:
    page = visit(site / "index.html", java_script_enabled=False).page
    assert sorted(names(page)) == sorted(BY_SCORE)
    assert page.locator("#filters").is_hidden()
    assert page.locator("#ranking-table th button").count() == 0
    page.goto((site / "system-noise.html").as_uri())
    assert page.locator("#versus tbody tr").count() == 4
    assert page.locator("noscript").first.is_visible()


def test_on_a_phone_every_table_is_ordered_from_a_list(site: Path, visit: Visit) -> None:
    opened = visit(site / "index.html", width=390)
    page = opened.page
    until(page, "document.getElementById('match-count').textContent !== ''")
    tables = page.locator("table[data-sortable]").count()
    assert page.locator("select:visible").filter(has_text="reversed").count() == tables - 1  # one is folded
    order = page.locator("#published select")
    names_of = "[...document.querySelectorAll('#published tbody th')].map((one) => one.textContent).join()"
    assert page.evaluate(names_of) == "Some Model,Other Model"
    order.select_option(label="K-Score, reversed")
    assert page.evaluate(names_of) == "Other Model,Some Model"
    order.select_option(label="as listed")
    assert page.evaluate(names_of) == "Some Model,Other Model"
    opened.clean()


def test_what_is_not_tested_and_what_has_no_thumbnail_is_said(tmp_path: Path, visit: Visit) -> None:
    maker = BoardMaker(tmp_path / "boards", samples=8, images=False)
    maker.write()
    maker.add("strong", 0.9)
    maker.add("weak", 0.1)
    opened = visit(build_site(read_boards(maker.root), tmp_path / "site").parent / "main" / "compare.html")
    page = opened.page
    complete(page)
    assert page.locator("h1").inner_text() == "Not tested: Strong and Weak in K-Score."
    verdicts = page.locator(".verdict").all_inner_texts()
    assert verdicts[0] == "not tested" and set(verdicts) <= {"not tested", "no comparison", "no clear difference"}
    assert "no thumbnail" in page.locator("#cards .card").first.inner_text()
    opened.clean()


# -- two systems, and a sample -----------------------------------------------------------------------------------------


def test_two_systems_are_compared_sample_by_sample(site: Path, visit: Visit) -> None:
    opened = visit(site / "compare.html", "#comparison?a=qwen-image&b=noise")
    page = opened.page
    compared(page)
    assert page.locator("h1").inner_text().startswith("Qwen Image is ahead of Noise by 0.")
    gaps = [float(text.replace("\u2212", "-")) for text in page.locator(".card .paired-line b").all_text_contents()]
    assert len(gaps) == 16 and gaps == sorted(gaps, key=abs, reverse=True)
    counted = re.findall(r"(?:better|equal|worse) on (\d+)", page.locator("#sentences").inner_text())
    assert len(counted) == 3 and sum(map(int, counted)) == 96
    page.locator("#swap").click()
    page.wait_for_selector("#comparison[data-shown='noise qwen-image']")
    assert page.locator("h1").inner_text().startswith("Qwen Image is ahead of Noise by 0.")
    assert [
        float(text.replace("\u2212", "-")) for text in page.locator(".card .paired-line b").all_text_contents()
    ] == [-gap for gap in gaps]
    page.locator("#filters [name=better]").select_option("a")
    until(page, "document.getElementById('match-count').textContent.includes(' of 96')")
    assert "better=a" in page.url and "a=noise" in page.url
    page.locator(".card .tags a").first.click()
    page.wait_for_selector("#cards .card")
    assert page.locator("#cards .card").count() == 5 and "sample.html#sample" in page.url
    opened.clean()


def test_a_sample_shows_the_results_of_all_systems(site: Path, visit: Visit) -> None:
    opened = visit(site / "sample.html")
    page = opened.page
    page.wait_for_selector("#cards .card")
    for place in range(3):
        assert page.locator("#match-count").inner_text().startswith(f"Sample {place + 1} of 96")
        page.get_by_role("button", name="Next").click()
        until(page, f"document.getElementById('match-count').textContent.startsWith('Sample {place + 2} of')")
    failed = page.locator(".card[data-system=gen-searcher]")
    failed.locator(".state").wait_for()
    assert "out of memory" in failed.inner_text() and "counts as 0" in failed.inner_text()
    image = page.locator(".card[data-system=noise] img")
    assert image.evaluate("one => one.decode().then(() => one.naturalWidth)") == 96
    assert "Noise" in image.get_attribute("alt")
    page.locator("#choose [name=q]").fill("Sample 42:")
    page.locator("#matches a").first.click()
    until(page, "document.getElementById('prompt').textContent.startsWith('Sample 42:')")
    opened.clean()


def test_the_samples_of_a_system_are_filtered(site: Path, visit: Visit) -> None:
    opened = visit(site / "system-gen-searcher.html", "#samples?state=problem")
    page = opened.page
    page.wait_for_selector(".card")
    assert page.locator("#match-count").inner_text() == "3 of 96 samples"
    until(page, "document.querySelectorAll('.card .why, .card .state').length >= 3")
    assert page.locator(".card", has_text="the reply was cut").count() == 1
    page.locator("#filters [name=state]").select_option("")
    page.locator("#filters [name=category]").select_option("biology")
    until(page, "document.getElementById('match-count').textContent === '4 of 96 samples'")
    page.locator("#filters [name=sort]").select_option("low")
    until(page, "location.hash.includes('sort=low')")
    values = [float(text) for text in page.locator(".card .points b").all_text_contents()]
    assert values == sorted(values) and len(values) == 4
    opened.clean()


# -- keyboard, hostile texts -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_board_works_by_keyboard_alone(site: Path, visit: Visit) -> None:
    opened = visit(site / "index.html")
    page = opened.page
    until(page, "document.getElementById('match-count').textContent !== ''")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    until(page, "document.getElementById('main').contains(document.activeElement)")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Faithfulness":
            break
    assert page.evaluate("document.activeElement.matches(':focus-visible')")
    outline = page.evaluate(
        "getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth"
    )
    assert outline == "solid2px"
    page.keyboard.press("Enter")
    until(page, "location.hash.includes('sort=faithfulness-down')")
    assert page.evaluate("document.activeElement.textContent") == "Faithfulness"  # the focus stays on the heading
    seen = set()
    for _ in range(250):  # no element keeps the focus
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.href || document.activeElement.tagName"))
        if page.evaluate("document.activeElement === document.body"):
            break
    else:
        pytest.fail("the focus never left the page")
    assert any(str(one).endswith("system-noise.html") for one in seen)
    opened.clean()


def tab_to(page: Any, selector: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(150):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"the keyboard does not reach {selector}")


@pytest.mark.slow
def test_filters_comparisons_and_samples_work_by_keyboard_alone(site: Path, visit: Visit) -> None:
    opened = visit(site / "index.html")
    page = opened.page
    until(page, "document.getElementById('match-count').textContent !== ''")
    tab_to(page, "#filters [name=open]")
    page.keyboard.press("ArrowDown")
    until(page, "location.hash.includes('open=yes')")
    assert page.locator("#match-count").inner_text() == "4 of 5 systems"
    page.goto((site / "compare.html").as_uri())
    compared(page)
    before = page.locator("#comparison").get_attribute("data-shown")
    tab_to(page, "#pair [name=b]")
    page.keyboard.press("ArrowDown")
    until(page, f"document.getElementById('comparison').dataset.shown !== '{before}'")
    tab_to(page, "#cards .tags a")
    page.keyboard.press("Enter")
    page.wait_for_selector("#cards .card[data-system]")
    tab_to(page, "#cards summary")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#cards details').open")
    assert "rationale" in page.locator("#cards details").first.inner_text()
    opened.clean()


def pages_of(folder: Path) -> list[Path]:
    """Return one page of each kind."""
    return [
        folder.parent / "index.html",
        folder / "index.html",
        next(iter(sorted(folder.glob("system-*.html"), key=lambda path: "failed" not in path.read_text("utf-8")))),
        next(iter(sorted(folder.glob("category-*.html")))),
        folder / "compare.html",
        folder / "sample.html",
    ]


def test_hostile_texts_are_inert(hostile: Path, visit: Visit) -> None:
    for path in pages_of(hostile):
        opened = visit(path)
        page = opened.page
        complete(page)
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        links = page.evaluate("[...document.querySelectorAll('a[href]')].map((one) => one.protocol)")
        assert set(links) <= {"file:", "https:"}, path.name
        assert page.locator("main script, main img[onerror], main svg[onload], iframe").count() == 0
        opened.clean()
    opened = visit(hostile / "index.html")
    assert HOSTILE[0] in opened.page.locator("#ranking-table").inner_text()
    assert opened.page.locator("#ranking-table tbody tr").count() == 3
    page = visit(hostile / "compare.html").page
    compared(page)
    assert f"{HOSTILE[0]} is ahead of {HOSTILE[1]}" in page.locator("h1").inner_text()
    page.goto(page.url.split("#")[0] + "#comparison?a=one&b=three")
    page.wait_for_selector("#comparison[data-shown='one three']")
    assert not set(page.locator("h1").inner_text()) & set("\u202e\u2066\u2067"), "a name turns no sentence"
    page.go_back()
    page.wait_for_selector("#comparison[data-shown='one two']")
    assert HOSTILE[0] in page.locator("#part-table").inner_text() and HOSTILE[1] in (
        page.locator("#cards").text_content() or ""
    )


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 768, 1440])
def test_no_page_scrolls_sideways(site: Path, hostile: Path, visit: Visit, width: int) -> None:
    for path in (*pages_of(site), *pages_of(hostile)):
        page = visit(path, width=width).page
        complete(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        box = page.locator(".difference")
        if box.count():
            inside = "(box) => [...box.querySelectorAll('bdi')].every((one) => one.getBoundingClientRect().right"
            assert box.evaluate(f"{inside} <= box.getBoundingClientRect().right)"), path


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_no_violation(site: Path, hostile: Path, visit: Visit, theme: str, width: int) -> None:
    found = []
    visits = [*((path, "") for path in pages_of(site)), (site / "index.html", "#ranking?part=category:biology&sort=n")]
    for path, address in (*visits, (hostile / "index.html", ""), (hostile / "compare.html", "")):
        opened = visit(path, address, width=width, theme=theme)
        page = opened.page
        complete(page)
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        found += [f"{path.name}: {line}" for line in violations(page)]
    assert found == []


@pytest.mark.slow
def test_every_page_prints_without_controls(site: Path, visit: Visit) -> None:
    for path in pages_of(site):
        page = visit(path).page
        page.emulate_media(media="print")
        assert page.locator(".filters:visible, .tools:visible").count() == 0, path
