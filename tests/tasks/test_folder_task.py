"""Task folders: reading samples and ground truths, and the errors of broken folders."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knowgen.core.errors import DataError, UsageError
from knowgen.tasks.folder import FolderTask
from knowgen.tasks.load import load_task


def write_task(folder: Path, samples: list[dict[str, Any]], truths: list[dict[str, Any]], yaml: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.yaml").write_text(yaml or "name: little\nversion: '3'\ndefault_scorers: [world_check]\n")
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    (folder / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in truths))
    return folder


@pytest.fixture
def little(tmp_path: Path) -> Path:
    folder = tmp_path / "little"
    (folder / "truth").mkdir(parents=True)
    Image.new("RGB", (8, 6), "red").save(folder / "truth" / "a.png")
    digest = hashlib.sha256((folder / "truth" / "a.png").read_bytes()).hexdigest()
    image = {"sha256": digest, "width": 8, "height": 6, "format": "PNG"}
    samples = [{"id": "a", "prompt": "one", "category": "art"}, {"id": "b", "prompt": "two"}]
    truths: list[dict[str, Any]] = [{"sample_id": "a", "image": image, "image_file": "truth/a.png"}, {"sample_id": "b"}]
    return write_task(folder, samples, truths)


def test_samples_are_in_order_and_truths_have_their_image(little: Path) -> None:
    task = load_task(str(little))
    assert [sample.id for sample in task.samples()] == ["a", "b"]
    assert len(task) == 2
    image = task.truth("a").image
    assert image is not None and image.open().size == (8, 6)
    assert task.truth("b").image is None
    assert task.search == ""


def test_samples_can_be_read_without_the_truth(little: Path) -> None:
    (little / "truth.jsonl").unlink()
    shutil.rmtree(little / "truth")
    task = FolderTask(little)
    assert [sample.prompt for sample in task.samples()] == ["one", "two"]
    with pytest.raises(DataError, match=r"truth\.jsonl: is missing"):
        task.truth("a")


@pytest.mark.parametrize("file", ["samples.jsonl", "truth.jsonl"])
def test_the_version_follows_the_content(little: Path, file: str) -> None:
    before = FolderTask(little).version
    assert before.startswith("3-") and before == FolderTask(little).version
    (little / file).write_text((little / file).read_text().replace('"a"', '"c"'))
    assert FolderTask(little).version != before


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("name: [unclosed\n", r"task\.yaml:\d+: broken YAML"),
        ("- a\n- b\n", "must contain fields"),
        ("name: x\nscorer: y\n", "scorer: Extra inputs"),
        ("version: '1'\n", "name: Field required"),
        ("name: x\x00y\n", "broken YAML"),
    ],
)
def test_a_wrong_task_file_is_one_clear_line(little: Path, yaml: str, message: str) -> None:
    (little / "task.yaml").write_text(yaml)
    with pytest.raises(DataError, match=message) as caught:
        load_task(str(little))
    assert "\n" not in str(caught.value)


def test_duplicate_ids_name_both_lines(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "t", [{"id": "a", "prompt": "1"}, {"id": "a", "prompt": "2"}], [])
    with pytest.raises(DataError, match=r"samples\.jsonl:2: duplicate id 'a', already on line 1"):
        list(FolderTask(folder).samples())


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "t", [{"id": "a", "prompt": "1"}], [{"sample_id": "a", "required": 3}])
    with pytest.raises(DataError, match=r"truth\.jsonl:1: required: Extra inputs"):
        FolderTask(folder).truth("a")
    (folder / "samples.jsonl").write_text('{"id": "a", "prompt": "1"}\n{"id": \n')
    with pytest.raises(DataError, match=r"samples\.jsonl:2: "):
        list(FolderTask(folder).samples())


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname", "", "truth/none.png"])
def test_a_truth_image_outside_the_folder_or_missing_is_refused(little: Path, name: str) -> None:
    (little.parent / "outside.png").write_bytes(b"x")
    rows = [json.loads(line) for line in (little / "truth.jsonl").read_text().splitlines()]
    rows[0]["image_file"] = name
    (little / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="outside the task's folder|is missing"):
        FolderTask(little).truth("a")


def test_an_image_that_is_a_link_out_of_the_folder_is_reported_with_its_fix(little: Path) -> None:
    image = next((little / "truth").iterdir())
    outside = image.rename(little.parent / image.name)
    image.symlink_to(outside)
    with pytest.raises(DataError, match="copy the image into the folder; links out of it are not followed"):
        for sample in FolderTask(little).samples():
            FolderTask(little).truth(sample.id)


def test_an_unknown_task_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="did you mean 'knowgen_mini'"):
        load_task("knowgen_mni")
    with pytest.raises(UsageError, match="no task folder"):
        load_task("./nowhere")
