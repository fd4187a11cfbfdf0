"""Measure the throughput of generators.

    python -m benchmarks.generators [--parts local repeats lengths spread compiled serve]

local   Images per second of tiny diffusers pipelines with random weights on this CPU: batches of 4 and 16 images, and
        the size that the generator chooses, compared with one image at a time. Prints seconds, images per second, the
        ratio, and the maximum difference of pixel values.
repeats The same prompts with several seeds: prompts that are encoded, with and without keeping them.
lengths Padding of batches of a task's prompts, in the order of arrival and by length; see `prompt_lengths.py`.
spread  Runs of several lengths over 8 simulated devices, through the engine: devices used, and how many times as fast
        as on one device a run is. A pass of n images takes a fixed time and a time for each image.
compiled
        Compiling: graphs before the first image and afterwards, the time of both, and the difference of pixel values.
serve   `knowgen serve` compared with a server that polls for a free GPU, and its overhead per image; see
        `generators_http.py`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.setting import noise_image
from knowgen.core.records import GenerationRequest
from knowgen.generators.contract import GeneratedImage

ROOT = Path(__file__).resolve().parent.parent
IMAGES = 16
STEPS = 4
ROUNDS = 3


def local() -> None:
    """Generate the same requests one at a time and in batches of several sizes, and compare the images."""
    import numpy as np
    import torch

    from knowgen.generators.diffusers.generator import DiffusersGenerator
    from tests.helpers import tiny_pipelines

    prompts = [f"A lighthouse on cliff number {number}, with a sign" for number in range(IMAGES)]
    requests = [GenerationRequest(id=f"r{number}", prompt=prompt, seed=0) for number, prompt in enumerate(prompts)]
    print(f"{IMAGES} images, {STEPS} steps, float32, {torch.get_num_threads()} thread(s); medians of {ROUNDS} rounds")
    print(f"{'pipeline':<12} {'side':>5} {'batch':>6} {'seconds':>8} {'per s':>7} {'ratio':>6} {'diff':>6}")
    with tempfile.TemporaryDirectory() as root:
        for name, side in (("sd3", 32), ("sd3", 64), ("qwen_image", 32)):
            folder = Path(root) / f"{name}-{side}"
            getattr(tiny_pipelines, name)(folder, **({"side": side} if name == "sd3" else {}))
            single_seconds, single_images = 0.0, {}
            for batch in (1, 4, 16, "auto"):
                generator = DiffusersGenerator(str(folder), batch=batch, size=f"{side}x{side}", steps=STEPS)
                generator.setup("cpu")
                seconds, images, last = [], {}, []
                for number in range(ROUNDS + 1):  # the first round measures sizes and warms up
                    start = time.perf_counter()
                    last = list(generator.generate_batch(requests))
                    images = {result.request_id: np.asarray(result.image) for result in last}
                    if number:
                        seconds.append(time.perf_counter() - start)
                median = statistics.median(seconds)
                if batch == 1:
                    single_seconds, single_images = median, images
                difference = max(
                    int(np.abs(images[key].astype(int) - single_images[key]).max()) for key in single_images
                )
                rate, ratio = IMAGES / median, single_seconds / median
                print(
                    f"{name:<12} {side:5d} {batch!s:>6} {median:8.2f} {rate:7.1f} {ratio:6.2f} {difference:6d}",
                    flush=True,
                )
                if batch == "auto":
                    sizes = sorted({result.settings["batch"] for result in last})
                    print(f"{'':<12} sizes {sizes}, seconds per image {last[-1].settings['batch_seconds']}")
                generator.close()
    print("ratio: speed relative to one image at a time. diff: maximum difference of pixel values (0-255) to it.")
    print(
        "limit: small images are limited by library calls, which a batch shares; large ones by arithmetic, which on a\n"
        "CPU is not faster in batches, so the ratio falls with the size of the images."
    )


def repeats() -> None:
    """Generate each prompt with several seeds, with and without keeping what the text encoder made of it."""
    from knowgen.generators.diffusers.generator import DiffusersGenerator
    from knowgen.generators.diffusers.prompt_encoding import keep_prompts
    from tests.helpers import tiny_pipelines

    requests = [
        GenerationRequest(id=f"r{prompt}-{seed}", prompt=f"A lighthouse on cliff number {prompt}", seed=seed)
        for prompt in range(4)
        for seed in range(4)
    ]
    print(f"{len(requests)} images of 4 prompts, {STEPS} steps, one image at a time")
    print(f"{'pipeline':<12} {'kept':>5} {'encoded':>8} {'seconds':>8}")
    with tempfile.TemporaryDirectory() as root:
        for name in ("sd3", "flux2_klein", "qwen_image"):
            folder = getattr(tiny_pipelines, name)(Path(root) / name)
            for kept in (False, True):
                generator = DiffusersGenerator(str(folder), batch=1, size="32x32", steps=STEPS)
                generator.setup("cpu")
                assert generator._runner is not None
                pipe = generator._runner._pipelines["text"].pipe
                if not kept:
                    del pipe.encode_prompt
                    keep_prompts(pipe, most_bytes=0)
                list(generator.generate_batch(requests[:1]))
                start = time.perf_counter()
                list(generator.generate_batch(requests))
                seconds = time.perf_counter() - start
                print(
                    f"{name:<12} {'yes' if kept else 'no':>5} {pipe.encode_prompt.encoded:8d} {seconds:8.2f}",
                    flush=True,
                )
                generator.close()


class SimulatedDevices:
    """A generator on several devices, each a thread; a pass takes a fixed time and a time for each image.

    Args:
        devices: Number of devices.
        fixed: Seconds of a pass of no images.
        each: Seconds that an image adds.
    """

    batch_size = 16
    revision = "1"

    def __init__(self, devices: int, fixed: float, each: float) -> None:
        self.concurrency, self.fixed, self.each = devices, fixed, each
        self.passes: dict[str, list[int]] = {}

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Wait for the time of a pass, and yield its images."""
        self.passes.setdefault(threading.current_thread().name, []).append(len(requests))
        time.sleep(self.fixed + self.each * len(requests))
        for request in requests:
            yield GeneratedImage(noise_image(f"{request.prompt} {request.seed}"), request_id=request.id)


def spread_over(devices: int, samples: int, fixed: float, each: float) -> tuple[SimulatedDevices, float]:
    """Carry out a run on simulated devices; return them with their passes, and the seconds of the run."""
    from knowgen.engine import EngineOptions
    from tests.helpers.engine import Bench

    generator = SimulatedDevices(devices, fixed, each)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        outcome = Bench(Path(folder) / "run").run(samples, generator, options=EngineOptions())
        seconds = time.perf_counter() - started
    assert outcome.generated == samples
    return generator, seconds


def spread() -> None:
    """Run 10, 20, 48 and 144 samples on 8 simulated devices and on one."""
    fixed, each = 0.3, 0.15
    print(f"a pass of n images takes {fixed} + {each} n seconds; seconds of the whole run, its start and end included")
    print(f"{'samples':>8} {'devices used':>13} {'on 1':>7} {'on 8':>7} {'ratio':>6} {'passes':>7}")
    for samples in (10, 20, 48, 144):
        _, alone = spread_over(1, samples, fixed, each)
        generator, together = spread_over(8, samples, fixed, each)
        passes = sum(map(len, generator.passes.values()))
        used = len(generator.passes)
        print(f"{samples:8d} {used:13d} {alone:7.1f} {together:7.1f} {alone / together:6.2f} {passes:7d}", flush=True)


def compiled(backend: str = "inductor", count: int = IMAGES) -> None:
    """Generate with and without compiling: graphs at the warm-up and afterwards, its time, and the time of the images.

    Args:
        backend: Backend of torch.compile; `eager` counts graphs without a C++ compiler.
        count: Number of images.
    """
    import numpy as np
    import torch

    from knowgen.generators.diffusers.generator import DiffusersGenerator
    from tests.helpers import tiny_pipelines

    prompts = [f"Lighthouse {'x ' * (number % 7)}number {number}" for number in range(count)]
    requests = [GenerationRequest(id=f"r{number}", prompt=prompt, seed=0) for number, prompt in enumerate(prompts)]
    print(f"{count} images in batches of 4 and a rest, prompts of 7 lengths, {STEPS} steps, backend {backend}")
    print(
        f"{'pipeline':<12} {'compile':>9} {'warm-up':>8} {'graphs':>7} {'later':>6} {'s':>7} {'ratio':>6} {'diff':>5}"
    )
    with tempfile.TemporaryDirectory() as root:
        for name in ("flux", "qwen_image"):
            folder = getattr(tiny_pipelines, name)(Path(root) / name)
            guided: dict[str, Any] = {"guidance": 4.0, "negative_prompt": " "} if name == "qwen_image" else {}
            plain_seconds, plain = 0.0, {}
            for scope in ("", "whole", "regional"):
                torch.compiler.reset()
                how: Any = {"scope": scope, "backend": backend} if scope else False
                generator = DiffusersGenerator(str(folder), size="64x64", steps=STEPS, batch=4, compile=how, **guided)
                start = time.perf_counter()
                generator.setup("cpu")
                warm_up, seconds, graphs, images = time.perf_counter() - start, [], [], {}
                for _ in range(ROUNDS):
                    start = time.perf_counter()
                    results = [*generator.generate_batch(requests), *generator.generate_batch(requests[:3])]
                    seconds.append(time.perf_counter() - start)
                    graphs += [int(result.settings.get("compiled_graphs", 0)) for result in results]
                    images = {result.request_id: np.asarray(result.image).astype(int) for result in results}
                median = statistics.median(seconds)
                if not scope:
                    plain_seconds, plain = median, images
                difference = max(int(np.abs(images[key] - plain[key]).max()) for key in plain)
                print(
                    f"{name:<12} {scope or 'no':>9} {warm_up:8.1f} {graphs[0]:7d} {graphs[-1] - graphs[0]:6d} "
                    f"{median:6.2f} {plain_seconds / median:6.2f} {difference:5d}",
                    flush=True,
                )
                generator.close()
    print("warm-up: loading and compiling before the first image. later: graphs after it, each a pause of a run.")


def lengths() -> None:
    """Measure padding with the prompts of a task; see `prompt_lengths.py`, which also takes other tasks."""
    from benchmarks import prompt_lengths

    prompt_lengths.padding()


def serve() -> None:
    """Generate through servers; see `generators_http.py`, which also takes arguments."""
    from benchmarks import generators_http

    generators_http.overhead(300, 16)
    generators_http.against_polling(64, 0.5, 16, 5.0)


PARTS: dict[str, Callable[[], None]] = {
    "local": local, "repeats": repeats, "lengths": lengths, "spread": spread, "compiled": compiled, "serve": serve,
}  # fmt: skip


def main() -> None:
    """Run the requested parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=sorted(PARTS))
    for name in parser.parse_args().parts:
        print(f"== {name}")
        PARTS[name]()


if __name__ == "__main__":
    main()
