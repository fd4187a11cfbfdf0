"""The data of a board as scripts, which pages load when they show them: from a folder, browsers read no other data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from knowgen.core.records import group_of
from knowgen.leaderboards.figures import WHOLE, PairDifference
from knowgen.leaderboards.folder import IMAGES, Board, Submission
from knowgen.leaderboards.records import SubmissionResult, SubmittedGeneration, SubmittedImage, SubmittedScore
from knowgen.leaderboards.samples import SampleOutcome
from knowgen.leaderboards.site.view import SiteBoard, SiteSystem, system_entry
from knowgen.report.gallery import STATE_WORDS
from knowgen.report.headline import score_words
from knowgen.report.script_json import write_data
from knowgen.stats.protocol import counts_as, get_protocol
from knowgen.stats.summary import OVERALL, Figure
from knowgen.stats.values import STATES

CHUNK = 32
"""Samples of a system whose texts are in one file."""

DIGITS = 6
"""Decimals of values: more than any page shows, and few enough that processors which add in another order agree."""


def write_system_data(
    folder: Path,
    images: Path,
    board: Board,
    submission: Submission,
    result: SubmissionResult,
    outcomes: Sequence[SampleOutcome],
) -> None:
    """Write the values of a system in one file, its texts in files of `CHUNK` samples, and its thumbnails.

    Args:
        folder: Existing folder of the board's data.
        images: Existing folder of the site's images; files are named by their hash.
        board: The board.
        submission: The submission.
        result: Its result.
        outcomes: What became of each sample, in the order of the board.
    """
    generations: dict[str, list[SubmittedGeneration]] = {}
    for sample in result.samples:
        generations.setdefault(sample.id, []).extend(sample.generations)
    lines = [_value_line(one) if one.sample in generations else None for one in outcomes]
    write_data(folder, f"values-{submission.slug}", lines)
    names = [sample.id for sample in board.samples]
    for number, start in enumerate(range(0, len(names), CHUNK)):
        part = [
            [_generation(one, submission, images, board.file.protocol) for one in generations.get(name, ())]
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
            "overall": score_words(board.dimensions),
            "dimensions": board.dimensions,
            "ranking": board.ranking,
            "level": file.ties.level,
            "correction": file.ties.correction,
            "ranked": [one.slug for one in board.ranked],
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
        [[one.id, one.prompt, group_of(one.category), one.category, one.difficulty] for one in board.samples],
    )
    write_data(folder, "parts", _parts(board))
    slugs = {one.slug: one.index for one in board.systems}
    found: dict[str, dict[int, dict[str, Any]]] = {one.slug: {} for one in board.ranked}
    for a, b in board.figures.pairs:
        found[a][slugs[b]] = _pair(board, (a, b))
    for slug, pairs in found.items():
        write_data(folder, f"pairs-{slug}", pairs)


def _pair(board: SiteBoard, key: tuple[str, str]) -> dict[str, Any]:
    """Return the differences of a pair by figure, and those of the ranking figure by part."""
    keys = [WHOLE, *((part.kind, part.name) for part in board.parts)]
    parts = [board.figures.parts[one].pairs.get(key) if one in board.figures.parts else None for one in keys]
    return {
        "figures": [_difference(board.figures.by_figure[name].get(key)) for name in (OVERALL, *board.dimensions)],
        "parts": [_difference(one) for one in parts],
    }


def _difference(pair: PairDifference | None) -> list[Any] | None:
    if pair is None:
        return None
    line = [*map(_round, (pair.value, pair.low, pair.high, pair.p_corrected)), pair.n, pair.test]
    return [*line, pair.note] if pair.note else line


def _parts(board: SiteBoard) -> list[dict[str, Any]]:
    """Return the figures of each part, of all systems: [value, low, high, n] for overall and each dimension."""
    entries = [("all", "", "all samples", "", len(board.samples))]
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
            "ranks": _ranks(board, kind, name),
        }
        for kind, name, title, page, samples in entries
    ]


def _ranks(board: SiteBoard, kind: str, name: str) -> list[list[int] | None]:
    """Return the best and the worst rank of each system on a part, and its place in the order of the part."""
    places = {one.slug: place for place, one in enumerate(board.ordered(kind, name))}

    def line(system: SiteSystem) -> list[int] | None:
        rank = board.rank(system, kind, name)
        return None if rank is None else [rank.best, rank.worst, places[system.slug]]

    return [line(system) for system in board.systems]


def _figure(figure: Figure) -> list[Any]:
    line = [_round(figure.value), _round(figure.low), _round(figure.high), figure.n]
    return [*line, figure.note] if figure.note else line


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS) + 0.0


def _value_line(outcome: SampleOutcome) -> list[Any]:
    values = [_round(value) for value in outcome.values]
    return [STATES.index(outcome.state), outcome.missing, _round(outcome.overall), *values]


def _generation(one: SubmittedGeneration, submission: Submission, images: Path, protocol: str) -> dict[str, Any]:
    """Return a generation for the scripts; empty fields are left out."""
    entry = {
        "repeat": one.repeat,
        "status": str(one.status),
        "reason": one.reason,
        "cause": str(one.cause or ""),
        "image": _image(one.image, submission, images) if one.image is not None else None,
        "prompt": one.used_prompt,
        "seconds": None if one.seconds is None else round(one.seconds, 2),
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
