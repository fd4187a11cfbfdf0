"""Writes one shard of a world to disk: its pictures, and its rows as parts that are joined later.

Run as a module it writes several shards, which is how `build` spreads the work over processes.
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
from knowgen.worlds.drawing.compose import compose
from knowgen.worlds.drawing.looks import Look
from knowgen.worlds.entities import Entity
from knowgen.worlds.pictures import Picture, draw_picture
from knowgen.worlds.samples import Planned
from knowgen.worlds.shard import SHARD_SIZE, Shard, make_shard

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLES, TRUTH, PAGES, PICTURES = "samples.jsonl", "truth.jsonl", "pages.jsonl", "pictures.jsonl"
ROW_FILES = (SAMPLES, TRUTH, PAGES, PICTURES)
PARTS = ".parts"


def part_path(folder: Path, file: str, number: int) -> Path:
    """Returns where the rows of one shard for one file lie until they are joined."""
    return folder / PARTS / f"{number:06d}-{file}"


def write_shard(folder: Path, seed: int, number: int, samples: int) -> None:
    """Draws and writes a shard.

    Args:
        folder: The world under construction, with its folders made.
        seed: Of the world.
        number: Of the shard, from 0.
        samples: Of the whole world; the last shard may hold fewer than a full one.
    """
    shard = make_shard(seed, number)
    planned = shard.samples[: samples - number * SHARD_SIZE]
    rows: dict[str, Iterable[dict[str, Any]]] = {
        SAMPLES: (plan.sample.model_dump(mode="json") for plan in planned),
        TRUTH: (_truth_row(plan, folder) for plan in planned),
        PAGES: (page.model_dump(mode="json") for page in shard.pages),
        PICTURES: _picture_rows(shard, folder),
    }
    for file in ROW_FILES:
        with part_path(folder, file, number).open("w", encoding="utf-8", newline="\n") as part:
            part.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[file])


def _picture_rows(shard: Shard, folder: Path) -> Iterator[dict[str, Any]]:
    """Draws the pictures of a shard and yields their rows in the order of their ids, which tells nothing."""
    rows = [_picture_row(picture, folder) for picture in shard.pictures]
    yield from sorted(rows, key=lambda row: str(row["file"]))


def _picture_row(picture: Picture, folder: Path) -> dict[str, Any]:
    file = f"pictures/{picture.id}.webp"
    image = _save(draw_picture(picture), folder / file)
    return {
        "title": picture.title,
        "url": picture.url,
        "page_url": picture.page_url,
        "file": file,
        "image": image.model_dump(mode="json"),
    }


def truth_picture(plan: Planned) -> Image:
    """Draws the ground-truth picture of a sample from the true facts."""
    composition = compose(
        plan.scene,
        [entity.look for entity in plan.subjects],
        plan.lines,
        plan.surface,
        layouts="truth",
        seed=f"truth/{plan.sample.id}",
        scene_seed=f"truth/{plan.sample.id}",
    )
    return composition.image


def _truth_row(plan: Planned, folder: Path) -> dict[str, Any]:
    file = f"truth/{plan.sample.id}.webp"
    truth = GroundTruth(
        sample_id=plan.sample.id,
        image=_save(truth_picture(plan), folder / file),
        required_text=plan.required_text,
        subjects=tuple(
            {"name": entity.name, "look": entity.look.to_dict(), "look_alike": _twin_look(entity).to_dict()}
            for entity in plan.subjects
        ),
        text_required=plan.sample.text_required,
        evidence=plan.evidence,
        extra={"scene": plan.scene, "surface": plan.surface, "lines": list(plan.lines), "hops": list(plan.hops)},
    )
    return {**truth.model_dump(mode="json"), "image_file": file}


def _twin_look(entity: Entity) -> Look:
    if entity.twin is None:
        raise ValueError(f"{entity.name} has no look-alike")
    return entity.twin.look


def _save(image: Image, path: Path) -> ImageRef:
    """Writes a picture without loss at its final size and returns its record."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, method=1, quality=20)
    data = buffer.getvalue()
    path.write_bytes(data)
    return ImageRef(sha256=hashlib.sha256(data).hexdigest(), width=image.width, height=image.height, format="WEBP")


def main(arguments: list[str]) -> int:
    """Writes every `step`-th shard from `first` on: arguments are folder, seed, samples, first, step.

    Returns:
        0, or 3 with one line on standard error when a shard could not be written.
    """
    folder, (seed, samples, first, step) = Path(arguments[0]), map(int, arguments[1:])
    try:
        for number in range(first, -(-samples // SHARD_SIZE), step):
            write_shard(folder, seed, number, samples)
    except (KnowgenError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
