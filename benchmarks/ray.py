"""Measure what a node of a Ray cluster costs: samples per second in this process, in a worker process, and on a node.

    python benchmarks/ray.py [--count 200] [--sides 256 1024]

The generator of `benchmarks/workers.py` makes a small change to one image, which takes almost no time, so that the
difference is the cost of the way: the request, the pixels and the result cross between processes, on a node through
Ray. A cluster of three nodes is started on this machine; one worker on one of them makes all images, one after the
other. Each setting runs three times and the fastest counts; the start of the worker, once a run, is measured apart.

Prints for each side the samples per second of all three, their ratios, and the time that a node adds to an image. Exits
with 1 if that is more than 10 ms.
"""

from __future__ import annotations

import sys
from pathlib import Path

# this file has the name of the package that it measures, and its folder comes first on the path of a script
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import argparse  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from typing import Any  # noqa: E402

from benchmarks.setting import NumberedTask, specification  # noqa: E402
from knowgen.engine import EngineOptions, run  # noqa: E402
from knowgen.engine.cluster import plan_places, stages  # noqa: E402
from knowgen.engine.executors.ray_cluster import RayCluster, connected  # noqa: E402
from knowgen.store.run import RunStore  # noqa: E402
from knowgen.workflows.resolve import resolve_generator  # noqa: E402

GOAL = 10.0
"""Most milliseconds that a node may add to an image."""

NODES = 3
_OBJECT_STORE = 200 * 2**20
_GENERATOR = f"{Path(__file__).resolve().parent / 'workers.py'}:Stamped"


@contextmanager
def local_cluster() -> Iterator[str]:
    """Start nodes on this machine, and yield the address of their cluster."""
    from ray.cluster_utils import Cluster

    folder = os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="kg-ray.", dir="/tmp")  # sockets need short paths
    cluster: Any = None
    try:
        # no worker is on the node of this process, whose object store it could share
        cluster = Cluster(initialize_head=True, head_node_args=_node(num_cpus=0, include_dashboard=False))
        for _ in range(NODES - 1):
            cluster.add_node(**_node())
        yield cluster.address
    finally:
        if cluster is not None:
            cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _node(**options: Any) -> dict[str, Any]:
    return {"num_cpus": 1, "object_store_memory": _OBJECT_STORE, **options}


def seconds_of(count: int, side: int, workers: int, cluster: RayCluster | None = None) -> float:
    """Return the seconds of one run."""
    task = NumberedTask(count)
    handle = resolve_generator(_GENERATOR, {"side": side}, None)
    spec = specification(task, handle.spec)
    if cluster is not None:
        cluster.places = plan_places(cluster.nodes(), stages(None, handle, (), phased=False), workers)
    options = EngineOptions(progress=False, workers=workers, cluster=cluster)
    with tempfile.TemporaryDirectory() as folder, RunStore.open(Path(folder) / "run", spec) as store:
        started = time.perf_counter()
        outcome = run(spec, task, handle, (), store, options)
        assert outcome.generated == count, outcome
        return time.perf_counter() - started


def per_image(count: int, side: int, workers: int, cluster: RayCluster | None = None) -> tuple[float, float]:
    """Return the seconds of an image, and those of a run of one image; the least of three runs."""
    short = min(seconds_of(1, side, workers, cluster) for _ in range(3))
    long = min(seconds_of(count + 1, side, workers, cluster) for _ in range(3))
    return (long - short) / count, short


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 1024])
    options = parser.parse_args()
    added = {}
    with local_cluster() as address, connected(address) as cluster:
        for side in options.sides:
            here, start_here = per_image(options.count, side, 0)
            worker, start_worker = per_image(options.count, side, 1)
            node, start_node = per_image(options.count, side, 1, cluster)
            added[side] = (node - here) * 1000
            print(
                f"{side:>5} px: {1 / here:6.1f} samples/s in process, {1 / worker:6.1f} in a worker process "
                f"({here / worker:.2f} of it), {1 / node:6.1f} on a node ({here / node:.2f} of it); a node adds "
                f"{added[side]:.2f} ms to an image, a worker process {(worker - here) * 1000:.2f} ms; start "
                f"{start_worker - start_here:.2f} s of a worker process, {start_node - start_here:.2f} s on a node",
                flush=True,
            )
    return int(max(added.values()) > GOAL)


if __name__ == "__main__":
    sys.exit(main())
