"""The four baseline systems are ranked in order on worlds that were not used for tuning."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from knowgen.core.records import GenerationRequest, Sample
from knowgen.tasks.folder import FolderTask
from knowgen.worlds.baselines.systems import ClosedBook, Noise, OpenBook, Oracle
from knowgen.worlds.build import build_world
from knowgen.worlds.search import WorldSearch
from tests.helpers.adversary import k_score
from tests.helpers.built_world import BuiltWorld, open_book

STEP = 0.08
"""Minimum difference in K-Score between neighbours."""


def generate_with(system: object, world: BuiltWorld, sample: Sample) -> object:
    if isinstance(system, Noise | ClosedBook):
        return system.draw(sample.prompt, [], 0)
    if isinstance(system, OpenBook):
        return open_book(world.search, sample.prompt)[1]
    assert isinstance(system, Oracle)
    request = GenerationRequest(id="any", prompt=sample.prompt, truth=world.task.truth(sample.id))
    return asyncio.run(system.generate(request)).image


@pytest.mark.slow
@pytest.mark.parametrize("seed", [101, 202, 303])
def test_systems_with_more_knowledge_score_higher(seed: int, tmp_path: Path) -> None:
    folder = build_world(tmp_path / "world", seed, 48)
    world = BuiltWorld(folder, seed, FolderTask(folder), WorldSearch(str(folder / "search")))
    scores = []
    for system in (Noise(), ClosedBook(), OpenBook(world.search), Oracle()):
        images = {sample.id: generate_with(system, world, sample) for sample in world.task.samples()}
        scores.append(k_score(world, images, tmp_path / type(system).__name__))
    assert all(lower + STEP <= higher for lower, higher in itertools.pairwise(scores)), scores
    assert scores[0] < 0.05 and scores[-1] > 0.95
