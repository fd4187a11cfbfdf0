"""Images that a file from another machine names: where they are looked up, and what is never used."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowgen.interchange.recorded_images import RecordedImages


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


@pytest.mark.parametrize(
    ("recorded", "file"),
    [
        ("out/a.png", "out/a.png"),
        ("./out//a.png", "out/a.png"),
        ("out\\a.png", "out/a.png"),
        ("/home/you/run/out/a.png", "out/a.png"),
        ("/home/you/run/a.png/../out/a.png", "out/a.png"),
        ("../../elsewhere/out/a.png", "out/a.png"),
        ("C:\\Users\\you\\out\\a.png", "out/a.png"),
        ("C:/out/a.png", "out/a.png"),
        ("~/runs/out/a.png", "out/a.png"),
        ("file:///home/you/out/a.png", "out/a.png"),
        ("file://localhost/home/you/out/a.png", "out/a.png"),
        ("file:/out/a.png", "out/a.png"),
        ("out/a.PNG", "out/a.png"),
        ("out/b.jpeg", "out/b.JPEG"),
        ("out/e\u0301.png", "out/\u00e9.png"),
        ("out/\u00fc.png", "out/u\u0308.png"),
        ("out/with%20space.png", "out/with space.png"),
        ("file:///x/out/with%20space.png", "out/with space.png"),
        ("out/100%25.png", "out/100%25.png"),
    ],
)
def test_a_recorded_path_is_found(tmp_path: Path, recorded: str, file: str) -> None:
    put(tmp_path, "out/a.png", "out/b.JPEG", "out/\u00e9.png", "out/u\u0308.png", "out/with space.png")
    put(tmp_path, "out/100%25.png", "out/100%.png")
    for files, generated in (
        (RecordedImages(tmp_path, [recorded]), True),
        (RecordedImages(tmp_path / "none", [recorded], images=tmp_path), True),
        (RecordedImages(tmp_path, truths=[recorded]), False),
    ):
        found = files.find(recorded, generated=generated)
        assert found is not None and found.samefile(tmp_path / file)


def test_an_absolute_path_and_a_file_address_count_as_written(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/a b.png", "run/a b.png")
    written = str(tmp_path / "elsewhere" / "a b.png")
    address = (tmp_path / "elsewhere" / "a b.png").as_uri()
    files = RecordedImages(tmp_path / "run", [written, address])
    assert files.find(written, generated=True) == tmp_path / "elsewhere" / "a b.png"
    assert files.find(address, generated=True) == tmp_path / "elsewhere" / "a b.png"


def test_the_named_folder_goes_first_for_images_and_last_for_ground_truths(tmp_path: Path) -> None:
    put(tmp_path, "run/out/a.png", "run/gt/a.png", "far/out/a.png", "far/gt/a.png")
    files = RecordedImages(tmp_path / "run", ["out/a.png"], ["gt/a.png"], tmp_path / "far")
    assert files.find("out/a.png", generated=True) == tmp_path / "far/out/a.png"
    assert files.find("gt/a.png", generated=False) == tmp_path / "run/gt/a.png"


def test_the_longest_end_of_a_path_decides(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "out/a.png", "deep/run/out/a.png")
    files = RecordedImages(tmp_path, ["/x/out/a.png"])
    assert files.find("/x/out/a.png", generated=True) == tmp_path / "out/a.png"  # not searched for in other folders


def test_a_file_that_two_paths_lead_to_is_used_for_neither(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png", "c.png")
    generated, truths = ["/x/out/a.png", "/x/cat/b.png", "/x/dog/b.png", "c.png"], ["/y/gt/a.png", "/y/gt/c.png"]
    files = RecordedImages(tmp_path, generated, truths)
    assert [files.find(name, generated=True) for name in generated] == [None, None, None, tmp_path / "c.png"]
    assert [files.find(name, generated=False) for name in truths] == [None, None]
    assert set(files.ambiguous) == {*generated[:3], *truths}


def test_nothing_outside_the_folder_is_found_by_its_end(tmp_path: Path) -> None:
    put(tmp_path, "secret/a.png", "run/own.png")
    (tmp_path / "run" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "run" / "one.png").symlink_to(tmp_path / "secret" / "a.png")
    tricks = [
        "/x/link/a.png", "/x/one.png", "x/../../secret/a.png", "..\\secret\\a.png", "%2e%2e/secret/a.png",
        "/x/..%2fsecret/a.png", "file:///x/../secret/a.png", "C:..\\secret\\a.png", "\\\\host\\secret\\a.png",
    ]  # fmt: skip
    files = RecordedImages(tmp_path / "run", tricks)
    assert [files.find(name, generated=True) for name in tricks] == [None] * len(tricks)


@pytest.mark.parametrize(
    "name", ["a\0.png", "a\ud800.png", "a" * 5000 + ".png", "/", ".", "..", "file:", "file://", "~"]
)
def test_a_path_that_is_not_a_file_name_is_not_found(tmp_path: Path, name: str) -> None:
    put(tmp_path, "a.png")
    files = RecordedImages(tmp_path, [name], images=tmp_path)
    found = files.find(name, generated=True)
    assert found is None or not found.is_file()


def test_names_that_differ_only_in_case_are_not_confused(tmp_path: Path) -> None:
    put(tmp_path, "out/a.png", "out/a.PNG")
    files = RecordedImages(tmp_path, ["/x/out/a.PNG", "/x/out/a.Png", "/x/out/A.png"])
    assert files.find("/x/out/a.PNG", generated=True) == tmp_path / "out/a.PNG"
    assert files.find("/x/out/a.Png", generated=True) is None and files.find("/x/out/A.png", generated=True) is None
