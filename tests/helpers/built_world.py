"""What the tests of worlds share."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image

from knowgen.core.records import AgentAnswer, GenerationRequest
from knowgen.search.contract import SearchBackend
from knowgen.tasks.folder import FolderTask
from knowgen.worlds.baselines.systems import OpenBook, Painter
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


def open_book(search: SearchBackend, prompt: str, *, name: str = "any", seed: int = 0) -> tuple[AgentAnswer, Image]:
    """Return the answer of `open_book` for a prompt, and the image that its painter makes from it."""
    request = GenerationRequest(id=name, prompt=prompt, seed=seed)
    answer = asyncio.run(OpenBook(search).answer(request))
    return answer, Painter().draw(answer.prompt or prompt, [each.open() for each in answer.references], seed)
