"""Admit requests while there is room, and send them to the generator through the engine's `Dispatcher`."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.errors import ConfigError, KnowgenError
from knowgen.core.records import GenerationRequest, GenerationStatus
from knowgen.engine.components import GeneratorHandle
from knowgen.engine.dispatcher import Dispatcher
from knowgen.engine.executors.concurrency import CapacityLimiter, LoopBridge, WorkerThreads
from knowgen.engine.failure_log import FailureLog
from knowgen.engine.imaging import EncodedImage, encode
from knowgen.engine.options import EngineOptions
from knowgen.engine.placement import generator_executor, generator_slots
from knowgen.engine.retry import WorkerDiedError, describe
from knowgen.engine.run_state import RunState
from knowgen.generators.contract import GeneratedImage
from knowgen.serving.executor import ObservedExecutor, UnmeteredCalls
from knowgen.serving.metrics import Metrics
from knowgen.serving.settings import ServiceSettings

TRIES = 3
"""Attempts at a request during which a worker process dies. Other transient errors are returned immediately: the client
knows better whether to wait or to use another server."""

STOPPING = "the server is being stopped"

_IMAGE_THREADS = 2
_BUSY_SECONDS = 2
"""Seconds after which a client may try again when the memory for requests is full."""

_MEAN_WEIGHT = 0.2
"""Weight of the latest generation in the mean time from which `Retry-After` is computed."""


class QueueFullError(Exception):
    """The server has no room for another request.

    Args:
        seconds: Seconds after which the client may try again.
        what: What is full.
    """

    def __init__(self, seconds: int, what: str = "the queue is full") -> None:
        super().__init__(f"busy: {what}; try again in {seconds} s")
        self.seconds = seconds


class InFlight:
    """What all requests together hold in memory, which has a limit.

    Args:
        limit: Most that is held at the same time.
        what: What is full when the limit is reached.
    """

    def __init__(self, limit: int, what: str) -> None:
        self._limit, self._what = limit, what
        self.held = 0

    @contextmanager
    def holding(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that adds to what one request holds, all of which is released at the end of the block.

        The function raises `QueueFullError` when other requests leave too little room. What one request may hold by
        itself is limited elsewhere.
        """
        own = 0

        def add(amount: int) -> None:
            nonlocal own
            if self.held > own and self.held + amount > self._limit:
                raise QueueFullError(_BUSY_SECONDS, self._what)
            own += amount
            self.held += amount

        try:
            yield add
        finally:
            self.held -= own


@dataclass(frozen=True)
class QueueResult:
    """The result of a request.

    Attributes:
        generated: What the generator returned.
        image: The checked image file; None if the status is not ok.
        seconds: Time from the call of the generator to its result.
    """

    generated: GeneratedImage
    image: EncodedImage | None
    seconds: float


class RequestQueue:
    """Takes requests to the generator. Created and used in the server's event loop.

    Args:
        handle: The generator.
        settings: Limits.
        folder: Folder for logs and for images in transfer.

    Attributes:
        capacity: Requests generated at once.
        units: Number of worker processes, or 1; the HTTP format calls them GPUs.
        state: Whether requests are accepted, and the error that ends the server.
        ready: Whether the generator is built.
        bytes: Bytes of the requests that are being received.
        pixels: Pixels of the reference images of admitted requests.
        metrics: The server's metrics.
    """

    def __init__(self, handle: GeneratorHandle, settings: ServiceSettings, folder: Path) -> None:
        options = EngineOptions(workers=settings.workers, timeout=settings.timeout)
        self.handle, self.settings, self.folder = handle, settings, folder
        slots, batch = generator_slots(handle, options)
        self.capacity, self.units = slots * batch, max(1, settings.workers)
        self.state = RunState()
        self.ready = False
        self.metrics = Metrics(lambda: len(self._admitted) - len(self._started), lambda: len(self._started))
        bridge = LoopBridge(asyncio.get_running_loop())
        executor = generator_executor(handle, options, bridge, UnmeteredCalls(), folder)
        self._executor = ObservedExecutor(executor, slots, self._on_start)
        self._dispatcher = Dispatcher(
            bridge,
            self.state,
            self._executor,
            slots=slots,
            batch_size=batch,
            timeout=settings.timeout,
            result_name="image",
            where=f"generator {handle.spec.name!r}",
            fill=handle.capabilities.shape == "generate_batch",
            limiter=CapacityLimiter(2 * slots * batch + 2),
            failures=FailureLog(folder, f"generator {handle.spec.name!r}"),
        )
        self._threads = WorkerThreads(bridge, _IMAGE_THREADS, "images")
        self._numbers = itertools.count(1)
        self.bytes = InFlight(settings.max_bytes_in_flight, "requests of too many bytes are being received")
        self.pixels = InFlight(settings.max_pixels_in_flight, "the reference images of others have too many pixels")
        self._admitted: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._mean_seconds = 1.0

    async def build(self) -> None:
        """Build the generator; an error ends the server."""
        try:
            await self._executor.build()
        except Exception as error:  # noqa: BLE001 - whatever it is, no request can be served
            self.state.fail(error)
            self._dispatcher.stop()
        else:
            self.ready = True

    def check_room(self) -> None:
        """Check that another request could be admitted now, before its body is read.

        Raises:
            QueueFullError: The maximum number of requests is in progress and queued.
        """
        if len(self._admitted) >= self.capacity + self.settings.queue:
            rounds = 1 + self.settings.queue / self.capacity
            raise QueueFullError(min(60, max(1, math.ceil(self._mean_seconds * rounds / 2))))

    @contextmanager
    def admit(self) -> Iterator[str]:
        """Admit a request for the duration of the block, and return its id.

        Raises:
            QueueFullError: As `check_room`.
        """
        self.check_room()
        id = f"r{next(self._numbers)}"
        self._admitted[id] = time.monotonic()
        try:
            yield id
        finally:
            del self._admitted[id]
            self._started.pop(id, None)

    def is_started(self, id: str) -> bool:
        """Return whether the generator was given a request."""
        return id in self._started

    async def run_in_thread(self, function: Any, *args: Any) -> Any:
        """Run a function in a thread, so that reading and writing images does not block the loop."""
        return await self._threads.run(function, *args)

    async def generate(self, request: GenerationRequest) -> QueueResult:
        """Generate the image of a request.

        Raises:
            StoppedError: The server is being stopped, and the request was not started.
            CallTimeoutError, PluginDisabledError, TransientError, RefusalError, ContractError: As in the engine.
            Exception: What the generator raised.
        """
        tries = 0
        while True:
            tries += 1
            try:
                result = await self._dispatcher.submit(request.id, request, self._encode, alone=tries > 1)
            except WorkerDiedError:
                if tries == TRIES:
                    raise
            else:
                break
        started = self._started.get(request.id, 0.0)
        self._mean_seconds += (result.seconds - self._mean_seconds) * _MEAN_WEIGHT
        self.metrics.count_generation(result.seconds, max(0.0, started - self._admitted.get(request.id, started)))
        return result

    async def _encode(self, value: Any, seconds: float) -> QueueResult:
        generated = value if isinstance(value, GeneratedImage) else GeneratedImage(image=value)
        if GenerationStatus(generated.status) is not GenerationStatus.OK:
            return QueueResult(generated, None, seconds)
        return QueueResult(generated, await self._threads.run(encode, generated.image), seconds)

    def _on_start(self, batch: list[GenerationRequest]) -> None:
        now = time.monotonic()
        self.metrics.count_batch(len(batch))
        for request in batch:
            if request.id in self._admitted:  # otherwise its client has disconnected
                self._started[request.id] = now

    def stop(self) -> None:
        """Accept no new request and drop queued ones; those in progress are finished."""
        self.state.stop(STOPPING)
        self._dispatcher.stop()

    def fail(self, error: Exception) -> None:
        """End the server, because the generator hung or died too often."""
        self.state.fail(ConfigError(describe(error), where="serve", fix="read its log and start the server again"))

    async def close(self) -> None:
        """Close the generator."""
        if self.state.error is not None or not self.ready:
            self._dispatcher.kill()
        else:
            await self._dispatcher.close()
        self._threads.close()

    @property
    def error(self) -> KnowgenError | None:
        """Return the error that ends the server, None if there is none."""
        error = self.state.error
        if error is None or isinstance(error, KnowgenError):
            return error
        return ConfigError(describe(error), where=f"generator {self.handle.spec.name!r}")

    def health(self) -> dict[str, Any]:
        """Return the state of the server: the fields of the HTTP format and further ones."""
        status = "stopping" if self.state.stop_reason else "healthy" if self.ready else "loading"
        spec = self.handle.spec
        return {
            "status": status,
            "num_gpus": self.units,
            "disabled_gpus": [],
            "capacity": self.capacity,
            "queue": self.settings.queue,
            "waiting": len(self._admitted) - len(self._started),
            "under_way": len(self._started),
            "generator": spec.name,
            "revision": spec.revision,
            "references": self.handle.capabilities.references,
        }
