"""A report in one file: what is in it, its policy, what it refuses, and the command."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from knowgen.cli import report as report_command
from knowgen.cli.main import run as run_cli
from knowgen.core.errors import ConfigError, KnowgenError, UsageError
from knowgen.report.html import write_report, write_single_report
from knowgen.report.output import SingleFileOutput
from tests.helpers.report_pages import Watched, until
from tests.helpers.report_runs import RunMaker
from tests.helpers.training_runs import TrainingMaker
from tests.helpers.trajectories import searched_answer

BLOCK = re.compile(r'<script type="application/json" data-name="([\w-]+)">(.*?)</script>', re.DOTALL)


def blocks(page: Path) -> dict[str, Any]:
    """Return the data of a page by their names."""
    return {name: json.loads(text) for name, text in BLOCK.findall(page.read_text(encoding="utf-8"))}


def of_folder(page: Path) -> dict[str, Any]:
    """Return the data beside a page by their names."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (page.parent / "data").glob("*.js")}
    return {name: json.loads(text[text.index("]=") + 2 : text.rindex(";")]) for name, text in texts.items()}


def test_one_file_has_the_data_of_the_folder(maker: RunMaker, tmp_path: Path) -> None:
    maker.reason = "</script><script>alert(1)</script> \u2028 <!--"
    runs = [maker.run("agent", maker.samples(8), 0.8, agent=searched_answer), maker.run("plain", maker.samples(8), 0.3)]
    single, folder = write_single_report(runs, tmp_path / "page.html"), write_report(runs, tmp_path / "page")
    inside, beside = blocks(single), of_folder(folder)
    assert [name for name in inside if not name.startswith("images-")] == sorted(beside, key=list(inside).index)
    assert inside["chunk-0"] == beside["chunk-0"]
    assert [entry[:3] for entry in inside["index"]["entries"]] == [entry[:3] for entry in beside["index"]["entries"]]
    assert all(image.startswith("data:image/webp;base64,") for image in inside["images-0"])
    digests = {path.name.split(".")[0] for path in (folder.parent / "img").glob("*.small.webp")}
    assert len(inside["images-0"]) == len(digests), "an image that many samples share is in it once"
    text = re.sub(r"<script.*?</script>", "", single.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!data:|#)', text), "nothing is beside it"


def test_the_policy_names_each_script_and_style_sheet_by_its_hash(maker: RunMaker, tmp_path: Path) -> None:
    page = write_single_report([maker.run("plain", maker.samples(2), 0.3)], tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    allowed = set(re.findall(r"sha256-([^&']*)&#39;", policy[1]))
    inline = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", text, re.DOTALL)
    assert {base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in inline} == allowed
    assert "unsafe" not in policy[1] and "default-src &#39;none&#39;" in policy[1]


def test_fewer_samples_and_no_images_make_it_smaller(maker: RunMaker, tmp_path: Path) -> None:
    runs = [maker.run("agent", maker.samples(12), 0.8, agent=searched_answer), maker.run("plain", maker.samples(12), 0)]
    whole = write_single_report(runs, tmp_path / "whole.html")
    few = write_single_report(runs, tmp_path / "few.html", most_samples=3)
    none = write_single_report(runs, tmp_path / "none.html", images="none")
    assert few.stat().st_size < whole.stat().st_size > none.stat().st_size
    assert len(blocks(few)["index"]["entries"]) == 3 and "first 3 of 12 samples" in few.read_text(encoding="utf-8")
    assert not any(name.startswith("images-") for name in blocks(none))
    left_out = blocks(none)["index"]
    assert left_out["texts"][left_out["entries"][0][7][0]] == "images are left out of this file"
    figures = [re.findall(r'class="num lead".*?</td>', each.read_text(encoding="utf-8")) for each in (whole, few)]
    assert figures[0] == figures[1], "the figures rest on all samples"
    for name, chunk in blocks(few).items():
        if name.startswith("trajectories"):
            shown = [image for entry in chunk for cell in entry if cell for image in cell["chosen"]]
            assert shown and all("small" in each["image"] for each in shown)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("page.txt", None, UsageError, "end its name with .html"),
        ("notes.html", "<p>mine</p>", ConfigError, "is not a report"),
        ("folder.html", "", ConfigError, "is a folder"),
        ("nowhere.html/page.html", "<p>mine</p>", KnowgenError, "cannot be written"),
    ],
)
def test_what_is_not_a_page_is_not_replaced(
    maker: RunMaker, tmp_path: Path, name: str, content: str | None, error: type[KnowgenError], message: str
) -> None:
    run = maker.run("plain", maker.samples(2), 0.3)
    target = tmp_path / name
    if content == "":
        target.mkdir()
    elif content is not None:
        (tmp_path / name.split("/", maxsplit=1)[0]).write_text(content)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(error, match=message):
        write_single_report([run], target)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_error_leaves_an_earlier_page_as_it_is(
    maker: RunMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = maker.run("plain", maker.samples(2), 0.3)
    page = write_single_report([run], tmp_path / "page.html")
    before = page.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SingleFileOutput, "data", full)
    with pytest.raises(KnowgenError, match="No space left"):
        write_single_report([run], page)
    assert page.read_bytes() == before and [each.name for each in tmp_path.glob("*page*")] == ["page.html"]


def test_the_command_prints_the_size_and_how_to_make_it_smaller(
    maker: RunMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(maker.run("plain", maker.samples(2), 0.3).store.path)
    out = str(tmp_path / "page.html")
    assert run_cli(["report", place, "-o", out, "--single-file"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == out and re.fullmatch(r"0\.\d MB in one file", printed.out.splitlines()[1])
    assert printed.err == ""
    monkeypatch.setattr(report_command, "LARGE_FILE", 1000)
    assert run_cli(["report", place, "-o", out, "--single-file", "--samples", "1", "--images", "none"]) == 0
    assert "--images none, --samples N" in capsys.readouterr().err
    trained = str(TrainingMaker(tmp_path).run("real", 2, evaluated=(), prompts=1).path)
    assert run_cli(["report", trained, "-o", str(tmp_path / "t.html"), "--single-file", "--steps", "1"]) == 0
    assert {"index", "figures", "episodes-0-1", "images-0"} <= set(blocks(tmp_path / "t.html"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report"], "no run is named"),
        (["report", "run"], "no place for the report"),
        (["report", "run", "-o", "page", "--samples", "3"], "--samples is for one file"),
        (["report", "run", "-o", "page", "--images", "none"], "--images is for one file"),
        (["report", "run", "--all", "runs"], "--all takes a folder and -o alone"),
        (["report", "--all", "runs", "--single-file"], "--all takes a folder and -o alone"),
        (["report", "--all", "nowhere"], "is not a folder"),
    ],
)
def test_wrong_options_are_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_one_file_is_read_by_keyboard(maker: RunMaker, tmp_path: Path, browser: Any) -> None:
    maker.failing = False
    runs = [maker.run(name, maker.samples(20), skill) for name, skill in (("open_book", 0.8), ("closed_book", 0.3))]
    page_file = write_single_report(runs, tmp_path / "page.html")
    context = browser.new_context(viewport={"width": 390, "height": 800}, offline=True)
    opened = Watched(context.new_page())
    page = opened.page
    page.goto(page_file.as_uri())
    page.wait_for_selector("#match-count:not(:empty)")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the skip link
    until(page, "document.activeElement.id === 'samples-title'")
    page.keyboard.press("Tab")
    page.keyboard.type("number 17")
    until(page, "document.querySelectorAll('.card').length === 1")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('button.frame')"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open] img")
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer h2").inner_text().strip() in ("open_book", "closed_book")
    until(page, "[...document.querySelectorAll('#viewer img')].every((one) => one.naturalWidth > 0)")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.matches('button.frame')")
    assert opened.complaints == []
    assert {url for url in opened.requests if not url.startswith("data:")} == {page_file.as_uri()}
    context.close()
