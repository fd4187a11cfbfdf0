"""The default number of worker processes: one per GPU, for generators with `setup(device)`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from knowgen import api
from knowgen.core.records import GenerationRequest
from knowgen.engine import placement as stages
from knowgen.engine.placement import gpus_for
from knowgen.generators.contract import GeneratedImage
from tests.helpers.engine import PLAIN, Plain, generator_handle


class OnDevice(Plain):
    def setup(self, device: str) -> None:
        self.device = device


class Service:
    def setup(self, device: str) -> None:
        """Has `setup(device)`, but calls a service."""

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        raise NotImplementedError


class Batch(OnDevice):
    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("plugin", "component_ref", "gpus", "expected"),
    [
        (OnDevice(), PLAIN, 8, 8),
        (Batch(), PLAIN, 8, 8),
        (OnDevice(), PLAIN, 1, 0),
        (OnDevice(), PLAIN, 0, 0),
        (OnDevice(), None, 8, 0),  # an object of this process cannot be built in another one
        (Plain(), PLAIN, 8, 0),  # has no setup(device)
        (Service(), PLAIN, 8, 0),
    ],
)
def test_a_generator_with_setup_gets_one_worker_per_gpu(
    monkeypatch: pytest.MonkeyPatch, plugin: Any, component_ref: Any, gpus: int, expected: int
) -> None:
    monkeypatch.setattr(stages, "cuda_count", lambda: gpus)
    assert gpus_for(generator_handle(plugin, component_ref=component_ref)) == expected


def test_the_users_number_of_workers_is_used_and_a_generator_without_setup_gets_none(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count() -> int:
        raise AssertionError("the number of GPUs is not needed")

    monkeypatch.setattr(stages, "cuda_count", count)
    for workers in (None, 0):
        plan = api.plan("knowgen_mini", "closed_book", ["pixels"], api.RunConfig(limit=2, workers=workers))
        run = api.execute(plan, tmp_path / str(workers))
        assert run.outcome is not None and run.outcome.generated == 2
