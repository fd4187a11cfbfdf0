"""Existing images as a source: each sample gets an image, or a reason that names the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from knowgen.core.errors import DataError
from knowgen.core.records import GenerationStatus
from knowgen.interchange.image_sources import FolderSource, RunSource, image_facts
from knowgen.store.run import RunStore
from tests.helpers import store_records


def test_file_stems_are_ids_and_repeats_may_be_numbered(tmp_path: Path) -> None:
    places = {
        "a.png": ("a", 0), "b_0.jpg": ("b", 0), "b_1.JPEG": ("b", 1), "c/0.webp": ("c", 0), "c/12.png": ("c", 12),
        "d_1.png": ("d_1", 0), "e.v2.png": ("e.v2", 0), "f g ü.png": ("f g ü", 0), "sub/h.png": ("sub/h", 0),
    }  # fmt: skip
    kinds = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".png": "PNG"}
    for name in places:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(store_records.image_bytes(kind=kinds[Path(name).suffix.lower()]))
    source = FolderSource(tmp_path, ["a", "b", "c", "d", "d_1", "e.v2", "f g ü", "sub/h", "never"])
    for name, (sample_id, repeat) in places.items():
        generation = source.generation(sample_id, repeat)
        assert (generation.status, generation.path) == (GenerationStatus.OK, tmp_path / name)
    assert source.unknown == ()
    assert (source.count, source.repeats) == (9, 13)
    missing = source.generation("never", 0)
    assert missing.status == "not_run" and missing.path is None
    assert missing.reason == f"no image for sample 'never' in {tmp_path.name}"
    assert "repeat 3" in source.generation("a", 3).reason


def test_a_decomposed_file_name_matches_its_composed_id(tmp_path: Path) -> None:
    (tmp_path / "e\u0301tude.png").write_bytes(store_records.image_bytes())
    assert FolderSource(tmp_path, ["\u00e9tude"]).generation("\u00e9tude", 0).status == "ok"


def test_files_that_are_not_images_fail_with_a_reason_that_names_the_file(tmp_path: Path) -> None:
    whole = store_records.image_bytes(5, (300, 300), "JPEG")
    broken = {
        "empty": b"", "text": b"not an image at all", "cut_off": whole[: len(whole) // 2],
        "blank": store_records.image_bytes(size=(1, 1)), "line": store_records.image_bytes(size=(400, 1)),
        "cut_png": store_records.image_bytes(5, (300, 300))[:-30],
    }  # fmt: skip
    for name, data in broken.items():
        (tmp_path / f"{name}.png").write_bytes(data)
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    names = [*broken, "pipe", "dangling"]
    source = FolderSource(tmp_path, [*names, "folder"])
    for name in names:
        generation = source.generation(name, 0)
        assert generation.status == "failed" and generation.path is None, name
        assert f"{name}.png: " in generation.reason and "\n" not in generation.reason
    assert source.generation("blank", 0).reason == "blank.png: is only 1x1 pixels"
    assert source.generation("dangling", 0).reason == "dangling.png: is missing"
    assert source.generation("pipe", 0).reason == "pipe.png: is not a file"
    assert source.generation("folder", 0).reason.startswith("no image for sample 'folder'")


def test_an_image_that_is_deleted_later_fails_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(store_records.image_bytes())
    source = FolderSource(tmp_path, ["a"])
    (tmp_path / "a.png").unlink()
    assert source.generation("a", 0).reason == "a.png: is missing"


@pytest.mark.parametrize(
    ("first", "second"), [("a.png", "a.jpg"), ("a.png", "a_0.png"), ("a_1.png", "a/1.png"), ("a_1.png", "a_01.png")]
)
def test_two_files_for_one_image_are_an_error_that_names_both(tmp_path: Path, first: str, second: str) -> None:
    for name in (first, second):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(store_records.image_bytes())
    with pytest.raises(DataError) as caught:
        FolderSource(tmp_path, ["a"])
    assert first in str(caught.value) and second in str(caught.value) and "sample 'a'" in str(caught.value)


def test_unknown_stems_are_listed_and_hostile_names_stay_on_one_line(tmp_path: Path) -> None:
    hostile = ["b.png", "a_x.png", "line\nbreak.png", "<script>.png", "a_0000001.png", "..png", "a_\u0661.png"]
    for name in hostile:
        (tmp_path / name).write_bytes(store_records.image_bytes())
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.png"))).write_bytes(store_records.image_bytes())
    (tmp_path / ".hidden.png").write_bytes(store_records.image_bytes())
    (tmp_path / "notes.txt").write_text("a")
    (tmp_path / "loop").symlink_to(tmp_path)
    source = FolderSource(tmp_path, ["a"])
    listed = [name for name in hostile if name != "..png"]  # a hidden file
    assert sorted(source.unknown) == sorted([*listed, "bad\udcff.png"])
    assert source.generation("a", 0).status == "not_run"
    assert (source.others, source.links, source.missing) == (("notes.txt",), ("loop",), ("a",))
    strange = FolderSource(tmp_path, ["line\nbreak", "a"])
    (tmp_path / "line\nbreak.png").write_bytes(b"")
    assert "\n" not in strange.generation("line\nbreak", 0).reason


def test_the_revision_follows_the_images_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(store_records.image_bytes(1))
    first = FolderSource(tmp_path, ["a", "b"]).revision
    (tmp_path / "unknown.png").write_bytes(store_records.image_bytes(2))
    os.utime(tmp_path / "a.png", (1, 1))
    assert FolderSource(tmp_path, ["a", "b"]).revision == first
    (tmp_path / "a.png").write_bytes(store_records.image_bytes(3))
    second = FolderSource(tmp_path, ["a", "b"]).revision
    (tmp_path / "b.png").write_bytes(store_records.image_bytes(1))
    assert len({first, second, FolderSource(tmp_path, ["a", "b"]).revision}) == 3


def test_a_source_that_is_not_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        FolderSource(tmp_path / "absent", ["a"])


def test_size_and_format_of_an_image_are_those_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "a.webp"
    file.write_bytes(store_records.image_bytes(4, (33, 21), "WEBP"))
    facts = image_facts(file)
    assert (facts.width, facts.height, facts.format, facts.path) == (33, 21, "WEBP", file)
    with pytest.raises(DataError, match=r"nowhere\.png: is missing"):
        image_facts(tmp_path / "nowhere.png")


def test_another_run_is_a_source(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, store_records.spec(repeats=2)) as store:
        store.put_samples(store_records.items("a"))
        good, lost, cut = (
            store.put_image(store_records.image_bytes(number), width=24, height=16, format="PNG") for number in range(3)
        )
        store.put_generation(
            "1", store_records.generation("a", good, used_prompt="a better prompt", references=({"title": "x"},))
        )
        store.put_generation("2", store_records.generation("a", lost, repeat=1))
        store.put_generation("3", store_records.generation("b", cut))  # generated earlier, not selected now
        store.put_generation("4", store_records.generation("c", status=GenerationStatus.REFUSED, reason="not that"))
        assert lost.path is not None and cut.path is not None
        lost.path.unlink()
        cut.path.write_bytes(b"half")
    with RunSource(tmp_path) as source:
        generation = source.generation("a", 0)
        assert generation.status == "ok" and generation.path == good.path
        assert generation.generation is not None and generation.generation.used_prompt == "a better prompt"
        for sample_id, repeat, ref in (("a", 1, lost), ("b", 0, cut)):
            generation = source.generation(sample_id, repeat)
            assert (generation.status, generation.path) == ("failed", None)
            assert str(ref.path) in generation.reason
        assert (source.generation("c", 0).status, source.generation("c", 0).reason) == ("refused", "not that")
        assert "has no generation of sample 'a', repeat 7" in source.generation("a", 7).reason
        assert source.name == "painter" and source.revision
    with pytest.raises(DataError, match="not a run directory"):
        RunSource(tmp_path / "absent")
