"""How long `similarity` takes for 630 pairs of pictures of a megapixel, against one picture at a time, and again.

    python benchmarks/similarity.py [--pairs 630] [--arch ViT-B-32] [--threads 2]

Three passes with the same weights (random, which costs the same time) on the processor, each in a process of its own
timed with its imports: a loop that opens, prepares and embeds one picture after another with the
library alone; the scorer as a run calls it, with an empty cache; and the scorer once more, with what that pass left.
Generated pictures are PNG, ground truths JPEG, all of them different. The cosines of all passes must agree.
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
KINDS = {"drawn": "PNG", "truth": "JPEG"}
REPEAT_GOAL = 0.1
"""The second pass may take this part of the first."""

AGREE = 1e-4
"""Cosines of a batch and of single pictures may differ by so much."""


def make_pictures(folder: Path, pairs: int) -> None:
    """Writes the pictures of all pairs: blocks of colour scaled up, with a little noise, like a drawing on paper."""
    import numpy as np
    from PIL import Image

    grain = np.random.default_rng(0).integers(-6, 7, (SIDE, SIDE, 3), dtype=np.int16)

    def one(job: tuple[int, str]) -> None:
        number, kind = job
        rng = np.random.default_rng([number, len(kind)])
        blocks = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        wide = np.asarray(blocks.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.int16)
        pixels = np.clip(wide + np.roll(grain, number, axis=0), 0, 255).astype(np.uint8)
        options = {"compress_level": 1} if KINDS[kind] == "PNG" else {"quality": 92}
        Image.fromarray(pixels).save(folder / f"{number}-{kind}.{KINDS[kind].lower()}", KINDS[kind], **options)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(one, [(number, kind) for number in range(pairs) for kind in KINDS]))


def make_weights(file: Path, arch: str) -> None:
    """Saves random weights of an architecture."""
    import open_clip
    import torch

    torch.manual_seed(0)
    torch.save(open_clip.create_model(arch).state_dict(), file)


def picture_file(folder: Path, number: int, kind: str) -> Path:
    """Returns where a picture lies."""
    return folder / f"{number}-{kind}.{KINDS[kind].lower()}"


def items(folder: Path, pairs: int) -> list[Item]:
    """Returns what the scorer is given; a run has the digests already."""

    def ref(number: int, kind: str) -> ImageRef:
        file = picture_file(folder, number, kind)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return ImageRef(sha256=digest, width=SIDE, height=SIDE, format=KINDS[kind], path=file)

    return [
        (
            Sample(id=str(number), prompt="Draw it."),
            GroundTruth(sample_id=str(number), image=ref(number, "truth")),
            Generation(sample_id=str(number), status=GenerationStatus.OK, image=ref(number, "drawn")),
        )
        for number in range(pairs)
    ]


def one_at_a_time(folder: Path, pairs: int, arch: str) -> list[float]:
    """Embeds every picture on its own, as a short script would."""
    import open_clip
    import torch
    from PIL import Image

    model, preprocess = open_clip.create_model_from_pretrained(arch, str(folder / "weights.pt"))
    model.eval()

    def embed(number: int, kind: str) -> Any:
        with torch.inference_mode(), Image.open(picture_file(folder, number, kind)) as opened:
            vector = model.encode_image(preprocess(opened.convert("RGB")).unsqueeze(0))[0]
            return vector / vector.norm()

    return [float(embed(number, "drawn") @ embed(number, "truth")) for number in range(pairs)]


def with_the_scorer(batch: list[Item], folder: Path, arch: str) -> list[float]:
    """Scores as a run does, in calls of as many items as the scorer takes."""
    scorer = Similarity(f"{arch}@{folder / 'weights.pt'}")
    scorer.setup("cpu")
    size = Similarity.concurrency
    parts = [batch[start : start + size] for start in range(0, len(batch), size)]
    cosines = [score.details["cosines"][0] for part in parts for score in scorer.score_batch(part)]
    scorer.close()
    return cosines


def measure(way: str, folder: Path, pairs: int, arch: str) -> dict[str, Any]:
    """Times one pass."""
    batch = items(folder, pairs) if way == "scorer" else []
    began, cpu = time.perf_counter(), time.process_time()
    cosines = with_the_scorer(batch, folder, arch) if way == "scorer" else one_at_a_time(folder, pairs, arch)
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu, "cosines": cosines}


def _in_process(way: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", way, "--folder", str(folder), "--pairs", str(options.pairs)]
    command += ["--arch", options.arch]
    threads = {"OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)}
    environment = {**os.environ, **threads, "KNOWGEN_CACHE": str(folder / "cache")}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measures the three passes and says whether the goal is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=630)
    parser.add_argument("--arch", default="ViT-B-32", help="an architecture that open_clip lists")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads torch computes with")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.folder, options.pairs, options.arch)))
        return
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        make_pictures(folder, options.pairs)
        make_weights(folder / "weights.pt", options.arch)
        passes = {
            "one at a time": _in_process("loop", folder, options),
            "scorer": _in_process("scorer", folder, options),
            "scorer again": _in_process("scorer", folder, options),
        }
    print(f"{options.pairs} pairs of {SIDE} x {SIDE}, {options.arch} on {options.threads} threads")
    print(f"{'pass':<14} {'seconds':>8} {'CPU s':>8} {'pairs per s':>12}")
    for name, one in passes.items():
        print(f"{name:<14} {one['seconds']:8.2f} {one['cpu']:8.2f} {options.pairs / one['seconds']:12.1f}")
    loop, first, again = passes.values()
    differ = max(abs(a - b) for one in (first, again) for a, b in zip(loop["cosines"], one["cosines"], strict=True))
    part, cpu = (again[kind] / first[kind] for kind in ("seconds", "cpu"))
    faster, less = (loop[kind] / first[kind] for kind in ("seconds", "cpu"))
    print(f"the scorer is {faster:.2f} times as fast as one at a time (CPU time {less:.2f})")
    print(f"the second pass takes {part:.3f} of the first (CPU time {cpu:.3f})")
    print(f"cosines differ by {differ:.1e} at most")
    met = part <= REPEAT_GOAL and differ <= AGREE
    print(f"goals (second pass {REPEAT_GOAL} of the first, cosines within {AGREE:.0e}): {'met' if met else 'MISSED'}")


if __name__ == "__main__":
    main()
