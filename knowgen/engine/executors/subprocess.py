"""Worker processes as the run sees them: started when needed, killed when they hang, replaced when they die."""

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

BIRTHS = 3
"""So often a worker may die while it builds its plugin."""

DEVICE_DEATHS = 3
"""So often a worker may die of its device; then the device is retired."""

_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "KNOWGEN_THREADS")


@dataclass(frozen=True)
class WorkerLaunch:
    """How the workers of one plugin are started.

    Attributes:
        remake: From what they make it.
        shape: Which of its methods they call.
        where: Names it in errors.
        folder: The run directory.
        workers: How many there may be.
        accelerated: Do they compute on an accelerator, where there is one?
    """

    remake: ComponentRef
    shape: str
    where: str
    folder: Path
    workers: int
    accelerated: bool

    @property
    def scratch(self) -> Path:
        """Returns the folder in which pictures are handed over."""
        return self.folder / SCRATCH

    def log(self, slot: int) -> Path:
        """Returns the file that takes what a worker prints."""
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", self.remake.name).strip("-")
        return self.folder / "logs" / f"{self.remake.kind}-{name}-{slot}.log"


class WorkerProcess:
    """One worker process.

    Args:
        recipe: How it is started.
        slot: Its number.
        device: Where its plugin computes.
        mailbox: Of the engine's loop.
        meter: For its paid calls.
    """

    def __init__(self, recipe: WorkerLaunch, slot: int, device: Device, mailbox: LoopBridge, meter: Meter) -> None:
        self._recipe, self._mailbox, self._meter = recipe, mailbox, meter
        self._call: Invocation[Any] | None = None
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self.ready: asyncio.Future[None] = mailbox.loop.create_future()
        self.dead = False
        self.log = recipe.log(slot)
        self._process = self._start(device)
        self._send(self._greeting(device))
        for target in (self._read, self._write):
            threading.Thread(target=target, name=f"knowgen worker {slot}", daemon=True).start()

    def _start(self, device: Device) -> subprocess.Popen[bytes]:
        self.log.parent.mkdir(exist_ok=True)
        self._recipe.scratch.mkdir(exist_ok=True)
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)  # a worker finds what this process finds
        environment["KNOWGEN_DEVICE"] = device.name
        if device.visible:
            environment["CUDA_VISIBLE_DEVICES"] = device.visible
        for name in _THREAD_LIMITS:
            environment.setdefault(name, str(max(1, (os.cpu_count() or 1) // self._recipe.workers)))
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "knowgen.engine.executors.worker_main"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the run alone, which then ends its workers in order
            )

    def _greeting(self, device: Device) -> dict[str, Any]:
        remake = self._recipe.remake
        return {
            "do": "make",
            "kind": remake.kind,
            "name": remake.name,
            "args": dict(remake.args),
            "device": device.name,
            "shape": self._recipe.shape,
            "where": self._recipe.where,
            "scratch": str(self._recipe.scratch.absolute()),
        }

    def start(self, call: Invocation[Any]) -> None:
        """Begins a call."""
        self._call = call
        self._send({"do": "call", "batch": pack_batch(call.batch)})
        if self.dead:  # it died just now, and its end was told to nobody
            self._lost(call)

    def close(self) -> None:
        """Asks the process to close its plugin and end."""
        self._send({"do": "close"})

    def kill(self) -> None:
        """Kills the process and whatever it started."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # it is gone already

    @property
    def died_of_device(self) -> bool:
        """Tells whether the process ended because its device failed."""
        return self.dead and self._process.returncode == GPU_FAULT_CODE

    @property
    def running(self) -> bool:
        """Tells whether the process is still there."""
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
                break  # the process is gone; the reading thread tells of it
        try:
            pipe.close()
        except OSError:
            return  # a line that was left in the buffer cannot be written to a process that is gone

    def _read(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        with pipe:
            for line in pipe:
                try:
                    self._take(from_line(line))
                except (ValueError, KeyError):  # cut short when the process died, or not in our tongue
                    self.kill()
                    break
        self._process.wait()
        self._lines.put(None)
        self._mailbox.post(self._gone)

    def _take(self, message: dict[str, Any]) -> None:
        """Understands a message; in the reading thread."""
        event = message["event"]
        if event == "ready":
            self._mailbox.post(_settle, self.ready, None)
        elif event == "broken":
            self._mailbox.post(_settle, self.ready, unpack_error(message["error"]))
        elif event == "reserve":
            self._reply(message, self._meter.reserve(message["worst"], message["who"]))
        elif event == "settle":
            self._reply(message, self._meter.settle(message["number"], message["cost"]))
        elif self._call is not None:
            self._call.emit(self._event(message))

    def _event(self, message: dict[str, Any]) -> InvocationEvent:
        if message["event"] == "end":
            return END
        if message["event"] == "fault":
            return InvocationEvent("fault", message["id"], unpack_error(message["error"]))
        if "score" in message:
            return InvocationEvent("answer", message["id"], Score.model_validate(message["score"]))
        fields = dict(message["drawing"])
        picture = fields.pop("picture", None)
        fields["usage"] = Usage.model_validate(fields["usage"])
        # the finishing threads know this private kind of picture; plugins never see it
        image: Any = ScratchFile(self._recipe.scratch / picture[0], *picture[1:]) if picture else None
        return InvocationEvent("answer", message["id"], GeneratedImage(image=image, **fields))

    def _reply(self, message: dict[str, Any], asked: Any) -> None:
        def done(answer: Any) -> None:
            error = answer.exception()
            if error is not None:
                self._send({"do": "answer", "n": message["n"], "error": pack_error(error)})
            else:
                self._send({"do": "answer", "n": message["n"], "number": answer.result()})

        asyncio.run_coroutine_threadsafe(asked, self._mailbox.loop).add_done_callback(done)

    def _gone(self) -> None:
        """Tells whoever waits that the process has ended; in the loop."""
        self.dead = True
        _settle(self.ready, WorkerDiedError(f"the worker process of {self._recipe.where} {self._how()}"))
        if self._call is not None:
            self._lost(self._call)

    def _lost(self, call: Invocation[Any]) -> None:
        if not call.closed:
            call.arrive(InvocationEvent("fault", "", WorkerDiedError(f"the worker process {self._how()}")))
            call.arrive(END)
            call.closed = True

    def _how(self) -> str:
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
        future.exception()  # seen: nobody may be waiting any more


def _shown(device: Device) -> str:
    return f"GPU {device.visible}" if device.visible else device.name


class SubprocessExecutor:
    """The worker processes of one plugin, one a slot; each starts when there is work for it.

    Args:
        recipe: How they are started.
        mailbox: Of the engine's loop.
        meter: For their paid calls.
    """

    def __init__(self, recipe: WorkerLaunch, mailbox: LoopBridge, meter: Meter) -> None:
        self._recipe, self._mailbox, self._meter = recipe, mailbox, meter
        self._workers: dict[int, WorkerProcess] = {}
        self._device_deaths: Counter[int] = Counter()
        self._devices: asyncio.Future[list[Device]] | None = None

    async def _device(self, slot: int) -> Device:
        """Returns a slot's device; looking for devices may take seconds, so a thread does it, once."""
        if not self._recipe.accelerated:
            return CPU
        if self._devices is None:
            lane = WorkerThreads(self._mailbox, 1, "devices")
            self._devices = lane.call(worker_devices, self._recipe.workers)
            lane.close()
        return (await asyncio.shield(self._devices))[slot]

    async def host(self, slot: int) -> ExecutorSlot:
        """Returns the slot's worker, started anew when it has died.

        Raises:
            KnowgenError: The plugin cannot be made there.
            ConfigError: The process died again and again while making it.
            DeviceDisabledError: The slot's device failed too often.
        """
        device = await self._device(slot)
        for _ in range(BIRTHS):
            worker = self._workers.get(slot)
            if worker is None or worker.dead:
                self._mourn(slot, device, worker)
                worker = self._workers[slot] = self._start(slot, device)
            try:
                await asyncio.shield(worker.ready)
            except WorkerDiedError as error:
                last = error
                continue
            return worker
        self._mourn(slot, device, self._workers.get(slot))
        raise ConfigError(f"cannot be made in a worker process: {last}", where=self._recipe.where)

    def _mourn(self, slot: int, device: Device, worker: WorkerProcess | None) -> None:
        """Counts a worker that died of its device, and retires a device of which too many have died."""
        if worker is None or not worker.died_of_device:
            return
        self._device_deaths[slot] += 1
        if self._device_deaths[slot] >= DEVICE_DEATHS:
            raise DeviceDisabledError(f"{_shown(device)} failed {self._device_deaths[slot]} times and is retired")

    def _start(self, slot: int, device: Device) -> WorkerProcess:
        try:
            return WorkerProcess(self._recipe, slot, device, self._mailbox, self._meter)
        except OSError as error:
            raise ConfigError(f"no worker process can be started: {error}", where=self._recipe.where) from error

    async def give_up(self, slot: int, call: Invocation[Any]) -> TimeoutOutcome:
        """Kills the slot's process; nothing is left behind."""
        call.closed = True
        worker = self._workers.pop(slot, None)
        if worker is not None:
            worker.kill()
        return TimeoutOutcome(left_behind=False)

    async def close(self) -> None:
        """Has the processes close their plugins and end; kills those that do not."""
        for worker in self._workers.values():
            worker.close()
        deadline = self._mailbox.loop.time() + CLOSE_SECONDS
        while self._mailbox.loop.time() < deadline and any(worker.running for worker in self._workers.values()):
            await asyncio.sleep(0.01)
        self.kill()

    def kill(self) -> None:
        """Kills the processes."""
        for worker in self._workers.values():
            worker.kill()
        self._workers.clear()
