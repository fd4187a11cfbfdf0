"""Published rows as a task: field names, paths from other machines, and rows or images that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import ConfigError, DataError, UsageError
from knowgen.tasks.data_home import data_home, find_prepared
from knowgen.tasks.folder import FolderTask
from knowgen.tasks.load import load_task
from knowgen.tasks.prepare.archives import ArchiveLimits
from knowgen.tasks.prepare.run import prepare
from tests.helpers.archive_data import BENCH_FILE, Command, bench_files, bench_rows, image_bytes, zipped

Rows = list[dict[str, Any]]


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def prepare_files(folder: Path, files: dict[str, bytes]) -> FolderTask:
    prepare("knowgen", data_dir=write_files(folder, files))
    task = load_task("knowgen")
    assert isinstance(task, FolderTask)
    return task


def refusal(folder: Path, files: dict[str, bytes]) -> str:
    with pytest.raises(DataError) as caught:
        prepare_files(folder, files)
    assert find_prepared("knowgen") is None
    place = data_home() / "knowgen"
    assert [path.name for path in place.iterdir()] == [".lock"], "no draft is left"
    return str(caught.value)


def edited(change: Callable[[Rows], Any]) -> dict[str, bytes]:
    rows = bench_rows()
    change(rows)
    return bench_files(rows)


def truth_bytes(task: FolderTask, name: str) -> bytes:
    image = task.truth(name).image
    assert image is not None and image.path is not None
    return image.path.read_bytes()


# ------------------------------------------------------------------------------------------------------- local copies


def test_a_local_folder_can_be_prepared(home: Path, tmp_path: Path, knowgen: Command) -> None:
    folder = write_files(tmp_path / "local", bench_files())
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = knowgen("task", "prepare", "knowgen", "--data-dir", folder, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert [truth_bytes(load_task("knowgen"), name) for name in "01"] == [image_bytes(0), image_bytes(1)]  # type: ignore[arg-type]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert knowgen("task", "prepare", "knowgen", "--data-dir", folder).stdout.startswith("already prepared")
    prepared = find_prepared("knowgen")
    assert prepared is not None and prepared.commit.startswith("local-") and prepared.revision == ""


def test_unpacked_images_are_used_and_not_moved(home: Path, tmp_path: Path) -> None:
    rows = bench_rows()[:2]
    files = {
        BENCH_FILE: json.dumps(rows).encode(),
        "KnowGen-Bench/images/a.png": image_bytes(0),
        "b/b.png": image_bytes(1),
    }
    task = prepare_files(tmp_path / "local", files)
    assert [truth_bytes(task, name) for name in "01"] == [image_bytes(0), image_bytes(1)]
    assert (tmp_path / "local" / "KnowGen-Bench" / "images" / "a.png").read_bytes() == image_bytes(0)


def test_symbolic_links_in_the_source_are_followed(home: Path, tmp_path: Path) -> None:
    blobs = write_files(tmp_path / "blobs", {str(number): data for number, data in enumerate(bench_files().values())})
    snapshot = tmp_path / "snapshot"
    for number, name in enumerate(bench_files()):
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blobs / str(number))
    prepare("knowgen", data_dir=snapshot)
    assert truth_bytes(load_task("knowgen"), "3") == image_bytes(3)  # type: ignore[arg-type]


def test_the_same_content_gets_the_same_version_and_other_content_another(home: Path, tmp_path: Path) -> None:
    first = prepare_files(tmp_path / "one", bench_files()).version
    assert prepare_files(tmp_path / "two", bench_files()).version == first
    assert prepare_files(tmp_path / "three", edited(lambda rows: rows[0].update(prompt="other"))).version != first


def test_a_folder_without_the_rows_file_is_refused(home: Path, tmp_path: Path) -> None:
    assert f"does not contain {BENCH_FILE}" in refusal(
        tmp_path / "local", {"images.zip": zipped({"a.png": image_bytes(0)})}
    )
    with pytest.raises(DataError, match="not a folder"):
        prepare("knowgen", data_dir=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="exclude each other"):
        prepare("knowgen", data_dir=tmp_path, revision="main")


def test_the_data_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KNOWGEN_DATA", str(tmp_path / "named"))
    assert data_home() == tmp_path / "named"
    monkeypatch.delenv("KNOWGEN_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert data_home() == tmp_path / "xdg" / "knowgen"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_home() == tmp_path / ".local" / "share" / "knowgen"


def test_an_unwritable_data_folder_is_reported_with_its_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a file").write_text("nobody writes below a file, root included")
    monkeypatch.setenv("KNOWGEN_DATA", str(tmp_path / "a file" / "data"))
    with pytest.raises(ConfigError, match="set KNOWGEN_DATA to a writable folder"):
        prepare("knowgen", data_dir=tmp_path)


# --------------------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("field", ["prompt", "question", "user_prompt", "image_prompt"])
@pytest.mark.parametrize("image", ["gt_image", "ground_truth", "target_image", "reference_image", "gen_image"])
def test_each_known_field_name_is_accepted(home: Path, tmp_path: Path, field: str, image: str) -> None:
    row = bench_rows()[0]
    renamed = {field: row.pop("prompt"), image: row.pop("gt_image"), **row}
    task = prepare_files(tmp_path / "local", bench_files([renamed]))
    (sample,) = task.samples()
    assert sample.prompt == bench_rows()[0]["prompt"] and truth_bytes(task, "0") == image_bytes(0)


def test_the_first_name_that_is_not_empty_counts(home: Path, tmp_path: Path) -> None:
    row = {**bench_rows()[0], "question": "no", "prompt": "yes", "gt_image": "", "gen_image": ["images/b.png"]}
    task = prepare_files(tmp_path / "local", bench_files([row]))
    assert next(task.samples()).prompt == "yes" and truth_bytes(task, "0") == image_bytes(1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[3].update(id=1), f"{BENCH_FILE}, row 4 (id '1'): duplicate id '1', already in row 2"),
        (lambda rows: rows[3].update(id="1"), "duplicate id '1', already in row 2"),
        (lambda rows: rows[2].pop("id"), f"{BENCH_FILE}, row 3: has no id"),
        (lambda rows: rows[2].update(prompt="  "), "row 3 (id '2'): has no prompt"),
        (lambda rows: rows[2].pop("gt_image"), "row 3 (id '2'): has no ground-truth image"),
        (lambda rows: rows[2].update(meta=[1]), "row 3 (id '2'): meta must be a JSON object"),
        (lambda rows: rows.insert(1, 7), "row 2: must be a JSON object"),
        (lambda rows: rows.clear(), "at least one row"),
    ],
)
def test_rows_that_cannot_be_used_are_named(home: Path, tmp_path: Path, change: Any, words: str) -> None:
    assert words in refusal(tmp_path / "local", edited(change))


@pytest.mark.parametrize("data", [b"{}", b"[", b"\xff\xfe", b"[" * 100_000])
def test_a_file_without_rows_is_reported_in_one_line(home: Path, tmp_path: Path, data: bytes) -> None:
    message = refusal(tmp_path / "local", {**bench_files(), BENCH_FILE: data})
    assert message.startswith(f"{BENCH_FILE}: ") and "\n" not in message and len(message) < 400


def test_an_unknown_category_stays_and_gets_no_group(home: Path, tmp_path: Path) -> None:
    task = prepare_files(tmp_path / "local", edited(lambda rows: rows[0]["meta"].update(category="Gardening")))
    sample = next(task.samples())
    assert (sample.category, sample.group) == ("gardening", "unknown")


# ----------------------------------------------------------------------------------------------------------- images


def test_a_missing_image_names_its_row(home: Path, tmp_path: Path) -> None:
    message = refusal(tmp_path / "local", edited(lambda rows: rows[4].update(gt_image="images/none.png")))
    assert f"{BENCH_FILE}, row 5 (id '4'): the image 'images/none.png' is not among" in message


def test_the_longest_suffix_decides_between_files_of_one_name(home: Path, tmp_path: Path) -> None:
    members = {"a/x.png": image_bytes(0), "b/x.png": image_bytes(1), "c/b/x.png": image_bytes(2)}
    rows = [{**bench_rows()[0], "id": each, "gt_image": name} for each, name in enumerate(WHICH)]
    files = {BENCH_FILE: json.dumps(rows).encode(), "p.zip": zipped(members)}
    task = prepare_files(tmp_path / "local", files)
    assert [truth_bytes(task, str(each)) for each in range(len(rows))] == [image_bytes(n) for n in WHICH.values()]


WHICH = {"a/x.png": 0, "/data/c/b/x.png": 2, "p/b/x.png": 1, "z/a/x.png": 0}
"""A recorded path, and the number of the image that it refers to."""


def test_different_files_that_fit_equally_are_ambiguous(home: Path, tmp_path: Path) -> None:
    files = {**bench_files(bench_rows()[:1]), "other/images.zip": zipped({"a.png": image_bytes(9)})}
    message = refusal(tmp_path / "local", files)
    assert "row 1 (id '0'): the image 'images/a.png' may be images/a.png or other/images/a.png, which differ" in message


def test_equal_files_are_not_ambiguous(home: Path, tmp_path: Path) -> None:
    files = {**bench_files(bench_rows()[:1]), "other/images.zip": zipped({"a.png": image_bytes(0)})}
    assert truth_bytes(prepare_files(tmp_path / "local", files), "0") == image_bytes(0)


def test_an_archive_beside_its_own_content_must_agree_with_it(home: Path, tmp_path: Path) -> None:
    same = {**bench_files(bench_rows()[:1]), "images/a.png": image_bytes(0)}
    assert truth_bytes(prepare_files(tmp_path / "same", same), "0") == image_bytes(0)
    other = write_files(tmp_path / "other", {**same, "images/a.png": image_bytes(7)})
    with pytest.raises(DataError, match="which differ"):
        prepare("knowgen", data_dir=other)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_broken_image_names_row_and_file(home: Path, tmp_path: Path, damage: str) -> None:
    good = image_bytes(1, "JPEG", (300, 200))
    data = {"truncated": good[: len(good) // 2], "empty": b"", "text": b"<html>not found</html>"}[damage]
    files = {
        **bench_files(bench_rows()[:2]),
        "images.zip": zipped({"a.png": image_bytes(0), "b.png": data}),
    }
    message = refusal(tmp_path / "local", files)
    assert f"{BENCH_FILE}, row 2 (id '1'): the image images/b.png does not open: " in message


def test_images_are_not_written_twice(home: Path, tmp_path: Path) -> None:
    strange = image_bytes(3, "JPEG", (90, 40)) + b"trailing bytes of a camera"
    rows = [{**bench_rows()[0], "gt_image": "images/a.png"}]
    files = {BENCH_FILE: json.dumps(rows).encode(), "images.zip": zipped({"a.png": strange})}
    task = prepare_files(tmp_path / "local", files)
    assert truth_bytes(task, "0") == strange
    image = task.truth("0").image
    assert image is not None and (image.format, image.width, image.height) == ("JPEG", 90, 40)


def test_limits_hold_for_all_archives_together(home: Path, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "local", bench_files())
    with pytest.raises(DataError, match="one file more than the 4 allowed"):
        prepare("knowgen", data_dir=folder, limits=ArchiveLimits(files=4))


# ------------------------------------------------------------------------------------------- images after preparing


def test_a_replaced_image_is_never_used(home: Path, tmp_path: Path) -> None:
    task = prepare_files(tmp_path / "local", bench_files())
    image = task.truth("0").image
    assert image is not None and image.path is not None
    image.path.write_bytes(image_bytes(200))
    assert task.truth("1").image is not None
    for again in (task, load_task("knowgen")):
        with pytest.raises(DataError, match=r"image pictures/images/a\.png differs from the recorded digest.*prepare"):
            again.truth("0")
    image.path.write_bytes(image_bytes(0))
    assert truth_bytes(task, "0") == image_bytes(0)


def test_an_image_is_hashed_once(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = prepare_files(tmp_path / "local", bench_files())
    task.truth("0")
    opened: list[Path] = []
    true_open = Path.open

    def counted(self: Path, *rest: Any, **named: Any) -> Any:
        opened.append(self)
        return true_open(self, *rest, **named)

    monkeypatch.setattr(Path, "open", counted)
    for _ in range(5):
        task.truth("0")
        FolderTask(task.path).truth("0")
    assert not [path for path in opened if path.suffix == ".png"]
    FolderTask(task.path).truth("1")
    assert [path.name for path in opened if path.suffix == ".png"] == ["b.png"]
