"""Measure the throughput of generators.

    python -m benchmarks.generators [--parts local serve]

local   Images per second of tiny diffusers pipelines with random weights on this CPU: batches of 4 and 16 images
        compared with one image at a time. Prints seconds, images per second, the ratio, and the maximum difference of
        pixel values.
serve   `knowgen serve` compared with a server that polls for a free GPU, and its overhead per image; see
        `generators_http.py`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = 16
STEPS = 4
ROUNDS = 3


def local() -> None:
    """Generate the same requests one at a time and in batches of several sizes, and compare the images."""
    import numpy as np
    import torch

    from knowgen.core.records import GenerationRequest
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
            for batch in (1, 4, 16):
                generator = DiffusersGenerator(str(folder), batch=batch, size=f"{side}x{side}", steps=STEPS)
                generator.setup("cpu")
                seconds, images = [], {}
                for number in range(ROUNDS + 1):  # the first round grows the batches and warms up
                    start = time.perf_counter()
                    images = {
                        result.request_id: np.asarray(result.image) for result in generator.generate_batch(requests)
                    }
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
                    f"{name:<12} {side:5d} {batch:6d} {median:8.2f} {rate:7.1f} {ratio:6.2f} {difference:6d}",
                    flush=True,
                )
                generator.close()
    print("ratio: speed relative to one image at a time. diff: maximum difference of pixel values (0-255) to it.")
    print(
        "limit: small images are limited by library calls, which a batch shares; large ones by arithmetic, which on a\n"
        "CPU is not faster in batches, so the ratio falls with the size of the images."
    )


def serve() -> None:
    """Generate through servers; see `generators_http.py`, which also takes arguments."""
    from benchmarks import generators_http

    generators_http.overhead(300, 16)
    generators_http.against_polling(64, 0.5, 16, 5.0)


PARTS: dict[str, Callable[[], None]] = {"local": local, "serve": serve}


def main() -> None:
    """Run the requested parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=sorted(PARTS))
    for name in parser.parse_args().parts:
        print(f"== {name}")
        PARTS[name]()


if __name__ == "__main__":
    main()
