"""Data of the sample gallery: an index to filter by, and files with the details of a few entries each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from knowgen.report.details import cut
from knowgen.report.gallery import STATE_WORDS, Gallery, GalleryCell, GalleryEntry, ImageScore
from knowgen.report.image_files import ShownImage, image_of
from knowgen.report.numbers import in_words
from knowgen.report.script_json import ScriptJson, script_list, script_object
from knowgen.report.trajectory import with_pictures
from knowgen.report.view import ReportSystem, ReportView
from knowgen.stats.protocol import get_protocol
from knowgen.stats.values import STATES

CHUNK = 16
"""Number of entries whose details are in one file: as many as the page shows at a time. In another order than the
task's, each shown entry may load a file of its own.
"""

TRAJECTORIES = 10
"""Number of entries whose trajectories are in one file; they are longer than the other details."""

LONGEST_PROMPT = 2_000
LONGEST_REASON = 300


class _Table:
    """Texts that many entries share; each is stored once and named by its position."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def place(self, text: str) -> int:
        """Return the position of a text, which is added if it is new."""
        return self._places.setdefault(text, len(self._places))

    def texts(self) -> list[str]:
        """Return all texts, in order."""
        return list(self._places)


def index(
    systems: Sequence[ReportSystem], views: Sequence[ReportView], collected: Gallery, shown: Mapping[str, ShownImage]
) -> dict[str, Any]:
    """Return the data by which the gallery filters, sorts and shows its entries.

    The page reads all of it before it shows a sample, so entries are lists without names, and texts that many of them
    share are positions in `texts`. `static/entries.js` has the names.
    """
    table = _Table()
    entries = [_entry(entry, collected, shown, table) for entry in collected.entries]
    return {
        "chunk": CHUNK,
        "trajectories": TRAJECTORIES,
        "states": [{"name": state, "words": STATE_WORDS[state]} for state in STATES],
        "systems": [
            {
                "label": system.label,
                "colour": system.mark.colour,
                "outline": system.mark.outline,
                "privileged": system.privileged,
            }
            for system in systems
        ],
        "views": [
            {
                "scorer": view.scorer,
                "protocol": view.protocol,
                "note": view.first.scorer_note,
                "reading": get_protocol(view.protocol).reading,
                "dimensions": [in_words(name) for name in view.dimensions],
            }
            for view in views
        ],
        "texts": table.texts(),
        "entries": entries,
    }


def _entry(entry: GalleryEntry, collected: Gallery, shown: Mapping[str, ShownImage], table: _Table) -> list[Any]:
    key = (entry.task_version, entry.sample.id)
    sample = entry.sample
    return [
        sample.id,
        entry.repeat,
        cut(sample.prompt, LONGEST_PROMPT),
        table.place(sample.category),
        table.place(sample.group),
        table.place(sample.difficulty),
        collected.truths[key].required_text,
        _image(collected.truth_images[key], shown, table),
        [_cell(cell, shown, table) if cell else 0 for cell in entry.cells],
    ]


def _cell(cell: GalleryCell, shown: Mapping[str, ShownImage], table: _Table) -> list[Any]:
    """Return the image, the readings and the agent's outline of a cell.

    A reading that is that of an earlier view, as the protocols of one scorer often have it, is the number of that view.
    """
    readings: list[Any] = []
    for reading in cell.readings:
        whole = None if reading is None else _reading(reading, table)
        readings.append(whole if whole is None or whole not in readings else readings.index(whole))
    agent = [] if cell.trajectory is None else [cell.trajectory.outline]
    return [_image(cell.image, shown, table), readings, *agent]


def _reading(reading: ImageScore, table: _Table) -> list[Any]:
    values = [_short(value) for value in reading.values]
    reason = cut(reading.reason, LONGEST_REASON)
    return [STATES.index(reading.state), _short(reading.overall), values, *([table.place(reason)] if reason else [])]


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _image(digest: str, shown: Mapping[str, ShownImage], table: _Table) -> Any:
    """Return the name of an image, the rest of the names of its files, and its size; its fault alone; 0 without one."""
    if not digest:
        return 0
    image = image_of(digest, shown)
    if image.fault:
        return [table.place(image.fault)]
    name, small, large = image.stem, image.small, image.large
    return [name, table.place(small[len(name) :]), table.place(large[len(name) :]), image.width, image.height]


def chunks(collected: Gallery) -> Iterator[ScriptJson]:
    """Yield the details of `CHUNK` entries at a time, in the order of the index."""
    for start in range(0, len(collected.entries), CHUNK):
        yield script_list(_details(entry, collected) for entry in collected.entries[start : start + CHUNK])


def _details(entry: GalleryEntry, collected: Gallery) -> ScriptJson:
    truth = collected.truths[entry.task_version, entry.sample.id].details
    cells = script_list(ScriptJson("null") if cell is None else cell.details() for cell in entry.cells)
    return script_object(truth=truth, cells=cells)


def trajectories(collected: Gallery, shown: Mapping[str, ShownImage]) -> Iterator[tuple[int, list[Any]]]:
    """Yield number and content of each file of `TRAJECTORIES` entries; files without a trajectory are left out."""
    for number, start in enumerate(range(0, len(collected.entries), TRAJECTORIES)):
        cells = [entry.cells for entry in collected.entries[start : start + TRAJECTORIES]]
        if any(cell is not None and cell.trajectory is not None for row in cells for cell in row):
            yield number, [[_trajectory(cell, shown) for cell in row] for row in cells]


def _trajectory(cell: GalleryCell | None, shown: Mapping[str, ShownImage]) -> dict[str, Any] | None:
    if cell is None or cell.trajectory is None:
        return None
    return with_pictures(cell.trajectory.details(), shown)
