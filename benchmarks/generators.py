"""How fast generators are driven; each part prints what it measured and what limits it.

    python -m benchmarks.generators [--parts local serve]

serve   `knowgen serve` against a server that polls for a free GPU, and what serving costs an image
local   one pipeline of diffusers with tiny random weights on this CPU: batches against one picture at a time
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURES = 16
STEPS = 4
ROUNDS = 3


def local() -> None:
    """Draws the same requests one at a time and in batches of several sizes, and holds the pictures together."""
    import numpy as np
    import torch

    from knowgen.core.records import GenerationRequest
    from knowgen.generators.diffusers.generator import DiffusersGenerator
    from tests.helpers import tiny_pipelines

    prompts = [f"A lighthouse on cliff number {number}, with a sign" for number in range(PICTURES)]
    requests = [GenerationRequest(id=f"r{number}", prompt=prompt, seed=0) for number, prompt in enumerate(prompts)]
    print(
        f"{PICTURES} pictures, {STEPS} steps, float32, {torch.get_num_threads()} thread(s); medians of {ROUNDS} rounds"
    )
    print(f"{'pipeline':<12} {'side':>5} {'batch':>6} {'seconds':>8} {'per s':>7} {'ratio':>6} {'apart':>6}")
    with tempfile.TemporaryDirectory() as root:
        for name, side in (("sd3", 32), ("sd3", 64), ("qwen_image", 32)):
            folder = Path(root) / f"{name}-{side}"
            getattr(tiny_pipelines, name)(folder, **({"side": side} if name == "sd3" else {}))
            single, first = 0.0, {}
            for batch in (1, 4, 16):
                generator = DiffusersGenerator(str(folder), batch=batch, size=f"{side}x{side}", steps=STEPS)
                generator.setup("cpu")
                seconds, drawn = [], {}
                for number in range(ROUNDS + 1):  # the first one grows the passes and warms up
                    began = time.perf_counter()
                    drawn = {one.request_id: np.asarray(one.image) for one in generator.generate_batch(requests)}
                    if number:
                        seconds.append(time.perf_counter() - began)
                took = statistics.median(seconds)
                if batch == 1:
                    single, first = took, drawn
                apart = max(int(np.abs(drawn[key].astype(int) - first[key]).max()) for key in first)
                rate, ratio = PICTURES / took, single / took
                print(f"{name:<12} {side:5d} {batch:6d} {took:8.2f} {rate:7.1f} {ratio:6.2f} {apart:6d}", flush=True)
                generator.close()
    print("ratio: to one at a time. apart: largest difference to it, of 255 levels.")
    print(
        "limit: of a small picture the calls of the library, which a batch shares; of a large one arithmetic, which\n"
        "a CPU does no faster for many than for one, so that the ratio falls as pictures grow."
    )


def serve() -> None:
    """Draws through servers; see generators_http.py, which also takes arguments."""
    from benchmarks import generators_http

    generators_http.overhead(300, 16)
    generators_http.against_polling(64, 0.5, 16, 5.0)


PARTS: dict[str, Callable[[], None]] = {"local": local, "serve": serve}


def main() -> None:
    """Runs the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=sorted(PARTS))
    for name in parser.parse_args().parts:
        print(f"== {name}")
        PARTS[name]()


if __name__ == "__main__":
    main()
