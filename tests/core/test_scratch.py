"""Scratch folders end with their process, at the latest when a later process needs one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from knowgen.core.scratch import ScratchFolder, remove_abandoned
from tests.helpers.processes import python_environment, start_python

HOLDS = """
import sys
from pathlib import Path
from knowgen.core.scratch import ScratchFolder
with ScratchFolder("knowgen.test.") as folder:
    (folder / "file").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_removed_with_its_content_and_once(tmp_path: Path) -> None:
    scratch = ScratchFolder("one.", tmp_path)
    (scratch.path / "inner").mkdir()
    scratch.close()
    scratch.close()
    assert list(tmp_path.iterdir()) == []


def test_folders_of_killed_processes_are_removed_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = python_environment(TMPDIR=str(tmp_path))
    alive, killed = (start_python("-c", HOLDS, stdin=subprocess.PIPE, env=environment) for _ in range(2))
    try:
        assert alive.stdout is not None and killed.stdout is not None
        held, left = (Path(process.stdout.readline().strip()) for process in (alive, killed) if process.stdout)
        killed.kill()
        killed.wait()
        assert held.is_dir() and left.is_dir()
        (tmp_path / "knowgen.test.file").write_text("not a folder")
        (tmp_path / "knowgen.test.link").symlink_to(tmp_path)
        (tmp_path / "other").mkdir()
        remove_abandoned("knowgen.test.", tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            [held.name, "knowgen.test.file", "knowgen.test.link", "other"]
        )
        alive.communicate(timeout=60)
        assert not held.exists()
    finally:
        for process in (alive, killed):
            process.kill()
            process.communicate()


def test_a_name_with_wildcards_matches_itself_only(tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    remove_abandoned("[a]*", tmp_path)
    assert (tmp_path / "ab").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of another user")
def test_folders_of_other_users_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "knowgen.test.other"
    other.mkdir()
    os.chown(other, 12345, 12345)
    remove_abandoned("knowgen.test.", tmp_path)
    assert other.is_dir()
