"""The default number of worker processes: one for foreign code, one per GPU for generators with `setup(device)`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from knowgen import api
from knowgen.core.records import GenerationRequest
from knowgen.engine import placement as stages
from knowgen.engine.executors.links import WorkerLaunch
from knowgen.engine.options import EngineOptions
from knowgen.engine.placement import generator_workers, gpus_for, scorer_workers
from knowgen.generators.contract import GeneratedImage
from tests.helpers.engine import MEASURE, PLAIN, Half, Measure, Plain, generator_handle, scorer_handle


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


OURS = replace(PLAIN, bundled=True)


@pytest.mark.parametrize(("workers", "emptiest"), [(2, True), (8, False), (None, False)])
def test_workers_that_do_not_need_all_gpus_are_given_the_emptiest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int | None, emptiest: bool
) -> None:
    launched: list[WorkerLaunch] = []
    monkeypatch.setattr(stages, "_in_workers", lambda launch, *rest: launched.append(launch))
    handle = generator_handle(Batch(), component_ref=PLAIN)
    nothing: Any = None
    stages.generator_executor(handle, EngineOptions(workers=workers, gpus=8), nothing, nothing, tmp_path)
    assert (launched[0].workers, launched[0].emptiest) == (workers or 8, emptiest)


@pytest.mark.parametrize(
    ("plugin", "component_ref", "gpus", "expected"),
    [
        (OnDevice(), OURS, 8, 8),
        (Batch(), OURS, 8, 8),
        (OnDevice(), OURS, 1, 0),
        (OnDevice(), OURS, 0, 0),
        (Plain(), OURS, 8, 0),  # has no setup(device)
        (Service(), OURS, 8, 0),
        (OnDevice(), PLAIN, 8, 8),
        (OnDevice(), PLAIN, 1, 1),
        (OnDevice(), PLAIN, 0, 1),
        (Plain(), PLAIN, 8, 1),
        (Service(), PLAIN, 8, 1),
        (OnDevice(), None, 8, 0),  # an object of this process cannot be built in another one
    ],
)
def test_foreign_code_gets_a_worker_and_a_generator_with_setup_one_per_gpu(
    monkeypatch: pytest.MonkeyPatch, plugin: Any, component_ref: Any, gpus: int, expected: int
) -> None:
    monkeypatch.setattr(stages, "gpu_count", lambda: gpus)
    handle = generator_handle(plugin, component_ref=component_ref)
    options = EngineOptions(gpus=gpus_for(handle))
    assert generator_workers(handle, options) == expected
    assert generator_workers(handle, EngineOptions(workers=0)) == 0


@pytest.mark.parametrize(
    ("scorer", "component_ref", "workers", "expected"),
    [
        (Half(), MEASURE, None, 1),
        (Half(), MEASURE, 0, 0),
        (Half(), replace(MEASURE, bundled=True), None, 0),
        (Half(), None, None, 0),
        (Measure(), MEASURE, None, os.cpu_count()),
        (Measure(), MEASURE, 0, 0),
        (Measure(), replace(MEASURE, bundled=True), 0, os.cpu_count()),
        (Measure(), None, None, 0),
    ],
)
def test_foreign_scorers_get_a_worker_and_those_that_compute_one_per_core(
    scorer: Any, component_ref: Any, workers: int | None, expected: int
) -> None:
    handle = scorer_handle(scorer, component_ref=component_ref)
    assert scorer_workers(handle, EngineOptions(workers=workers)) == expected


def test_the_users_number_of_workers_is_used_and_a_generator_without_setup_gets_none(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count() -> int:
        raise AssertionError("the number of GPUs is not needed")

    monkeypatch.setattr(stages, "gpu_count", count)
    for workers in (None, 0):
        plan = api.plan("knowgen_mini", "closed_book", ["pixels"], api.RunConfig(limit=2, workers=workers))
        run = api.execute(plan, tmp_path / str(workers))
        assert run.outcome is not None and run.outcome.generated == 2


@pytest.mark.parametrize(
    ("gpus", "each", "workers"), [(8, 2, 4), (3, 2, 1), (2, 2, 1), (1, 2, 1), (8, 1, 8), (1, 1, 0)]
)
def test_workers_with_several_gpus_divide_them(gpus: int, each: int, workers: int) -> None:
    handle = generator_handle(OnDevice(), component_ref=OURS)
    handle = replace(handle, capabilities=replace(handle.capabilities, gpus_per_worker=each))
    assert generator_workers(handle, EngineOptions(gpus=gpus)) == workers
