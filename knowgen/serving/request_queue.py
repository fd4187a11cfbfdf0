"""The desk of a server: admits requests while there is room, has them drawn in the engine's own way, and ends."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.errors import ConfigError, KnowgenError
from knowgen.core.records import GenerationRequest, GenerationStatus
from knowgen.engine.components import GeneratorHandle
from knowgen.engine.dispatcher import Dispatcher
from knowgen.engine.executors.concurrency import CapacityLimiter, LoopBridge, WorkerThreads
from knowgen.engine.imaging import EncodedImage, encode
from knowgen.engine.options import EngineOptions
from knowgen.engine.placement import generator_slots
from knowgen.engine.retry import WorkerDiedError, describe
from knowgen.engine.run_state import RunState
from knowgen.generators.contract import GeneratedImage
from knowgen.serving.hosts import ObservedExecutor, generator_hosts
from knowgen.serving.metrics import Metrics
from knowgen.serving.settings import ServiceSettings

TRIES = 3
"""So often a request is drawn when a worker process dies under it. Other faults that may pass are told at once: the
client knows better whether to wait or to ask another server."""

STOPPING = "the server is being stopped"
_LANES = 2
_MEMORY = 0.2
"""Weight of the newest drawing in the mean time that `Retry-After` is reckoned from."""


class QueueFullError(Exception):
    """There is no room for a request now.

    Args:
        seconds: When it may be worth asking again.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"busy: the queue is full; try again in {seconds} s")
        self.seconds = seconds


@dataclass(frozen=True)
class QueueResult:
    """What a request came to.

    Attributes:
        drawing: As the generator gave it.
        picture: Its bytes, checked; None when there is none.
        seconds: From the call of the generator to its answer.
    """

    drawing: GeneratedImage
    picture: EncodedImage | None
    seconds: float


class RequestQueue:
    """Takes requests to the generator; made and used in the server's loop.

    Args:
        handle: The generator.
        service: Limits.
        folder: For logs and pictures on their way.

    Attributes:
        capacity: Requests that are drawn at once.
        units: Worker processes, or 1; what the format calls GPUs.
        control: Whether requests are still taken, and the error the server ends with.
        ready: Is the generator built?
        metrics: What is counted.
    """

    def __init__(self, handle: GeneratorHandle, service: ServiceSettings, folder: Path) -> None:
        options = EngineOptions(workers=service.workers, timeout=service.timeout)
        self.handle, self.service, self.folder = handle, service, folder
        slots, batch = generator_slots(handle, options)
        self.capacity, self.units = slots * batch, max(1, service.workers)
        self.control = RunState()
        self.ready = False
        self.metrics = Metrics(lambda: len(self._admitted) - len(self._started), lambda: len(self._started))
        self._mailbox = LoopBridge(asyncio.get_running_loop())
        self._hosts = ObservedExecutor(generator_hosts(handle, options, self._mailbox, folder), slots, self._given)
        self._stage = Dispatcher(
            self._mailbox,
            self.control,
            self._hosts,
            slots=slots,
            batch_size=batch,
            timeout=service.timeout,
            noun="drawing",
            where=f"generator {handle.spec.name!r}",
            fill=handle.traits.shape == "generate_batch",
            room=CapacityLimiter(2 * slots * batch + 2),
        )
        self._lane = WorkerThreads(self._mailbox, _LANES, "pictures")
        self._numbers = itertools.count(1)
        self._admitted: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._mean = 1.0

    async def build(self) -> None:
        """Builds the generator; a fault ends the server with it."""
        try:
            await self._hosts.build()
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody will get a picture
            self.control.fail(error)
            self._stage.stop()
        else:
            self.ready = True

    @contextmanager
    def place(self) -> Iterator[str]:
        """Admits a request for as long as the block lasts, and names it.

        Raises:
            QueueFullError: As many are drawn and wait as may.
        """
        if len(self._admitted) >= self.capacity + self.service.queue:
            rounds = 1 + self.service.queue / self.capacity
            raise QueueFullError(min(60, max(1, math.ceil(self._mean * rounds / 2))))
        name = f"r{next(self._numbers)}"
        self._admitted[name] = time.monotonic()
        try:
            yield name
        finally:
            del self._admitted[name]
            self._started.pop(name, None)

    def started(self, name: str) -> bool:
        """Tells whether the generator was given a request."""
        return name in self._started

    async def call(self, function: Any, *args: Any) -> Any:
        """Calls a function in a thread, so that pictures are read and written beside the loop."""
        return await self._lane.call(function, *args)

    async def draw(self, request: GenerationRequest) -> QueueResult:
        """Has a request drawn.

        Raises:
            StoppedError: The server is being stopped, and it was not begun.
            CallTimeoutError, PluginDisabledError, TransientError, RefusalError, ContractError: As the engine has them.
            Exception: Whatever the generator raised.
        """

        tries = 0
        while True:
            tries += 1
            try:
                drawn = await self._stage.do(request.id, request, self._finish, alone=tries > 1)
            except WorkerDiedError:
                if tries == TRIES:
                    raise
            else:
                break
        began = self._started.get(request.id, 0.0)
        self._mean += (drawn.seconds - self._mean) * _MEMORY
        self.metrics.drawn(drawn.seconds, max(0.0, began - self._admitted.get(request.id, began)))
        return drawn

    async def _finish(self, value: Any, seconds: float) -> QueueResult:
        drawing = value if isinstance(value, GeneratedImage) else GeneratedImage(image=value)
        if GenerationStatus(drawing.status) is not GenerationStatus.OK:
            return QueueResult(drawing, None, seconds)
        return QueueResult(drawing, await self._lane.call(encode, drawing.image), seconds)

    def _given(self, batch: list[GenerationRequest]) -> None:
        now = time.monotonic()
        self.metrics.batch(len(batch))
        for request in batch:
            if request.id in self._admitted:  # else its client has left meanwhile
                self._started[request.id] = now

    def stop(self) -> None:
        """Takes no new request and lets go of those in line; what is being drawn comes to its end."""
        self.control.stop(STOPPING)
        self._stage.stop()

    def give_up(self, error: Exception) -> None:
        """Ends the server, because the generator hung or died too often."""
        self.control.fail(ConfigError(describe(error), where="serve", fix="look into its log and start it again"))

    async def close(self) -> None:
        """Closes the generator."""
        if self.control.error is not None or not self.ready:
            self._stage.kill()
        else:
            await self._stage.close()
        self._lane.close()

    @property
    def error(self) -> KnowgenError | None:
        """Returns the error the server ends with, as one line."""
        error = self.control.error
        if error is None or isinstance(error, KnowgenError):
            return error
        return ConfigError(describe(error), where=f"generator {self.handle.spec.name!r}")

    def health(self) -> dict[str, Any]:
        """Returns how the server is: the format's fields and its own."""
        status = "stopping" if self.control.stopped else "healthy" if self.ready else "loading"
        spec = self.handle.spec
        return {
            "status": status,
            "num_gpus": self.units,
            "disabled_gpus": [],
            "capacity": self.capacity,
            "queue": self.service.queue,
            "waiting": len(self._admitted) - len(self._started),
            "under_way": len(self._started),
            "generator": spec.name,
            "revision": spec.revision,
            "references": self.handle.traits.references,
        }
