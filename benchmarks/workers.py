"""Measure what a worker process costs: samples per second in process and in a worker.

    python benchmarks/workers.py [--count 200] [--sides 256 1024]

The generator makes a small change to one image, which takes almost no time, so that the difference is the cost of the
worker: the request, the pixels and the result cross between two processes. Each setting runs three times and the
fastest counts. The start of the worker, once a run, is measured apart.

Prints for each side the samples per second in both, and the processor time of an image in milliseconds, which other
programs on the machine hardly change. Exits with 1 if a worker adds more than 3 ms of it at 1024 pixels.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.setting import NumberedTask, number_in, specification
from knowgen.engine import EngineOptions, run
from knowgen.store.run import RunStore
from knowgen.workflows.resolve import resolve_generator

GOAL = 3.0
"""Most milliseconds of processor time that a worker may add to an image of 1024 pixels."""


class Stamped:
    """Return one image whose first pixel differs from prompt to prompt.

    Args:
        side: Width and height in pixels.
    """

    def __init__(self, side: int) -> None:
        gradient = Image.linear_gradient("L").resize((side, side))
        self.image = Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180)))

    def draw(self, prompt: str, references: list[Image.Image], seed: int) -> Image.Image:
        """Return the image."""
        number = number_in(prompt)
        self.image.putpixel((0, 0), (number % 256, number // 256, 0))
        return self.image


def measure(count: int, side: int, workers: int) -> tuple[float, float]:
    """Return the seconds of one run and its processor time, both of its processes."""
    task = NumberedTask(count)
    handle = resolve_generator(f"{Path(__file__).resolve()}:Stamped", {"side": side}, None)
    spec = specification(task, handle.spec)
    options: Any = EngineOptions(progress=False, workers=workers)
    with tempfile.TemporaryDirectory() as folder, RunStore.open(Path(folder) / "run", spec) as store:
        started, used = time.perf_counter(), processor_time()
        outcome = run(spec, task, handle, (), store, options)
        assert outcome.generated == count, outcome
        return time.perf_counter() - started, processor_time() - used


def processor_time() -> float:
    """Return the processor time in seconds of this process and its ended children."""
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def per_image(count: int, side: int, workers: int) -> tuple[float, float, float]:
    """Return seconds and processor time per image, and the seconds of a run of one image; the least of three runs."""
    short = [measure(1, side, workers) for _ in range(3)]
    long = [measure(count + 1, side, workers) for _ in range(3)]
    wall, used = (
        (min(column) - min(first)) / count
        for column, first in zip(zip(*long, strict=True), zip(*short, strict=True), strict=True)
    )
    return wall, used, min(seconds for seconds, _ in short)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 1024])
    options = parser.parse_args()
    added = {}
    for side in options.sides:
        wall, used, start = per_image(options.count, side, workers=0)
        worker_wall, worker_used, worker_start = per_image(options.count, side, workers=1)
        added[side] = (worker_used - used) * 1000
        print(
            f"{side:>5} px: {1 / wall:6.1f} samples/s in process, {1 / worker_wall:6.1f} in a worker "
            f"({wall / worker_wall:.2f} of it); processor time {used * 1000:.1f} and {worker_used * 1000:.1f} ms an "
            f"image ({added[side]:+.2f} ms); start {worker_start - start:.2f} s",
            flush=True,
        )
    return int(added.get(1024, 0.0) > GOAL)


if __name__ == "__main__":
    sys.exit(main())
