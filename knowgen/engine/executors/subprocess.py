"""Run plugins in worker processes: start them when needed, kill those that hang, replace those that die.

`SubprocessExecutor` has one `WorkerProcess` per slot. Each runs `worker_main` and exchanges messages (`protocol`) over
its standard streams; images are handed over as files.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from knowgen.core.errors import ConfigError
from knowgen.core.metering import Meter
from knowgen.core.records import Score, Usage
from knowgen.engine.components import ComponentRef
from knowgen.engine.devices import CPU, Device, worker_devices
from knowgen.engine.executors.concurrency import END, Invocation, InvocationEvent, LoopBridge, WorkerThreads
from knowgen.engine.executors.in_process import CLOSE_SECONDS, ExecutorSlot, TimeoutOutcome
from knowgen.engine.executors.protocol import from_line, pack_batch, pack_error, to_line, unpack_error
from knowgen.engine.imaging import ScratchFile
from knowgen.engine.retry import DeviceDisabledError, WorkerDiedError
from knowgen.generators.contract import GPU_FAULT_CODE, GeneratedImage

SCRATCH = "scratch"

MAX_START_ATTEMPTS = 3
"""Times a worker may die while it builds its plugin."""

MAX_DEVICE_FAILURES = 3
"""Times a worker may end with `GPU_FAULT_CODE`; after that its device is disabled."""

_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "KNOWGEN_THREADS")


@dataclass(frozen=True)
class WorkerLaunch:
    """How the workers of one plugin are started.

    Attributes:
        component_ref: What the plugin is built from.
        shape: Name of the method that is called.
        where: Name of the plugin, for messages.
        folder: The run directory.
        workers: Number of workers.
        accelerated: Whether they use an accelerator if there is one.
    """

    component_ref: ComponentRef
    shape: str
    where: str
    folder: Path
    workers: int
    accelerated: bool

    @property
    def scratch(self) -> Path:
        """Return the folder for images that workers and the run exchange."""
        return self.folder / SCRATCH

    def log(self, slot: int) -> Path:
        """Return the log file of a worker."""
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", self.component_ref.name).strip("-")
        return self.folder / "logs" / f"{self.component_ref.kind}-{name}-{slot}.log"


class WorkerProcess:
    """One worker process.

    Args:
        launch: How it is started.
        slot: Number of its slot.
        device: Device of its plugin.
        bridge: Bridge into the engine's event loop.
        meter: Meter of its paid calls.

    Attributes:
        ready: Resolves when the plugin is built, or fails with the error.
        dead: Whether the process has ended.
        log: Its log file.
    """

    def __init__(self, launch: WorkerLaunch, slot: int, device: Device, bridge: LoopBridge, meter: Meter) -> None:
        self._launch, self._bridge, self._meter = launch, bridge, meter
        self._invocation: Invocation[Any] | None = None
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self.ready: asyncio.Future[None] = bridge.loop.create_future()
        self.dead = False
        self.log = launch.log(slot)
        self._process = self._start(device)
        self._send(self._build_message(device))
        for target in (self._read, self._write):
            threading.Thread(target=target, name=f"knowgen worker {slot}", daemon=True).start()

    def _start(self, device: Device) -> subprocess.Popen[bytes]:
        self.log.parent.mkdir(exist_ok=True)
        self._launch.scratch.mkdir(exist_ok=True)
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)  # a worker imports what this process can import
        environment["KNOWGEN_DEVICE"] = device.name
        if device.visible:
            environment["CUDA_VISIBLE_DEVICES"] = device.visible
        for name in _THREAD_LIMITS:
            environment.setdefault(name, str(max(1, (os.cpu_count() or 1) // self._launch.workers)))
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "knowgen.engine.executors.worker_main"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the run only, which then ends its workers
            )

    def _build_message(self, device: Device) -> dict[str, Any]:
        component_ref = self._launch.component_ref
        return {
            "do": "build",
            "kind": component_ref.kind,
            "name": component_ref.name,
            "args": dict(component_ref.args),
            "device": device.name,
            "shape": self._launch.shape,
            "where": self._launch.where,
            "scratch": str(self._launch.scratch.absolute()),
        }

    def start(self, invocation: Invocation[Any]) -> None:
        """Start an invocation."""
        self._invocation = invocation
        self._send({"do": "invoke", "batch": pack_batch(invocation.batch)})
        if self.dead:  # it died before the invocation was set, so its exit was not reported
            self._report_death(invocation)

    def close(self) -> None:
        """Ask the process to close its plugin and end."""
        self._send({"do": "close"})

    def kill(self) -> None:
        """Kill the process and its child processes."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # it has ended already

    @property
    def device_failed(self) -> bool:
        """Return whether the process ended because its device failed."""
        return self.dead and self._process.returncode == GPU_FAULT_CODE

    @property
    def running(self) -> bool:
        """Return whether the process is running."""
        return self._process.poll() is None

    def _send(self, message: dict[str, Any]) -> None:
        self._lines.put(to_line(message))

    def _write(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        while (line := self._lines.get()) is not None:
            try:
                pipe.write(line)
                pipe.flush()
            except OSError:
                break  # the process has ended; the reading thread reports it
        try:
            pipe.close()
        except OSError:
            return  # a buffered line cannot be written to a process that has ended

    def _read(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        with pipe:
            for line in pipe:
                try:
                    self._on_message(from_line(line))
                except (ValueError, KeyError):  # cut off when the process died, or not a message
                    self.kill()
                    break
        self._process.wait()
        self._lines.put(None)
        self._bridge.post(self._on_exit)

    def _on_message(self, message: dict[str, Any]) -> None:
        """Handle a message, in the reading thread."""
        event = message["event"]
        if event == "ready":
            self._bridge.post(_settle, self.ready, None)
        elif event == "build_failed":
            self._bridge.post(_settle, self.ready, unpack_error(message["error"]))
        elif event == "reserve":
            self._reply(message, self._meter.reserve(message["worst"], message["who"]))
        elif event == "settle":
            self._reply(message, self._meter.settle(message["number"], message["cost"]))
        elif self._invocation is not None:
            self._invocation.emit(self._event(message))

    def _event(self, message: dict[str, Any]) -> InvocationEvent:
        if message["event"] == "end":
            return END
        if message["event"] == "waiting":
            return InvocationEvent("waiting", "", message["waits"])
        if message["event"] == "checked":
            return InvocationEvent("result", message["id"])
        if message["event"] == "error":
            return InvocationEvent("error", message["id"], unpack_error(message["error"]))
        if "score" in message:
            return InvocationEvent("result", message["id"], Score.model_validate(message["score"]))
        fields = dict(message["generated"])
        file = fields.pop("file", None)
        fields["usage"] = Usage.model_validate(fields["usage"])
        # the writer's threads read this private kind of image; plugins never see it
        image: Any = ScratchFile(self._launch.scratch / file[0], *file[1:]) if file else None
        return InvocationEvent("result", message["id"], GeneratedImage(image=image, **fields))

    def _reply(self, message: dict[str, Any], operation: Any) -> None:
        """Run an operation of the meter in the loop and send its result to the worker."""

        def done(future: Any) -> None:
            error = future.exception()
            if error is not None:
                self._send({"do": "reply", "n": message["n"], "error": pack_error(error)})
            else:
                self._send({"do": "reply", "n": message["n"], "number": future.result()})

        asyncio.run_coroutine_threadsafe(operation, self._bridge.loop).add_done_callback(done)

    def _on_exit(self) -> None:
        """Report that the process has ended, in the loop."""
        self.dead = True
        _settle(self.ready, self._death(f"the worker process of {self._launch.where}"))
        if self._invocation is not None:
            self._report_death(self._invocation)

    def _report_death(self, invocation: Invocation[Any]) -> None:
        if not invocation.closed:
            invocation.deliver(InvocationEvent("error", "", self._death("the worker process")))
            invocation.deliver(END)
            invocation.closed = True

    def _death(self, who: str) -> WorkerDiedError:
        """Return the error for the end of the process. A device that failed and a kill are faults of the machine."""
        killed = self._process.returncode in (-signal.SIGKILL, -signal.SIGTERM)
        return WorkerDiedError(f"{who} {self._exit_text()}", machine=killed or self.device_failed)

    def _exit_text(self) -> str:
        code = self._process.returncode
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}; see logs/{self.log.name}"
        return f"ended with code {code}; see logs/{self.log.name}"


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        future.exception()  # mark it as retrieved: nothing may be waiting for it


def _device_name(device: Device) -> str:
    return f"GPU {device.visible}" if device.visible else device.name


class SubprocessExecutor:
    """Runs a plugin in worker processes, one per slot; each starts when there is work for it.

    Args:
        launch: How they are started.
        bridge: Bridge into the engine's event loop.
        meter: Meter of their paid calls.
    """

    def __init__(self, launch: WorkerLaunch, bridge: LoopBridge, meter: Meter) -> None:
        self._launch, self._bridge, self._meter = launch, bridge, meter
        self._workers: dict[int, WorkerProcess] = {}
        self._device_failures: Counter[int] = Counter()
        self._devices: asyncio.Future[list[Device]] | None = None

    async def _device(self, slot: int) -> Device:
        """Return a slot's device. Looking for devices may take seconds, so it is done once, in a thread."""
        if not self._launch.accelerated:
            return CPU
        if self._devices is None:
            threads = WorkerThreads(self._bridge, 1, "devices")
            self._devices = threads.run(worker_devices, self._launch.workers)
            threads.close()
        return (await asyncio.shield(self._devices))[slot]

    async def ready_slot(self, slot: int) -> ExecutorSlot:
        """Return the slot's worker, started again if it has died.

        Raises:
            KnowgenError: The plugin cannot be built in it.
            ConfigError: The process died repeatedly while building the plugin.
            DeviceDisabledError: The slot's device failed too often.
        """
        device = await self._device(slot)
        for _ in range(MAX_START_ATTEMPTS):
            worker = self._workers.get(slot)
            if worker is None or worker.dead:
                self._count_device_failure(slot, device, worker)
                worker = self._workers[slot] = self._start(slot, device)
            try:
                await asyncio.shield(worker.ready)
            except WorkerDiedError as error:
                last = error
                continue
            return worker
        self._count_device_failure(slot, device, self._workers.get(slot))
        raise ConfigError(f"cannot be built in a worker process: {last}", where=self._launch.where)

    def _count_device_failure(self, slot: int, device: Device, worker: WorkerProcess | None) -> None:
        """Count a worker that ended because its device failed.

        Raises:
            DeviceDisabledError: The device failed too often.
        """
        if worker is None or not worker.device_failed:
            return
        self._device_failures[slot] += 1
        if self._device_failures[slot] >= MAX_DEVICE_FAILURES:
            raise DeviceDisabledError(
                f"{_device_name(device)} failed {self._device_failures[slot]} times and is disabled"
            )

    def _start(self, slot: int, device: Device) -> WorkerProcess:
        try:
            return WorkerProcess(self._launch, slot, device, self._bridge, self._meter)
        except OSError as error:
            raise ConfigError(f"cannot start a worker process: {error}", where=self._launch.where) from error

    async def abandon(self, slot: int, invocation: Invocation[Any]) -> TimeoutOutcome:
        """Kill the slot's process; nothing is left behind."""
        invocation.closed = True
        worker = self._workers.pop(slot, None)
        if worker is not None:
            worker.kill()
        return TimeoutOutcome(left_behind=False)

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

    def join(self, seconds: float) -> None:
        """Do nothing: the processes are gone with their connections."""
