"""Measure the scorer `similarity` on pairs of one-megapixel images, compared with one image at a time, and repeated.

    python benchmarks/similarity.py [--pairs 630] [--arch ViT-B-32] [--threads 2]

Three passes with the same random weights on the CPU, each in a process of its own and timed with its imports: a loop
that opens, preprocesses and embeds one image after another with open_clip alone; the scorer as a run calls it, with an
empty cache; and the scorer again with that cache. Generated images are PNG, ground truths JPEG, all different.

Prints the seconds, the CPU seconds and the pairs per second of each pass, the ratios between the passes, the maximum
difference of the cosine similarities, and whether the goals are met.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from knowgen.core.records import Generation, GenerationStatus, GroundTruth, ImageRef, Item, Sample
from knowgen.scorers.similarity.scorers import Similarity

SIDE = 1024
KINDS = {"generated": "PNG", "truth": "JPEG"}
REPEAT_GOAL = 0.1
"""Goal: maximum time of the repeated pass relative to the first."""

TOLERANCE = 1e-4
"""Maximum difference between cosine similarities of a batch and of single images."""


def make_images(folder: Path, pairs: int) -> None:
    """Write the images of all pairs: scaled blocks of colour with a little noise."""
    import numpy as np
    from PIL import Image

    grain = np.random.default_rng(0).integers(-6, 7, (SIDE, SIDE, 3), dtype=np.int16)

    def write(image: tuple[int, str]) -> None:
        number, kind = image
        rng = np.random.default_rng([number, len(kind)])
        blocks = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        scaled = np.asarray(blocks.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.int16)
        pixels = np.clip(scaled + np.roll(grain, number, axis=0), 0, 255).astype(np.uint8)
        options = {"compress_level": 1} if KINDS[kind] == "PNG" else {"quality": 92}
        Image.fromarray(pixels).save(folder / f"{number}-{kind}.{KINDS[kind].lower()}", KINDS[kind], **options)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(write, [(number, kind) for number in range(pairs) for kind in KINDS]))


def make_weights(file: Path, arch: str) -> None:
    """Save random weights of an architecture."""
    import open_clip
    import torch

    torch.manual_seed(0)
    torch.save(open_clip.create_model(arch).state_dict(), file)


def image_file(folder: Path, number: int, kind: str) -> Path:
    """Return the path of an image."""
    return folder / f"{number}-{kind}.{KINDS[kind].lower()}"


def items(folder: Path, pairs: int) -> list[Item]:
    """Return the items to score; a run has their digests already."""

    def ref(number: int, kind: str) -> ImageRef:
        file = image_file(folder, number, kind)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return ImageRef(sha256=digest, width=SIDE, height=SIDE, format=KINDS[kind], path=file)

    return [
        (
            Sample(id=str(number), prompt="Draw it."),
            GroundTruth(sample_id=str(number), image=ref(number, "truth")),
            Generation(sample_id=str(number), status=GenerationStatus.OK, image=ref(number, "generated")),
        )
        for number in range(pairs)
    ]


def one_at_a_time(folder: Path, pairs: int, arch: str) -> list[float]:
    """Return the similarities computed by embedding one image at a time, as in a short script."""
    import open_clip
    import torch
    from PIL import Image

    model, preprocess = open_clip.create_model_from_pretrained(arch, str(folder / "weights.pt"))
    model.eval()

    def embed(number: int, kind: str) -> Any:
        with torch.inference_mode(), Image.open(image_file(folder, number, kind)) as opened:
            vector = model.encode_image(preprocess(opened.convert("RGB")).unsqueeze(0))[0]
            return vector / vector.norm()

    return [float(embed(number, "generated") @ embed(number, "truth")) for number in range(pairs)]


def with_scorer(batch: list[Item], folder: Path, arch: str) -> list[float]:
    """Return the similarities computed by the scorer as a run calls it."""
    scorer = Similarity(f"{arch}@{folder / 'weights.pt'}")
    scorer.setup("cpu")
    size = Similarity.concurrency
    batches = [batch[start : start + size] for start in range(0, len(batch), size)]
    cosines = [score.details["cosines"][0] for part in batches for score in scorer.score_batch(part)]
    scorer.close()
    return cosines


def measure(method: str, folder: Path, pairs: int, arch: str) -> dict[str, Any]:
    """Return the seconds, the CPU seconds and the similarities of one pass.

    Args:
        method: scorer or loop.
        folder: Folder of the images and the weights.
        pairs: Number of pairs.
        arch: Architecture of open_clip.
    """
    batch = items(folder, pairs) if method == "scorer" else []
    start, cpu_start = time.perf_counter(), time.process_time()
    cosines = with_scorer(batch, folder, arch) if method == "scorer" else one_at_a_time(folder, pairs, arch)
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu_start, "cosines": cosines}


def _in_process(method: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", method, "--folder", str(folder), "--pairs", str(options.pairs)]
    command += ["--arch", options.arch]
    threads = {"OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)}
    environment = {**os.environ, **threads, "KNOWGEN_CACHE": str(folder / "cache")}
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure the three passes and print whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=630)
    parser.add_argument("--arch", default="ViT-B-32", help="architecture of open_clip")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="number of torch threads")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.folder, options.pairs, options.arch)))
        return
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        make_images(folder, options.pairs)
        make_weights(folder / "weights.pt", options.arch)
        passes = {
            "one at a time": _in_process("loop", folder, options),
            "scorer": _in_process("scorer", folder, options),
            "scorer again": _in_process("scorer", folder, options),
        }
    print(f"{options.pairs} pairs of {SIDE} x {SIDE}, {options.arch} on {options.threads} threads")
    print(f"{'pass':<14} {'seconds':>8} {'CPU s':>8} {'pairs per s':>12}")
    for name, result in passes.items():
        print(f"{name:<14} {result['seconds']:8.2f} {result['cpu']:8.2f} {options.pairs / result['seconds']:12.1f}")
    loop, first, again = passes.values()
    difference = max(
        abs(a - b) for result in (first, again) for a, b in zip(loop["cosines"], result["cosines"], strict=True)
    )
    share, cpu_share = (again[kind] / first[kind] for kind in ("seconds", "cpu"))
    speedup, cpu_speedup = (loop[kind] / first[kind] for kind in ("seconds", "cpu"))
    print(f"the scorer is {speedup:.2f} times as fast as one image at a time (CPU time {cpu_speedup:.2f})")
    print(f"the repeated pass takes {share:.3f} of the first (CPU time {cpu_share:.3f})")
    print(f"cosine similarities differ by at most {difference:.1e}")
    met = share <= REPEAT_GOAL and difference <= TOLERANCE
    print(f"goals (repeated pass {REPEAT_GOAL} of the first, similarities within {TOLERANCE:.0e}):", end=" ")
    print("met" if met else "MISSED")


if __name__ == "__main__":
    main()
