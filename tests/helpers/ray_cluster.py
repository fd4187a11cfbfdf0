"""Ray clusters of several nodes on this machine, which always end with their test."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

OBJECT_STORE = 100 * 2**20
"""Bytes of the object store of a node."""


@contextmanager
def local_cluster(nodes: Sequence[dict[str, Any]]) -> Iterator[Any]:
    """Start a node for each element, with its options; yield the cluster, whose first node has the head.

    Sockets need short paths, so that the files of Ray are in a folder directly under /tmp.
    """
    ray: Any = importlib.import_module("ray")
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="kg-ray.", dir="/tmp")
    earlier = os.environ.get("RAY_TMPDIR")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    os.environ["RAY_TMPDIR"] = folder
    cluster: Any = None
    try:
        for options in nodes:
            given = {"object_store_memory": OBJECT_STORE, **options}
            if cluster is None:
                cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **given})
            else:
                cluster.add_node(**given)
        yield cluster
    finally:
        ray.shutdown()
        if cluster is not None:
            cluster.shutdown()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if earlier is None:
            del os.environ["RAY_TMPDIR"]
        else:
            os.environ["RAY_TMPDIR"] = earlier
        shutil.rmtree(folder, ignore_errors=True)
