"""What the tests of worlds share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.tasks.folder import FolderTask
from knowgen.worlds.search import WorldSearch


@dataclass(frozen=True)
class BuiltWorld:
    """A world on disk; tests must not change it."""

    folder: Path
    seed: int
    task: FolderTask
    search: WorldSearch


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of a world, of which there is at least one."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows, path
    return rows
