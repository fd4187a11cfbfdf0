"""Generators and scorers that misbehave on one prompt, which the environment names; `plugins.py` runs them.

Each class does one thing wrong, and first leaves a file that says so. On every other prompt it works.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import math
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from PIL import Image

from knowgen.core.records import (
    DIMENSIONS,
    Generation,
    GenerationRequest,
    GroundTruth,
    ParsedScore,
    Sample,
    Score,
    ScoreStatus,
)
from knowgen.generators.contract import GeneratedImage

HOURS = 3 * 3600
BAD_PROMPT = os.environ.get("KNOWGEN_CAMPAIGN_PROMPT", "")
WITNESS = os.environ.get("KNOWGEN_CAMPAIGN_WITNESS", "")
"""File that is made before something wrong is done, so that the campaign knows that it was."""


def leave_witness() -> None:
    """Note that something wrong is about to be done."""
    if WITNESS:
        Path(WITNESS).touch()


def is_bad(prompt: str) -> bool:
    """Tell whether to misbehave on a prompt."""
    if prompt != BAD_PROMPT:
        return False
    leave_witness()
    return True


def picture(prompt: str) -> Image.Image:
    """Return an image that depends on the prompt only."""
    return Image.frombytes("RGB", (32, 32), random.Random(prompt).randbytes(32 * 32 * 3))


def sockets() -> list[int]:
    """Return the descriptors of this process that are sockets."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - plain names
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.append(int(name))
    return found


class Drawing:
    """Works, except that `wrong` is called on the bad prompt."""

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Any:
        """Return an image."""
        if is_bad(prompt):
            result = self.wrong()
            return picture(prompt) if result is None else result
        return picture(prompt)

    def wrong(self) -> Any:
        """Do something wrong; return an image, or None for a good one."""


class ExitsHard(Drawing):
    """Ends the process."""

    def wrong(self) -> None:
        os._exit(7)


class ExitsSoftly(Drawing):
    """Raises SystemExit."""

    def wrong(self) -> None:
        sys.exit("enough")


class Crashes(Drawing):
    """Reads address 0."""

    def wrong(self) -> None:
        ctypes.string_at(0)


class Aborts(Drawing):
    """Calls abort()."""

    def wrong(self) -> None:
        os.abort()


class KillsItself(Drawing):
    """Ends as the kernel ends a process when the memory runs out."""

    def wrong(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class HoldsTheInterpreter(Drawing):
    """Sleeps without releasing the lock of the interpreter."""

    def wrong(self) -> None:
        ctypes.PyDLL(None).sleep(HOURS)


class Sleeps(Drawing):
    """Sleeps for hours."""

    def wrong(self) -> None:
        time.sleep(HOURS)


class IgnoresSignals(Drawing):
    """Ignores every signal that can be ignored, and sleeps."""

    def wrong(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(HOURS)


class ClosesEverything(Drawing):
    """Closes every descriptor."""

    def wrong(self) -> None:
        os.closerange(0, 65536)


class ClosesStandardStreams(Drawing):
    """Closes the standard streams and opens files that take their numbers."""

    def wrong(self) -> None:
        os.closerange(0, 3)
        for _ in range(3):
            os.open("/dev/null", os.O_RDONLY)
        print("to nowhere")


class ClosesSockets(Drawing):
    """Closes every socket."""

    def wrong(self) -> None:
        for descriptor in sockets():
            os.close(descriptor)


class WritesToSockets(Drawing):
    """Writes what is not a message into every socket."""

    def wrong(self) -> None:
        for descriptor in sockets():
            os.write(descriptor, b'{"event": "result"\n\xff\xff')


class ClaimsResults(Drawing):
    """Writes a result of a call that does not exist into every socket."""

    def wrong(self) -> None:
        for descriptor in sockets():
            os.write(descriptor, b'{"event":"result","call":99,"id":"x","generated":{}}\n')


class Prints(Drawing):
    """Prints 40 MB."""

    def wrong(self) -> None:
        for _ in range(40):
            sys.stdout.write("x" * 1_000_000 + "\n")


class Forks(Drawing):
    """Forks a process that sleeps for hours."""

    def wrong(self) -> None:
        if os.fork() == 0:
            time.sleep(HOURS)
            os._exit(0)


class ForksAndReturnsTwice(Drawing):
    """Forks, and the child returns an image too."""

    def wrong(self) -> None:
        os.fork()


class StartsProcess(Drawing):
    """Starts a program that keeps the standard streams open."""

    def wrong(self) -> None:
        subprocess.Popen(["/bin/sleep", "60"])


class StartsMultiprocessing(Drawing):
    """Starts a process that Python would wait for at its end."""

    def wrong(self) -> None:
        import multiprocessing

        multiprocessing.get_context("fork").Process(target=time.sleep, args=(HOURS,)).start()


class StartsThread(Drawing):
    """Starts a thread that Python would wait for at its end."""

    def wrong(self) -> None:
        threading.Thread(target=time.sleep, args=(HOURS,), daemon=False).start()


class Unhandled(BaseException):
    """Is not an `Exception`."""


class RaisesBase(Drawing):
    """Raises what is not an `Exception`."""

    def wrong(self) -> None:
        raise Unhandled("not for you")


class Wordless(Exception):
    """Has no text."""

    def __str__(self) -> NoReturn:
        raise Unhandled("no text")

    __repr__ = __str__


class RaisesWordless(Drawing):
    """Raises an error whose text cannot be read."""

    def wrong(self) -> None:
        raise Wordless


class Interrupts(Drawing):
    """Raises KeyboardInterrupt."""

    def wrong(self) -> None:
        raise KeyboardInterrupt


class Recurses(Drawing):
    """Calls itself for ever."""

    def wrong(self) -> None:
        self.wrong()


class TakesMemory(Drawing):
    """Takes more memory than the process may have."""

    def wrong(self) -> None:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + 2**28
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        self.taken = [bytearray(2**24) for _ in range(10_000)]


class Unreadable:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise Unhandled(name)


class GivesUnreadable(Drawing):
    """Returns an object that raises whatever is asked of it."""

    def wrong(self) -> Unreadable:
        return Unreadable()


class GivesHuge(Drawing):
    """Returns the bytes of a picture of 3.6 billion pixels."""

    def wrong(self) -> bytes:
        header = b"P6 60000 60000 255\n"
        return header + b"\0" * 100


class GivesPipe(Drawing):
    """Returns the path of a pipe that nobody writes to."""

    def wrong(self) -> Path:
        path = Path(f"/tmp/knowgen-campaign-pipe-{os.getpid()}")
        os.mkfifo(path)
        return path


class GivesDevice(Drawing):
    """Returns the path of an endless file."""

    def wrong(self) -> Path:
        return Path("/dev/zero")


class PatchesModules(Drawing):
    """Replaces functions of the standard library for the whole process."""

    def wrong(self) -> None:
        json.dumps = json.loads = None  # type: ignore[assignment]
        time.monotonic = time.time = lambda: math.nan
        asyncio.run = None  # type: ignore[assignment]


class ChangesFolder(Drawing):
    """Changes the current folder and clears the environment."""

    def wrong(self) -> None:
        os.chdir("/")
        os.environ.clear()


class ClosesForever:
    """Has a `close` that never returns."""

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        """Return an image."""
        return picture(prompt)

    def close(self) -> None:
        """Sleep for hours."""
        leave_witness()
        time.sleep(HOURS)


class ExitsWhenBuilt(Drawing):
    """Ends the process when it is built."""

    def __init__(self) -> None:
        leave_witness()
        os._exit(9)


class HangsWhenBuilt(Drawing):
    """Has a constructor that never ends."""

    def __init__(self) -> None:
        leave_witness()
        time.sleep(HOURS)


class HoldsWhenBuilt(Drawing):
    """Has a constructor that never ends and never releases the lock of the interpreter."""

    def __init__(self) -> None:
        leave_witness()
        ctypes.PyDLL(None).sleep(HOURS)


class HangsInSetup(Drawing):
    """Has a `setup` that never ends."""

    def setup(self, device: str) -> None:
        """Sleep for hours."""
        leave_witness()
        time.sleep(HOURS)


class Batching:
    """Yields an image for each request, and something wrong for the bad one."""

    batch_size = 4

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[Any]:
        """Yield images."""
        for request in requests:
            if is_bad(request.prompt):
                yield from self.wrong(request)
            yield self.good(request)

    def good(self, request: GenerationRequest, **more: Any) -> GeneratedImage:
        """Return the image of a request."""
        return GeneratedImage(image=picture(request.prompt), request_id=request.id, **more)

    def wrong(self, request: GenerationRequest) -> Iterator[Any]:
        """Yield something wrong."""
        yield from ()


class YieldsForever(Batching):
    """Yields images of unknown requests for ever."""

    def wrong(self, request: GenerationRequest) -> Iterator[Any]:
        while True:
            yield GeneratedImage(image=picture("unknown"), request_id="unknown")
            time.sleep(0.01)


class YieldsAgain(Batching):
    """Yields the image of one request for ever."""

    def wrong(self, request: GenerationRequest) -> Iterator[Any]:
        while True:
            yield self.good(request)
            time.sleep(0.01)


class YieldsCircle(Batching):
    """Yields settings that contain themselves."""

    def wrong(self, request: GenerationRequest) -> Iterator[Any]:
        circle: dict[str, Any] = {}
        circle["circle"] = circle
        yield self.good(request, settings=circle)


class YieldsSurrogate(Batching):
    """Yields text that cannot be stored as UTF-8, and numbers that JSON does not have."""

    def wrong(self, request: GenerationRequest) -> Iterator[Any]:
        yield self.good(request, used_prompt="\ud800", settings={"a": math.nan, "b": "\udfff"})


class DiesInBatch(Batching):
    """Ends the process in the middle of a batch."""

    def wrong(self, request: GenerationRequest) -> Iterator[Any]:
        os._exit(1)
        yield None


class Waiting:
    """Works many requests at once, except that `wrong` is awaited for the bad one."""

    concurrency = 4

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Return an image."""
        await asyncio.sleep(0.01)
        if is_bad(request.prompt):
            await self.wrong()
        return GeneratedImage(image=picture(request.prompt))

    async def wrong(self) -> None:
        """Do something wrong."""


class ExitsInLoop(Waiting):
    """Ends the process while other requests are in flight."""

    async def wrong(self) -> None:
        os._exit(3)


class BlocksLoop(Waiting):
    """Blocks the event loop."""

    async def wrong(self) -> None:
        time.sleep(HOURS)


class HoldsInLoop(Waiting):
    """Blocks the whole process while other requests are in flight."""

    async def wrong(self) -> None:
        ctypes.PyDLL(None).sleep(HOURS)


class RefusesToEnd(Waiting):
    """Goes on when it is cancelled."""

    async def wrong(self) -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(HOURS)


class StopsLoop(Waiting):
    """Stops the event loop."""

    async def wrong(self) -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(HOURS)


class CancelsOthers(Waiting):
    """Cancels every task of the event loop."""

    async def wrong(self) -> None:
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(0)


class Scoring:
    """A scorer that gives 0.5, except that `wrong` is called on the bad prompt."""

    dimensions: tuple[str, ...] = ("quality",)

    def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Any:
        """Return a score."""
        return self.wrong(sample) if is_bad(sample.prompt) else 0.5

    def wrong(self, sample: Sample) -> Any:
        """Return or do something wrong."""
        return 0.5


class ScorerExits(Scoring):
    """Ends the process."""

    def wrong(self, sample: Sample) -> Any:
        os._exit(5)


class ScorerInvalid(Scoring):
    """Returns a record that was made without checks."""

    def wrong(self, sample: Sample) -> Any:
        wrong: dict[str, Any] = {"status": "excellent", "values": {"quality": "high"}, "na": 5, "reason": None}
        reading = ParsedScore.model_construct(**wrong)
        wrong = {"scorer": 7, "attempts": ("x",), "usage": None}
        return Score.model_construct(sample_id=sample.id, repeat=0, status=ScoreStatus.OK, strict=reading, **wrong)


class ScorerSurrogate(Scoring):
    """Returns text that cannot be stored as UTF-8."""

    dimensions = DIMENSIONS

    def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Any:
        """Return a score."""
        text = "\ud800" if is_bad(sample.prompt) else "fine"
        reading = ParsedScore(status=ScoreStatus.OK, values=dict.fromkeys(DIMENSIONS, 0.5), rationale=text)
        return Score(sample_id=sample.id, repeat=0, scorer="x", status=ScoreStatus.OK, strict=reading)


class JudgeExits(Scoring):
    """Ends the process while other scores are in flight."""

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Any:
        """Return a score."""
        await asyncio.sleep(0.01)
        if is_bad(sample.prompt):
            os._exit(5)
        return 0.5


class JudgeBlocks(Scoring):
    """Blocks the event loop."""

    deadline = 2.0

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Any:
        """Return a score."""
        if is_bad(sample.prompt):
            time.sleep(HOURS)
        return 0.5


def constant(prompt: str, image: Image.Image) -> float:
    """Score every image with 0.5."""
    return 0.5
