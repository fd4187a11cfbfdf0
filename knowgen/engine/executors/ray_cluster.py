"""A cluster of Ray on which the plugins of a run are executed: connect to it, and know its nodes.

Ray is imported when a run asks for it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowgen.core.atomic import write_file
from knowgen.core.errors import ConfigError, MissingDependencyError
from knowgen.core.import_path import child_environment
from knowgen.core.scratch import ScratchFolder
from knowgen.core.text import one_line
from knowgen.engine.cluster import NodeResources, Place
from knowgen.engine.executors.links import WorkerLaunch
from knowgen.engine.executors.node_worker import PluginCode
from knowgen.engine.executors.ray_link import RayHosts, RayLink

if TYPE_CHECKING:
    from types import ModuleType

CONNECT_SECONDS = 10.0
"""Time limit for a connection to the address of a cluster."""

JOIN_SECONDS = 30.0
"""Time limit for joining it."""

END_SECONDS = 2.0
"""Time limit for ending the workers that are left when a run ends."""

KEPT_BYTES = 256 * 2**20
"""Bytes of images that are kept in the object store for other nodes."""


class RayCluster:
    """A cluster that this process has joined.

    Args:
        ray: The module.

    Attributes:
        ray: The module.
        run: Name of the run on the nodes.
        places: What the workers of each plugin get, by its name.
        codes: The code of each plugin, by its name.
    """

    def __init__(self, ray: ModuleType) -> None:
        self.ray = ray
        self.run = secrets.token_hex(8)
        self.places: Mapping[str, Place] = {}
        self.codes: Mapping[str, PluginCode] = {}
        self._links: set[RayLink] = set()
        self._contents: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._kept: ScratchFolder | None = None
        self._lock = threading.Lock()

    def nodes(self) -> list[NodeResources]:
        """Return the processors and GPUs of each node that is alive."""
        alive = [
            (node.get("Resources", {}), str(node.get("NodeID", ""))) for node in self.ray.nodes() if node.get("Alive")
        ]
        return [NodeResources(float(has.get("CPU", 0.0)), float(has.get("GPU", 0.0)), id) for has, id in alive]

    def place(self, where: str) -> Place:
        """Return what the workers of a plugin get."""
        return self.places[where]

    def hosts(self, launch: WorkerLaunch) -> RayHosts:
        """Return where the workers of a plugin run."""
        return RayHosts(self, launch, self.places[launch.where], self.codes.get(launch.where, PluginCode()))

    # -- workers ---------------------------------------------------------------------------------------------------

    def add(self, link: RayLink) -> None:
        """Count a worker that is started."""
        with self._lock:
            self._links.add(link)

    def remove(self, link: RayLink) -> None:
        """Count a worker no more that has ended."""
        with self._lock:
            self._links.discard(link)

    def has_room(self, cpus: float, gpus: float, besides: RayLink | None = None) -> bool:
        """Return whether the nodes that are alive have enough for a worker beside those that run.

        Args:
            cpus: Processors of the worker.
            gpus: Its GPUs.
            besides: The worker itself, if it is counted already.
        """
        nodes = self.nodes()
        with self._lock:
            others = [link for link in self._links if link is not besides]
        used_cpus, used_gpus = sum(link.cpus for link in others), sum(link.gpus for link in others)
        slack = 1e-6
        if gpus > 1 and not any(node.gpus >= gpus for node in nodes):
            return False  # all GPUs of a worker are on one node
        return (not cpus or used_cpus + cpus <= sum(node.cpus for node in nodes) + slack) and (
            not gpus or used_gpus + gpus <= sum(node.gpus for node in nodes) + slack
        )

    def is_free(self, cpus: float, gpus: float) -> bool:
        """Return whether the nodes have enough for a worker that nobody uses, other programs included."""
        free = self.ray.available_resources()
        enough = free.get("CPU", 0.0) >= cpus and free.get("GPU", 0.0) >= gpus
        return enough and self.has_room(cpus, gpus)

    def others_started(self, link: RayLink) -> bool:
        """Return whether another worker of the same plugin runs."""
        with self._lock:
            return any(each is not link and each.where == link.where and not each.waits_for for each in self._links)

    # -- files -----------------------------------------------------------------------------------------------------

    def content(self, path: str, sha256: str) -> Any:
        """Return a reference to the content of a file in the object store, from which each node fetches it once.

        Args:
            path: Where it is on this machine.
            sha256: Hash of its content.

        Raises:
            OSError: It cannot be read.
        """
        with self._lock:
            if sha256 not in self._contents:
                data = Path(path).read_bytes()
                self._contents[sha256] = (self.ray.put(data), len(data))
                while len(self._contents) > 1 and sum(size for _, size in self._contents.values()) > KEPT_BYTES:
                    self._contents.popitem(last=False)
            self._contents.move_to_end(sha256)
            return self._contents[sha256][0]

    def keep(self, path: str, sha256: str, data: bytes) -> str:
        """Keep a file of a node until the run ends, and return where it is.

        Raises:
            OSError: It cannot be written.
        """
        with self._lock:
            if self._kept is None:
                self._kept = ScratchFolder("knowgen.found.")
            place = self._kept.path / f"{sha256}{Path(path).suffix}"
        write_file(place, data, durable=False)
        return str(place)

    def close(self) -> None:
        """End the workers that are left, and remove the files of nodes."""
        with self._lock:
            left = list(self._links)
            self._contents.clear()
            if self._kept is not None:
                self._kept.close()
        for link in left:
            link.kill()
        for link in left:
            link.join(END_SECONDS)


@contextlib.contextmanager
def connected(address: str) -> Iterator[RayCluster]:
    """Join a cluster, and leave it at the end of the `with` block. One that was started for it ends as well.

    Args:
        address: Host and port; empty for the cluster of this machine, or a new one where there is none.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: The cluster cannot be reached or joined.
    """
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # what is called after the end must not join a cluster again
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a worker without GPUs keeps its environment
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError(
            "the executor ray needs the package 'ray', which is not installed", fix='pip install "knowgen[ray]"'
        ) from error
    joined_here = not ray.is_initialized()
    if joined_here:
        _join(ray, address)
    elif address and address != (joined := ray.get_runtime_context().gcs_address):
        raise ConfigError(f"this process has joined the cluster at {joined} already", fix="call ray.shutdown() first")
    cluster = RayCluster(ray)
    try:
        yield cluster
    finally:
        cluster.close()
        if joined_here:
            with _handlers_kept():
                ray.shutdown()


def _join(ray: ModuleType, address: str) -> None:
    address = address or os.environ.get("RAY_ADDRESS", "")
    if "://" in address:
        fix = "set it to HOST:PORT, and start this command on a node of the cluster"
        raise ConfigError(f"RAY_ADDRESS={address} is an address of Ray's client, which carries no run", fix=fix)
    known = address not in ("", "auto", "local")
    if known:
        _check_reachable(address)
    _keep_quiet()
    options: dict[str, Any] = {} if known else {"include_dashboard": False}
    with _handlers_kept():
        try:
            ray.init(address=address or None, log_to_driver=False, logging_level="ERROR", **options)
        except Exception as error:
            where = f"the cluster at {address}" if known else "a cluster on this machine"
            raise ConfigError(f"{where} cannot be joined: {one_line(error, 300)}") from error


_TRIAL = """
import ray, sys
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
except BaseException as error:
    print(type(error).__name__, *str(error).split())
    raise SystemExit(1)
"""


def _check_reachable(address: str) -> None:
    """Check that a cluster can be joined, in a process that can be ended: Ray itself waits for minutes.

    Raises:
        ConfigError: Nothing answers, or it is not a cluster that can be joined.
    """
    where, fix = f"the cluster at {address}", "start it with `ray start --head`, and check address and firewall"
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError, ValueError) as error:
        raise ConfigError(f"{where} does not answer: {one_line(error)}", fix=fix) from error
    command = [sys.executable, "-P", "-c", _TRIAL, address]
    try:
        trial = subprocess.run(
            command, env=child_environment(), capture_output=True, text=True, timeout=JOIN_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{where} cannot be joined within {JOIN_SECONDS:g} s", fix=fix) from error
    if trial.returncode != 0:
        if "InvalidAuthToken" in trial.stdout + trial.stderr:
            fix = "set RAY_AUTH_MODE=token, and copy ~/.ray/auth_token of its head to this machine"
            raise ConfigError(f"{where} asks for a token that this process does not have", fix=fix)
        reason = one_line((trial.stdout or trial.stderr).strip(), 300)
        raise ConfigError(f"{where} cannot be joined: {reason}")


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Keep this process's handlers of signals, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            if handler is not None:
                signal.signal(number, handler)


def _keep_quiet() -> None:
    """Keep Ray from printing the ends of its processes to standard output, among the results of this program."""
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *args, **kwargs: None
