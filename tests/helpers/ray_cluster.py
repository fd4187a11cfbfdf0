"""Ray clusters of several nodes on this machine, which always end with their test."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

OBJECT_STORE = 100 * 2**20
"""Bytes of the object store of a node."""


@contextmanager
def short_folder() -> Iterator[Path]:
    """Yield a folder directly under /tmp for the files of Ray, whose sockets need short paths."""
    folder = tempfile.mkdtemp(prefix="kg-ray.", dir="/tmp")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def local_cluster(nodes: Sequence[dict[str, Any]]) -> Iterator[Any]:
    """Start a node for each element, with its options; yield the cluster, whose first node has the head."""
    ray: Any = importlib.import_module("ray")
    from ray.cluster_utils import Cluster

    earlier = os.environ.get("RAY_TMPDIR")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    cluster: Any = None
    stack = ExitStack()
    os.environ["RAY_TMPDIR"] = str(stack.enter_context(short_folder()))
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
        stack.close()


def can_hide() -> bool:
    """Return whether this process may give a node a view of the file system of its own."""
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


@contextmanager
def remote_node(cluster: Any, hidden: Path, cpus: int) -> Iterator[None]:
    """Start a node that shares everything with this machine but one folder, in which its temporary files are as well.

    What it writes there is not seen here, and what is there is not seen by it.
    """
    script = 'mount -t tmpfs tmpfs "$1" && mkdir "$1/tmp" && shift && exec "$@"'
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={cluster.address}", "--block"]
    options = [f"--num-cpus={cpus}", f"--object-store-memory={OBJECT_STORE}"]
    before = len(cluster.global_state.node_table())
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(hidden), *command, *options],
        env={**os.environ, "TMPDIR": str(hidden / "tmp")},
        stdout=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    try:
        while len(cluster.global_state.node_table()) == before:
            assert process.poll() is None, "the node has ended"
            time.sleep(0.1)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
