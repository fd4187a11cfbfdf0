"""How a run reaches one worker process: on this machine (`LocalLink`), or wherever else a `WorkerLink` leads."""

from __future__ import annotations

import os
import re
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from knowgen.core.import_path import child_environment
from knowgen.engine.components import ComponentRef
from knowgen.engine.devices import Device
from knowgen.engine.executors.child_process import ending, kill_group, start_child, wait_for_end
from knowgen.engine.executors.output_log import OutputLog
from knowgen.engine.retry import BUILD_SECONDS, WorkerDiedError
from knowgen.generators.contract import GPU_FAULT_CODE

WORKER_MODULE = "knowgen.engine.executors.worker_main"

_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "KNOWGEN_THREADS")
_KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20)}
"""Has the C library of Linux keep freed memory for the next image. By default it gives the memory of each image back,
and to fetch it again took 5 ms of processor time for an image of 1024 x 1024.
"""
_LOG_SECONDS = 0.5


@dataclass(frozen=True)
class WorkerLaunch:
    """How the workers of one plugin are started.

    Attributes:
        component_ref: What the plugin is built from.
        shape: Name of the method that is called.
        where: Name of the plugin, for messages.
        folder: The run directory.
        workers: Number of workers.
        concurrency: Calls at once in each worker.
        accelerated: Whether they use an accelerator if there is one.
        gpus: GPUs of each worker, if it uses an accelerator.
        emptiest: Whether they are given the GPUs with the most free memory, for a plugin that runs beside others.
        build_timeout: Time limit in seconds for building the plugin.
        reuse: Whether a cached reply may answer a judge's request.
    """

    component_ref: ComponentRef
    shape: str
    where: str
    folder: Path
    workers: int
    concurrency: int = 1
    accelerated: bool = False
    gpus: int = 1
    emptiest: bool = False
    build_timeout: float = BUILD_SECONDS
    reuse: bool = True

    def log(self, number: int) -> Path:
        """Return the log file of a worker."""
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", self.component_ref.name).strip("-")[-80:]
        return self.folder / "logs" / f"{self.component_ref.kind}-{name}-{number}.log"


class WorkerLink(Protocol):
    """A worker process and the connection to it.

    Attributes:
        waits_for: What the process waits for before it can start, in words; empty once it has started.
    """

    waits_for: str

    def send(self, message: dict[str, Any]) -> None:
        """Send a message. Used by one thread.

        Raises:
            OSError: The process has ended.
        """
        ...

    def receive(self) -> tuple[dict[str, Any], bytes] | None:
        """Return the next message and its payload; None when the process has ended or closed the connection.

        Raises:
            ValueError: What was received is not a message.
        """
        ...

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end of the process, at most for some seconds; return whether it has ended."""
        ...

    def kill(self) -> None:
        """Kill the process and its child processes."""
        ...

    def close(self) -> None:
        """Close the connection of a process that has ended; called by the thread that receives."""
        ...

    def death(self, who: str, fault: str, log: Path) -> WorkerDiedError:
        """Return the error for the end of the process.

        Args:
            who: The process, for the message.
            fault: What it did wrong at its end; empty for nothing.
            log: Its log file.
        """
        ...

    @property
    def device_failed(self) -> bool:
        """Return whether the process ended because its device failed."""
        ...


def worker_environment(device: Device, threads: int) -> dict[str, str]:
    """Return the environment of a worker process.

    Args:
        device: Device of its plugin.
        threads: Threads for libraries that compute, where the environment does not limit them already.
    """
    environment = child_environment()
    environment["KNOWGEN_DEVICE"] = device.name
    if device.visible:
        environment[device.variable] = device.visible
    for name in _THREAD_LIMITS:
        environment.setdefault(name, str(max(1, threads)))
    for name, value in _KEPT_MEMORY.items():
        environment.setdefault(name, value)
    return environment


def death_of(who: str, code: int | None, fault: str, log: Path) -> WorkerDiedError:
    """Return the error for the end of a process. A device that failed and a kill are faults of the machine.

    Args:
        who: The process, for the message.
        code: Its return code.
        fault: What it did wrong at its end; empty for nothing.
        log: Its log file.
    """
    killed = not fault and code in (-signal.SIGKILL, -signal.SIGTERM)
    return WorkerDiedError(
        f"{who} {fault or ending(code)}; see logs/{log.name}", machine=killed or code == GPU_FAULT_CODE
    )


class LocalLink:
    """A worker process of this machine, and the socket to it.

    Args:
        launch: How it is started.
        number: Its number among the workers of the plugin.
        device: Device of its plugin.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, launch: WorkerLaunch, number: int, device: Device) -> None:
        self.waits_for = ""
        self._ended = threading.Event()
        self._output = OutputLog(launch.log(number))
        environment = worker_environment(device, (os.cpu_count() or 1) // launch.workers)
        self._process, self._channel = start_child(WORKER_MODULE, self._output.writer, environment)
        threading.Thread(target=self._wait, name=f"knowgen worker {number}", daemon=True).start()

    def _wait(self) -> None:
        """Wait for the process itself, not for those that its plugin started, which are killed."""
        wait_for_end(self._process)
        self._ended.set()
        self._channel.shut()  # a process that the plugin left behind may hold the other end

    def send(self, message: dict[str, Any]) -> None:
        """Send a message."""
        self._channel.send(message)

    def receive(self) -> tuple[dict[str, Any], bytes] | None:
        """Return the next message and its payload; None at the end."""
        return self._channel.receive()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end of the process."""
        return self._ended.wait(seconds)

    def kill(self) -> None:
        """Kill the process and its child processes."""
        kill_group(self._process)

    def close(self) -> None:
        """Wait a moment for the last output, and close the socket."""
        self._output.wait(_LOG_SECONDS)
        self._channel.close()

    def death(self, who: str, fault: str, log: Path) -> WorkerDiedError:
        """Return the error for the end of the process."""
        return death_of(who, self._process.returncode, fault, log)

    @property
    def device_failed(self) -> bool:
        """Return whether the process ended because its device failed."""
        return self._process.returncode == GPU_FAULT_CODE
