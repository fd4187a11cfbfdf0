"""Boards of made-up systems with given values, written as files."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from knowgen.core.records import FailureCause, GenerationStatus, ParsedScore, ScoreStatus
from knowgen.core.spec import GeneratorSpec, RunSpec, ScorerSpec, Selection, canonical, text_hash
from knowgen.leaderboards.folder import (
    BOARD_FILE,
    RESULT_FILE,
    SAMPLES_FILE,
    SYSTEM_FILE,
    WITHDRAWN_FILE,
    Board,
    read_board,
    result_text,
)
from knowgen.leaderboards.records import (
    BoardSample,
    SubmissionResult,
    SubmittedGeneration,
    SubmittedImage,
    SubmittedSample,
    SubmittedScore,
)
from knowgen.stats.summary import Coverage

CATEGORIES = ("biology", "game")
"""One category of each group."""

CREATED = "2026-01-01T00:00:00+00:00"

Value = float | Sequence[float] | None
"""Value of a sample, or one for each repeat; None if its score failed."""


def board_samples(count: int) -> list[BoardSample]:
    """Return samples of both groups in turn, three of four of them hard."""
    return [
        BoardSample(
            id=f"s{place:03}",
            prompt=f"Draw number {place}.",
            category=CATEGORIES[place % 2],
            difficulty="easy" if place % 4 == 0 else "hard",
            text_required=False,
        )
        for place in range(count)
    ]


def write_board(root: Path, systems: Mapping[str, Sequence[Value]], **fields: Any) -> Board:
    """Write a board whose scorer has the one dimension `match`.

    Args:
        root: Folder of the board.
        systems: Values of each system, by the name of its folder.
        fields: Fields of `board.yaml` that differ.
    """
    count = max((len(values) for values in systems.values()), default=4)
    root.mkdir(parents=True)
    content = {
        "title": "Made up",
        "task": {"name": "made_up", "version": "1-abc"},
        "scorer": {"name": "matcher", "versions": ["1"], "dimensions": ["match"]},
        "protocol": "strict",
        "protocol_version": "2",
        **fields,
    }
    (root / BOARD_FILE).write_text(yaml.safe_dump(content), encoding="utf-8")
    lines = [canonical(sample.model_dump(mode="json")) for sample in board_samples(count)]
    (root / SAMPLES_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    board = read_board(root)
    for name, values in systems.items():
        add_revision(board, name, values)
    return board


def add_revision(
    board: Board,
    slug: str,
    values: Sequence[Value],
    *,
    revision: str = "1",
    created: str = CREATED,
    withdrawn: str = "",
    **facts: Any,
) -> None:
    """Write a revision of a system.

    Args:
        board: The board.
        slug: Folder of the system.
        values: Value of each sample in the order of the board; the board may have more samples.
        revision: Name of the revision.
        created: When its run was created.
        withdrawn: Why it was withdrawn; empty if it was not.
        facts: Fields of `system.yaml` that differ.
    """
    folder = board.path / slug / revision
    folder.mkdir(parents=True)
    about = {
        "name": slug.title(),
        "revision": revision,
        "kind": "image_model",
        "authors": ["A. Author"],
        "licence": "Apache-2.0",
        "open_weights": True,
        "search": False,
        "parameters": "1 B",
        "training_data": "none",
        "contact": "https://example.org",
        "adapter": {"generator": "noise"},
        **facts,
    }
    (folder / SYSTEM_FILE).write_text(yaml.safe_dump(about), encoding="utf-8")
    (folder / RESULT_FILE).write_text(result_text(result_of(board, slug, values, created)), encoding="utf-8")
    if withdrawn:
        text = yaml.safe_dump({"date": "2026-02-01", "reason": withdrawn})
        (folder / WITHDRAWN_FILE).write_text(text, encoding="utf-8")


def result_of(board: Board, slug: str, values: Sequence[Value], created: str = CREATED) -> SubmissionResult:
    """Return the result of a system with these values."""
    dimension = board.file.scorer.dimensions[0]
    scorer = ScorerSpec(name=board.file.scorer.name, version="1", dimensions=(dimension,))
    samples = tuple(
        SubmittedSample(id=sample.id, generations=tuple(_generations(sample.id, slug, value, dimension)))
        for sample, value in zip(board.samples, values, strict=False)
    )
    return SubmissionResult(
        format=1,
        knowgen="0.2.0",
        created=created,
        spec=RunSpec(
            task=board.file.task.name,
            task_version="1-abc",
            selection=Selection(n=len(values)),
            generator=GeneratorSpec(name=slug),
            scorers=(scorer,),
            repeats=max(len(sample.generations) for sample in samples),
        ),
        scorer=scorer,
        protocol=board.file.protocol,
        protocol_version=board.file.protocol_version,
        claimed={dimension: 0.5, "overall": 0.5},
        coverage=Coverage(expected=len(values), scored=len(values)),
        samples=samples,
    )


def _generations(sample: str, slug: str, value: Value, dimension: str) -> list[SubmittedGeneration]:
    each = [value] if value is None or isinstance(value, (int, float)) else list(value)
    return [
        SubmittedGeneration(
            repeat=repeat,
            status=GenerationStatus.OK,
            image=SubmittedImage(sha256=text_hash(f"{sample} {slug} {repeat}"), width=8, height=8),
            seconds=2.0 + repeat,
            cost=0.25,
            scores=(_score(one, dimension),),
        )
        for repeat, one in enumerate(each)
    ]


def _score(value: float | None, dimension: str) -> SubmittedScore:
    if value is None:
        failed = ParsedScore(status=ScoreStatus.FAILED, reason="the reply has no values")
        return SubmittedScore(strict=failed, cause=FailureCause.SYSTEM)
    parsed = ParsedScore(status=ScoreStatus.OK, values={dimension: value}, rationale=f"It is {value} right.")
    return SubmittedScore(strict=parsed)


def spread(level: float, count: int, seed: int) -> list[float]:
    """Return values around a level, with a spread that samples share only in part."""
    rng = random.Random(seed)
    return [min(max(round(level + rng.uniform(-0.15, 0.15), 3), 0.0), 1.0) for _ in range(count)]
