"""The data of a board as scripts, which pages load when they show them; a browser reads no other files from a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from knowgen.leaderboards.folder import IMAGES, Board, Submission
from knowgen.leaderboards.records import SubmittedGeneration, SubmittedImage, SubmittedScore
from knowgen.leaderboards.site.samples import SampleResult, SystemSamples
from knowgen.leaderboards.site.view import SiteBoard, group_name, system_entry
from knowgen.report.gallery import STATE_WORDS
from knowgen.report.payload import write_data
from knowgen.stats.protocol import counts_as, get_protocol
from knowgen.stats.summary import OVERALL, Figure
from knowgen.stats.values import STATES

CHUNK = 32
"""Samples of a system whose texts are in one file."""

DIGITS = 6
"""Decimals of values: more than any page shows, and few enough that processors which add in another order agree."""


def write_system_data(
    folder: Path, images: Path, board: Board, submission: Submission, samples: SystemSamples
) -> None:
    """Write the values of a system in one file, its texts in files of `CHUNK` samples, and its thumbnails.

    Args:
        folder: Existing folder of the board's data.
        images: Existing folder of the site's images; files are named by their hash.
        board: The board.
        submission: The submission.
        samples: Its results.
    """
    write_data(folder, f"values-{submission.slug}", [_value_line(one) for one in samples.results])
    names = [sample.id for sample in board.samples]
    for number, start in enumerate(range(0, len(names), CHUNK)):
        part = [
            [_generation(one, submission, images, board.file.protocol) for one in samples.generations.get(name, ())]
            for name in names[start : start + CHUNK]
        ]
        write_data(folder, f"results-{submission.slug}-{number}", part)


def write_board_data(folder: Path, board: SiteBoard) -> None:
    """Write what the pages of a board share: systems, samples, figures by part, paired differences."""
    file = board.board.file
    rule = get_protocol(file.protocol)
    write_data(
        folder,
        "systems",
        {
            "title": file.title,
            "score": board.score,
            "dimensions": board.dimensions,
            "ranking": board.ranking,
            "level": file.ties.level,
            "correction": file.ties.correction,
            "pairs": len(board.figures.pairs),
            "chunk": CHUNK,
            "states": [
                {"name": name, "words": words, "counts": "" if name == "scored" else counts_as(name, rule)}
                for name, words in STATE_WORDS.items()
            ],
            "systems": [system_entry(one) for one in board.systems],
        },
    )
    write_data(
        folder,
        "samples",
        [[one.id, one.prompt, group_name(one.category), one.category, one.difficulty] for one in board.board.samples],
    )
    write_data(folder, "parts", _parts(board))
    slugs = {one.slug: one.index for one in board.systems}
    write_data(
        folder,
        "pairs",
        [
            [slugs[a], slugs[b], *map(_round, (pair.value, pair.low, pair.high, pair.p, pair.p_corrected)), pair.n, pair.note]
            for (a, b), pair in board.figures.pairs.items()
        ],
    )  # fmt: skip


def _parts(board: SiteBoard) -> list[dict[str, Any]]:
    """Return the figures of each part, of all systems: [value, low, high, n] for overall and each dimension."""
    entries = [("all", "", "all samples", "", len(board.board.samples))]
    entries += [(part.kind, part.name, part.title, part.page, len(part.samples)) for part in board.parts]
    return [
        {
            "kind": kind,
            "name": name,
            "title": title,
            "page": page,
            "samples": samples,
            "figures": [
                [_figure(system.figure(one, kind, name)) for one in (OVERALL, *board.dimensions)]
                for system in board.systems
            ],
        }
        for kind, name, title, page, samples in entries
    ]


def _figure(figure: Figure) -> list[Any]:
    line = [_round(figure.value), _round(figure.low), _round(figure.high), figure.n]
    return [*line, figure.note] if figure.note else line


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS) + 0.0


def _value_line(result: SampleResult | None) -> list[Any] | None:
    if result is None:
        return None
    values = [_round(value) for value in result.values]
    return [STATES.index(result.state), result.missing, _round(result.overall), *values]


def _generation(one: SubmittedGeneration, submission: Submission, images: Path, protocol: str) -> dict[str, Any]:
    """Return a generation for the scripts; empty fields are left out."""
    entry = {
        "repeat": one.repeat,
        "status": str(one.status),
        "reason": one.reason,
        "cause": str(one.cause or ""),
        "image": _image(one.image, submission, images) if one.image is not None else None,
        "prompt": one.used_prompt,
        "seconds": round(one.seconds, 2),
        "cost": _round(one.cost),
        "ending": one.answer.ending if one.answer is not None else "",
        "answer": one.answer.reason if one.answer is not None else "",
        "fallback": one.fallback,
        "scores": [_score(score, protocol) for score in one.scores],
    }
    return {name: value for name, value in entry.items() if value not in (None, "", [])}


def _score(score: SubmittedScore, protocol: str) -> dict[str, Any]:
    lenient = get_protocol(protocol).reading == "lenient" and score.lenient is not None
    reading = score.lenient if lenient and score.lenient is not None else score.strict
    entry = {
        "status": str(reading.status),
        "values": [[name, _round(value)] for name, value in sorted(reading.values.items())],
        "na": list(reading.na),
        "rationale": reading.rationale,
        "reason": reading.reason,
        "judge": score.judge,
    }
    return {name: value for name, value in entry.items() if value not in ("", [])}


def _image(image: SubmittedImage, submission: Submission, images: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"width": image.width, "height": image.height, "sha256": image.sha256[:12]}
    if image.thumbnail:
        source, target = submission.path / IMAGES / f"{image.thumbnail}.jpg", images / f"{image.thumbnail}.jpg"
        fault = _copied(source, target, image.thumbnail)
        return {**entry, "fault": fault} if fault else {**entry, "thumbnail": target.name}
    return entry


def _copied(source: Path, target: Path, digest: str) -> str:
    """Copy a thumbnail once; return why it cannot be shown, empty if it can."""
    if target.exists():
        return ""
    try:
        content = source.read_bytes()
    except OSError as error:
        return f"its thumbnail cannot be read: {error.strerror or type(error).__name__}"
    if hashlib.sha256(content).hexdigest() != digest:
        return "the file of its thumbnail is another than the submission says"
    target.write_bytes(content)
    return ""
