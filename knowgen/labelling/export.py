"""Tables of the labels of some runs: ratings as `knowgen agree` reads them, and comparisons."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from knowgen.core.atomic import write_file
from knowgen.core.errors import DataError, UsageError
from knowgen.core.text import count, csv_cell, error_message
from knowgen.labelling.items import Item, LabelMatcher, LabelPlan
from knowgen.labelling.label_files import current_labels, rater_key, read_folders
from knowgen.labelling.records import StoredLabel

WINNERS = {"left": "first", "right": "second", "tie": "tie", "both_bad": "both_bad"}
"""Words of the column `winner`."""


@dataclass(frozen=True)
class MatchedLabels:
    """Labels that are about the images of some runs.

    Attributes:
        labels: Each label with what it is about, one for each rater and item.
        notes: What was left out, and why.
    """

    labels: tuple[tuple[StoredLabel, Item], ...]
    notes: tuple[str, ...] = ()


def matched_labels(plan: LabelPlan, folders: Sequence[Path]) -> MatchedLabels:
    """Return the labels of some folders that are about the images of a plan as they are now.

    Raises:
        DataError: A folder has no labels, or a file is damaged.
    """
    read = read_folders(folders)
    matcher = LabelMatcher(plan)
    found: dict[object, tuple[StoredLabel, Item]] = {}
    unmatched = 0
    for label in current_labels(read.labels):
        if label.mode != plan.mode:
            continue
        if (item := matcher.item(label)) is None:
            unmatched += 1
        else:
            key = (rater_key(label.rater), item.key)
            found.pop(key, None)
            found[key] = (label, item)
    notes = list(read.notes)
    if unmatched:
        words = "of other images, prompts or questions than those of the runs"
        notes.append(f"{count(unmatched, 'label')} {words}: left out")
    return MatchedLabels(tuple(found.values()), tuple(notes))


def write_ratings(path: Path, matched: MatchedLabels, dimensions: Sequence[str]) -> int:
    """Write ratings as CSV for `knowgen agree --labels`, and return their number.

    What was skipped is not in the file; a dimension that is not applicable is blank.

    Raises:
        DataError: Nothing was rated, or the file cannot be written.
        UsageError: The path is a folder.
    """
    names = _names(label for label, _ in matched.labels)
    rows = [
        [
            label.sample,
            item.images[0].system,
            str(label.repeat),
            names[rater_key(label.rater)],
            *(f"{label.values[name]:g}" if name in label.values else "" for name in dimensions),
        ]
        for label, item in matched.labels
        if not label.skipped
    ]
    return _write(path, ["sample_id", "system", "repeat", "rater", *dimensions], rows)


def write_comparisons(path: Path, matched: MatchedLabels) -> int:
    """Write comparisons as CSV, and return their number; `first` was on the left.

    Raises:
        DataError: Nothing was compared, or the file cannot be written.
        UsageError: The path is a folder.
    """
    names = _names(label for label, _ in matched.labels)
    rows = [
        [
            label.sample,
            str(label.repeat),
            names[rater_key(label.rater)],
            *(one.system for one in item.images),
            WINNERS[label.choice],
            f"{label.seconds:g}",
        ]
        for label, item in matched.labels
        if not label.skipped
    ]
    return _write(path, ["sample_id", "repeat", "rater", "first", "second", "winner", "seconds"], rows)


def _names(labels: Iterable[StoredLabel]) -> dict[str, str]:
    """Return one name for each rater, however it was capitalised."""
    names: dict[str, str] = {}
    for label in labels:
        names.setdefault(rater_key(label.rater), label.rater)
    return names


def _write(path: Path, head: Sequence[str], rows: Sequence[list[str]]) -> int:
    if path.is_dir():
        raise UsageError(f"{path} is a folder", where="--export", fix="name a file, such as labels.csv")
    if not rows:
        raise DataError("no label of these runs to export", where=str(path), fix="label some images first")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([csv_cell(cell) for cell in row] for row in sorted(rows))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, out.getvalue())
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror or error_message(error)}", where=str(path)) from error
    return len(rows)
