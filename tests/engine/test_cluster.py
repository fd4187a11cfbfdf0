"""How the processors and GPUs of a cluster are divided among the plugins of a run."""

from __future__ import annotations

from typing import Any

import pytest

from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.executors import check_executor, cluster_address
from knowgen.core.run_config import RunConfig
from knowgen.engine import ComponentRef
from knowgen.engine.cluster import NodeResources, Place, name_of, plan_places, stages
from tests.helpers.engine import Half, Measure, Plain, generator_handle, scorer_handle


class OnGpu(Plain):
    """A generator that uses a device."""

    def setup(self, device: str) -> None:
        """Do nothing."""


class LocalJudge(Half):
    """A judge with a model of its own."""

    local = True


REF = ComponentRef("generators", "mine.py:Mine")
PAINTER = generator_handle(Plain(), name="painter", component_ref=REF)
MODEL = generator_handle(OnGpu(), name="model", component_ref=REF)
MEASURE = scorer_handle(Measure(), name="measure", component_ref=REF)
JUDGE = scorer_handle(Half(), name="judge", component_ref=REF)
LOCAL = scorer_handle(LocalJudge(), name="local", component_ref=REF)


def places(nodes: list[tuple[int, int]], *handles: Any, workers: int | None = None) -> dict[str, Place]:
    given = [NodeResources(*node) for node in nodes]
    planned = plan_places(given, [list(handles)], workers)
    for place in planned.values():  # what all need together fits
        assert place.workers >= 1
    assert sum(place.cpus * place.workers for place in planned.values()) <= sum(node.cpus for node in given)
    assert sum(place.gpus * place.workers for place in planned.values()) <= sum(node.gpus for node in given)
    return {name.partition(" ")[2].strip("'"): place for name, place in planned.items()}


def test_plugins_that_compute_divide_the_processors() -> None:
    divided = places([(4, 0), (3, 0)], PAINTER, MEASURE, JUDGE)
    assert (divided["painter"].workers, divided["measure"].workers, divided["judge"].workers) == (4, 3, 1)
    assert 0.9 < divided["painter"].cpus < 1 and divided["judge"].cpus < 0.01


def test_each_worker_gets_a_gpu_and_plugins_share_where_there_are_too_few() -> None:
    apart = places([(0, 4), (4, 4)], MODEL, LOCAL)
    assert (apart["model"].workers, apart["model"].gpus) == (4, 1.0)
    # a worker with several calls leaves room for the one in which calls are repeated alone
    assert (apart["local"].workers, apart["local"].gpus, apart["local"].alone_gpus) == (4, 0.99, 0.01)
    shared = places([(4, 1)], MODEL, LOCAL)
    assert (shared["model"].workers, shared["model"].gpus) == (1, 0.5)
    assert places([(4, 0)], MODEL)["model"].gpus == 0.0


def test_more_workers_than_processors_share_them_node_by_node() -> None:
    place = places([(2, 0), (1, 0)], PAINTER, workers=6)["painter"]
    assert place.workers == 6 and sum(int(cpus / place.cpus) for cpus in (2, 1)) >= 6


def test_a_phased_run_gives_all_to_one_stage_after_the_other() -> None:
    phased = plan_places([NodeResources(4, 0)], stages(None, PAINTER, [MEASURE], phased=True), None)
    assert [phased[name_of(each)].workers for each in (PAINTER, MEASURE)] == [4, 4]


def test_what_cannot_run_on_a_cluster_is_one_line() -> None:
    with pytest.raises(UsageError, match="generator 'mine': it is an object of this process"):
        stages(None, generator_handle(Plain()), [], phased=False)
    with pytest.raises(ConfigError, match="no node of the cluster has a processor"):
        places([(0, 0)], PAINTER)
    with pytest.raises(UsageError, match="workers 0"):
        check_executor(RunConfig(executor="ray", workers=0))


@pytest.mark.parametrize("executor", ["dask", "ray:", "local:1", "ray:host", "ray:host:port", "ray://host:10001"])
def test_an_executor_that_is_none_is_refused(executor: str) -> None:
    with pytest.raises(UsageError, match="ray"):
        cluster_address(executor)
