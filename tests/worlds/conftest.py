"""A small world for the tests of this folder, built once."""

from __future__ import annotations

import pytest

from knowgen.tasks.folder import FolderTask
from knowgen.worlds.build import build_world
from knowgen.worlds.search import WorldSearch
from tests.helpers.built_world import BuiltWorld

WORLD_SEED = 9


@pytest.fixture(scope="session")
def built_world(tmp_path_factory: pytest.TempPathFactory) -> BuiltWorld:
    """Return a world of 48 samples; tests must not change it."""
    folder = build_world(tmp_path_factory.mktemp("worlds") / "nine", WORLD_SEED, 48)
    return BuiltWorld(folder, WORLD_SEED, FolderTask(folder), WorldSearch(str(folder / "search")))
