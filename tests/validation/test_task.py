"""`knowgen check task`: a good task passes, and every kind of problem is reported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knowgen.core.errors import DataError
from knowgen.core.records import GroundTruth, ImageRef, Sample, group_of
from knowgen.tasks.folder import FolderTask
from knowgen.validation.findings import Finding, worst
from knowgen.validation.task import check_task, image_problem

CATEGORIES = ("astronomy", "sports", "anime", "news")


def write_task(folder: Path, **changes: Any) -> Path:
    """Write a task of four samples as a folder; `changes` go into task.yaml."""
    folder.mkdir(exist_ok=True)
    (folder / "truth").mkdir(exist_ok=True)
    fields = {"name": "tiny", "version": "1", "default_scorers": ["vlm:any"]} | changes
    (folder / "task.yaml").write_text(json.dumps(fields), encoding="utf-8")
    samples, truths = [], []
    for number, category in enumerate(CATEGORIES):
        path = folder / "truth" / f"{number}.png"
        Image.new("RGB", (20 + number, 10), (number * 40, 0, 0)).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        common = {"text_required": number % 2 == 0}
        named = {"id": f"s{number}", "prompt": f"Draw {number}.", "category": category, "group": group_of(category)}
        samples.append(named | common)
        image = {"sha256": digest, "width": 20 + number, "height": 10, "format": "PNG"}
        words = [f"word {number}"] if number % 2 == 0 else []
        truth = {"sample_id": f"s{number}", "image": image, "image_file": f"truth/{number}.png", "required_text": words}
        truths.append(truth | common)
    write_lines(folder / "samples.jsonl", samples)
    write_lines(folder / "truth.jsonl", truths)
    return folder


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def edited(folder: Path, file: str, change: Callable[[list[dict[str, Any]]], None]) -> list[Finding]:
    """Check the task after a change to the rows of a file."""
    write_task(folder)
    rows = read_lines(folder / file)
    change(rows)
    write_lines(folder / file, rows)
    return check_task(FolderTask(folder))


def the(findings: list[Finding], name: str, level: str) -> Finding:
    """Return the finding of a check; there must be one at this level, and none more serious."""
    matching = [finding for finding in findings if finding.check == name]
    assert matching and worst(matching) == level, [str(finding) for finding in findings]
    return next(finding for finding in matching if finding.level == level)


def test_a_good_task_passes(tmp_path: Path) -> None:
    findings = check_task(FolderTask(write_task(tmp_path / "task")))
    assert worst(findings) == "ok", [str(finding) for finding in findings]
    assert the(findings, "samples", "ok").what == "4"
    assert "4 open" in the(findings, "images", "ok").what
    assert "2 of 4" in the(findings, "text", "ok").what
    assert {finding.check for finding in findings} == {
        "samples", "ids", "prompts", "categories", "text", "truths", "images", "version", "scorers", "search"
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- samples


def set_field(name: str, value: Any, row: int = 1) -> Callable[[list[dict[str, Any]]], None]:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[row][name] = value

    return change


@pytest.mark.parametrize(
    ("change", "name", "level", "words"),
    [
        (set_field("prompt", "  \n"), "prompts", "fail", "1 are empty, first of sample 's1'"),
        (set_field("prompt", "Draw 0."), "prompts", "warn", "duplicated"),
        (set_field("id", "s0"), "samples", "fail", "'s0'"),
        (set_field("id", ""), "samples", "fail", "must be text or a whole number"),
        (set_field("group", "pop_culture_and_news"), "categories", "fail", "first 's1'"),
        (set_field("colour", "red"), "samples", "fail", "colour"),
        (set_field("text_required", None), "text", "fail", "None in the sample"),
    ],
)  # fmt: skip
def test_problems_of_samples_are_reported(tmp_path: Path, change: Any, name: str, level: str, words: str) -> None:
    assert words in the(edited(tmp_path / "task", "samples.jsonl", change), name, level).what


def test_an_unknown_category_gets_a_row_of_its_own(tmp_path: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[1] |= {"category": "Sports", "group": "unknown"}

    assert "'Sports'" in the(edited(tmp_path / "task", "samples.jsonl", change), "categories", "warn").what


def test_a_task_with_one_group_is_warned_of(tmp_path: Path) -> None:
    findings = edited(tmp_path / "task", "samples.jsonl", lambda rows: rows.__delitem__(slice(2, 4)))
    assert "science_and_knowledge" in the(findings, "categories", "warn").what


def test_undecided_text_requirements_are_warned_of(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "task")
    for file in ("samples.jsonl", "truth.jsonl"):
        rows = [row | {"text_required": None} for row in read_lines(folder / file)]
        write_lines(folder / file, rows)
    assert "4 of 4" in the(check_task(FolderTask(folder)), "text", "warn").what


@pytest.mark.parametrize("file", ["samples.jsonl", "truth.jsonl"])
@pytest.mark.parametrize("content", ["", "{", "\xff", None])
def test_files_that_cannot_be_read_are_reported(tmp_path: Path, file: str, content: str | None) -> None:
    folder = write_task(tmp_path / "task")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content.encode("latin-1"))
    findings = check_task(FolderTask(folder))
    assert worst(findings) == "fail"
    assert all("\n" not in str(finding) for finding in findings)


# ----------------------------------------------------------------------------------------------- truths and images


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (lambda rows: rows.pop(2), "truths", "'s2'"),
        (lambda rows: rows.append(dict(rows[0])), "truths", "second truth"),
        (set_field("image_file", "truth/nowhere.png"), "truths", "missing"),
        (set_field("image_file", "../task.yaml"), "truths", "outside"),
        (set_field("image_file", "truth/2.png"), "images", "not the recorded image"),
        (set_field("image", {"sha256": "0" * 64, "width": 21, "height": 10, "format": "PNG"}), "images", "not the"),
        (set_field("text_required", True), "text", "False in the sample and True in the truth"),
        (set_field("required_text", ["BEWARE"]), "text", "BEWARE"),
    ],
)  # fmt: skip
def test_problems_of_ground_truths_are_reported(tmp_path: Path, change: Any, name: str, words: str) -> None:
    assert words in the(edited(tmp_path / "task", "truth.jsonl", change), name, "fail").what


def test_an_error_that_says_how_to_fix_it_is_not_given_a_second_remedy(tmp_path: Path) -> None:
    twice = edited(tmp_path / "twice", "samples.jsonl", lambda rows: rows.append(dict(rows[0])))
    finding = the(twice, "samples", "fail")
    assert finding.fix == "make ids unique" and "make ids unique" not in finding.what
    outside = the(edited(tmp_path / "out", "truth.jsonl", set_field("image_file", "../x.png")), "truths", "fail")
    assert outside.fix.startswith("copy the image into the folder") and "copy" not in outside.what


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_an_image_that_does_not_open_fails(tmp_path: Path, damage: str) -> None:
    folder = write_task(tmp_path / "task")
    path = folder / "truth" / "3.png"
    path.write_bytes({"truncated": path.read_bytes()[:45], "text": b"hello", "empty": b""}[damage])
    finding = the(check_task(FolderTask(folder)), "images", "fail")
    assert "'s3'" in finding.what and "3.png does not open" in finding.what


def test_many_problems_of_one_kind_are_counted(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "task")
    for number in (1, 2, 3):
        (folder / "truth" / f"{number}.png").write_bytes(b"")
    assert "3 times, first: sample 's1'" in the(check_task(FolderTask(folder)), "images", "fail").what


@pytest.mark.parametrize("field", ["width", "height", "format"])
def test_a_record_that_differs_from_its_image_fails(tmp_path: Path, field: str) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 6)).save(path)
    good = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "width": 8, "height": 6, "format": "PNG"}
    assert image_problem(ImageRef.model_validate(good | {"path": path})) == ""
    wrong = good | {field: "JPEG" if field == "format" else 9}
    assert "8x6 PNG" in image_problem(ImageRef.model_validate(wrong | {"path": path}))


# ------------------------------------------------------------------------------------------- version, scorers, search


class MemoryTask:
    """A task without files."""

    name = "memory"
    version = "1-0123456789ab"
    default_scorers: tuple[str, ...] = ()
    search = ""
    search_version = ""

    def __len__(self) -> int:
        return 4

    def samples(self) -> Iterator[Sample]:
        for number, category in enumerate(CATEGORIES):
            yield Sample(
                id=str(number), prompt=f"p{number}", category=category, group=group_of(category), text_required=False
            )

    def truth(self, sample_id: str) -> GroundTruth:
        return GroundTruth(sample_id=sample_id, text_required=False)


def changed(**attributes: Any) -> MemoryTask:
    task = MemoryTask()
    for name, value in attributes.items():
        setattr(task, name, value)
    return task


def test_truths_without_images_and_a_task_without_scorers_are_warned_of() -> None:
    findings = check_task(MemoryTask())
    the(findings, "images", "warn")
    the(findings, "scorers", "warn")


def test_a_wrong_count_and_the_truth_of_another_sample_fail() -> None:
    class Liar(MemoryTask):
        def __len__(self) -> int:
            return 5

        def truth(self, sample_id: str) -> GroundTruth:
            return GroundTruth(sample_id="0")

    findings = check_task(Liar())
    assert "len() is 5, but samples() yields 4" in the(findings, "samples", "fail").what
    assert "truth of '0'" in the(findings, "truths", "fail").what


@pytest.mark.parametrize("version", ["", "1", "1-latest", "v2-2024"])
def test_a_version_must_name_the_content(version: str) -> None:
    the(check_task(changed(version=version)), "version", "fail")


def test_a_version_that_cannot_be_computed_fails() -> None:
    class Broken(MemoryTask):
        @property
        def version(self) -> str:  # type: ignore[override]
            raise DataError("is missing", where="truth.jsonl")

    assert "truth.jsonl" in the(check_task(Broken()), "version", "fail").what


@pytest.mark.parametrize(
    ("scorer", "level", "words"),
    [
        ("vlm:any", "fail", "truth_image in 4 of 4"),
        ("no_such_scorer", "fail", "unknown scorer"),
        ("json:dumps", "fail", "not a scorer"),
    ],
)
def test_unusable_default_scorers_are_reported(scorer: str, level: str, words: str) -> None:
    assert words in the(check_task(changed(default_scorers=(scorer,))), "scorers", level).what


def test_truths_that_lack_what_a_scorer_needs_are_warned_of(tmp_path: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0]["image"] = None

    findings = edited(tmp_path / "task", "truth.jsonl", change)
    assert "truth_image in 1 of 4" in the(findings, "scorers", "warn").what


SEARCH = """
import asyncio
from pathlib import Path
from PIL import Image
from knowgen.core.records import ImageRef
from knowgen.search.contract import Hit, ImageHit, Page

IMAGE_FILE = Path(__file__).with_suffix(".png")
Image.new("RGB", (9, 9)).save(IMAGE_FILE)

class Good:
    version = "1"
    async def search(self, query, k=5):
        return [Hit(title="t", url="page:1")]
    async def image_search(self, query, k=5):
        image = ImageRef(sha256="0" * 64, width=9, height=9, format="PNG", path=IMAGE_FILE)
        return [ImageHit(title="t", url="image:1", image=image)]
    async def open(self, url):
        return Page(url=url, title="t", text="words")

class Empty(Good):
    async def image_search(self, query, k=5):
        return []

class NothingAtAll(Empty):
    async def search(self, query, k=5):
        return []

class LostPages(Good):
    async def open(self, url):
        raise KeyError(url)

class LostImages(Good):
    async def image_search(self, query, k=5):
        hits = await super().image_search(query)
        return [hits[0].model_copy(update={"image": hits[0].image.model_copy(update={"path": Path("gone.png")})})]

class NoVersion(Good):
    version = ""

class NotAsync(Good):
    def open(self, url):
        return None

class Breaks(Good):
    def __init__(self):
        raise RuntimeError("no index")

class Hangs(Good):
    async def search(self, query, k=5):
        await asyncio.Event().wait()
"""


@pytest.mark.parametrize(
    ("name", "level", "words"),
    [
        ("Good", "ok", "opens them"), ("Empty", "warn", "no images"),
        ("NothingAtAll", "warn", "no pages and no images"),
        ("LostPages", "fail", "KeyError"), ("LostImages", "fail", "gone.png"), ("NoVersion", "fail", "version"),
        ("NotAsync", "fail", "async def open"), ("Breaks", "fail", "no index"), ("Hangs", "fail", "no answer within"),
        ("Missing", "fail", "Missing"),
    ],
)  # fmt: skip
def test_the_search_backend_is_tried(tmp_path: Path, name: str, level: str, words: str) -> None:
    path = tmp_path / f"backend_{name.lower()}.py"
    path.write_text(SEARCH)
    timeout = 0.5 if name == "Hangs" else 60.0
    findings = check_task(changed(search=f"{path}:{name}"), search_timeout=timeout)
    assert words in the(findings, "search", level).what


def test_an_unknown_search_backend_fails() -> None:
    assert "unknown search backend" in the(check_task(changed(search="no_such:x")), "search", "fail").what


def test_every_problem_names_its_fix(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "task", default_scorers=["nope"], search="nope")
    (folder / "search").mkdir(exist_ok=True)
    (folder / "search" / "pages.jsonl").write_text("")
    (folder / "pictures.jsonl").write_text("")
    (folder / "truth" / "1.png").unlink()
    steps: list[str] = []
    findings = check_task(FolderTask(folder), on_progress=steps.append)
    assert {finding.check for finding in findings if finding.level == "fail"} == {"truths", "scorers", "search"}
    assert all(finding.fix for finding in findings if finding.level != "ok")
    assert steps == ["samples", "ground truths", "default scorers", "search"]
