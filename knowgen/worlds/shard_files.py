"""Write one shard of a world to disk: its images, and its rows as parts that are concatenated later.

Run as a module it writes several shards, which is how `build` distributes the work over processes.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowgen.core.errors import KnowgenError
from knowgen.core.records import GroundTruth, ImageRef
from knowgen.tasks.folder import SEARCH_FOLDER
from knowgen.worlds.content.entities import Entity
from knowgen.worlds.content.samples import PlannedSample
from knowgen.worlds.content.search_images import SearchImage, render_search_image
from knowgen.worlds.content.seeds import WorldSeed, layout_key
from knowgen.worlds.rendering.appearance import Appearance
from knowgen.worlds.rendering.compose import compose
from knowgen.worlds.shard import SHARD_SIZE, WorldShard, make_shard

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLES, TRUTH = "samples.jsonl", "truth.jsonl"
PAGES, IMAGES = f"{SEARCH_FOLDER}/pages.jsonl", f"{SEARCH_FOLDER}/pictures.jsonl"
ROW_FILES = (SAMPLES, TRUTH, PAGES, IMAGES)
PARTS = ".parts"


def part_path(folder: Path, file: str, number: int) -> Path:
    """Return the path of the rows of one shard for one file, until the parts are concatenated."""
    return folder / PARTS / f"{number:06d}-{Path(file).name}"


def samples_of(number: int, samples: int) -> int:
    """Return the number of samples of a shard of a world with so many."""
    return min(SHARD_SIZE, samples - number * SHARD_SIZE)


def write_shard(folder: Path, seed: WorldSeed, number: int, samples: int) -> None:
    """Render and write a shard.

    Args:
        folder: Folder of the world under construction, with its subfolders.
        seed: World seed.
        number: Index of the shard, from 0.
        samples: Number of samples in the whole world; the last shard may have fewer than a full one.
    """
    shard = make_shard(seed, number)
    planned = shard.samples[: samples_of(number, samples)]
    rows: dict[str, Iterable[dict[str, Any]]] = {
        SAMPLES: (plan.sample.model_dump(mode="json") for plan in planned),
        TRUTH: (_truth_row(plan, folder) for plan in planned),
        PAGES: (page.model_dump(mode="json") for page in shard.pages),
        IMAGES: _image_rows(shard, folder / SEARCH_FOLDER),
    }
    for file in ROW_FILES:
        with part_path(folder, file, number).open("w", encoding="utf-8", newline="\n") as part:
            part.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[file])


def _image_rows(shard: WorldShard, folder: Path) -> Iterator[dict[str, Any]]:
    """Render the images of a shard and yield their rows sorted by their opaque ids."""
    rows = [_image_row(search_image, folder) for search_image in shard.images]
    yield from sorted(rows, key=lambda row: str(row["file"]))


def _image_row(search_image: SearchImage, folder: Path) -> dict[str, Any]:
    file = f"pictures/{search_image.id}.webp"
    image = _save(render_search_image(search_image), folder / file)
    return {
        "title": search_image.title,
        "url": search_image.url,
        "page_url": search_image.page_url,
        "file": file,
        "image": image.model_dump(mode="json"),
    }


def render_truth(plan: PlannedSample) -> Image:
    """Render the ground-truth image of a sample."""
    composition = compose(
        plan.scene,
        [entity.appearance for entity in plan.subjects],
        plan.lines,
        plan.surface,
        layouts="truth",
        seed=plan.layout,
        scene_seed=plan.layout,
    )
    return composition.image


def _truth_row(plan: PlannedSample, folder: Path) -> dict[str, Any]:
    file = f"truth/{plan.sample.id}.webp"
    truth = GroundTruth(
        sample_id=plan.sample.id,
        image=_save(render_truth(plan), folder / file),
        required_text=plan.required_text,
        subjects=tuple(
            {
                "name": entity.name,
                "look": entity.appearance.to_dict(),
                "look_alike": _distractor_appearance(entity).to_dict(),
            }
            for entity in plan.subjects
        ),
        text_required=plan.sample.text_required,
        evidence=plan.evidence,
        extra={
            "scene": plan.scene,
            "surface": plan.surface,
            "lines": list(plan.lines),
            "hops": list(plan.hops),
            **({"layout": plan.layout} if plan.layout != layout_key(0, plan.sample.id) else {}),
        },
    )
    return {**truth.model_dump(mode="json"), "image_file": file}


def _distractor_appearance(entity: Entity) -> Appearance:
    if entity.distractor is None:
        raise ValueError(f"{entity.name} has no distractor")
    return entity.distractor.appearance


def _save(image: Image, path: Path) -> ImageRef:
    """Write an image as lossless WebP and return its reference."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, method=1, quality=20)
    data = buffer.getvalue()
    path.write_bytes(data)
    return ImageRef(sha256=hashlib.sha256(data).hexdigest(), width=image.width, height=image.height, format="WEBP")


def main(arguments: list[str]) -> int:
    """Write every `step`-th shard from `first` on: arguments are folder, samples, first, step.

    The seed comes as JSON on standard input: other users of the machine can read the arguments of a process.

    Returns:
        0, after the number of samples of each shard in a line on standard output; or 3 with one line on standard error
        if a shard cannot be written.
    """
    folder, (samples, first, step) = Path(arguments[0]), map(int, arguments[1:])
    seed: WorldSeed = json.loads(sys.stdin.read())
    try:
        for number in range(first, -(-samples // SHARD_SIZE), step):
            write_shard(folder, seed, number, samples)
            sys.stdout.write(f"{samples_of(number, samples)}\n")
            sys.stdout.flush()
    except (KnowgenError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
