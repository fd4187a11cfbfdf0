"""Trying a generator out on a few requests: what it answers, how long it takes, what it does to memory.

Everything the generator does happens in daemon threads with a deadline, so that one that hangs holds nobody up. Run as
a program, the module draws one request in a fresh process (see `draw_afresh`).
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from knowgen.core.errors import RefusalError
from knowgen.core.records import GenerationRequest, GenerationStatus
from knowgen.engine.components import ComponentRef
from knowgen.engine.executors.concurrency import InvocationEvent
from knowgen.engine.executors.invoke import generate, make, rebuild, serve
from knowgen.engine.imaging import encode
from knowgen.engine.retry import CallTimeoutError, ContractError, describe, is_decline
from knowgen.generators.contract import GeneratedImage, shape_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

_OTHER_HASHES = "4242"
"""So that a generator which seeds with `hash()` shows it even where the environment fixes the hashes."""

_DECLINED = 9
"""Exit code of a fresh process in which the generator declined to draw."""


@dataclass
class ProbeResult:
    """What a generator did with some requests.

    Attributes:
        asked: Ids that were asked for, in order.
        answers: (request id, what was given, seconds since the start), in order of arrival.
        faults: (request id, or empty for the whole call, error).
        seconds: Duration of the whole.
    """

    asked: list[str]
    answers: list[tuple[str, Any, float]] = field(default_factory=list)
    faults: list[tuple[str, BaseException]] = field(default_factory=list)
    seconds: float = 0.0

    def answer(self, name: str) -> Any:
        """Returns the first answer to a request.

        Raises:
            Exception: What the generator raised instead.
            ContractError: It gave none.
        """
        for found, value, _ in self.answers:
            if found == name:
                return value
        for found, error in self.faults:
            if found in {name, ""}:
                raise error
        raise ContractError("the generator gave no drawing for this request")


class ProbeRunner:
    """Runs a generator's methods in one daemon thread, coroutines in one event loop of that thread.

    Args:
        timeout: Seconds a call may take for each request.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._work, name="knowgen check", daemon=True).start()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        while True:
            job, future = self._jobs.get()
            try:
                future.set_result(job())
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the result
                future.set_exception(error)

    def call(self, job: Callable[[], Any], requests: int = 1) -> Any:
        """Calls a function in the thread; a coroutine it returns is awaited there.

        Raises:
            CallTimeoutError: It took too long; the thread is left behind and this runner must not be used again.
            BaseException: What the function raised.
        """

        def whole() -> Any:
            result = job()
            return self._loop.run_until_complete(result) if asyncio.iscoroutine(result) else result

        future: Future[Any] = Future()
        self._jobs.put((whole, future))
        return _within(future, self.timeout * requests)

    def run(self, plugin: Any, requests: Sequence[GenerationRequest], *, threads: bool = False) -> ProbeResult:
        """Gives requests to a generator: a batch at once, coroutines together, `draw` one after the other.

        Args:
            plugin: The generator.
            requests: With distinct ids.
            threads: Call `draw` in as many threads as there are requests instead.

        Raises:
            CallTimeoutError: It took too long.
        """
        trial = ProbeResult([request.id for request in requests])
        started = time.perf_counter()

        def take(event: InvocationEvent) -> None:
            if event.kind == "answer":
                trial.answers.append((event.id, event.value, time.perf_counter() - started))
            elif event.kind == "fault":
                trial.faults.append((event.id, event.value))

        shape = shape_of(plugin)
        if threads and shape == "draw":
            self._in_threads(plugin, requests, take)
        elif shape == "generate":
            self.call(lambda: _together(plugin, requests, take), len(requests))
        else:
            self.call(lambda: serve(shape, plugin, requests, take), len(requests))
        trial.seconds = time.perf_counter() - started
        return trial

    def _in_threads(
        self, plugin: Any, requests: Sequence[GenerationRequest], take: Callable[[InvocationEvent], None]
    ) -> None:
        def one(request: GenerationRequest, future: Future[None]) -> None:
            serve("draw", plugin, [request], take)
            future.set_result(None)

        futures: list[Future[None]] = [Future() for _ in requests]
        for pair in zip(requests, futures, strict=True):
            threading.Thread(target=one, args=pair, name="knowgen check", daemon=True).start()
        for future in futures:
            _within(future, self.timeout * len(requests))


def _within(future: Future[T], seconds: float) -> T:
    try:
        return future.result(seconds)
    except TimeoutError as error:
        if future.done():
            raise
        raise CallTimeoutError(f"no result within {seconds:g} s") from error


async def _together(
    plugin: Any, requests: Sequence[GenerationRequest], take: Callable[[InvocationEvent], None]
) -> None:
    async def one(request: GenerationRequest) -> None:
        try:
            take(InvocationEvent("answer", request.id, await generate(plugin, request)))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a generator may raise anything
            take(InvocationEvent("fault", request.id, error))

    await asyncio.gather(*(one(request) for request in requests))


@dataclass(frozen=True)
class ProbedImage:
    """A drawing that is a picture.

    Attributes:
        pixels: Shape (height, width, 3), 0 to 255.
        mode: As the generator gave it: a Pillow mode, or `file` for bytes and paths.
        stored: Bytes it takes in the store.
    """

    pixels: NDArray[np.uint8]
    mode: str
    stored: int

    @property
    def size(self) -> str:
        """Returns `768x512`, width first."""
        return f"{self.pixels.shape[1]}x{self.pixels.shape[0]}"

    @property
    def is_blank(self) -> bool:
        """Tells whether all pixels have one colour."""
        return bool((self.pixels == self.pixels[0, 0]).all())


def picture_of(value: Any) -> ProbedImage | GeneratedImage:
    """Reads an answer as the engine would: a picture, or a drawing that says why there is none.

    Raises:
        ContractError: It is neither.
    """
    import numpy as np
    from PIL import Image

    drawing = value if isinstance(value, GeneratedImage) else GeneratedImage(image=value)
    status = GenerationStatus(drawing.status)
    if status is GenerationStatus.NOT_RUN:
        raise ContractError("the generator gave the status not_run; say failed or refused, with a reason")
    noted = (drawing.references, drawing.evidence, drawing.trajectory, drawing.settings)
    try:
        json.dumps(noted, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ContractError(f"what is noted beside the picture is not plain data: {error}") from error
    if status is not GenerationStatus.OK:
        return drawing
    encoded = encode(drawing.image)
    with Image.open(io.BytesIO(encoded.data)) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    return ProbedImage(pixels, str(getattr(drawing.image, "mode", "file")), len(encoded.data))


def difference(first: ProbedImage, second: ProbedImage) -> float:
    """Returns the mean absolute difference of two pictures in levels, 0 to 255; 255 when their sizes differ."""
    import numpy as np

    if first.pixels.shape != second.pixels.shape:
        return 255.0
    return float(np.abs(first.pixels.astype(np.int16) - second.pixels.astype(np.int16)).mean())


class PeakMemory:
    """Measures the memory of this process while a block runs.

    Attributes:
        added: Megabytes above the start, at most.
        accelerator: Megabytes torch has had allocated on the accelerator, at most; 0 without torch.
    """

    def __enter__(self) -> PeakMemory:
        self.added, self.accelerator = 0.0, 0.0
        self._start = self._most = resident_megabytes()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._watcher.join()
        self.added = max(self._most, resident_megabytes()) - self._start
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            self.accelerator = torch.cuda.max_memory_allocated() / 2**20

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self._most = max(self._most, resident_megabytes())


def resident_megabytes() -> float:
    """Returns the memory this process holds, in megabytes; its peak where the system does not tell the present."""
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
    return pages * resource.getpagesize() / 2**20


def draw_afresh(
    remake: ComponentRef, request: GenerationRequest, device: str, folder: Path, timeout: float
) -> ProbedImage:
    """Draws one request in a new process, as a resumed run would.

    Args:
        remake: From what the generator is built again.
        request: Without truth and references.
        device: For `setup`.
        folder: Where the picture may be written.
        timeout: Seconds, building included.

    Raises:
        ContractError: The process failed; the message says how.
        RefusalError: It declined to draw, or could not now.
        CallTimeoutError: It took too long.
    """
    out = folder / "afresh.png"
    told = {
        "remake": {"kind": remake.kind, "name": remake.name, "args": dict(remake.args)},
        "request": request.model_dump(mode="json"), "device": device, "out": str(out), "timeout": timeout,
    }  # fmt: skip
    try:
        done = subprocess.run(
            [sys.executable, "-m", "knowgen.validation.probe"],
            input=json.dumps(told), capture_output=True, text=True, timeout=timeout, check=False,
            env={**os.environ, "PYTHONHASHSEED": _OTHER_HASHES},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise CallTimeoutError(f"no result within {timeout:g} s") from error
    if done.returncode != 0 or not out.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        words = lines[-1][:300] if lines else f"the process ended with {done.returncode}"
        raise RefusalError(words) if done.returncode == _DECLINED else ContractError(words)
    found = picture_of(out)
    if isinstance(found, GeneratedImage):
        raise ContractError(found.reason)
    return found


def _main() -> int:
    """Draws one request that is told on standard input; see `draw_afresh`."""
    told = json.load(sys.stdin)
    request = GenerationRequest.model_validate(told["request"])
    runner = ProbeRunner(told["timeout"])
    try:
        plugin = runner.call(
            lambda: make(lambda: rebuild(ComponentRef(**told["remake"])), lambda: told["device"], "check")
        )
        drawing = runner.run(plugin, [request]).answer(request.id)
        value = drawing if isinstance(drawing, GeneratedImage) else GeneratedImage(image=drawing)
        if value.status in {GenerationStatus.FAILED, GenerationStatus.REFUSED}:
            raise RefusalError(f"{value.status}, {value.reason or 'without a reason'}")
        Path(told["out"]).write_bytes(encode(value.image).data)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - told to the process that asked
        sys.stderr.write(f"\n{describe(error)}\n")
        return _DECLINED if is_decline(error) else 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
