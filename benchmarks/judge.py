"""How fast judgements go through an endpoint that takes its time, how that scales, and what it takes of memory.

    python benchmarks/judge.py [--sizes 1000 3000 10000] [--latency 0.2] [--places 64] [--pictures 300]

A server in a process of its own answers after a fixed time, so many calls at once; further calls wait in line. Latency
and places allow places / latency judgements a second; the pace of the judge has to find that out by itself. Pictures
are drawn before the clock starts. Each measurement runs in a process of its own, so that peak memory is its own.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
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

from knowgen.core.records import GenerationRequest, GroundTruth, ImageRef, Sample
from knowgen.core.spec import GeneratorSpec, RunSpec, Selection
from knowgen.engine import EngineOptions, GeneratorHandle, ScorerHandle, run
from knowgen.generators.contract import GeneratedImage, capabilities_of
from knowgen.store.run import RunStore
from knowgen.workflows import resolve

GOALS = {"share": 0.9, "ratio": 1.2, "memory": 500.0}
SMALL = (48, 36)
LARGE = (1632, 1224)
"""Two megapixels."""

REPLY = {
    "rationale": "Measured, not read.", "faithfulness": 1, "visual_correctness": 0.5, "text_accuracy": 1,
    "aesthetics": 0.5, "text_accuracy_na": False,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------- the server


async def _serve(latency: float, places: int) -> None:
    body = json.dumps(
        {
            "id": "x", "object": "chat.completion", "model": "measured-1",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": json.dumps(REPLY)}}],
            "usage": {"prompt_tokens": 2000, "completion_tokens": 200},
        }
    ).encode()  # fmt: skip
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    free = asyncio.Semaphore(places)
    asked = 0

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).lower():
                if head.startswith(b"get"):
                    counted = str(asked).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(counted) + counted)
                    continue
                left = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                while left:
                    left -= len(await reader.read(min(left, 1 << 18)))
                asked += 1
                async with free:
                    await asyncio.sleep(latency)
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0, limit=1 << 18)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _asked(port: int) -> int:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
        return int(response.read())


# -------------------------------------------------------------------------------------------------------- the client


class Pictures:
    """A task with a ground truth of its own for every sample.

    Args:
        folder: Where its pictures are drawn.
        count: How many samples.
        size: Of the pictures, in pixels.
    """

    name = "pictures"
    version = "1-0123456789ab"
    default_scorers: tuple[str, ...] = ()
    search = ""
    search_version = ""

    def __init__(self, folder: Path, count: int, size: tuple[int, int]) -> None:
        self._folder, self._count, self._size = folder, count, size
        folder.mkdir(exist_ok=True)
        self._truths = {f"s{number:06d}": self._draw(number) for number in range(count)}

    def _draw(self, number: int) -> ImageRef:
        data = draw(number + 10_000_000, self._size)
        path = self._folder / f"{number}.png"
        path.write_bytes(data)
        width, height = self._size
        return ImageRef(sha256=hashlib.sha256(data).hexdigest(), width=width, height=height, format="PNG", path=path)

    def __len__(self) -> int:
        """Returns how many samples there are."""
        return self._count

    def samples(self) -> Iterator[Sample]:
        """Yields the samples."""
        for name in self._truths:
            yield Sample(id=name, prompt=f"Draw {name}.", category="astronomy", text_required=True)

    def truth(self, sample_id: str) -> GroundTruth:
        """Returns the truth of a sample."""
        return GroundTruth(sample_id=sample_id, image=self._truths[sample_id])


def draw(number: int, size: tuple[int, int]) -> bytes:
    """Draws a smooth picture with some grain that is like no other; returns a PNG."""
    import io

    from PIL import Image

    dice = random.Random(number)
    coarse = Image.frombytes("RGB", (16, 12), dice.randbytes(16 * 12 * 3)).resize(size, Image.Resampling.BICUBIC)
    if size[0] > 500:  # a photograph's grain, which decides how large its JPEG is
        grain = Image.frombytes("L", size, dice.randbytes(size[0] * size[1])).convert("RGB")
        coarse = Image.blend(coarse, grain, 0.05)
    buffer = io.BytesIO()
    coarse.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


class Drawn:
    """Draws a picture that is like no other.

    Args:
        size: In pixels.
    """

    batch_size = 16

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size

    def generate_batch(self, requests: list[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yields one picture a request."""
        for request in requests:
            yield GeneratedImage(image=draw(int(request.id[:8], 16), self._size), request_id=request.id)


def measure(count: int, size: tuple[int, int], port: int, folder: Path) -> dict[str, float]:
    """Draws, then judges `count` samples twice; returns seconds, peak memory in MB and the calls of the second run."""
    os.environ["KNOWGEN_CACHE"] = str(folder / "cache")
    task = Pictures(folder / "truths", count, size)
    generator = GeneratorHandle(GeneratorSpec(name="drawn"), capabilities_of(Drawn), lambda: Drawn(size))
    judge = resolve.resolve_scorer("vlm:measured", {"base_url": f"http://127.0.0.1:{port}/v1", "price_call": 0})
    seconds = _run(task, generator, [], folder / "run")
    if size == LARGE:
        subprocess.run(["sync"], check=False)
    before = _asked(port)
    seconds = _run(task, generator, [judge], folder / "run")
    first = _asked(port) - before
    again = _run(task, generator, [judge], folder / "run") and _asked(port) - before - first
    other = _run(task, generator, [judge], folder / "other") and _asked(port) - before - first
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with RunStore.read(folder / "run") as store:
        pace = [data["at_once"] for _, _, data in store.notes("pace")]
    return {
        "count": count, "seconds": seconds, "memory": peak, "calls": first, "again": again, "other": other,
        "most": max(pace, default=0), "changes": len(pace),
    }  # fmt: skip


def _run(task: Pictures, generator: GeneratorHandle, scorers: list[ScorerHandle], folder: Path) -> float:
    spec = RunSpec(
        task=task.name,
        task_version=task.version,
        selection=Selection(n=len(task)),
        generator=generator.spec,
        scorers=tuple(scorer.spec for scorer in scorers),
    )
    began = time.perf_counter()
    with RunStore.open(folder, spec) as store:
        outcome = run(spec, task, generator, scorers, store, EngineOptions(progress=False))
    assert not outcome.failed, outcome
    return time.perf_counter() - began


def _in_process(count: int, pictures: str, port: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", str(count), pictures, str(port), folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measures and says whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 3_000, 10_000])
    parser.add_argument("--latency", type=float, default=0.2, help="seconds an answer takes")
    parser.add_argument("--places", type=int, default=64, help="calls answered at once")
    parser.add_argument("--pictures", type=int, default=300, help="samples with pictures of 2 megapixels")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(_serve(options.latency, options.places))
        return
    if options.one:
        count, pictures, port, folder = options.one
        size = SMALL if pictures == "small" else LARGE
        print(json.dumps(measure(int(count), size, int(port), Path(folder))))
        return
    words = ["--serve", "--latency", str(options.latency), "--places", str(options.places)]
    server = subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        small = [_in_process(count, "small", port) for count in options.sizes]
        large = _in_process(options.pictures, "large", port) if options.pictures else None
    finally:
        server.kill()
    report(small, large, options.places / options.latency)


def report(small: list[dict[str, Any]], large: dict[str, Any] | None, allowed: float) -> None:
    """Prints the figures and whether the goals are met."""
    print(f"latency and places allow {allowed:.0f} judgements a second")
    print(
        f"{'samples':>8} {'pictures':>9} {'seconds':>8} {'per s':>7} {'share':>6} {'peak MB':>8} {'at once':>8}", end=""
    )
    print(f" {'asked':>6} {'again':>6} {'other dir':>9}")
    for one in [*small, *([large] if large else [])]:
        rate = one["count"] / one["seconds"]
        kind = "2 MP" if one is large else "small"
        print(f"{one['count']:8d} {kind:>9} {one['seconds']:8.1f} {rate:7.0f} {rate / allowed:6.2f}", end="")
        print(f" {one['memory']:8.0f} {one['most']:8.0f} {one['calls']:6.0f} {one['again']:6.0f} {one['other']:9.0f}")
    each = {one["count"]: one["seconds"] / one["count"] for one in small}
    ratio = each[max(each)] / each[min(each)]
    middle = sorted(small, key=lambda one: one["count"])[len(small) // 2]
    share = middle["count"] / middle["seconds"] / allowed
    memory = max(one["memory"] for one in [*small, *([large] if large else [])])
    asked = sum(one["again"] + one["other"] for one in small)
    met = share >= GOALS["share"] and ratio <= GOALS["ratio"] and memory < GOALS["memory"] and not asked
    print(f"time per sample, {max(each)} to {min(each)} samples: {ratio:.2f}")
    print(f"goals (share {GOALS['share']} at {middle['count']}, ratio {GOALS['ratio']}, {GOALS['memory']:.0f} MB,")
    print(f"nothing asked again): {'met' if met else 'MISSED'}")


if __name__ == "__main__":
    main()
