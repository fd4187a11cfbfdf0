"""How the processors and GPUs of a cluster are divided among the plugins of a run."""

from __future__ import annotations

from dataclasses import replace
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


class BatchJudge(Measure):
    """A judge with a model of its own in one process, which it gives several samples at once."""

    local = True
    workers = 1


def with_gpus(handle: Any, gpus: int) -> Any:
    """Return a plugin each worker of which has several GPUs."""
    return replace(handle, capabilities=replace(handle.capabilities, gpus_per_worker=gpus))


REF = ComponentRef("generators", "mine.py:Mine")
PAINTER = generator_handle(Plain(), name="painter", component_ref=REF)
MODEL = generator_handle(OnGpu(), name="model", component_ref=REF)
MEASURE = scorer_handle(Measure(), name="measure", component_ref=REF)
JUDGE = scorer_handle(Half(), name="judge", component_ref=REF)
LOCAL = scorer_handle(LocalJudge(), name="local", component_ref=REF)
HF = scorer_handle(BatchJudge(), name="hf", component_ref=REF)


def places(nodes: list[tuple[int, int]], *handles: Any, workers: int | None = None) -> dict[str, Place]:
    given = [NodeResources(*node, id=f"node {number}") for number, node in enumerate(nodes)]
    planned = plan_places(given, [list(handles)], workers)
    for place in planned.values():  # what all need together fits
        assert place.workers >= 1
    assert sum(place.cpus * place.workers for place in planned.values()) <= sum(node.cpus for node in given)
    assert sum(place.gpus * place.workers for place in planned.values()) <= sum(node.gpus for node in given)
    for node in given:  # and on each node those that are sent to it
        sent = [place.gpus for place in planned.values() for each in place.nodes if each == node.id]
        assert sum(sent) <= node.gpus
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


def test_a_model_on_several_gpus_leaves_a_gpu_for_the_judge() -> None:
    beside = places([(8, 8)], with_gpus(MODEL, 2), HF)
    assert (beside["model"].workers, beside["model"].gpus) == (3, 2.0)
    assert (beside["hf"].workers, beside["hf"].gpus) == (1, 1.0)
    alone = places([(8, 8)], with_gpus(MODEL, 2))
    assert (alone["model"].workers, alone["model"].gpus) == (4, 2.0)
    odd = places([(8, 3)], with_gpus(MODEL, 2), HF)
    assert (odd["model"].workers, odd["hf"].gpus) == (1, 1.0)
    both = places([(8, 4), (8, 4)], with_gpus(MODEL, 4), with_gpus(HF, 2))
    assert (both["model"].nodes, both["hf"].nodes) == (("node 0",), ("node 1",))


def test_workers_that_share_the_gpus_that_are_left_do_not_fill_the_node_of_a_larger_one() -> None:
    shared = places([(8, 2), (8, 1), (8, 2)], with_gpus(MODEL, 2), LOCAL, HF)
    assert shared["model"].nodes and set(shared["local"].nodes).isdisjoint(shared["model"].nodes)
    fixed = places([(8, 2), (8, 1), (8, 2)], with_gpus(MODEL, 2), LOCAL, workers=2)
    assert (fixed["model"].workers, fixed["local"].workers, set(fixed["local"].nodes)) == (2, 2, {"node 1"})


@pytest.mark.parametrize(
    ("nodes", "handles", "workers", "message"),
    [
        (
            [(8, 2)], [with_gpus(MODEL, 2), HF], None,
            r"\(2 on its nodes\) are too few for all at the same time: generator 'model' 2; scorer 'hf' a part of one; "
            "give a smaller gpus_per_worker or schedule phased",
        ),
        ([(8, 2), (8, 2)], [with_gpus(MODEL, 4)], None, "generator 'model': gpus_per_worker=4, and the largest.*2"),
        ([(8, 0)], [with_gpus(MODEL, 2)], None, "generator 'model': gpus_per_worker=2, and the cluster has no GPU"),
        ([(8, 4)], [with_gpus(MODEL, 2)], 3, "'model' 3 x 2; give a smaller gpus_per_worker or fewer workers"),
        ([(8, 4)], [MODEL, with_gpus(LOCAL, 2)], None, "scorer 'local'.*takes several calls at once"),
    ],
)  # fmt: skip
def test_gpus_that_the_cluster_does_not_have_are_refused_before_anything_starts(
    nodes: list[tuple[int, int]], handles: list[Any], workers: int | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        places(nodes, *handles, workers=workers)


def test_a_phased_run_has_room_for_a_model_and_a_judge_one_after_the_other() -> None:
    every = stages(None, with_gpus(MODEL, 2), [HF], phased=True)
    phased = plan_places([NodeResources(4, 2, "only")], every, None)
    assert [phased[name_of(stage[0])].gpus for stage in every if stage] == [2.0, 1.0]


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
