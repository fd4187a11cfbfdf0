"""Replacing folders and files in one step, and the state after a failure of each step."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from knowgen.core.atomic import draft_of, folder_draft, remove_leftovers, replace_folder, write_file
from tests.helpers.processes import start_python, wait_until


def folder(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def fail_rename(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the rename of this number, from 1, fail; those before and after it work."""
    rename, calls = Path.rename, 0

    def renamed(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)


@pytest.mark.parametrize("earlier", [False, True])
def test_the_new_folder_takes_the_name_and_nothing_else_is_left(tmp_path: Path, earlier: bool) -> None:
    if earlier:
        folder(tmp_path / "out", "old")
    replace_folder(folder(tmp_path / "fresh", "new"), tmp_path / "out")
    assert (tmp_path / "out" / "file").read_text() == "new"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("number", [1, 2])
def test_the_earlier_folder_is_there_when_a_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    out, fresh = folder(tmp_path / "out", "old"), folder(tmp_path / "fresh", "new")
    fail_rename(monkeypatch, number)
    with pytest.raises(OSError, match="Input/output"):
        replace_folder(fresh, out)
    assert (out / "file").read_text() == "old" and (fresh / "file").read_text() == "new"
    assert names(tmp_path) == ["fresh", "out"]


def test_the_only_copy_is_not_removed_when_it_cannot_be_moved_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, fresh = folder(tmp_path / "out", "old"), folder(tmp_path / "fresh", "new")
    rename = Path.rename

    def renamed(self: Path, target: Path) -> Path:
        if target == out:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    with pytest.raises(OSError, match="Input/output"):
        replace_folder(fresh, out)
    (aside,) = tmp_path.glob(".out.old-*")
    assert (aside / "out" / "file").read_text() == "old"


def test_of_writers_at_the_same_time_each_succeeds_and_one_whole_folder_is_left(tmp_path: Path) -> None:
    errors: list[OSError] = []

    def write(writer: int) -> None:
        for number in range(40):
            try:
                with folder_draft(tmp_path / "out") as draft:
                    for name in "abc":
                        (draft / name).write_text(f"{writer} {number}")
            except OSError as error:
                errors.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert errors == []
    assert names(tmp_path / "out") == ["a", "b", "c"]
    assert len({(tmp_path / "out" / name).read_text() for name in "abc"}) == 1


def test_a_folder_that_appears_while_the_earlier_one_is_moved_aside_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, fresh = folder(tmp_path / "out", "old"), folder(tmp_path / "fresh", "new")
    other = folder(tmp_path / "other", "of another writer")
    rename = Path.rename

    def renamed(self: Path, target: Path) -> Path:
        if self == fresh and other.exists():
            rename(other, out)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    replace_folder(fresh, out)
    assert (out / "file").read_text() == "new"


def test_leftovers_of_killed_replacements_are_removed(tmp_path: Path) -> None:
    for name in ("out", ".out.old-1", ".out.old-2", ".other.old-1"):
        folder(tmp_path / name, name)
    remove_leftovers(tmp_path / "out")
    assert names(tmp_path) == [".other.old-1", "out"]


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("data", ["ä text\n", b"\x00bytes"])
def test_a_file_is_replaced_with_its_content(tmp_path: Path, data: str | bytes, durable: bool) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    write_file(path, data, durable=durable)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert names(tmp_path) == ["file"]


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_file(path, "new")
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_two_drafts_of_a_file_at_the_same_time_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    with draft_of(path) as first, draft_of(path) as second:
        first.write_bytes(b"one")
        second.write_bytes(b"two")
        assert first.read_bytes() == b"one"
    assert path.read_bytes() == b"one", "the block that ended last"
    assert list(tmp_path.iterdir()) == [path]


def test_a_draft_becomes_the_file_only_when_its_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ValueError, match="bad row"), draft_of(path) as draft:
        draft.write_text("half")
        raise ValueError("bad row")
    assert path.read_text() == "old" and names(tmp_path) == ["file"]
    with draft_of(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and names(tmp_path) == ["file"]


def test_a_folder_draft_takes_the_place_of_an_earlier_folder(tmp_path: Path) -> None:
    out = tmp_path / "missing" / "out"
    for content in ("first", "second"):
        with folder_draft(out) as draft:
            (draft / "file").write_text(content)
            assert names(out.parent) == sorted([draft.name, *(["out"] if content == "second" else [])])
    assert (out / "file").read_text() == "second"
    assert names(out.parent) == ["out"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_failed_draft_leaves_the_earlier_folder_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    out = folder(tmp_path / "out", "old")
    with pytest.raises(ZeroDivisionError), folder_draft(out):
        raise ZeroDivisionError
    fail_rename(monkeypatch, number)
    with pytest.raises(OSError, match="Input/output"), folder_draft(out) as draft:
        (draft / "file").write_text("new")
    assert (out / "file").read_text() == "old"
    assert names(tmp_path) == ["out"]


KILLED = """
import sys
from pathlib import Path
from knowgen.core.atomic import folder_draft
with folder_draft(Path(sys.argv[1])) as draft:
    (draft / "half").write_text("half")
    sys.stdin.read()
"""


def test_the_draft_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    import subprocess

    out = folder(tmp_path / "out", "old")
    alive, killed = (start_python("-c", KILLED, out, stdin=subprocess.PIPE) for _ in range(2))
    try:
        wait_until(lambda: len(list(tmp_path.glob(".out.new-*/half"))) == 2)
        killed.kill()
        killed.wait()
        assert len(list(tmp_path.glob(".out.new-*"))) == 2
        with folder_draft(out) as draft:
            (draft / "file").write_text("new")
        assert len(list(tmp_path.glob(".out.new-*"))) == 1
        assert (out / "file").read_text() == "new"
        alive.communicate(timeout=60)
        assert alive.returncode == 0 and names(out) == ["half"] and names(tmp_path) == ["out"]
    finally:
        for process in (alive, killed):
            process.kill()
            process.communicate()


def test_what_a_process_killed_between_two_renames_moved_aside_is_removed_when_the_new_folder_is_in_place(
    tmp_path: Path,
) -> None:
    aside = tmp_path / ".out.old-x1"
    aside.mkdir()
    folder(aside / "out", "old")
    with folder_draft(tmp_path / "out") as draft:
        (draft / "file").write_text("new")
        assert (aside / "out" / "file").read_text() == "old"  # still the only copy
    assert names(tmp_path) == ["out"] and (tmp_path / "out" / "file").read_text() == "new"


def test_a_folder_that_must_not_be_replaced_stays_and_the_draft_is_removed(tmp_path: Path) -> None:
    target = folder(tmp_path / "target", "first")
    with pytest.raises(OSError), folder_draft(target, replace=False) as draft:
        (draft / "file").write_text("second")
    assert (target / "file").read_text() == "first"
    assert names(tmp_path) == ["target"]
    with folder_draft(tmp_path / "other", replace=False) as draft:
        (draft / "file").write_text("third")
    assert (tmp_path / "other" / "file").read_text() == "third"
