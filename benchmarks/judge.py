"""Measure the throughput and the memory of scoring with a language-model judge behind a slow endpoint.

    python benchmarks/judge.py [--sizes 1000 3000 10000] [--latency 0.2] [--slots 64] [--large 300]
        [--concurrency N] [--times 1] [--against COMMIT]

A server in another process answers each call after `--latency` seconds, `--slots` calls at a time, and queues further
calls. This allows slots / latency scores per second, in whole rounds of the latency, which rate control must discover;
with `--concurrency` the judge is given that number of calls, which is reached sooner. Images are generated before the
measurement. Each measurement runs in a process of its own, which gives its peak memory.

Prints for each number of samples the seconds, the scores per second, the share that the allowed time has in the time
taken, in all and from the first call on, without what a process needs to start, the peak memory,
the maximum number of concurrent calls, and the calls of a first run, of a repeated run and of a run in another folder
(the last two should be 0). Then prints whether the goals are met. With `--against` both commits score the first size in
turn, `--times` times, and the figures of this one are printed with their ratio to the other: both shares, and the
processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.against import HELP, ROOT, checkouts, compared, load, python
from knowgen.core.records import GenerationRequest, GroundTruth, ImageRef, Sample
from knowgen.core.spec import GeneratorSpec, RunSpec, Selection
from knowgen.engine import EngineOptions, GeneratorHandle, ScorerHandle, run
from knowgen.generators.contract import GeneratedImage, capabilities_of
from knowgen.store.run import RunStore
from knowgen.workflows import resolve

GOALS = {"share": 0.95, "ratio": 1.2, "memory": 500.0}
SMALL = (48, 36)
LARGE = (1632, 1224)
"""Two megapixels."""

REPLY = {
    "rationale": "Measured, not read.", "faithfulness": 1, "visual_correctness": 0.5, "text_accuracy": 1,
    "aesthetics": 0.5, "text_accuracy_na": False,
}  # fmt: skip


# --- server ----------------------------------------------------------------------------------------------------------


async def _serve(latency: float, slots: int) -> None:
    body = json.dumps(
        {
            "id": "x", "object": "chat.completion", "model": "measured-1",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": json.dumps(REPLY)}}],
            "usage": {"prompt_tokens": 2000, "completion_tokens": 200},
        }
    ).encode()  # fmt: skip
    response = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    free = asyncio.Semaphore(slots)
    calls = 0

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).lower():
                if head.startswith(b"get"):
                    count = str(calls).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(count) + count)
                    continue
                remaining = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                while remaining:
                    remaining -= len(await reader.read(min(remaining, 1 << 18)))
                calls += 1
                async with free:
                    await asyncio.sleep(latency)
                writer.write(response)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0, limit=1 << 18)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _call_count(port: int) -> int:
    """Return the number of calls that the server has received."""
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
        return int(response.read())


# --- measurement -----------------------------------------------------------------------------------------------------


class NoiseTask:
    """A task with a different ground-truth image for every sample.

    Args:
        folder: Folder of its images.
        count: Number of samples.
        size: Width and height of the images in pixels.
    """

    name = "noise"
    version = "1-0123456789ab"
    default_scorers: tuple[str, ...] = ()
    search = ""
    search_version = ""

    def __init__(self, folder: Path, count: int, size: tuple[int, int]) -> None:
        self._folder, self._count, self._size = folder, count, size
        folder.mkdir(exist_ok=True)
        self._truths = {f"s{number:06d}": self._truth_image(number) for number in range(count)}

    def _truth_image(self, number: int) -> ImageRef:
        data = noise_png(number + 10_000_000, self._size)
        path = self._folder / f"{number}.png"
        path.write_bytes(data)
        width, height = self._size
        return ImageRef(sha256=hashlib.sha256(data).hexdigest(), width=width, height=height, format="PNG", path=path)

    def __len__(self) -> int:
        """Return the number of samples."""
        return self._count

    def samples(self) -> Iterator[Sample]:
        """Yield the samples."""
        for name in self._truths:
            yield Sample(id=name, prompt=f"Draw {name}.", category="astronomy", text_required=True)

    def truth(self, sample_id: str) -> GroundTruth:
        """Return the ground truth of a sample."""
        return GroundTruth(sample_id=sample_id, image=self._truths[sample_id])


def noise_png(number: int, size: tuple[int, int]) -> bytes:
    """Return a PNG of smooth noise with some grain, different for every number."""
    import io

    from PIL import Image

    rng = random.Random(number)
    image = Image.frombytes("RGB", (16, 12), rng.randbytes(16 * 12 * 3)).resize(size, Image.Resampling.BICUBIC)
    if size[0] > 500:  # grain as in a photograph, which decides the size of its JPEG
        grain = Image.frombytes("L", size, rng.randbytes(size[0] * size[1])).convert("RGB")
        image = Image.blend(image, grain, 0.05)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


class NoiseGenerator:
    """Generate a different image for every request.

    Args:
        size: Width and height in pixels.
    """

    batch_size = 16

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size

    def generate_batch(self, requests: list[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yield one image for each request."""
        for request in requests:
            yield GeneratedImage(image=noise_png(int(request.id[:8], 16), self._size), request_id=request.id)


def measure(count: int, size: tuple[int, int], port: int, folder: Path, concurrency: int = 0) -> dict[str, float]:
    """Generate `count` samples, score them three times, and return the figures of one line.

    Returns:
        Seconds of the first scoring, peak memory in MB, the calls of the first scoring, of a repeated one and of one in
        another folder, the maximum number of concurrent calls, the number of changes of that limit, the seconds until
        calls were possible, and the processor time of this process in seconds.
    """
    os.environ["KNOWGEN_CACHE"] = str(folder / "cache")
    task = NoiseTask(folder / "truths", count, size)
    generator = GeneratorHandle(
        GeneratorSpec(name="noise"), capabilities_of(NoiseGenerator), lambda: NoiseGenerator(size)
    )
    # replies of a server on this machine are kept for other directories only on request
    args = {"base_url": f"http://127.0.0.1:{port}/v1", "price_call": 0, "endpoint_id": "benchmark", "cache": True}
    if concurrency:
        args["concurrency"] = concurrency
    judge = resolve.resolve_scorer("vlm:measured", args)
    _run(task, generator, [], folder / "run")
    if size == LARGE:
        subprocess.run(["sync"], check=False)
    calls_before = _call_count(port)
    began, cpu = time.time(), time.process_time()
    seconds = _run(task, generator, [judge], folder / "run")
    cpu = time.process_time() - cpu
    first = _call_count(port) - calls_before
    again = _run(task, generator, [judge], folder / "run") and _call_count(port) - calls_before - first
    other = _run(task, generator, [judge], folder / "other") and _call_count(port) - calls_before - first
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with RunStore.read(folder / "run") as store:
        paces = [(at, data) for _, at, data in store.notes("pace")]
    limits = [data["at_once"] for _, data in paces]
    start = min((at - data["seconds"] - began for at, data in paces), default=0.0)
    return {
        "count": count, "seconds": seconds, "memory": peak, "calls": first, "again": again, "other": other,
        "most": max(limits, default=0), "changes": len(limits), "start": start, "cpu": cpu,
    }  # fmt: skip


def _run(task: NoiseTask, generator: GeneratorHandle, scorers: list[ScorerHandle], folder: Path) -> float:
    spec = RunSpec(
        task=task.name,
        task_version=task.version,
        selection=Selection(n=len(task)),
        generator=generator.spec,
        scorers=tuple(scorer.spec for scorer in scorers),
    )
    start = time.perf_counter()
    with RunStore.open(folder, spec) as store:
        outcome = run(spec, task, generator, scorers, store, EngineOptions(progress=False))
    assert not outcome.failed, outcome
    return time.perf_counter() - start


def _in_process(count: int, image_size: str, port: int, concurrency: int, tree: Path = ROOT) -> dict[str, Any]:
    """Measure with the package of a folder, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--one", str(count), image_size, str(port), folder, "--concurrency", str(concurrency)]
        output = python(tree, __file__, *arguments).output
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def _compare(commit: str, count: int, port: int, times: int, allowed: float, concurrency: int) -> None:
    """Print the figures of this commit and their ratios to an earlier one."""
    shares: dict[str, list[float]] = {}
    from_first_call: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    with checkouts(commit) as trees:
        for _ in range(times):
            for name, tree in trees.items():
                row = _in_process(count, "small", port, concurrency, tree)
                shares.setdefault(name, []).append(allowed / row["seconds"])
                from_first_call.setdefault(name, []).append(allowed / (row["seconds"] - row["start"]))
                cpu.setdefault(name, []).append(row["cpu"] / count * 1000)
    print(compared(f"share of the allowed time, {count} samples", shares, ""))
    print(compared("  from the first call on", from_first_call, ""))
    print(compared("processor time of a sample", cpu, "ms"))


def main() -> None:
    """Measure every size and print whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 3_000, 10_000])
    parser.add_argument("--latency", type=float, default=0.2, help="seconds until the server answers a call")
    parser.add_argument("--slots", type=int, default=64, help="calls answered at the same time")
    parser.add_argument("--large", type=int, default=300, help="samples with images of 2 megapixels")
    parser.add_argument("--concurrency", type=int, default=0, help="number of concurrent calls that the judge is given")
    parser.add_argument("--times", type=int, default=1, help="how often each commit is measured, with --against")
    parser.add_argument("--against", metavar="COMMIT", help=HELP)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(_serve(options.latency, options.slots))
        return
    if options.one:
        count, image_size, port, folder = options.one
        size = SMALL if image_size == "small" else LARGE
        print(json.dumps(measure(int(count), size, int(port), Path(folder), options.concurrency)))
        return
    arguments = ["--serve", "--latency", str(options.latency), "--slots", str(options.slots)]
    server = subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        print(load())
        if options.against:
            allowed = _allowed(options.sizes[0], options.slots, options.latency)
            _compare(options.against, options.sizes[0], port, options.times, allowed, options.concurrency)
            return
        small = [_in_process(count, "small", port, options.concurrency) for count in options.sizes]
        large = _in_process(options.large, "large", port, options.concurrency) if options.large else None
    finally:
        server.kill()
    report(small, large, options.slots, options.latency)


def _allowed(count: int, slots: int, latency: float) -> float:
    """Return the seconds in which a number of calls can be answered."""
    return math.ceil(count / slots) * latency


def report(small: list[dict[str, Any]], large: dict[str, Any] | None, slots: int, latency: float) -> None:
    """Print the figures and whether the goals are met."""
    print(f"latency and slots allow {slots / latency:.0f} scores per second, in rounds of {latency:g} s")
    print(f"{'samples':>8} {'images':>9} {'seconds':>8} {'per s':>7} {'share':>6} {'calling':>8}", end="")
    print(f" {'peak MB':>8} {'at once':>8} {'calls':>6} {'again':>6} {'other dir':>9}")
    for row in [*small, *([large] if large else [])]:
        rate = row["count"] / row["seconds"]
        kind = "2 MP" if row is large else "small"
        print(f"{row['count']:8d} {kind:>9} {row['seconds']:8.1f} {rate:7.0f} ", end="")
        allowed = _allowed(row["count"], slots, latency)
        print(f"{allowed / row['seconds']:6.2f} {allowed / (row['seconds'] - row['start']):8.2f}", end="")
        print(f" {row['memory']:8.0f} {row['most']:8.0f} {row['calls']:6.0f} {row['again']:6.0f} {row['other']:9.0f}")
    per_sample = {row["count"]: row["seconds"] / row["count"] for row in small}
    ratio = per_sample[max(per_sample)] / per_sample[min(per_sample)]
    middle = sorted(small, key=lambda row: row["count"])[len(small) // 2]
    share = _allowed(middle["count"], slots, latency) / (middle["seconds"] - middle["start"])
    memory = max(row["memory"] for row in [*small, *([large] if large else [])])
    repeated_calls = sum(row["again"] + row["other"] for row in small)
    met = share >= GOALS["share"] and ratio <= GOALS["ratio"] and memory < GOALS["memory"] and not repeated_calls
    print(f"time per sample, {max(per_sample)} to {min(per_sample)} samples: {ratio:.2f}")
    goals = f"share {GOALS['share']} from the first call on at {middle['count']}, ratio {GOALS['ratio']}"
    print(f"goals ({goals}, {GOALS['memory']:.0f} MB, no repeated calls): {'met' if met else 'MISSED'}")


if __name__ == "__main__":
    main()
