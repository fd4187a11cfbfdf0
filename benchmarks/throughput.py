"""Measure how many samples per second pass through the engine and the store, and how that scales.

    python benchmarks/throughput.py [--sizes 5000 50000] [--images bytes|pil] [--one-core] [--times 1]
        [--against COMMIT]

Every sample gets a different image of about 20 kB, which costs almost no time to generate, and a constant score. The
store is as durable as in any run. Each size runs in a process of its own, which gives its peak memory.

Prints for each size the seconds, the samples per second, the CPU milliseconds per sample and the peak memory, then the
ratio of the time per sample between the last and the first size, and whether the goals are met. With `--against` both
commits run the last size in turn, `--times` times; the figures of this one are printed with their ratio to the other.

`--one-core` shows what stands in the way of a higher rate: on one core the threads do not take the interpreter lock
from each other with every file and every row that they write, and a sample costs .6 of the processor time. 50,000
samples passed at 1,570 per second on two idle cores and at 1,905 on one (2026-11-29, Python 3.11, ext4).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.against import HELP, ROOT, checkouts, compared, load, python
from benchmarks.setting import NumberedTask, specification
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
from knowgen.core.spec import GeneratorSpec, ScorerSpec
from knowgen.engine import EngineOptions, GeneratorHandle, ScorerHandle, run
from knowgen.generators.contract import GeneratedImage, capabilities_of
from knowgen.scorers.contract import scorer_capabilities
from knowgen.store.run import RunStore

SIDE = 82
"""Side of the images in pixels: 82 x 82 x 3 bytes of incompressible noise make a PNG of 20 kB."""

GOALS = {"rate": 2000.0, "ratio": 1.3, "memory": 400.0}


class NoiseGenerator:
    """Generate images of noise that differ in their first pixels, which contain the id of the request.

    Args:
        pil: Whether to return PIL images instead of the bytes of PNG files.
    """

    batch_size = 16

    def __init__(self, pil: bool) -> None:
        import random

        from PIL import Image

        self._pil = pil
        self._noise = random.Random(1).randbytes(SIDE * SIDE * 3)
        self._image = Image
        self._rows = [self._noise[row * SIDE * 3 : (row + 1) * SIDE * 3] for row in range(SIDE)]

    def generate_batch(self, requests: list[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yield one image for each request."""
        for request in requests:
            prefix = bytes.fromhex(request.id) * 2
            if self._pil:
                pixels = prefix + self._noise[len(prefix) :]
                yield GeneratedImage(image=self._image.frombytes("RGB", (SIDE, SIDE), pixels), request_id=request.id)
            else:
                yield GeneratedImage(image=self._png(prefix), request_id=request.id)

    def _png(self, prefix: bytes) -> bytes:
        """Return a PNG without compression, which is fast to encode."""
        rows = [b"\0" + row for row in self._rows]
        rows[0] = b"\0" + prefix + self._rows[0][len(prefix) :]
        header = SIDE.to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
        body = zlib.compress(b"".join(rows), 0)
        return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


class ConstantScorer:
    """Gives every image the same score."""

    needs = frozenset({"image"})

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        """Return a score of 0.5 in every dimension."""
        parsed = ParsedScore(status=ScoreStatus.OK, values=dict.fromkeys(DIMENSIONS, 0.5))
        return Score(
            sample_id=sample.id, repeat=generation.repeat, scorer="constant", status=ScoreStatus.OK, strict=parsed
        )


def measure(count: int, pil: bool, folder: Path) -> dict[str, float]:
    """Run `count` samples in a new folder; return seconds, CPU seconds and peak memory in MB."""
    task = NumberedTask(count)
    generator = GeneratorHandle(
        GeneratorSpec(name="noise"), capabilities_of(NoiseGenerator), lambda: NoiseGenerator(pil)
    )
    scorer = ScorerHandle(ScorerSpec(name="constant"), scorer_capabilities(ConstantScorer), ConstantScorer)
    spec = specification(task, generator.spec, [scorer.spec])
    start, cpu_start = time.perf_counter(), time.process_time()
    with RunStore.open(folder / "run", spec) as store:
        outcome = run(spec, task, generator, [scorer], store, EngineOptions())
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    assert (outcome.generated, outcome.scored) == (count, count), outcome
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
    return {"count": count, "seconds": seconds, "cpu": cpu, "memory": peak / (1024 if sys.platform == "darwin" else 1)}


def _in_process(count: int, images: str, folder: str, tree: Path = ROOT, *, one_core: bool = False) -> dict[str, Any]:
    """Measure with the package of a folder, in a process of its own."""
    cores = ["--one-core"] if one_core else []
    output = python(tree, __file__, "--one", str(count), "--images", images, "--folder", folder, *cores).output
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def _compare(commit: str, count: int, images: str, times: int, *, one_core: bool) -> None:
    """Print the figures of this commit and their ratios to an earlier one."""
    rates: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    with checkouts(commit) as trees, tempfile.TemporaryDirectory() as root:
        for _ in range(times):
            for name, tree in trees.items():
                result = _in_process(count, images, root, tree, one_core=one_core)
                rates.setdefault(name, []).append(result["count"] / result["seconds"])
                cpu.setdefault(name, []).append(result["cpu"] / result["count"] * 1000)
    print(compared(f"rate of {count} samples", rates, "/s"))
    print(compared("processor time of a sample", cpu, "ms"))


def main() -> None:
    """Measure every size and print whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 50_000])
    parser.add_argument("--images", choices=["bytes", "pil"], default="bytes")
    parser.add_argument("--one-core", action="store_true", help="use one core only (Linux)")
    parser.add_argument("--times", type=int, default=1, help="how often each commit is measured, with --against")
    parser.add_argument("--against", metavar="COMMIT", help=HELP)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        if options.one_core:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        folder = tempfile.mkdtemp(dir=options.folder)
        print(json.dumps(measure(options.one, options.images == "pil", Path(folder))))
        return
    print(load())
    if options.against:
        _compare(options.against, options.sizes[-1], options.images, options.times, one_core=options.one_core)
        return
    # deleted only at the end: ext4 creates files slowly for half a minute after many were deleted
    with tempfile.TemporaryDirectory() as root:
        results = [_in_process(count, options.images, root, one_core=options.one_core) for count in options.sizes]
    print(f"{'samples':>8} {'seconds':>8} {'per s':>7} {'CPU ms each':>12} {'peak MB':>8}")
    for result in results:
        rate, cpu_ms = result["count"] / result["seconds"], result["cpu"] / result["count"] * 1000
        print(f"{result['count']:8d} {result['seconds']:8.1f} {rate:7.0f} {cpu_ms:12.3f} {result['memory']:8.0f}")
    first, last = results[0], results[-1]
    ratio = (last["seconds"] / last["count"]) / (first["seconds"] / first["count"])
    cpu_ratio = (last["cpu"] / last["count"]) / (first["cpu"] / first["count"])
    rate = last["count"] / last["seconds"]
    print(f"time per sample, last to first size: {ratio:.2f} (CPU time {cpu_ratio:.2f})")
    met = rate >= GOALS["rate"] and ratio <= GOALS["ratio"] and last["memory"] < GOALS["memory"]
    print(
        f"goals ({GOALS['rate']:.0f}/s, ratio {GOALS['ratio']}, {GOALS['memory']:.0f} MB): {'met' if met else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
