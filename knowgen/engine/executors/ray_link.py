"""A worker process on a node of a Ray cluster, and the way to it: an actor of Ray that passes messages on.

Messages are plain data. Images that the node lacks are fetched from the object store by the hash of their content;
what a worker made comes back as bytes, and only the run writes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from knowgen.core.errors import ConfigError
from knowgen.core.text import error_summary, one_line
from knowgen.engine.cluster import SMALL_CPU, Place
from knowgen.engine.devices import CPU, Device
from knowgen.engine.executors.links import WorkerLaunch, death_of
from knowgen.engine.executors.node_worker import NodeWorker, PluginCode, installation
from knowgen.engine.executors.output_log import OutputLog
from knowgen.engine.executors.protocol import move_images, pack_error, packed_images
from knowgen.engine.retry import DeviceDisabledError, WorkerDiedError, WorkerLostError
from knowgen.generators.contract import GPU_FAULT_CODE

PLACE_SECONDS = 60.0
"""Seconds that a worker waits for a free processor or GPU while others of its plugin work."""

_POLL_SECONDS = 1.0
_JOIN_SECONDS = 5.0
_END_SECONDS = 1.0
_LOG_SECONDS = 0.5
_AT_ONCE = 6
"""Methods of an actor that may run at once; one of them always waits for a message."""

_SAME_VERSIONS = "install the same versions on every node"

_log = logging.getLogger("knowgen.engine")


class LinkedCluster(Protocol):
    """What a link needs of its cluster; see `ray_cluster.RayCluster`."""

    ray: ModuleType
    run: str

    def add(self, link: RayLink) -> None:
        """Count a worker that is started."""
        ...

    def remove(self, link: RayLink) -> None:
        """Count a worker no more that has ended."""
        ...

    def has_room(self, cpus: float, gpus: float, besides: RayLink | None = None) -> bool:
        """Return whether the nodes have enough for a worker."""
        ...

    def is_free(self, cpus: float, gpus: float) -> bool:
        """Return whether the nodes have enough for a worker that nobody uses, other programs included."""
        ...

    def others_started(self, link: RayLink) -> bool:
        """Return whether another worker of the same plugin runs."""
        ...

    def content(self, path: str, sha256: str) -> Any:
        """Return a reference to the content of a file in the object store."""
        ...

    def keep(self, path: str, sha256: str, data: bytes) -> str:
        """Keep a file of a node until the run ends, and return where it is."""
        ...


class RayHosts:
    """Runs the worker processes of one plugin on the nodes of a cluster.

    Args:
        cluster: The cluster.
        launch: How they are started.
        place: What each gets.
        code: The code of the plugin.
    """

    def __init__(self, cluster: LinkedCluster, launch: WorkerLaunch, place: Place, code: PluginCode) -> None:
        self._cluster, self._launch, self._place, self._code = cluster, launch, place, code
        self._links: dict[int, RayLink] = {}
        self._squeezed: set[int] = set()

    def _needs(self, number: int) -> tuple[float, float]:
        """Return processors and GPUs of a worker; the one for calls that are alone needs no processor of its own."""
        alone = number >= self._launch.workers
        return (SMALL_CPU, self._place.alone_gpus) if alone else (self._place.cpus, self._place.gpus)

    async def device(self, number: int) -> Device:
        """Return a worker's device. Ray shows each worker its own GPUs only, so that the first one is always its own.

        Raises:
            DeviceDisabledError: The cluster has no place for it, such as after the loss of a node, and others go on.
        """
        cpus, gpus = self._needs(number)
        room = await asyncio.to_thread(self._cluster.has_room, cpus, gpus)
        earlier = self._links.get(number)
        crowded_out = earlier is not None and earlier.crowded_out
        if (crowded_out or not room) and self._others_run(number):
            why = f"no node had room within {PLACE_SECONDS:g} s" if crowded_out else "no node has room"
            raise DeviceDisabledError(f"{why} for worker {number}; the others take its work")
        (self._squeezed.discard if room else self._squeezed.add)(number)
        return Device("cuda:0", "") if gpus else CPU

    def _others_run(self, number: int) -> bool:
        """Return whether another worker runs or starts."""
        return any(not link.wait(0) for other, link in self._links.items() if other != number)

    async def room_again(self, number: int) -> None:
        """Wait until there is a place for a worker that had none, such as on a node that has joined."""
        cpus, gpus = self._needs(number)
        while not await asyncio.to_thread(self._cluster.is_free, cpus, gpus):
            await asyncio.sleep(_JOIN_SECONDS)
        self._links.pop(number, None)

    def start(self, number: int, device: Device) -> RayLink:
        """Start a worker. The only one of its plugin shares a processor where none is free."""
        cpus, gpus = self._needs(number)
        if number in self._squeezed:
            cpus = SMALL_CPU
        link = self._links[number] = RayLink(
            self._cluster,
            self._launch,
            number,
            device,
            cpus=cpus,
            gpus=gpus,
            threads=self._place.threads,
            code=self._code,
            node=self._place.node_of(number),
        )
        return link


class RayLink:
    """A worker process on a node. See `links.WorkerLink`.

    Args:
        cluster: The cluster.
        launch: How it is started.
        number: Its number among the workers of the plugin.
        device: Device of its plugin.
        code: The code of its plugin.
        cpus: Processors that it takes.
        gpus: GPUs that it takes.
        threads: Threads of it for libraries that compute.
        node: Id of its node; empty where the cluster may choose. Without that node it may choose too.

    Attributes:
        crowded_out: Whether it was given up because no node had room for it.
        waits_for: What it waits for before it can start; empty once it has started.
    """

    def __init__(
        self,
        cluster: LinkedCluster,
        launch: WorkerLaunch,
        number: int,
        device: Device,
        code: PluginCode,
        *,
        cpus: float,
        gpus: float,
        threads: int,
        node: str = "",
    ) -> None:
        self.cpus, self.gpus, self.where = cpus, gpus, launch.where
        self.crowded_out, self._code = False, code
        needed = f"{gpus:g} free GPUs" if gpus > 1 else f"a free {'GPU' if gpus else 'processor'}"
        self.waits_for = f"it waits for a node with {needed}"
        self._cluster, self._ray = cluster, cluster.ray
        self._started, self._ended = threading.Event(), threading.Event()
        self._received: deque[tuple[dict[str, Any], bytes]] = deque()
        self._node, self._exit_code, self._fault, self._loss = "", None, "", ""
        self._output = OutputLog(launch.log(number))
        self._killer: threading.Thread | None = None
        actor = self._ray.remote(NodeWorker).options(
            num_cpus=cpus,
            num_gpus=gpus,
            max_concurrency=_AT_ONCE,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=self._strategy(node),
        )
        self._actor = actor.remote(cluster.run, str(Path.cwd()), device.name, threads)
        cluster.add(self)

    def _strategy(self, node: str) -> Any:
        """Return how Ray chooses the node of the worker."""
        if not node:
            return "SPREAD"
        return self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=True)

    # -- used by the thread that receives --------------------------------------------------------------------------

    def receive(self) -> tuple[dict[str, Any], bytes] | None:
        """Return the next message of the worker process and its payload; None at the end."""
        try:
            if not self._started.is_set() and (failure := self._begin()) is not None:
                return failure, b""
            while not self._received and not self._ended.is_set():
                self._take(*self._ray.get(self._actor.receive.options(num_returns=2).remote()))
        except self._ray.exceptions.RayError as error:
            self._lose(error)
        return self._received.popleft() if self._received else None

    def _begin(self) -> dict[str, Any] | None:
        """Wait until the worker process has started; return the message of a failure."""
        checking = self._actor.check.remote(self._code)
        since = time.monotonic()
        while not self._ray.wait([checking], timeout=_POLL_SECONDS)[0]:
            if self._ended.is_set():
                return None
            late = time.monotonic() - since > PLACE_SECONDS
            if self._cluster.others_started(self) and (
                late or not self._cluster.has_room(self.cpus, self.gpus, besides=self)
            ):
                self.crowded_out = late
                self._give_up("no node has room for it")
                return None
        try:
            node = self._ray.get(checking)
            self._node = str(node["host"])
            if differ := _differences(node["installation"], installation(self._code)):
                return self._build_failure(f"node {self._node} has {differ}", _SAME_VERSIONS)
            for source in self._code.files:
                if source.sha256 in node["missing"]:
                    self._give(source.path, source.sha256)
            self._ray.get(self._actor.start.remote(self._code))
        except self._ray.exceptions.RayTaskError as error:
            return self._start_failure(error)
        self.waits_for = ""
        self._started.set()
        return None

    def _give(self, path: str, sha256: str) -> None:
        """Send a file to the node."""
        self._ray.get(self._actor.give.remote(path, sha256, self._cluster.content(path, sha256)))

    def _start_failure(self, error: Any) -> dict[str, Any]:
        place = f"on node {self._node}" if self._node else "on a node"
        text = str(error.cause)
        if "failed to import" in text:
            reason = one_line(text.strip().splitlines()[-1], 200)
            return self._build_failure(f"knowgen cannot be imported {place}: {reason}", _SAME_VERSIONS)
        return self._build_failure(f"cannot be started {place}: {one_line(text, 300)}")

    def _build_failure(self, what: str, fix: str = "") -> dict[str, Any]:
        self._started.set()
        return {"event": "build_failed", "error": pack_error(ConfigError(what, where=self.where, fix=fix))}

    def _take(self, messages: list[dict[str, Any]], payloads: bytes) -> None:
        start = 0
        for message in messages:
            length = message.pop("payload")
            payload = payloads if len(payloads) == length else payloads[start : start + length]
            start += length
            if message["event"] == "output":
                with contextlib.suppress(OSError):  # the log cannot be written, such as on a full disk
                    os.write(self._output.writer, payload)
            elif message["event"] == "exit":
                self._exit_code, self._fault = message["code"], message["fault"]
                self._ended.set()
            else:
                if message["event"] == "build_failed" and "where" in message["error"]:
                    message["error"]["where"] += f" on node {self._node}"
                if "answered" in message:
                    self._fetch_found(message["answered"])
                self._received.append((message, payload))

    def _fetch_found(self, answer: dict[str, Any]) -> None:
        """Bring the images of an agent's answer to this machine, unless it has them at the same place."""
        moved = {}
        for path, sha256 in packed_images(answer):
            if path in moved or _has(path, sha256):
                continue
            try:
                data: bytes = self._ray.get(self._actor.read.remote(path))
            except self._ray.exceptions.RayTaskError:
                continue  # it is missing there too, which the run then records
            moved[path] = self._cluster.keep(path, sha256, data)
        move_images(answer, moved)

    def _lose(self, error: Exception) -> None:
        self._give_up(error_summary(error, 160).partition("\n")[0])

    def _give_up(self, reason: str) -> None:
        """End the connection to a worker that cannot be reached."""
        if not self._ended.is_set():
            self._loss = reason
            if self._node:
                _log.warning("%s: a worker on node %s was lost (%s)", self.where, self._node, reason)
            self._ended.set()
        self._started.set()
        self.kill()

    # -- used by the thread that sends -----------------------------------------------------------------------------

    def send(self, message: dict[str, Any]) -> None:
        """Send a message, and the images that its node lacks.

        Raises:
            OSError: The worker cannot be reached.
        """
        self._started.wait()
        if self._ended.is_set():
            raise ConnectionError("the worker has ended")
        try:
            if missing := self._ray.get(self._actor.send.remote(message)):
                paths = {sha256: path for one in message["batch"] for path, sha256 in packed_images(one)}
                for sha256 in missing:
                    self._give_image(paths[sha256], sha256)
                self._ray.get(self._actor.send.remote(message, True))
        except self._ray.exceptions.RayError as error:
            self._lose(error)
            raise ConnectionError(str(error)) from error

    def _give_image(self, path: str, sha256: str) -> None:
        """Send an image. One that is gone here or has changed is missing there too, where the plugin opens it."""
        try:
            self._give(path, sha256)
        except (OSError, self._ray.exceptions.RayTaskError) as error:
            _log.warning("%s: the image %s cannot be sent: %s", self.where, path, error_summary(error, 160))

    # -- used by any thread ----------------------------------------------------------------------------------------

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end of the worker."""
        return self._ended.wait(seconds)

    def kill(self) -> None:
        """Kill the worker process and those that it started, and end its actor."""
        self._ended.set()
        self._started.set()
        if self._killer is None:
            self._killer = threading.Thread(target=self._kill, name="knowgen end of a worker", daemon=True)
            self._killer.start()

    def _kill(self) -> None:
        try:
            self._ray.wait([self._actor.end.remote()], timeout=_END_SECONDS)
            self._ray.kill(self._actor, no_restart=True)
        except Exception as error:  # noqa: BLE001 - the cluster may be gone
            _log.debug("%s: its worker cannot be ended: %s", self.where, error)
        self._cluster.remove(self)

    def join(self, seconds: float) -> None:
        """Wait until `kill` is done, at most for some seconds."""
        if self._killer is not None:
            self._killer.join(seconds)

    def close(self) -> None:
        """End the actor of a worker process that has ended."""
        os.close(self._output.writer)
        self._output.wait(_LOG_SECONDS)
        self.kill()

    def death(self, who: str, fault: str, log: Path) -> WorkerDiedError:
        """Return the error for the end of the worker."""
        if self._loss:
            place = f" on node {self._node}" if self._node else ""
            return WorkerLostError(f"{who}{place} was lost: {self._loss}", machine_name=self._node)
        return death_of(who, self._exit_code, fault or self._fault, log)

    @property
    def device_failed(self) -> bool:
        """Return whether the worker process ended because its device failed."""
        return self._exit_code == GPU_FAULT_CODE


def _has(path: str, sha256: str) -> bool:
    """Return whether this machine has a file with a content."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() == sha256
    except OSError:
        return False


def _differences(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Return which versions of a node differ from those of this machine; empty if none does."""
    return "; ".join(f"{name} {there[name]}, and this one {here[name]}" for name in here if here[name] != there[name])
