"""The data of the sample gallery: an index to filter by, and chunks with the details of fifty entries each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from knowgen.report.collect import STATE_WORDS, Cell, Collected, Entry
from knowgen.report.details import cut
from knowgen.report.numbers import in_words
from knowgen.report.pictures import Shown
from knowgen.report.view import System, View
from knowgen.stats.protocol import get_protocol
from knowgen.stats.values import STATES

CHUNK = 50
LONGEST_PROMPT = 2_000
LONGEST_REASON = 300


def index(
    systems: Sequence[System], views: Sequence[View], collected: Collected, shown: Mapping[str, Shown]
) -> dict[str, Any]:
    """Returns what the gallery must know of every entry to filter, sort and draw it."""
    return {
        "chunk": CHUNK,
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
        "samples": [_sample(entry, collected, shown) for entry in collected.entries],
    }


def _sample(entry: Entry, collected: Collected, shown: Mapping[str, Shown]) -> dict[str, Any]:
    key = (entry.task_version, entry.sample.id)
    sample = entry.sample
    return {
        "id": sample.id,
        "repeat": entry.repeat,
        "task": entry.task_version,
        "prompt": cut(sample.prompt, LONGEST_PROMPT),
        "category": sample.category,
        "group": sample.group,
        "difficulty": sample.difficulty,
        "required": collected.truths[key]["required_text"],
        "truth": _picture(collected.truth_images[key], shown),
        "cells": [_cell(cell, shown) if cell else None for cell in entry.cells],
    }


def _cell(cell: Cell, shown: Mapping[str, Shown]) -> dict[str, Any]:
    return {
        "picture": _picture(cell.image, shown),
        "readings": [
            [
                STATES.index(reading.state),
                _short(reading.overall),
                [_short(value) for value in reading.values],
                cut(reading.reason, LONGEST_REASON),
            ]
            if reading is not None
            else None
            for reading in cell.readings
        ],
    }


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _picture(digest: str, shown: Mapping[str, Shown]) -> dict[str, Any] | None:
    if not digest:
        return None
    picture = shown[digest]
    if picture.fault:
        return {"fault": picture.fault}
    return {"small": picture.small, "large": picture.large, "width": picture.width, "height": picture.height}


def chunks(collected: Collected) -> Iterator[list[dict[str, Any]]]:
    """Yields the details of `CHUNK` entries at a time, in the order of the index."""
    for start in range(0, len(collected.entries), CHUNK):
        yield [_details(entry, collected) for entry in collected.entries[start : start + CHUNK]]


def _details(entry: Entry, collected: Collected) -> dict[str, Any]:
    return {
        "truth": collected.truths[entry.task_version, entry.sample.id],
        "cells": [cell.details if cell else None for cell in entry.cells],
    }
