"""Generators and scorers for worker processes, each for one test of what crosses between the processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.setting import noise_image
from knowgen.core.metering import judge_repeat, note, paid_call, reuse_replies
from knowgen.core.records import Generation, GenerationRequest, GroundTruth, ParsedScore, Sample, Score, ScoreStatus
from knowgen.engine import ComponentRef, GeneratorHandle, ScorerHandle
from knowgen.generators.contract import GeneratedImage
from tests.helpers.engine import generator_handle, score_of, scorer_handle

COUNT = 6


def is_bad(prompt: str) -> bool:
    return "number 2." in prompt


def generator_in_worker(kind: type[Any], **args: Any) -> GeneratorHandle:
    ref = ComponentRef("generators", f"{kind.__module__}:{kind.__qualname__}", args)
    return generator_handle(kind, name=kind.__name__, build=lambda: kind(**args), component_ref=ref)


def scorer_in_worker(kind: type[Any], **args: Any) -> ScorerHandle:
    ref = ComponentRef("scorers", f"{kind.__module__}:{kind.__qualname__}", args)
    return scorer_handle(kind, build=lambda: kind(**args), component_ref=ref)


def tell(request: GenerationRequest, **settings: Any) -> GeneratedImage:
    return GeneratedImage(image=noise_image(request.prompt), request_id=request.id, settings=settings)


class Synchronous:
    """Says in which process a batch is generated."""

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Any:
        for request in requests:
            yield tell(request, pid=os.getpid())


class Concurrent:
    """Says in which process it runs; the first request ends only after all others have ended."""

    concurrency = COUNT

    def __init__(self) -> None:
        self.ended = 0
        self.changed = asyncio.Event()

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        while "number 0." in request.prompt and self.ended < COUNT - 1:
            await self.changed.wait()
            self.changed.clear()
        self.ended += 1
        self.changed.set()
        return tell(request, pid=os.getpid())


class ExitsWithOthers:
    """Ends the process while other requests are in flight."""

    concurrency = COUNT

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        await asyncio.sleep(0.01)
        if is_bad(request.prompt):
            os._exit(3)
        return tell(request)


class BlocksWithOthers:
    """Blocks the event loop while other requests are in flight."""

    concurrency = COUNT

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        if is_bad(request.prompt):
            await asyncio.sleep(0)
            while True:
                pass
        await asyncio.sleep(0.05)
        return tell(request)


class ClosesEverything:
    """Closes every descriptor of its process."""

    def draw(self, prompt: str, references: object, seed: int) -> Image.Image:
        if is_bad(prompt):
            os.closerange(0, 65536)
        return noise_image(prompt)


class PatchesAndMoves:
    """Replaces functions of the standard library, changes the folder and clears the environment."""

    def draw(self, prompt: str, references: object, seed: int) -> Image.Image:
        import json
        import time

        json.dumps = json.loads = None  # type: ignore[assignment]
        time.time = None  # type: ignore[assignment]
        os.chdir("/")
        os.environ.clear()
        return noise_image(prompt)


class LeavesChildren:
    """Forks a process that holds everything it inherits for a minute."""

    def draw(self, prompt: str, references: object, seed: int) -> Image.Image:
        if is_bad(prompt) and os.fork() == 0:
            import time

            time.sleep(60)
            os._exit(0)
        return noise_image(prompt)


class Surroundings:
    """Says what a generator can learn about files: arguments, environment, open files, current folder, request."""

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Any:
        for request in requests:
            files = []
            for descriptor in Path("/proc/self/fd").iterdir():
                with contextlib.suppress(OSError):
                    files.append(str(descriptor.readlink()))
            command = Path("/proc/self/cmdline").read_text()
            yield tell(
                request, command=command, argv=sys.argv, files=files, environment=dict(os.environ), asked=repr(request)
            )


class Pictures:
    """Gives images of many kinds, all derived from one."""

    KINDS = ("RGB", "L", "1", "LA", "RGBA", "P", "CMYK", "info", "bytes", "path", "list")

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def draw(self, prompt: str, references: object, seed: int) -> Any:
        kind = self.KINDS[int(prompt.rsplit(maxsplit=1)[-1].strip("."))]
        image = noise_image(prompt)
        if kind in {"bytes", "path"}:
            path = Path(self.folder) / "one.webp"
            image.save(path, lossless=True)
            return path.read_bytes() if kind == "bytes" else path
        if kind == "list":
            return [image]
        if kind == "info":
            image.info["transparency"] = (1, 2, 3)
            return image
        if kind == "P":
            image = image.quantize(16)
            image.info["transparency"] = 3
            return image
        return image.convert(kind)


class Raises:
    """Raises an error with a text of two lines."""

    def draw(self, prompt: str, references: object, seed: int) -> Image.Image:
        if is_bad(prompt):
            raise KeyError("no such layer")  # the line that is to be named
        return noise_image(prompt)


class HangsWhenBuilt:
    """Has a constructor that ends when a file appears, and holds the lock of the interpreter where `holds`."""

    def __init__(self, until: str = "", holds: bool = False) -> None:
        import ctypes
        import time

        if holds:
            ctypes.PyDLL(None).sleep(3600)
        while not Path(until).exists():
            time.sleep(0.01)

    def draw(self, prompt: str, references: object, seed: int) -> Image.Image:
        return noise_image(prompt)


class HangsInSetup(HangsWhenBuilt):
    """Has a `setup` that ends when a file appears."""

    def __init__(self, until: str) -> None:
        self.until = until

    def setup(self, device: str) -> None:
        super().__init__(self.until)


class CachingJudge:
    """Says whether it may use cached replies."""

    concurrency = 2

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        return score_of(sample, generation, details={"reuse": reuse_replies.get(), "pid": os.getpid()})


class CachingMeasure:
    """Says the same while it computes."""

    workers = 1

    def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        return score_of(sample, generation, details={"reuse": reuse_replies.get(), "pid": os.getpid()})


class ExitingJudge:
    """Ends the process while other scores are in flight."""

    concurrency = COUNT

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        await asyncio.sleep(0.01)
        if is_bad(sample.prompt):
            os._exit(5)
        return score_of(sample, generation, details={"pid": os.getpid()})


class PaidJudge:
    """Pays for its calls, writes a note, and gives the number of the judge repeat."""

    concurrency = 2

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        async with paid_call(0.5, "paid") as reservation:
            reservation.settle(0.25)
        note("paid", "pace", {"pid": os.getpid()})
        return score_of(sample, generation, details={"repeat": judge_repeat.get(), "pid": os.getpid()})


class InvalidJudge:
    """Gives a record that was made without checks."""

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        if not is_bad(sample.prompt):
            return score_of(sample, generation)
        wrong: dict[str, Any] = {"status": "excellent", "values": {"faithfulness": "high"}, "na": 5, "reason": None}
        reading = ParsedScore.model_construct(**wrong)
        wrong = {"scorer": 7, "attempts": ("x",), "usage": None}
        return Score.model_construct(sample_id=sample.id, repeat=0, status=ScoreStatus.OK, strict=reading, **wrong)
