"""Builds a world on disk: a task folder with samples, truths, and what the `world` search backend answers from.

The work goes shard by shard over processes; each shard writes its pictures and its rows, and the rows are joined in
order at the end. So memory stays flat, and the files are the same byte for byte however many workers there are.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowgen.errors import ConfigError, UsageError
from knowgen.records import GroundTruth, ImageRef
from knowgen.worlds import dials
from knowgen.worlds.drawing.compose import compose
from knowgen.worlds.drawing.looks import Look
from knowgen.worlds.entities import Entity
from knowgen.worlds.pictures import Picture, draw_picture
from knowgen.worlds.samples import Planned
from knowgen.worlds.shard import SHARD_SIZE, Shard, make_shard

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLES, TRUTH, PAGES, PICTURES = "samples.jsonl", "truth.jsonl", "pages.jsonl", "pictures.jsonl"
_FILES = (SAMPLES, TRUTH, PAGES, PICTURES)
_PARTS = ".parts"


@dataclass(frozen=True)
class _Job:
    folder: Path
    seed: int
    number: int
    samples: int


def build_world(out: Path, seed: int, samples: int, *, name: str | None = None, workers: int | None = None) -> Path:
    """Builds a world and puts it in place in one step.

    Args:
        out: The folder to make. An earlier world there is replaced; anything else is left alone.
        seed: Of the world, 0 or more.
        samples: Number of samples, 1 or more; one of each category, then the second of each, and so on.
        name: Name of the task; `world-<seed>` when None.
        workers: Processes; as many as there are cores when None.

    Returns:
        The folder.

    Raises:
        UsageError: A number is out of range.
        ConfigError: There is something else at `out`, or it cannot be written.
    """
    if seed < 0 or samples < 1 or (workers is not None and workers < 1):
        raise UsageError("seed must be 0 or more, samples and workers 1 or more", where="world build")
    _refuse_foreign(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(out.parent)) from error
    try:
        for folder in ("truth", "pictures", _PARTS):
            (draft / folder).mkdir()
        shards = -(-samples // SHARD_SIZE)
        jobs = [_Job(draft, seed, shard, min(SHARD_SIZE, samples - shard * SHARD_SIZE)) for shard in range(shards)]
        _run(jobs, min(workers or os.cpu_count() or 1, shards))
        for file in _FILES:
            _join(draft, file, shards)
        (draft / _PARTS).rmdir()
        _write_task_file(draft / "task.yaml", seed, samples, name or f"world-{seed}")
        draft.chmod(0o755)
        _put_in_place(draft, out)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(out), fix="check the disk") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return out


def _run(jobs: list[_Job], workers: int) -> None:
    if workers == 1:
        for job in jobs:
            _build_shard(job)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for _ in pool.map(_build_shard, jobs):
            pass


def _build_shard(job: _Job) -> None:
    """Draws the pictures of a shard and writes its rows as parts."""
    shard = make_shard(job.seed, job.number)
    planned = shard.samples[: job.samples]
    rows: dict[str, Iterable[dict[str, Any]]] = {
        SAMPLES: (plan.sample.model_dump(mode="json") for plan in planned),
        TRUTH: (_truth_row(plan, job.folder) for plan in planned),
        PAGES: (page.model_dump(mode="json") for page in shard.pages),
        PICTURES: _picture_rows(shard, job.folder),
    }
    for file in _FILES:
        with _part(job.folder, file, job.number).open("w", encoding="utf-8", newline="\n") as part:
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


def _part(folder: Path, file: str, number: int) -> Path:
    return folder / _PARTS / f"{number:06d}-{file}"


def _join(folder: Path, file: str, shards: int) -> None:
    with (folder / file).open("wb") as whole:
        for number in range(shards):
            part = _part(folder, file, number)
            with part.open("rb") as source:
                shutil.copyfileobj(source, whole)
            part.unlink()


def _write_task_file(path: Path, seed: int, samples: int, name: str) -> None:
    import yaml

    fields = {
        "name": name,
        "version": str(dials.VERSION),
        "description": f"A made-up world of {samples} samples, drawn from seed {seed}.",
        "license": "Apache-2.0",
        "default_scorers": ["world_check"],
        "search": "world",
        "seed": seed,
    }
    path.write_text(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _is_world(folder: Path) -> bool:
    return all((folder / file).is_file() for file in (*_FILES, "task.yaml"))


def _refuse_foreign(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not _is_world(out):
        raise ConfigError("the folder holds something that is no world", where=str(out), fix="name another folder")
    if out.exists() and not out.is_dir():
        raise ConfigError("is a file", where=str(out), fix="name a folder")


def _put_in_place(draft: Path, out: Path) -> None:
    """Renames the finished draft to its name; an earlier world is moved aside first and deleted last."""
    if not out.exists():
        draft.rename(out)
        return
    old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-old-"))
    out.rename(old / "world")
    draft.rename(out)
    shutil.rmtree(old)
