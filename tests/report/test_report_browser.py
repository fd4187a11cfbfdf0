"""A report opened from disk in a real browser that is offline."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest

from knowgen.core.records import DIMENSIONS
from knowgen.report.html import write_report
from knowgen.stats.summary import OVERALL
from tests.helpers.report_pages import HOSTILE, Open, until
from tests.helpers.report_runs import RunMaker

WIDTHS = (390, 768, 1440)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """Return a report of three systems on 40 samples, with two scorers and two protocols."""
    maker = RunMaker(tmp_path_factory.mktemp("site"))
    samples = maker.samples(40)
    runs = [
        maker.run("open_book", samples, 0.8, scorers=(maker.CHECK, maker.JUDGE)),
        maker.run("closed_book", samples, 0.25, scorers=(maker.CHECK, maker.JUDGE)),
        maker.run("oracle", samples, 0.97, scorers=(maker.CHECK, maker.JUDGE), privileged=True),
    ]
    return write_report(runs, maker.folder / "page"), runs


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report in which every text attempts an injection."""
    maker = RunMaker(tmp_path_factory.mktemp("hostile"))
    maker.reason = maker.rationale = maker.subject = " ".join(HOSTILE)
    maker.task = HOSTILE[0]
    maker.fail_rate = 0.3
    samples = maker.samples(12, HOSTILE)
    runs = [
        maker.run(name, samples, 0.6, scorers=(maker.CHECK, maker.JUDGE))
        for name in (HOSTILE[0], HOSTILE[1], HOSTILE[4])
    ]
    return write_report(runs, maker.folder / "page")


def summary(run: Any, scorer: str = "world_check", protocol: str = "strict") -> Any:
    """Return one of the summaries of a run."""
    return next(one for one in run.summaries if (one.scorer, one.protocol) == (scorer, protocol))


# -- the headline and its figures--------------------------------------------------------------------------------------


def test_the_page_opens_and_names_the_best_system(site: Any, view: Open) -> None:
    index, runs = site
    opened = view(index)
    first, second = (summary(run).headline.value for run in runs[:2])
    heading = opened.page.locator("h1:visible").inner_text().replace("\u2011", "-")
    assert heading == f"open_book leads closed_book by {first - second:.3f} in K-Score."
    assert "oracle sees the ground truth" in opened.page.locator(".result:visible").inner_text()
    opened.clean()


def test_tables_show_the_figures_of_the_summaries(site: Any, view: Open) -> None:
    index, runs = site
    page = view(index).page
    for run in runs:
        whole = summary(run).slice()
        line = page.locator(".board:visible tbody tr", has_text=summary(run).system).first
        shown = line.locator("a.figure").all_inner_texts()
        assert shown == [f"{whole.figures[name].value:.3f}" for name in (OVERALL, *DIMENSIONS)]
        coverage = whole.coverage
        assert (
            f"{coverage.generation_failed + coverage.generation_refused + coverage.score_failed}" in line.inner_text()
        )


def test_figures_are_plotted_where_their_values_are(site: Any, view: Open) -> None:
    index, runs = site
    page = view(index).page
    for run in runs:
        figure = summary(run).headline
        plot = page.locator(".board:visible tbody tr", has_text=summary(run).system).first.locator("svg.plot")
        frame = plot.bounding_box()
        mark = plot.locator("path.halo").bounding_box()
        ends = plot.locator("line.range").bounding_box()
        assert (mark["x"] + mark["width"] / 2 - frame["x"]) / frame["width"] == pytest.approx(figure.value, abs=0.012)
        assert (ends["x"] - frame["x"]) / frame["width"] == pytest.approx(figure.low, abs=0.012)
        assert (ends["x"] + ends["width"] - frame["x"]) / frame["width"] == pytest.approx(figure.high, abs=0.012)


def test_scorer_and_protocol_can_be_chosen_and_stay_in_the_url(site: Any, view: Open) -> None:
    index, runs = site
    opened = view(index)
    page = opened.page
    page.locator("#protocol").get_by_text("official", exact=True).click()
    page.locator("#scorer").select_option("vlm:tiny-judge")
    until(page, "location.hash.includes('scorer=') && location.hash.includes('protocol=')")
    expected = summary(runs[0], "vlm:tiny-judge", "official")
    row = page.locator(".board:visible tbody tr", has_text="open_book")  # 4 of its 40 scores failed
    assert f"{expected.headline.value:.3f}" in row.inner_text() and "no result" in row.inner_text()
    assert "protocol=official" in page.url and "tiny-judge-2" in page.locator(".basis:visible").inner_text()
    page.go_back()
    page.go_back()
    page.locator('input[value="strict"]:checked').wait_for(state="attached")
    assert row.locator("a.figure").first.inner_text() == f"{summary(runs[0]).headline.value:.3f}"
    assert page.locator('input[value="strict"]').is_checked()
    opened.clean()


def test_the_breakdown_shows_each_measure(site: Any, view: Open) -> None:
    index, runs = site
    page = view(index).page
    page.locator(".fold:visible summary", has_text="By group").click()
    page.locator(".categories:visible summary").click()
    page.locator("[data-measure]:visible").select_option("aesthetics")  # the categories stay open
    expected = summary(runs[0]).slice("category", "biology").figures["aesthetics"]
    line = page.locator(".parts:visible tbody tr", has_text="biology")
    assert line.locator("td a.figure").first.inner_text() == f"{expected.value:.3f}"


# -- sections that are closed at first ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "most"), [(390, 2500), (1280, 1500)])
def test_the_samples_are_near_the_top(site: Any, view: Open, width: int, most: int) -> None:
    page = view(site[0], width=width).page
    assert page.locator("#samples").bounding_box()["y"] < most
    assert page.locator(".fold:visible").count() == page.locator(".fold:visible > details:not([open])").count() == 5


@pytest.mark.parametrize("width", WIDTHS)
def test_the_links_to_sections_stay_in_view_and_open_them(site: Any, view: Open, width: int) -> None:
    opened = view(site[0], width=width)
    page = opened.page
    opened.to_the_end()
    links = page.locator(".top nav")
    assert 0 <= links.bounding_box()["y"] < 60
    for name in ("Failures", "Method", "Samples", "Breakdown"):
        links.get_by_role("link", name=name).click()
        section = page.locator(f"#{name.lower()}")
        until(page, f"document.getElementById('{name.lower()}').contains(document.activeElement)")
        assert 0 <= section.bounding_box()["y"] < 200, name
        assert section.locator(".on, dd, #match-count").first.is_visible(), name
    opened.clean()


def test_a_link_from_elsewhere_opens_its_section(site: Any, view: Open) -> None:
    page = view(site[0], "#failures?scorer=vlm%3Atiny-judge").page
    assert page.locator(".problems:visible tbody tr").count() > 0
    page.locator("#scorer").select_option("world_check")
    until(page, "!document.querySelector('[data-view=\"0\"]').hidden")
    assert page.locator(".problems:visible tbody tr").count() > 0


def test_the_line_of_the_failures_counts_them(site: Any, view: Open) -> None:
    index, runs = site
    failed = sum(state != "scored" for run in runs for state in states(run).values())
    assert view(index).page.locator("#failures summary").inner_text().split() == ["Failures", str(failed)]


def test_without_scripts_and_on_paper_every_section_is_open(site: Any, view: Open, browser: Any) -> None:
    index, _ = site
    context = browser.new_context(java_script_enabled=False, offline=True)
    plain = context.new_page()
    plain.goto(index.as_uri())
    assert plain.locator(".fold:visible > details[open]").count() == 5
    assert plain.locator(".categories:visible .parts").is_visible() and plain.locator("#method pre").first.is_visible()
    context.close()
    page = view(index).page
    page.evaluate(
        "window.addEventListener('beforeprint', () => {"
        " document.title = String(document.querySelectorAll('main details[data-fold]:not([open])').length) })"
    )
    page.pdf()
    until(page, "document.title === '0'")
    assert page.locator(".fold:visible > details[open]").count() == 0


# -- samples and filters ---------------------------------------------------------------------------------------------


def states(run: Any) -> dict[str, str]:
    """Return the state of each sample, computed from the rows."""
    states_by_id = {}
    for row in run.store.rows("world_check"):
        if row.generation != "ok":
            states_by_id[row.sample_id] = str(row.generation)
        else:
            states_by_id[row.sample_id] = "scored" if row.strict.status == "ok" else "score " + row.strict.status
    return states_by_id


def test_filters_show_exactly_the_matching_samples(site: Any, view: Open) -> None:
    index, runs = site
    everything = [sample.id for sample in runs[0].store.samples()]
    opened = view(index)
    assert opened.ids() == everything
    form = opened.page.locator("#filters")
    form.get_by_label("Status").select_option("generation_failed")
    states_per_run = [states(run) for run in runs]
    assert opened.ids() == [one for one in everything if any(state[one] == "failed" for state in states_per_run)]
    form.get_by_label("Status").select_option("problem")
    assert opened.ids() == [one for one in everything if any(state[one] != "scored" for state in states_per_run)]
    form.get_by_label("Status").select_option("generation_failed")
    form.locator("[name=system]").select_option("closed_book")
    assert opened.ids() == [one for one in everything if states_per_run[1][one] == "failed"]
    form.get_by_role("button", name="Clear").click()
    form.get_by_label("Category").select_option("game")
    form.get_by_label("Difficulty").select_option("medium")
    expected = [one.id for one in runs[0].store.samples() if (one.category, one.difficulty) == ("game", "medium")]
    assert opened.ids() == expected
    form.get_by_role("button", name="Clear").click()
    form.get_by_label("Search").fill("LIGHTHOUSE number 17")
    until(opened.page, "document.querySelectorAll('.card').length === 1")
    assert opened.ids() == ["s017"]
    opened.clean()


def test_samples_can_be_filtered_and_sorted_by_score(site: Any, view: Open) -> None:
    index, runs = site
    weights = dict(zip(DIMENSIONS, (0.1, 0.4, 0.4, 0.1), strict=True))
    scores = {}
    for row in runs[0].store.rows("world_check"):
        if row.strict.status == "ok" and row.generation == "ok":
            values = row.strict.values
            scores[row.sample_id] = sum(weights[name] * value for name, value in values.items()) / sum(
                weights[name] for name in values
            )
    opened = view(index, "#samples?system=open_book&min=0.5&max=0.9&sort=low&alone=1")
    shown = opened.ids()
    assert sorted(shown) == sorted(one for one, score in scores.items() if 0.5 <= round(score, 4) <= 0.9)
    shown_scores = [round(scores[one], 4) for one in shown]
    assert shown_scores == sorted(shown_scores)
    assert opened.page.locator(".image-panel h4 bdi").all_text_contents() == ["open_book"] * len(shown)


def test_a_url_restores_a_view_and_the_back_button_works(site: Any, view: Open) -> None:
    index, _ = site
    first = view(index)
    first.page.locator("#filters").get_by_label("Group").select_option("pop_culture_and_news")
    first.page.locator("#filters").get_by_label("Search").fill("number 1")
    until(first.page, "location.hash.includes('q=number')")
    again = view(index, first.page.url[first.page.url.index("#") :])
    assert again.ids() == first.ids() != []
    assert again.page.locator("#filters").get_by_label("Search").input_value() == "number 1"
    first.page.go_back()
    until(first.page, "document.querySelector('#match-count').textContent === '40 samples'")
    assert first.page.locator("#filters").get_by_label("Group").input_value() == ""


def test_every_number_links_to_its_samples(site: Any, view: Open) -> None:
    index, _ = site
    opened = view(index)
    opened.unfold()
    page = opened.page
    failures = page.locator(".problems:visible tbody tr")
    assert failures.count() > 3
    for number in range(failures.count()):
        link = failures.nth(number).locator("a.figure")
        count = link.inner_text()
        link.click()
        until(page, "document.getElementById('match-count').innerText.includes('with the reason')")
        text_shown = page.locator("#match-count").inner_text()
        assert re.search(rf"\b{count} results? with the reason", text_shown), text_shown
        page.go_back()
        until(page, "!document.getElementById('match-count').innerText.includes('with the reason')")
    page.locator(".parts:visible th a", has_text="astronomy").click()
    until(page, "document.getElementById('match-count').textContent !== '40 samples'")
    assert "category=astronomy" in page.url
    assert set(page.locator(".card .tags span:first-child").all_text_contents()) == {"astronomy"}
    hrefs = set(page.evaluate("[...document.querySelectorAll('a.figure')].map((a) => a.getAttribute('href'))"))
    for href in hrefs:
        section, _, query = href.partition("?")
        assert section in {"#samples", "#failures"} and set(parse_qs(query)) <= {
            "system", "group", "category", "difficulty", "status", "reason", "scorer", "protocol", "by", "id"
        }, unquote(href)  # fmt: skip
    opened.clean()


@pytest.mark.parametrize("width", [390, 1440])
def test_every_image_loads_when_it_is_scrolled_to(site: Any, view: Open, width: int) -> None:
    index, _ = site
    opened = view(index, width=width)
    assert opened.page.locator(".card").count() < 40
    opened.to_the_end()
    assert opened.page.locator(".card").count() == 40
    for number in range(40):
        opened.page.evaluate(f"document.querySelectorAll('.card')[{number}].scrollIntoView()")
        opened.page.wait_for_timeout(20)
    until(
        opened.page, "[...document.querySelectorAll('.card img')].every((one) => one.complete && one.naturalWidth > 0)"
    )
    opened.clean()


def test_details_show_inputs_outputs_and_reasons(site: Any, view: Open) -> None:
    index, runs = site
    good = next(one for one, state in states(runs[0]).items() if state == "scored")
    opened = view(index, f"#samples?id={good}&scorer=vlm%3Atiny-judge")
    page = opened.page
    page.locator(".card summary").first.click()
    page.wait_for_selector(".depth section")
    page.get_by_text("Raw reply").first.click()
    text_shown = page.locator(".depth").inner_text()
    for words in (
        "Teld", "1898", "Pharos of Teld", "page 12: Lights of the coast", "The name is Teld.", "painter 1.0", "seed",
        "Teld light, north side", "The lamp room is right", "tiny-judge-2", '"faithfulness": 1}', "finish reason",
        "1896", "Recognised text",
    ):  # fmt: skip
        assert words in text_shown, words
    opened.clean()


def test_the_enlarged_image_is_shown_beside_the_truth(site: Any, view: Open) -> None:
    index, runs = site
    states_per_run = [states(run) for run in runs]
    good = next(
        one
        for one in states_per_run[0]
        if all(state[one] != "failed" and state[one] != "refused" for state in states_per_run)
    )
    opened = view(index, f"#samples?id={good}")
    page = opened.page
    link = page.get_by_alt_text(f"generated image of open_book for sample {good}")
    page.locator(".frame", has=link).focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_alt_text(f"ground truth of sample {good}").is_visible()
    assert dialog.locator("h2").inner_text().strip() == "open_book"
    page.keyboard.press("ArrowRight")
    assert dialog.locator("h2").inner_text().strip() == "closed_book"
    until(page, "[...document.querySelectorAll('#viewer img')].every((one) => one.naturalWidth > 0)")
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.className") == "frame"
    opened.clean()


# -- hostile texts ---------------------------------------------------------------------------------------------------


def test_hostile_texts_are_shown_as_text(hostile: Path, view: Open) -> None:
    opened = view(hostile)
    page = opened.page
    opened.to_the_end()
    page.evaluate("for (const one of document.querySelectorAll('.card > footer > details')) one.open = true")
    until(page, "[...document.querySelectorAll('.depth')].every((one) => one.childElementCount > 1)")
    text_shown = page.evaluate("document.body.textContent")
    for text in HOSTILE:
        assert text in text_shown
    assert page.locator("main script, main svg[onload], img:not([alt])").count() == 0
    assert page.evaluate("[...document.images].every((one) => one.getAttribute('src').startsWith('img/'))")
    assert page.evaluate(
        "[...document.querySelectorAll('*')].every((one) => [...one.attributes].every((a) => !a.name.startsWith('on')))"
    )
    leader = page.locator(".board:visible tbody bdi").first.text_content()
    assert leader in HOSTILE
    page.locator(".board:visible a.figure").first.click()
    until(page, "location.hash.includes('system=')")
    assert page.locator("#filters [name=system]").input_value() == leader
    opened.clean()


def test_a_hostile_url_is_harmless(site: Any, view: Open) -> None:
    index, _ = site
    opened = view(
        index, "#samples?q=%3Cimg%20src=x%20onerror=alert(1)%3E&system=__proto__&protocol=constructor&min=x&%%%"
    )
    assert opened.page.locator("#match-count").inner_text() == "Nothing fits these filters."
    opened.clean()


# -- sizes, colours, keyboard ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("which", ["site", "hostile"])
def test_the_page_is_not_wider_than_the_screen(request: Any, view: Open, which: str, width: int) -> None:
    index = request.getfixturevalue(which)
    opened = view(index[0] if which == "site" else index, width=width)
    opened.unfold()
    page = opened.page
    page.evaluate(
        "for (const one of [...document.querySelectorAll('.card > footer > details')].slice(0, 4)) one.open = true"
    )
    page.wait_for_selector(".depth section")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 390:
        loose = page.evaluate(
            "[...document.querySelectorAll('main *')]"
            ".filter((one) => one.getBoundingClientRect().right > innerWidth + 1"
            " && !one.closest('.sr, thead, pre, svg') && one.getClientRects().length).map((one) => one.className)"
        )
        assert loose == []


def test_the_tables_fit_a_printed_page(site: Any, view: Open) -> None:
    opened = view(site[0], width=740, theme="dark")
    opened.unfold()
    page = opened.page
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 740
    assert luminance(page.evaluate("getComputedStyle(document.querySelector('.wide')).backgroundColor")) > 0.9
    assert not page.locator("#filters").is_visible()


def luminance(colour: str) -> float:
    """Return the WCAG relative luminance of a computed colour."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


CONTRASTS = """() => [...document.querySelectorAll('h1, h2, h3, p, a, td, th, dt, dd, label span, summary, caption')]
  .filter((one) => one.getClientRects().length && one.textContent.trim())
  .map((one) => {
    let back = one;
    while (back && getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)') back = back.parentElement;
    const behind = getComputedStyle(back || document.documentElement).backgroundColor;
    return [getComputedStyle(one).color, behind, one.className + one.tagName];
  })"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_have_enough_contrast_in_light_and_dark(site: Any, view: Open, theme: str) -> None:
    opened = view(site[0], theme=theme)
    opened.unfold()
    page = opened.page
    assert (luminance(page.evaluate("getComputedStyle(document.documentElement).backgroundColor")) > 0.5) == (
        theme == "light"
    )
    seen = page.evaluate(CONTRASTS)
    assert len(seen) > 100
    for ink, back, what in seen:
        light = sorted((luminance(ink), luminance(back)))
        assert (light[1] + 0.05) / (light[0] + 0.05) >= 4.5, what


def test_the_colour_scheme_can_be_switched_and_is_remembered(site: Any, view: Open) -> None:
    page = view(site[0], theme="light").page
    button = page.locator("#theme")
    assert button.get_attribute("aria-label") == "Colours: system setting"
    button.click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert luminance(dark) < 0.1
    page.reload()
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == dark


def test_the_tab_key_visits_the_page_in_order(site: Any, view: Open) -> None:
    page = view(site[0]).page
    places = []
    for _ in range(30):
        page.keyboard.press("Tab")
        places.append(page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
        assert page.evaluate(
            "getComputedStyle(document.activeElement).outlineStyle !== 'none'"
            " || document.activeElement.type === 'radio'"
        )
    assert places == sorted(places)
    page.evaluate("document.activeElement.blur()")
    assert page.locator("[tabindex]:not([tabindex='0']):not([tabindex='-1'])").count() == 0


def test_the_skip_link_leads_to_the_samples(site: Any, view: Open) -> None:
    page = view(site[0]).page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    until(page, "document.activeElement.id === 'samples-title'")
    assert 0 <= page.locator("#samples").bounding_box()["y"] < 200


NAMELESS = """() => [...document.querySelectorAll('input, select, button, a, summary, [role=region], svg[role=img]')]
  .filter((one) => one.getClientRects().length)
  .filter((one) => !(one.getAttribute('aria-label')
    || (one.labels && [...one.labels].some((label) => label.textContent.trim()))
    || one.textContent.trim() || one.querySelector('img[alt]:not([alt=""])')))
  .map((one) => one.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("width", [390, 1440])
def test_controls_have_accessible_names_and_headings_are_in_order(site: Any, view: Open, width: int) -> None:
    opened = view(site[0], width=width)
    opened.unfold()
    page = opened.page
    page.locator(".card > footer summary").first.click()
    page.wait_for_selector(".depth section")
    assert page.evaluate(NAMELESS) == []
    assert page.locator("h1:visible").count() == 1
    levels = page.evaluate(
        "[...document.querySelectorAll('main h1, main h2, main h3, main h4, main h5')]"
        ".filter((one) => one.getClientRects().length).map((one) => Number(one.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.evaluate("[...document.images].every((one) => /sample s\\d+$/.test(one.alt))")


def test_tables_keep_their_roles_on_a_phone(site: Any, view: Open) -> None:
    page = view(site[0], width=390).page
    table = page.get_by_role("table").first
    assert table.get_by_role("row").count() == 4
    assert table.get_by_role("rowheader").count() == 3


# -- other shapes of runs --------------------------------------------------------------------------------------------


def test_runs_that_differ_in_task_version_are_not_ranked(maker: RunMaker, view: Open, tmp_path: Path) -> None:
    old = maker.run("open_book", maker.samples(8), 0.9)
    maker.version = "2-000000000000"
    new = maker.run("closed_book", maker.samples(8), 0.2)
    opened = view(write_report([old, new], tmp_path / "page"))
    assert opened.page.locator("h1").first.inner_text() == "These runs cannot be ranked."
    assert "task version" in opened.page.locator(".lede").first.inner_text()
    assert opened.ids() == [f"s{number:03d}" for number in range(8)] * 2
    opened.clean()


def test_one_run_with_repeats_and_one_protocol_is_shown(maker: Any, view: Open, tmp_path: Path) -> None:
    maker.failing = False
    run = maker.run("open_book", maker.samples(6), 0.8, repeats=2, protocols=("strict",))
    opened = view(write_report([run], tmp_path / "page"))
    assert opened.page.locator("#protocol, #scorer").count() == 0
    assert len(opened.ids()) == 12
    assert "repeat 2" in opened.page.locator(".card").nth(1).text_content()
    opened.unfold()
    assert "every sample has an image and a score" in opened.page.locator("main").inner_text()
    opened.clean()


def test_a_missing_image_is_replaced_by_its_reason(maker: Any, view: Open, tmp_path: Path) -> None:
    maker.failing = False
    run = maker.run("open_book", maker.samples(4), 0.8)
    _, generation = next(iter(run.store.generations()))
    assert generation.image is not None
    run.store.image_path(generation.image).unlink()
    opened = view(write_report([run], tmp_path / "page"))
    assert "its file cannot be read" in opened.page.locator(".card").first.text_content()
    assert opened.page.locator(".card img").count() == 7
    opened.clean()


@pytest.mark.slow
def test_a_thousand_samples_are_rendered_a_few_at_a_time(maker: RunMaker, view: Open, tmp_path: Path) -> None:
    runs = [maker.run(name, maker.samples(1000), skill) for name, skill in (("open_book", 0.8), ("closed_book", 0.3))]
    opened = view(write_report(runs, tmp_path / "page"))
    page = opened.page
    assert page.locator(".card").count() <= 64
    assert len([url for url in opened.requests if "chunk-" in url]) <= 5
    page.locator("#filters").get_by_label("Status").select_option("problem")
    expected = {one for run in runs for one, state in states(run).items() if state != "scored"}
    assert page.locator("#match-count").inner_text().startswith(f"{len(expected)} samples of 1,000")
    opened.clean()
