"""Try a generator on a few requests: its results, their time, and the memory it uses.

The generator runs in daemon threads with a time limit, so one that hangs does not block the check. Run as a program,
the module generates one image in a fresh process (see `generate_in_fresh_process`).
"""

from __future__ import annotations

import asyncio
import json
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
from knowgen.core.images import open_rgb
from knowgen.core.import_path import child_environment, module_command
from knowgen.core.records import GenerationRequest, GenerationStatus
from knowgen.engine.components import ComponentRef
from knowgen.engine.executors.concurrency import InvocationEvent
from knowgen.engine.executors.invoke import build_from_ref, build_plugin, generate, invoke
from knowgen.engine.imaging import encode
from knowgen.engine.retry import CallTimeoutError, ContractError, describe, is_decline
from knowgen.generators.contract import GeneratedImage, shape_of
from knowgen.local_models.device_memory import memory_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

_OTHER_HASHES = "4242"
"""A hash seed of its own, so that a generator that seeds with `hash()` is noticed even where the environment sets
one.
"""

_DECLINED = 9
"""Exit code of a fresh process in which the generator declined the prompt."""


@dataclass
class ProbeResult:
    """The results of some requests.

    Attributes:
        requested: Ids of the requests, in order.
        results: (request id, returned value, seconds since the start), in order of arrival.
        errors: (request id, or empty for the whole call; exception).
        seconds: Duration of the whole call.
    """

    requested: list[str]
    results: list[tuple[str, Any, float]] = field(default_factory=list)
    errors: list[tuple[str, BaseException]] = field(default_factory=list)
    seconds: float = 0.0

    def result_of(self, id: str) -> Any:
        """Return the first result of a request.

        Raises:
            Exception: What the generator raised instead.
            ContractError: It returned nothing for this request.
        """
        for result_id, value, _ in self.results:
            if result_id == id:
                return value
        for error_id, error in self.errors:
            if error_id in {id, ""}:
                raise error
        raise ContractError("the generator returned no image for this request")


class ProbeRunner:
    """Runs methods of a generator in one daemon thread, coroutines in one event loop of that thread.

    Args:
        timeout: Time limit per request in seconds.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._functions: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._work, name="knowgen check", daemon=True).start()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        while True:
            function, future = self._functions.get()
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
                future.set_exception(error)

    def call(self, function: Callable[[], Any], requests: int = 1) -> Any:
        """Call a function in the thread; a coroutine that it returns is awaited there.

        Raises:
            CallTimeoutError: It took too long. The thread is left behind and this runner must not be used again.
            BaseException: What the function raised.
        """

        def whole() -> Any:
            result = function()
            return self._loop.run_until_complete(result) if asyncio.iscoroutine(result) else result

        future: Future[Any] = Future()
        self._functions.put((whole, future))
        return _within(future, self.timeout * requests)

    def run(self, plugin: Any, requests: Sequence[GenerationRequest], *, threads: bool = False) -> ProbeResult:
        """Give requests to a generator: a batch at once, coroutines concurrently, `draw` one after the other.

        Args:
            plugin: The generator.
            requests: Requests with distinct ids.
            threads: Call `draw` in one thread per request instead.

        Raises:
            CallTimeoutError: It took too long.
        """
        result = ProbeResult([request.id for request in requests])
        started = time.perf_counter()

        def emit(event: InvocationEvent) -> None:
            if event.kind == "result":
                result.results.append((event.id, event.value, time.perf_counter() - started))
            elif event.kind == "error":
                result.errors.append((event.id, event.value))

        shape = shape_of(plugin)
        if threads and shape == "draw":
            self._in_threads(plugin, requests, emit)
        elif shape == "generate":
            self.call(lambda: _together(plugin, requests, emit), len(requests))
        else:
            self.call(lambda: invoke(shape, plugin, requests, emit), len(requests))
        result.seconds = time.perf_counter() - started
        return result

    def _in_threads(
        self, plugin: Any, requests: Sequence[GenerationRequest], emit: Callable[[InvocationEvent], None]
    ) -> None:
        def one(request: GenerationRequest, future: Future[None]) -> None:
            invoke("draw", plugin, [request], emit)
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
    plugin: Any, requests: Sequence[GenerationRequest], emit: Callable[[InvocationEvent], None]
) -> None:
    async def one(request: GenerationRequest) -> None:
        try:
            emit(InvocationEvent("result", request.id, await generate(plugin, request)))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a generator may raise anything
            emit(InvocationEvent("error", request.id, error))

    await asyncio.gather(*(one(request) for request in requests))


@dataclass(frozen=True)
class ProbedImage:
    """An image that a generator returned.

    Attributes:
        pixels: Array of shape (height, width, 3), 0 to 255.
        format: Format in which it is stored, as Pillow names it.
        notes: What is changed when it is stored or shown; see `EncodedImage`.
        stored: Size of the file in the store in bytes.
    """

    pixels: NDArray[np.uint8]
    format: str
    notes: tuple[str, ...]
    stored: int

    @property
    def size(self) -> str:
        """Return the size as text, such as `768x512`, width first."""
        return f"{self.pixels.shape[1]}x{self.pixels.shape[0]}"

    @property
    def is_blank(self) -> bool:
        """Return whether all pixels have the same colour."""
        return bool((self.pixels == self.pixels[0, 0]).all())


def probed_image(value: Any) -> ProbedImage | GeneratedImage:
    """Read a result as the engine does: an image, or a `GeneratedImage` that says why there is none.

    Raises:
        ContractError: It is neither.
    """
    import numpy as np

    generated = value if isinstance(value, GeneratedImage) else GeneratedImage(image=value)
    status = GenerationStatus(generated.status)
    if status is GenerationStatus.NOT_RUN:
        raise ContractError("the generator returned the status not_run; return failed or refused, with a reason")
    metadata = (generated.references, generated.evidence, generated.trajectory, generated.settings)
    try:
        json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ContractError(f"the metadata of the image is not plain data: {error}") from error
    if status is not GenerationStatus.OK:
        return generated
    encoded = encode(generated.image)
    pixels = np.asarray(open_rgb(encoded.data))
    return ProbedImage(pixels, encoded.format, encoded.notes, len(encoded.data))


def mean_difference(first: ProbedImage, second: ProbedImage) -> float:
    """Return the mean absolute difference of two images in levels, 0 to 255; 255 if their sizes differ."""
    import numpy as np

    if first.pixels.shape != second.pixels.shape:
        return 255.0
    return float(np.abs(first.pixels.astype(np.int16) - second.pixels.astype(np.int16)).mean())


def largest_difference(first: ProbedImage, second: ProbedImage) -> int:
    """Return the largest absolute difference of two images in levels, 0 to 255; 255 if their sizes differ."""
    import numpy as np

    if first.pixels.shape != second.pixels.shape:
        return 255
    return int(np.abs(first.pixels.astype(np.int16) - second.pixels.astype(np.int16)).max())


class PeakMemory:
    """Measures the memory of this process during a `with` block.

    Args:
        device: Device of the generator, as torch names it.

    Attributes:
        added: Maximum number of megabytes above the start.
        accelerator: Maximum number of megabytes that torch has had in tensors on the device; 0 for a CPU.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device

    def __enter__(self) -> PeakMemory:
        self.added, self.accelerator = 0.0, 0.0
        self._start = self._maximum = resident_megabytes()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._watcher.join()
        self.added = max(self._maximum, resident_megabytes()) - self._start
        if (memory := memory_of(self._device)) is not None:
            self.accelerator = memory.peak / 2**20

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self._maximum = max(self._maximum, resident_megabytes())


def resident_megabytes() -> float:
    """Return the resident memory of this process in megabytes, or its peak where the current value is unknown."""
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return peak_megabytes()
    return pages * resource.getpagesize() / 2**20


def peak_megabytes() -> float:
    """Return the maximum of the resident memory of this process in megabytes."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def generate_in_fresh_process(
    component_ref: ComponentRef, request: GenerationRequest, device: str, folder: Path, timeout: float
) -> ProbedImage:
    """Generate one image in a new process, as a resumed run would.

    Args:
        component_ref: What the generator is built from.
        request: A request without ground truth and references.
        device: Device for `setup`.
        folder: Folder for the image file.
        timeout: Time limit in seconds, building included.

    Raises:
        ContractError: The process failed; the message is its last line.
        RefusalError: The generator declined the prompt.
        CallTimeoutError: It took too long.
    """
    out = folder / "image.png"
    order = {
        "component_ref": {"kind": component_ref.kind, "name": component_ref.name, "args": dict(component_ref.args)},
        "request": request.model_dump(mode="json"), "device": device, "out": str(out), "timeout": timeout,
    }  # fmt: skip
    try:
        process = subprocess.run(
            module_command("knowgen.validation.probe"),
            input=json.dumps(order), capture_output=True, text=True, timeout=timeout, check=False,
            env={**child_environment(), "PYTHONHASHSEED": _OTHER_HASHES},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise CallTimeoutError(f"no result within {timeout:g} s") from error
    if process.returncode != 0 or not out.is_file():
        lines = [line for line in process.stderr.splitlines() if line.strip()]
        reason = lines[-1][:300] if lines else f"the process ended with code {process.returncode}"
        raise RefusalError(reason) if process.returncode == _DECLINED else ContractError(reason)
    image = probed_image(out)
    if isinstance(image, GeneratedImage):
        raise ContractError(image.reason)
    return image


def _main() -> int:
    """Generate the image of one request that is given on standard input; see `generate_in_fresh_process`."""
    order = json.load(sys.stdin)
    request = GenerationRequest.model_validate(order["request"])
    runner = ProbeRunner(order["timeout"])
    component_ref = ComponentRef(**order["component_ref"])
    try:
        plugin = runner.call(
            lambda: build_plugin(lambda: build_from_ref(component_ref), lambda: order["device"], "check")
        )
        value = runner.run(plugin, [request]).result_of(request.id)
        generated = value if isinstance(value, GeneratedImage) else GeneratedImage(image=value)
        if generated.status in {GenerationStatus.FAILED, GenerationStatus.REFUSED}:
            raise RefusalError(f"{generated.status}, {generated.reason or 'without a reason'}")
        Path(order["out"]).write_bytes(encode(generated.image).data)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - reported to the calling process
        sys.stderr.write(f"\n{describe(error)}\n")
        return _DECLINED if is_decline(error) else 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
