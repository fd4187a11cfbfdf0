"""Run a plugin in worker processes: start them when needed, kill those that hang, replace those that die.

Where they run is decided by `WorkerHosts`: on this machine (`LocalHosts`), or on the nodes of a cluster.

A worker takes one call at a time, or several if the plugin is made for that. When such a worker dies or hangs, it is
not known which of its calls is to blame, so that each of them is repeated alone, in a process of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from knowgen.core.errors import ConfigError
from knowgen.core.metering import Meter
from knowgen.engine.devices import CPU, Device, worker_devices
from knowgen.engine.executors.concurrency import END, Invocation, InvocationEvent, LoopBridge, WorkerThreads
from knowgen.engine.executors.in_process import CLOSE_SECONDS, ExecutorSlot, TimeoutOutcome
from knowgen.engine.executors.invoke import COROUTINES
from knowgen.engine.executors.links import LocalLink, WorkerLaunch, WorkerLink
from knowgen.engine.executors.worker_process import OnDeath, WorkerProcess
from knowgen.engine.retry import DeviceDisabledError, EventLoopBlockedError, WorkerDiedError, WorkerLostError

MAX_START_ATTEMPTS = 3
"""Times a worker may die while it builds its plugin."""

MAX_DEVICE_FAILURES = 3
"""Times a worker may end with `GPU_FAULT_CODE`; after that its device is disabled."""


def _device_name(device: Device) -> str:
    return f"GPU {device.visible}" if device.visible else device.name


class WorkerHosts(Protocol):
    """Where the worker processes of one plugin run."""

    async def device(self, number: int) -> Device:
        """Return the device of a worker.

        Raises:
            DeviceDisabledError: It has no place.
        """
        ...

    def start(self, number: int, device: Device) -> WorkerLink:
        """Start a worker.

        Raises:
            OSError: It cannot be started.
        """
        ...

    async def room_again(self, number: int) -> None:
        """Wait until there is a place for a worker that had none; for ever where that cannot be."""
        ...


class LocalHosts:
    """Runs the worker processes of one plugin on this machine.

    Args:
        launch: How they are started.
        bridge: Bridge into the engine's event loop.
    """

    def __init__(self, launch: WorkerLaunch, bridge: LoopBridge) -> None:
        self._launch, self._bridge = launch, bridge
        self._devices: asyncio.Future[list[Device]] | None = None

    async def device(self, number: int) -> Device:
        """Return a worker's device. Looking for devices may take seconds, so it is done once, in a thread."""
        if not self._launch.accelerated:
            return CPU
        if self._devices is None:
            threads = WorkerThreads(self._bridge, 1, "devices")
            self._devices = threads.run(self._assigned)
            threads.close()
        return (await asyncio.shield(self._devices))[number % self._launch.workers]

    def _assigned(self) -> list[Device]:
        launch = self._launch
        return worker_devices(launch.workers, launch.gpus, emptiest=launch.emptiest)

    def start(self, number: int, device: Device) -> WorkerLink:
        """Start a worker."""
        return LocalLink(self._launch, number, device)

    async def room_again(self, number: int) -> None:
        """Wait for ever: a device that failed too often is not used again."""
        await asyncio.Event().wait()


class WorkerPool:
    """The worker processes of one plugin, by number; each starts when there is work for it.

    Args:
        launch: How they are started.
        hosts: Where they run.
        bridge: Bridge into the engine's event loop.
        meter: Meter of their paid calls.
        on_death: Called in the loop with the calls that were open when a process ended, and the error.
    """

    def __init__(
        self,
        launch: WorkerLaunch,
        hosts: WorkerHosts,
        bridge: LoopBridge,
        meter: Meter,
        on_death: OnDeath,
    ) -> None:
        self._launch, self._hosts, self._bridge, self._meter = launch, hosts, bridge, meter
        self._on_death = on_death
        self._workers: dict[int, WorkerProcess] = {}
        self._device_failures: Counter[int] = Counter()

    async def ready(self, number: int) -> WorkerProcess:
        """Return a worker whose plugin is built, started again if it has died.

        Raises:
            KnowgenError: The plugin cannot be built in it, or not in time.
            ConfigError: The process died repeatedly while building the plugin.
            DeviceDisabledError: The worker's device failed too often.
        """
        last: WorkerDiedError | None = None
        for _ in range(MAX_START_ATTEMPTS):
            worker = await self._running(number)
            try:
                await asyncio.shield(worker.ready)
            except WorkerDiedError as error:
                last = error
                continue
            return worker
        self._count_device_failure(number)
        raise ConfigError(f"cannot be built in a worker process: {last}", where=self._launch.where)

    async def _running(self, number: int) -> WorkerProcess:
        """Return a worker that is running; start it if it is not."""
        worker = self._workers.get(number)
        if worker is None or worker.dead:
            device = await self._hosts.device(number)
            worker = self._workers.get(number)  # another call may have been quicker
            if worker is None or worker.dead:
                self._count_device_failure(number)
                worker = self._workers[number] = self._start(number, device)
        return worker

    def _count_device_failure(self, number: int) -> None:
        """Count a worker that ended because its device failed.

        Raises:
            DeviceDisabledError: The device failed too often.
        """
        worker = self._workers.get(number)
        if worker is None or not worker.device_failed:
            return
        self._device_failures[number] += 1
        if self._device_failures[number] >= MAX_DEVICE_FAILURES:
            raise DeviceDisabledError(
                f"{_device_name(worker.device)} failed {self._device_failures[number]} times and is disabled"
            )

    def _start(self, number: int, device: Device) -> WorkerProcess:
        try:
            link = self._hosts.start(number, device)
        except OSError as error:
            raise ConfigError(f"cannot start a worker process: {error}", where=self._launch.where) from error
        return WorkerProcess(self._launch, number, device, link, self._bridge, self._meter, self._on_death)

    async def room_again(self, number: int) -> None:
        """Wait until there is a place for a worker that had none; for ever where its device failed too often."""
        if self._device_failures[number] >= MAX_DEVICE_FAILURES:
            await asyncio.Event().wait()
        await self._hosts.room_again(number)

    def remove(self, worker: WorkerProcess) -> None:
        """Kill a worker; the next call that needs it starts another one."""
        for number, known in list(self._workers.items()):
            if known is worker:
                del self._workers[number]
        worker.kill()

    async def close(self) -> None:
        """Ask the processes to close their plugins and end; kill those that do not."""
        for worker in self._workers.values():
            worker.close()
        deadline = self._bridge.loop.time() + CLOSE_SECONDS
        while self._bridge.loop.time() < deadline and any(worker.running for worker in self._workers.values()):
            await asyncio.sleep(0.01)
        self.kill()

    def kill(self) -> None:
        """Kill the processes."""
        for worker in self._workers.values():
            worker.kill()
        self._workers.clear()


class SubprocessExecutor:
    """Runs a plugin in worker processes.

    Args:
        launch: How they are started, and how many calls each takes at once.
        bridge: Bridge into the engine's event loop.
        meter: Meter of their paid calls.
        hosts: Where they run; on this machine when None.
    """

    def __init__(
        self, launch: WorkerLaunch, bridge: LoopBridge, meter: Meter, hosts: WorkerHosts | None = None
    ) -> None:
        self._launch, self._hosts = launch, hosts or LocalHosts(launch, bridge)
        self._pool = WorkerPool(launch, self._hosts, bridge, meter, self._on_death)
        self._suspects: set[str] = set()
        self._lost: set[str] = set()
        self._alone = asyncio.Lock()

    async def ready_slot(self, slot: int, batch: Sequence[Any] = ()) -> ExecutorSlot:
        """Return the worker of a slot, or the worker for calls that must be alone; errors as for `WorkerPool.ready`."""
        if self._suspects.isdisjoint(map(payload_id, batch)):
            return await self._pool.ready(slot % self._launch.workers)
        await self._alone.acquire()
        try:
            return _AloneSlot(await self._pool.ready(self._launch.workers), self._alone)
        except BaseException:
            self._alone.release()
            raise

    async def room_again(self, slot: int) -> None:
        """Wait until a slot that had no place has one again; for ever where its device failed too often."""
        await self._pool.room_again(slot % self._launch.workers)

    async def abandon(self, slot: int, invocation: Invocation[Any]) -> TimeoutOutcome:
        """Cancel a call of a coroutine. If that is not possible, kill its process; nothing is left behind."""
        invocation.closed = True
        worker: WorkerProcess = invocation.slot
        try:
            cancelled = self._launch.shape in COROUTINES and await worker.cancel(invocation)
            if cancelled and invocation not in worker.hanging:
                return TimeoutOutcome(left_behind=False)
            if not worker.hanging:
                self._end_hanging(worker)
            return TimeoutOutcome(left_behind=False, blocked_by_other=len(worker.hanging) > 1)
        finally:
            if invocation.on_finished is not None:
                invocation.on_finished(invocation)

    def drop(self, slot: int, invocation: Invocation[Any]) -> None:
        """Have a call dropped by its process, if it waits there."""
        worker: WorkerProcess = invocation.slot
        worker.drop(invocation)

    def _end_hanging(self, worker: WorkerProcess) -> None:
        """Kill a worker that hangs; its other calls fail with an error that is retried."""
        worker.hanging = worker.open_calls
        self._suspect(worker.hanging)
        self._pool.remove(worker)
        error = EventLoopBlockedError(f"another call may have blocked the worker process of {self._launch.where}")
        for other in worker.hanging:
            if not other.closed:
                other.deliver(InvocationEvent("error", "", error))
                other.deliver(END)
                other.closed = True

    def _on_death(self, invocations: Sequence[Invocation[Any]], error: WorkerDiedError) -> None:
        """Suspect the calls that were open when a process died.

        Where a process was lost with its machine they are suspect only from the second time on.
        """
        if not isinstance(error, WorkerLostError):
            self._suspect(invocations)
            return
        again = [each for each in invocations if self._lost.intersection(map(payload_id, each.batch))]
        self._lost.update(payload_id(payload) for each in invocations for payload in each.batch)
        self._suspect(again)

    def _suspect(self, invocations: Sequence[Invocation[Any]]) -> None:
        """Have calls repeated alone that were open together when their process died or hung."""
        if self._launch.concurrency > 1:
            self._suspects.update(payload_id(payload) for invocation in invocations for payload in invocation.batch)

    async def close(self) -> None:
        """Ask the processes to close their plugins and end; kill those that do not."""
        await self._pool.close()

    def kill(self) -> None:
        """Kill the processes."""
        self._pool.kill()

    def join(self, seconds: float) -> None:
        """Do nothing: the processes are gone with their connections."""


class _AloneSlot:
    """The worker in which one call runs alone; the next such call waits until it has ended."""

    def __init__(self, worker: WorkerProcess, lock: asyncio.Lock) -> None:
        self._worker, self._lock = worker, lock
        self._held = True

    def start(self, invocation: Invocation[Any]) -> None:
        """Start a call."""
        invocation.on_finished = self._release
        self._worker.start(invocation)

    def _release(self, invocation: Invocation[Any]) -> None:
        if self._held:
            self._held = False
            self._lock.release()


def payload_id(payload: Any) -> str:
    """Return the identity of a request or of an item of a scorer."""
    if isinstance(payload, tuple):
        sample, _, generation, *judge_repeat = payload
        return f"{sample.id}\0{generation.repeat}\0{judge_repeat}"
    return str(payload.id)
