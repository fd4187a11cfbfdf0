"""A small world for the tests of this folder, built once; lets them import their helper module."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).resolve().parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

from world_helpers import BuiltWorld  # noqa: E402

from knowgen.tasks.folder import FolderTask  # noqa: E402
from knowgen.worlds.build import build_world  # noqa: E402
from knowgen.worlds.search import WorldSearch  # noqa: E402

WORLD_SEED = 9


@pytest.fixture(scope="session")
def built_world(tmp_path_factory: pytest.TempPathFactory) -> BuiltWorld:
    """A world of 48 samples; tests must not change it."""
    folder = build_world(tmp_path_factory.mktemp("worlds") / "nine", WORLD_SEED, 48)
    return BuiltWorld(folder, WORLD_SEED, FolderTask(folder), WorldSearch(str(folder)))
