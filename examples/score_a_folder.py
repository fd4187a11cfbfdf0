"""Score a folder of images that exist already. The stem of each file is the id of its sample.

The command line does the same: `knowgen score FOLDER --task knowgen_mini --out reports/folder`.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from PIL import Image

import knowgen


def write_images(folder: Path, count: int) -> list[str]:
    """Write one image for each of the first samples, as your own pipeline would, and return their ids."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = []
    for number, sample in enumerate(itertools.islice(knowgen.load_task("knowgen_mini").samples(), count)):
        Image.new("RGB", (512, 512), (40 * number, 120, 160)).save(folder / f"{sample.id}.png")
        ids.append(sample.id)
    return ids


def main() -> None:
    """Write three images, score them, and print the scores by sample."""
    ids = write_images(Path("my_images"), count=3)
    run = knowgen.score("my_images", task="knowgen_mini", out="reports/folder", ids=ids)
    print(run.to_pandas()[["sample_id", "score_status", "visual_correctness", "aesthetics"]].to_string(index=False))


if __name__ == "__main__":
    main()
