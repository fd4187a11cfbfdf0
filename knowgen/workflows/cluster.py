"""Join the cluster on which the plugins of a plan run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from knowgen.core.executors import cluster_address
from knowgen.engine.cluster import Cluster, plan_places, stages
from knowgen.workflows.plan import Plan


@contextlib.contextmanager
def cluster_of(plan: Plan) -> Iterator[Cluster | None]:
    """Yield the cluster that the executor of a plan names; None for this machine.

    Raises:
        UsageError: A plugin is an object of this process.
        MissingDependencyError: Ray is not installed.
        ConfigError: The cluster cannot be reached or joined, or has no processor.
    """
    address = cluster_address(plan.config.executor)
    if address is None:
        yield None
        return
    every = stages(plan.agent, plan.generator, plan.scorers, phased=plan.config.schedule == "phased")
    from knowgen.engine.executors.ray_cluster import connected

    with connected(address) as cluster:
        cluster.places = plan_places(cluster.nodes(), every, plan.config.workers)
        yield cluster
