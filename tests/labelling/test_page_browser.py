"""The label page in a real browser, driven by keys alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from knowgen.labelling.items import make_plan
from knowgen.labelling.label_files import current_labels, read_label_file
from knowgen.labelling.records import StoredLabel
from tests.helpers.labelling import LabelSite
from tests.helpers.report_pages import HOSTILE, Watched, until
from tests.labelling.conftest import SYSTEMS, Plans, make_runs

Visit = Callable[..., Watched]

RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}


def labels_of(site: LabelSite, rater: str) -> list[StoredLabel]:
    """Return the labels of a rater that count."""
    return current_labels(read_label_file(site.server.folder / f"{rater}.jsonl").labels)


def begin(watched: Watched, name: str = "ann") -> Any:
    """Give a name by keys and return the page with its first item."""
    page = watched.page
    page.wait_for_selector("#start:not([hidden])")
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    page.wait_for_selector("#task:not([hidden])")
    until(page, "document.body.dataset.ready === 'yes'")
    return page


def counted(page: Any, text: str) -> None:
    """Wait until the page shows how many are answered, no request is running, and an answer is taken."""
    until(
        page,
        f"document.getElementById('count').textContent === '{text}' && !document.body.ariaBusy && "
        "(document.getElementById('task').hidden || document.body.dataset.ready !== 'no')",
    )


def press(page: Any, key: str, then: str) -> None:
    """Press a key and wait for the number of answers."""
    page.keyboard.press(key)
    counted(page, then)


def clean(watched: Watched) -> None:
    """Assert that nothing was logged and nothing was requested of another host."""
    assert watched.complaints == []
    assert all(url.startswith("http://127.0.0.1:") for url in watched.requests)


def test_ten_pairs_by_keys_with_a_reload_and_an_undo(plans: Plans, tmp_path: Path, visit: Visit) -> None:
    with LabelSite(plans("pairs"), tmp_path) as site:
        watched = visit(site.address)
        page = begin(watched)
        for number, key in enumerate(["a", "b", "t", "x", "a"], start=1):
            press(page, key, f"{number} of 18")
        assert [one.choice for one in labels_of(site, "ann")] == ["left", "right", "tie", "both_bad", "left"]

        prompt = page.locator("#prompt").inner_text()
        page.reload()
        counted(page, "5 of 18")
        assert page.locator("#prompt").inner_text() == prompt

        press(page, "u", "4 of 18")
        assert page.locator(".choice[aria-pressed=true]").get_attribute("data-choice") == "left"
        assert len(labels_of(site, "ann")) == 4
        for number, key in enumerate(["b", "a", "b", "t"], start=5):
            press(page, key, f"{number} of 18")
        page.keyboard.press("s")
        page.wait_for_selector("#skip[open]")
        press(page, "2", "9 of 18")
        press(page, "a", "10 of 18")

        found = labels_of(site, "ann")
        assert [one.choice for one in found] == [
            "left",
            "right",
            "tie",
            "both_bad",
            "right",
            "left",
            "right",
            "tie",
            "",
            "left",
        ]
        assert found[8].skipped == "cannot_tell"
        assert all(one.seconds >= 0 for one in found)
        assert page.url == f"http://127.0.0.1:{site.port}/"
        clean(watched)

        text = page.content() + json.dumps(page.evaluate("[document.cookie, {...sessionStorage}, {...localStorage}]"))
        text += json.dumps(watched.requests)
        assert not [name for name in SYSTEMS if name in text]


def test_ratings_by_keys(plans: Plans, tmp_path: Path, visit: Visit) -> None:
    with LabelSite(plans(), tmp_path) as site:
        watched = visit(site.address)
        page = begin(watched)
        fixed = page.locator(".dimension[data-fixed]").count()
        keys = ["1", "2", "1"] if fixed else ["1", "2", "3", "1"]
        page.keyboard.press("Enter")  # nothing is rated yet
        assert page.locator("#said").inner_text() == "Not rated yet: Faithfulness"
        for key in keys:
            page.keyboard.press(key)
        assert page.evaluate("document.activeElement.id") == "submit"
        press(page, "Enter", "1 of 18")
        (label,) = labels_of(site, "ann")
        assert label.values == {"faithfulness": 1.0, "visual_correctness": 0.5, "aesthetics": 1.0} | (
            {} if fixed else {"text_accuracy": 0.0}
        )
        press(page, "u", "0 of 18")
        assert page.locator(".dimension input:checked").count() == 4
        page.keyboard.press("j")
        page.keyboard.press("3")
        page.keyboard.press("k")
        press(page, "Enter", "1 of 18")
        assert labels_of(site, "ann")[0].values["visual_correctness"] in (0.0, 0.5)
        clean(watched)


@pytest.mark.slow
def test_the_page_is_usable_without_letter_keys(plans: Plans, tmp_path: Path, visit: Visit) -> None:
    with LabelSite(plans("pairs"), tmp_path, rater="ann") as site:
        watched = visit(site.address)
        page = watched.page
        counted(page, "0 of 18")
        page.locator("#keys").focus()
        page.keyboard.press("Space")
        page.keyboard.press("a")
        page.reload()
        counted(page, "0 of 18")
        page.keyboard.press("a")
        assert page.locator("kbd:visible").count() == 0
        page.locator(".choice").first.focus()
        press(page, "Enter", "1 of 18")
        assert [one.choice for one in labels_of(site, "ann")] == ["left"]
        clean(watched)


@pytest.mark.slow
def test_images_are_enlarged_and_the_ground_truth_is_hidden(plans: Plans, tmp_path: Path, visit: Visit) -> None:
    with LabelSite(plans("pairs"), tmp_path, rater="ann") as site:
        watched = visit(site.address)
        page = watched.page
        counted(page, "0 of 18")
        until(page, "[...document.images].filter(one => one.src).every(one => one.complete && one.naturalWidth > 0)")
        page.keyboard.press("z")
        page.wait_for_selector("#zoom[open]")
        assert page.locator("#zoom-title").inner_text() == "Image A"
        for key, title, scale in (("n", "Image B", "fit"), ("+", "Image B", "100 %"), ("+", "Image B", "150 %")):
            page.keyboard.press(key)
            assert page.locator("#zoom-title").inner_text() == title
            assert page.locator("#zoom-scale").inner_text() == scale
        assert page.locator("#zoom-image").bounding_box()["width"] == pytest.approx(300)
        page.keyboard.press("Escape")
        page.keyboard.press("g")
        assert page.locator(".picture:visible figcaption").all_inner_texts() == ["Image A", "Image B"]
        press(page, "a", "1 of 18")
        assert page.locator(".picture:visible figcaption").all_inner_texts() == ["Image A", "Image B"]
        page.keyboard.press("g")
        assert page.locator(".picture:visible").count() == 3
        clean(watched)


@pytest.mark.slow
def test_everything_is_labelled_and_the_last_answer_is_taken_back(plans: Plans, tmp_path: Path, visit: Visit) -> None:
    with LabelSite(plans("pairs", samples=1), tmp_path, rater="ann") as site:
        watched = visit(site.address)
        page = watched.page
        counted(page, "0 of 3")
        for number in (1, 2, 3):
            press(page, "t", f"{number} of 3")
        assert page.locator("#finished:visible").count() == 1
        assert "3 of 3" in page.locator("#finished-text").inner_text()
        page.context.set_offline(True)
        page.keyboard.press("u")
        page.wait_for_selector("#fault:not([hidden])")
        assert page.locator("#finished:visible").count() == 1
        page.context.set_offline(False)
        press(page, "u", "2 of 3")
        assert page.locator("#task:visible").count() == 1


@pytest.mark.slow
def test_a_server_that_has_gone_loses_no_answer_in_silence(plans: Plans, tmp_path: Path, visit: Visit) -> None:
    with LabelSite(plans("pairs"), tmp_path, rater="ann") as site:
        watched = visit(site.address)
        page = watched.page
        counted(page, "0 of 18")
        page.context.set_offline(True)
        page.keyboard.press("a")
        page.wait_for_selector("#fault:not([hidden])")
        assert "Your answer is not stored" in page.locator("#fault").inner_text()
        page.context.set_offline(False)
        page.locator("#retry").focus()
        press(page, "Enter", "1 of 18")
        assert page.locator("#fault:visible").count() == 0
        assert [one.choice for one in labels_of(site, "ann")] == ["left"]


def test_nothing_is_answered_before_its_images_are_shown(plans: Plans, tmp_path: Path, visit: Visit) -> None:
    with LabelSite(plans("pairs"), tmp_path, rater="ann") as site:
        watched = visit(site.address)
        page = watched.page
        counted(page, "0 of 18")
        held: list[Any] = []
        page.route("**/image/*", lambda route: held.append(route))
        page.keyboard.press("a")
        until(page, "document.getElementById('count').textContent === '1 of 18' && !document.body.ariaBusy")
        page.keyboard.press("a")
        page.locator(".choice").first.click()
        assert "not shown yet" in page.locator("#said").inner_text()
        until(page, "document.querySelectorAll('.picture img').length > 1")
        page.unroute("**/image/*")  # which lets those that were held go on
        counted(page, "1 of 18")
        press(page, "b", "2 of 18")
        assert [one.choice for one in labels_of(site, "ann")] == ["left", "right"]


@pytest.mark.slow
def test_an_image_that_does_not_load_is_skipped_with_its_reason(tmp_path: Path, visit: Visit) -> None:
    plan = make_plan(make_runs(tmp_path / "runs", 1, SYSTEMS[:1]), "rate")
    (image,) = plan.samples[0].images[0]
    image.path.unlink()
    with LabelSite(plan, tmp_path / "labels", rater="ann") as site:
        watched = visit(site.address)
        page = watched.page
        page.wait_for_selector(".picture .state")
        for key in ("1", "1", "1", "1", "Enter"):
            page.keyboard.press(key)
        assert "does not load" in page.locator("#said").inner_text() and not site.server.folder.exists()
        page.keyboard.press("s")
        page.keyboard.press("1")
        counted(page, "1 of 1")
        assert labels_of(site, "ann")[0].skipped == "does_not_load"
        assert "1 of them skipped" in page.locator("#finished-text").inner_text()


@pytest.mark.slow
def test_a_ground_truth_that_does_not_load_prevents_no_answer(tmp_path: Path, visit: Visit) -> None:
    plan = make_plan(make_runs(tmp_path / "runs", 1, SYSTEMS[:2]), "pairs")
    truth = plan.samples[0].truth.image
    assert truth is not None and truth.path is not None
    Path(truth.path).unlink()
    with LabelSite(plan, tmp_path / "labels", rater="ann") as site:
        page = visit(site.address).page
        page.wait_for_selector(".picture.truth .state")
        counted(page, "0 of 1")
        press(page, "a", "1 of 1")
        assert labels_of(site, "ann")[0].choice == "left"


@pytest.mark.slow
def test_hostile_content_is_inert(tmp_path: Path, visit: Visit) -> None:
    runs = make_runs(tmp_path / "runs", len(HOSTILE), (HOSTILE[1],), prompts=HOSTILE)
    with LabelSite(make_plan(runs, "rate"), tmp_path / "labels") as site:
        watched = visit(site.address, width=390)
        page = begin(watched, '"><img src=x onerror=a()>')
        prompts = set()
        for number in range(len(HOSTILE)):
            prompts.add(page.locator("#prompt").text_content())
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            page.keyboard.press("s")
            page.keyboard.press("2")
            counted(page, f"{number + 1} of {len(HOSTILE)}")
        assert prompts == set(HOSTILE)
        clean(watched)


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("mode", ["rate", "pairs"])
def test_no_violation_of_wcag(plans: Plans, tmp_path: Path, visit: Visit, mode: str, width: int, theme: str) -> None:
    def check(page: Any, where: str) -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= width, where
        result = Axe().run(page, options=RULES).response
        found = result["violations"]
        assert len(result["passes"]) > 10, "the rules were not applied"
        assert [(where, one["id"], one["nodes"][0]["html"]) for one in found] == []

    with LabelSite(plans(mode, samples=1), tmp_path) as site:
        watched = visit(site.address, width=width, theme=theme)
        page = watched.page
        page.wait_for_selector("#start:not([hidden])")
        check(page, "start")
        begin(watched)
        check(page, "task")
        page.keyboard.press("1")
        check(page, "rated")
        page.keyboard.press("z")
        page.wait_for_selector("#zoom[open]")
        check(page, "zoom")
        page.keyboard.press("Escape")
        page.keyboard.press("s")
        page.wait_for_selector("#skip[open]")
        check(page, "skip")
        page.keyboard.press("2")
        counted(page, "1 of 3")
        for number in (2, 3):
            page.keyboard.press("s")
            page.keyboard.press("2")
            counted(page, f"{number} of 3")
        check(page, "finished")
        clean(watched)
