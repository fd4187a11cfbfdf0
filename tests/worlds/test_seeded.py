"""The task `world:SEED`: a world that is built when it is first named."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from knowgen.core.errors import ConfigError, UsageError
from knowgen.search.load import load_search
from knowgen.tasks.folder import FolderTask
from knowgen.tasks.load import load_task
from knowgen.worlds import seeded
from knowgen.worlds.build import build_world
from knowgen.worlds.task import knowgen_mini


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KNOWGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Copy the bundled world instead of building one, and return the seeds and sizes that are asked for."""
    asked: list[tuple[int, int]] = []

    def build(out: Path, seed: int, samples: int, *, name: str) -> Path:
        asked.append((seed, samples))
        shutil.copytree(knowgen_mini().path, out)
        return out

    monkeypatch.setattr(seeded, "build_world", build)
    return asked


def test_a_world_is_built_once_and_found_again(builds: list[tuple[int, int]]) -> None:
    first, again = load_task("world:2:9"), load_task("world:2:9")
    assert builds == [(9, 2)]
    assert first.name == "world:2:9" and isinstance(first, FolderTask)
    assert (again.version, again.search_version) == (first.version, first.search_version)


def test_another_seed_or_size_is_another_world_with_its_own_search(builds: list[tuple[int, int]]) -> None:
    worlds = [load_task(name) for name in ("world:2:9", "world:2:10", "world:9", "world:96:9")]
    assert builds == [(9, 2), (10, 2), (9, 96)]
    assert len({world.search for world in worlds}) == 3
    assert load_search(worlds[0].search).version == worlds[0].search_version


def test_without_a_cache_folder_a_world_lasts_as_long_as_the_process(
    builds: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", "off")
    assert load_task("world:1:9").search == load_task("world:1:9").search
    assert builds == [(9, 1)]


@pytest.mark.slow
def test_a_world_of_a_seed_is_the_one_that_the_command_builds(tmp_path: Path) -> None:
    task = load_task("world:2:9")
    built = FolderTask(build_world(tmp_path / "nine", 9, 2))
    assert (task.version, task.search_version) == (built.version, built.search_version)
    assert len(task) == 2
    assert asyncio.run(load_search(task.search).search(next(task.samples()).prompt, 1))


def test_a_cache_folder_that_cannot_be_written_is_named(cache: Path) -> None:
    cache.write_text("not a folder", encoding="utf-8")
    with pytest.raises(ConfigError, match="KNOWGEN_CACHE"):
        load_task("world:1:9")


@pytest.mark.parametrize("name", ["world:x", "world:1:2:3", "world:0:7"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        load_task(name)
