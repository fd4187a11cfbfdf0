"""Write the rows of a prepared folder from published rows.

benchmark   task.yaml, samples.jsonl, truth.jsonl: an ordinary task folder
sft         rows.jsonl: id, messages, images (paths in the folder, in the order of the `<image>` marks)
rl          rows.jsonl: id, prompt, gt_image (a path in the folder)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.records import GroundTruth, ImageRef
from knowgen.tasks.catalog import DataSetKind, PublishedDataSet
from knowgen.tasks.folder import SAMPLES_FILE, TASK_FILE, TRUTH_FILE
from knowgen.tasks.prepare.published import IMAGE_FIELDS, PublishedRow, conversation_of, sample_of
from knowgen.tasks.prepare.sources import SourceFiles

ROWS_FILE = "rows.jsonl"
DEFAULT_SCORERS = ("vlm:gpt-4.1",)
"""Judge of the published evaluation."""


@dataclass(frozen=True)
class PreparedRow:
    """A row that becomes part of the prepared data set.

    Attributes:
        row: The published row.
        named: Paths of its images as recorded in the row.
        places: Paths of its images in the data set; empty until they are located.
    """

    row: PublishedRow
    named: tuple[str, ...]
    places: tuple[str, ...] = ()

    def at(self, places: tuple[str, ...]) -> PreparedRow:
        """Return a copy with the located paths of its images."""
        return replace(self, places=places)


def check_rows(kind: DataSetKind, rows: Sequence[PublishedRow]) -> tuple[list[PreparedRow], list[str]]:
    """Validate the rows before anything is unpacked.

    Returns:
        The usable rows, and the reason for each row that is left out. Only the RL set may leave out rows (those
        without id, prompt or ground truth), as its published split does.

    Raises:
        DataError: A benchmark or SFT row is malformed, or an id is a duplicate.
    """
    if kind is DataSetKind.RL:
        lacking = {row.number: _lacks(row) for row in rows}
        used = [PreparedRow(row, (row.image,)) for row in rows if not lacking[row.number]]
        return used, [f"{row.where}: has no {lacking[row.number]}" for row in rows if lacking[row.number]]
    if kind is DataSetKind.SFT:
        return [PreparedRow(row, tuple(conversation_of(row)[1])) for row in rows], []
    seen = dict[str, int]()
    for row in rows:
        sample_of(row)
        if row.id in seen:
            raise DataError(f"duplicate id {row.id!r}, already in row {seen[row.id]}", where=row.where)
        seen[row.id] = row.number
        if not row.image:
            fields = ", ".join(IMAGE_FIELDS)
            raise DataError(f"has no ground-truth image under any of {fields}", where=row.where)
    return [PreparedRow(row, (row.image,)) for row in rows], []


def _lacks(row: PublishedRow) -> str:
    """Return the names of missing required fields, such as `id and no prompt`; empty if none is missing."""
    required = {"id": row.id, "prompt": row.prompt, "ground truth": row.image}
    return " and no ".join(name for name, value in required.items() if not value)


def write_rows(
    draft: Path,
    data: PublishedDataSet,
    source: SourceFiles,
    entries: Sequence[PreparedRow],
    refs: Mapping[str, ImageRef],
    image_folder: str,
) -> tuple[str, ...]:
    """Write the rows of a prepared folder.

    Args:
        draft: Folder to write to.
        data: Data set to prepare.
        source: Files that it was read from.
        entries: Rows with located images.
        refs: Record of each image, by its path in the data set.
        image_folder: Folder of the images in the draft.

    Returns:
        Names of the files that hold the data set's content.
    """
    if data.kind is DataSetKind.BENCHMARK:
        _write_task(draft / TASK_FILE, data, source)
        samples = (sample_of(entry.row).model_dump(mode="json") for entry in entries)
        _write_lines(draft / SAMPLES_FILE, samples)
        _write_lines(draft / TRUTH_FILE, (_truth(entry, refs, image_folder) for entry in entries))
        return SAMPLES_FILE, TRUTH_FILE
    convert = _sft if data.kind is DataSetKind.SFT else _rl
    _write_lines(draft / ROWS_FILE, (convert(entry, refs, image_folder) for entry in entries))
    return (ROWS_FILE,)


def _truth(entry: PreparedRow, refs: Mapping[str, ImageRef], image_folder: str) -> dict[str, Any]:
    (place,) = entry.places
    truth = GroundTruth(sample_id=entry.row.id, image=refs[place])
    return {**truth.model_dump(mode="json", exclude_defaults=True), "image_file": f"{image_folder}/{place}"}


def _sft(entry: PreparedRow, refs: Mapping[str, ImageRef], image_folder: str) -> dict[str, Any]:
    return {
        "id": entry.row.id,
        "row": entry.row.number,
        "messages": conversation_of(entry.row)[0],
        "images": [f"{image_folder}/{place}" for place in entry.places],
        "sha256": [refs[place].sha256 for place in entry.places],
    }


def _rl(entry: PreparedRow, refs: Mapping[str, ImageRef], image_folder: str) -> dict[str, Any]:
    (place,) = entry.places
    return {
        "id": entry.row.id,
        "row": entry.row.number,
        "prompt": entry.row.prompt,
        "gt_image": f"{image_folder}/{place}",
        "sha256": refs[place].sha256,
    }


def _write_task(path: Path, data: PublishedDataSet, source: SourceFiles) -> None:
    import yaml

    origin = f"{data.repo} at commit {source.commit}" if source.commit else f"a local copy of {data.repo}"
    fields = {
        "name": data.name,
        "version": source.commit[:12] or "local",
        "description": f"{data.about}; from {origin}",
        "default_scorers": list(DEFAULT_SCORERS),
    }
    path.write_text(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
