"""The page of a judge's check in a real browser, opened from disk and offline, with hostile words in every place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knowgen.judge_check import tables
from knowgen.judge_check.page import MAX_RIGHT, write_page
from tests.helpers.check_pages import SAMPLES, check_with_examples


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a page of twenty samples and three changes."""
    folder = tmp_path_factory.mktemp("check")
    check, examples = check_with_examples(folder)
    return write_page(check, examples, folder / "judge_check", "result.json", check.model_dump_json())


@pytest.fixture(params=[(1440, "light"), (390, "dark")], ids=["desktop", "phone"])
def shown(request: pytest.FixtureRequest, browser: Any, index: Path) -> Iterator[Any]:
    """Yield the page, wide and light, then narrow and dark; without console messages and remote requests."""
    width, theme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, offline=True)
    page, complaints, requested = context.new_page(), [], []

    def dismissed(dialog: Any) -> None:
        complaints.append("dialog")
        dialog.dismiss()

    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", dismissed)
    page.on("request", lambda sent: requested.append(sent.url))
    page.goto(index.as_uri())
    yield page
    page.wait_for_timeout(100)
    assert complaints == []
    assert all(url.startswith("file://") for url in requested)
    context.close()


def test_the_headline_comes_first_and_is_escaped(shown: Any) -> None:
    assert shown.locator("h1").inner_text().split() == ["vlm:<b>tiny</b>", "is", "not", "fit", "for", "use"]
    assert "it fails on digit" in shown.locator(".lede").first.inner_text()
    assert shown.locator("main script, main img[src='x']").count() == 0
    assert "{{ 7 * 7 }}" in (shown.locator("#digit-wrong").text_content() or "")


def test_the_page_is_not_wider_than_the_window(shown: Any) -> None:
    shown.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_table_shows_the_figures_of_the_record(shown: Any) -> None:
    row = shown.locator(".changes tbody tr", has_text="one digit is another")
    words = " ".join(row.inner_text().split())
    # 12 of the 19 scored images; visual correctness fell in the others
    assert words.count("0.632") == 2 and "unfit" in words
    cells = [row.locator(f"[data-label='{name}']").inner_text() for name in ("n", "Wrong", "Right", "Failed")]
    assert [re.sub(r"\D", "", cell) for cell in cells] == ["19", "7", "12", "1"]


def test_failures_are_expanded_and_each_count_links_to_its_images(shown: Any) -> None:
    shown.locator(".changes tbody tr", has_text="one digit").locator("[data-label='Wrong'] a").click()
    assert shown.url.endswith("#digit-wrong")
    wrong = shown.locator("#digit-wrong .card")
    assert wrong.count() == 7 and wrong.first.is_visible()
    faults = [" ".join(text.split()) for text in wrong.first.locator(".fault").all_inner_texts()]
    assert len(faults) == 2 and any("must fall: did not fall" in one for one in faults)
    assert any("visual correctness" in one and "must stay: fell" in one for one in faults)
    assert "no JSON in <script>" in (shown.locator("#digit-failed").text_content() or "")
    right = shown.locator("#missing-subject-right")
    assert not right.locator(".card").first.is_visible()
    right.locator("summary").first.click()
    assert right.locator(".card").count() == MAX_RIGHT
    assert f"{SAMPLES} right, {MAX_RIGHT} of them shown" in right.locator("summary").first.inner_text()


def test_truth_and_changed_image_are_side_by_side_with_alt_texts(shown: Any) -> None:
    card = shown.locator("#digit-wrong .card").first
    card.scroll_into_view_if_needed()
    images = card.locator("img")
    assert images.count() == 2
    for position, alt in enumerate(("Ground truth of sample s12", "Scored image: changed")):
        image = images.nth(position)
        assert image.get_attribute("alt").startswith(alt)
        for _ in range(100):
            if image.evaluate("one => one.complete && one.naturalWidth > 0"):
                break
            shown.wait_for_timeout(25)
        assert image.evaluate("one => one.naturalWidth") == 96
    boxes = [images.nth(place).bounding_box() for place in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    assert "no space <script>" in (shown.locator(".state").first.text_content() or "")


def test_light_and_dark_differ_and_can_be_chosen(shown: Any) -> None:
    def ground() -> str:
        return str(shown.evaluate("getComputedStyle(document.documentElement).backgroundColor"))

    seen = set()
    for _ in range(3):
        shown.locator("#theme").click()
        seen.add(ground())
    assert len(seen) == 2


def test_heading_levels_and_anchors_are_valid(index: Path) -> None:
    html = index.read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
    levels = [int(level) for level in re.findall(r"<h([1-6])", html)]
    assert levels[0] == 1 and levels.count(1) == 1


def test_a_page_is_replaced_as_a_whole_with_its_record(tmp_path: Path) -> None:
    check, examples = check_with_examples(tmp_path)
    out = tmp_path / "judge_check"
    write_page(check, examples, out, "result.json", "one")
    (out / "stray.txt").write_text("x")
    write_page(check, examples[:3], out, "result.json", "two")
    assert {path.name for path in out.iterdir()} == {"index.html", "img", "static", "result.json"}
    assert (out / "result.json").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".judge_check")] == []


def test_tables_give_reasons_and_no_control_characters(tmp_path: Path) -> None:
    check, _ = check_with_examples(tmp_path)
    hostile = check.model_copy(update={"judges": ("tiny\x1b[2J",)})
    text = tables.terminal(hostile)
    assert text.startswith("vlm:<b>tiny</b> fit for use: no, because it fails on digit\n")
    assert "\x1b" not in text
    assert "digit: unfit, sensitivity 0.632 on 19 images is below 0.9" in text
    assert re.search(r"^digit: .*1 score failed", text, re.MULTILINE)
    assert re.search(r"^missing subject +! 1\.000 -0\.500 +! 1\.000 -1\.000 += 0\.000 +0\.000", text, re.MULTILINE)
    assert "vlm:<b>" not in tables.markdown(hostile)
