"""Boards with valid submissions of made-up systems, to break one thing at a time."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from knowgen.core.records import DIMENSIONS, Attempt, GenerationStatus, ParsedScore, ScoreStatus
from knowgen.core.spec import GeneratorSpec, RunSpec, ScorerSpec, Selection, canonical
from knowgen.leaderboards.checks.arithmetic import recompute
from knowgen.leaderboards.checks.findings import CheckReport
from knowgen.leaderboards.folder import (
    BOARD_FILE,
    IMAGES,
    REPLIES_FILE,
    RESULT_FILE,
    SAMPLES_FILE,
    SYSTEM_FILE,
    Board,
    read_board,
    result_text,
)
from knowgen.leaderboards.images import thumbnail
from knowgen.leaderboards.records import (
    BoardSample,
    SubmissionResult,
    SubmittedGeneration,
    SubmittedImage,
    SubmittedReply,
    SubmittedSample,
    SubmittedScore,
    TruthHashes,
)
from knowgen.scorers.vlm.judge import VlmJudge
from knowgen.scorers.vlm.parsing import read_attempts
from knowgen.search.leaks import perceptual_hash
from knowgen.stats.summary import Coverage

JUDGE = "judge-2026-01-01"
SCORER = ScorerSpec(name="vlm:judge", version=VlmJudge.version, dimensions=DIMENSIONS)
CATEGORIES = ("biology", "game", "physics", "film")
TASK_VERSION = "1-abcdef012345"
SAMPLES = 12

Grade = Callable[[int], float]
"""Value of a sample in every dimension, by its place."""


def digest(*words: object) -> str:
    """Return 64 hexadecimal digits that depend on some words, of which half of the bits are set."""
    return hashlib.sha256(" ".join(map(str, words)).encode()).hexdigest()


def make_board(root: Path, number: int = SAMPLES, **changes: Any) -> Board:
    """Write a board of some samples, judged by a made-up judge on the four dimensions."""
    path = root / "worlds"
    path.mkdir(parents=True)
    content = {
        "title": "Worlds",
        "task": {"name": "made_up", "version": TASK_VERSION},
        "scorer": {
            "name": SCORER.name,
            "versions": [SCORER.version],
            "judges": [JUDGE],
            "dimensions": list(DIMENSIONS),
        },
        "protocol": "strict",
        "protocol_version": "2",
        **changes,
    }
    (path / BOARD_FILE).write_text(yaml.safe_dump(content, sort_keys=False))
    samples = [
        BoardSample(
            id=f"s{place:02}",
            prompt=f"Draw number {place}.",
            category=CATEGORIES[place % 4],
            difficulty=("easy", "hard")[place % 2],
            text_required=place % 3 == 0,
            truth=TruthHashes(sha256=digest("truth file", place), perceptual=digest("truth", place)),
        )
        for place in range(number)
    ]
    (path / SAMPLES_FILE).write_text("".join(canonical(each.model_dump(mode="json")) + "\n" for each in samples))
    return read_board(path)


def reply_of(grade: float, *, text: bool) -> str:
    """Return a judge's reply with one value for all dimensions."""
    values: dict[str, Any] = dict.fromkeys(DIMENSIONS, grade)
    if not text:
        values["text_accuracy"] = None
    return json.dumps({"rationale": "seen", **values, "text_accuracy_na": not text})


def make_result(
    board: Board, slug: str = "painted", grade: Grade = lambda place: (0, 0.5, 1)[place % 3], **changes: Any
) -> SubmissionResult:
    """Return a valid result of a made-up system, whose images depend on its name."""
    samples = []
    for place, sample in enumerate(board.samples):
        attempt = Attempt(reply=reply_of(grade(place), text=bool(sample.text_required)), model=JUDGE)
        strict, lenient, returned = read_attempts([attempt], sample.text_required)
        image = SubmittedImage(
            sha256=digest("file", slug, place), width=64, height=48, format="PNG", perceptual=digest(slug, place)
        )
        score = SubmittedScore(strict=strict, lenient=lenient, judge=returned)
        generation = SubmittedGeneration(
            status=GenerationStatus.OK, image=image, seconds=1.0, cost=0.01, scores=(score,)
        )
        samples.append(SubmittedSample(id=sample.id, generations=(generation,)))
    spec = RunSpec(
        task="made_up",
        task_version=TASK_VERSION,
        selection=Selection(kind="all", n=len(samples)),
        generator=GeneratorSpec(name=f"{slug}.py:Painter", revision="1"),
        scorers=(SCORER,),
    )
    fields = {
        "format": 1,
        "knowgen": "0.2.0",
        "created": "2026-01-01T12:00:00+00:00",
        "spec": spec,
        "scorer": SCORER,
        "protocol": "strict",
        "protocol_version": "2",
        "claimed": {},
        "coverage": Coverage(),
        "samples": tuple(samples),
        **changes,
    }
    return honest(SubmissionResult(**fields), board)


def honest(result: SubmissionResult, board: Board) -> SubmissionResult:
    """Return a result whose claims are those that its scores give."""
    whole = recompute(result, board).slice()
    judges = Counter(
        score.judge for each in result.samples for one in each.generations for score in one.scores if score.judge
    )
    claimed = {name: figure.value for name, figure in whole.figures.items()}
    return result.model_copy(
        update={"claimed": claimed, "coverage": whole.coverage, "judges": dict(sorted(judges.items()))}
    )


def failed(generation: SubmittedGeneration, reason: str = "it crashed") -> SubmittedGeneration:
    """Return a generation that failed by itself, without image and scores."""
    return generation.model_copy(
        update={
            "status": GenerationStatus.FAILED,
            "reason": reason,
            "image": None,
            "scores": (SubmittedScore(strict=ParsedScore(status=ScoreStatus.NOT_RUN)),),
        }
    )


def with_generation(
    result: SubmissionResult, place: int, change: Callable[[SubmittedGeneration], SubmittedGeneration]
) -> SubmissionResult:
    """Return a result in which the generation of one sample is changed."""
    samples = list(result.samples)
    (generation,) = samples[place].generations
    samples[place] = samples[place].model_copy(update={"generations": (change(generation),)})
    return result.model_copy(update={"samples": tuple(samples)})


def with_image(result: SubmissionResult, place: int, image: SubmittedImage) -> SubmissionResult:
    """Return a result in which the image of one sample is another."""
    return with_generation(result, place, lambda one: one.model_copy(update={"image": image}))


def changed_image(result: SubmissionResult, place: int, changes: Mapping[str, object]) -> SubmissionResult:
    """Return a result in which fields of one image are others."""
    image = result.samples[place].generations[0].image
    assert image is not None
    return with_image(result, place, image.model_copy(update=dict(changes)))


def with_images(board: Board, image: Callable[[int], dict[str, str]], slug: str = "painted") -> SubmissionResult:
    """Return a result in which some images have other hashes, by their place."""
    result = make_result(board, slug)
    for place in range(len(result.samples)):
        result = changed_image(result, place, image(place))
    return result


def system_of(result: SubmissionResult, slug: str, revision: str, **changes: Any) -> dict[str, Any]:
    """Return the content of a valid `system.yaml` for a result."""
    generator = result.spec.generator
    return {
        "name": slug,
        "revision": revision,
        "kind": "image_model",
        "authors": ["A. Author"],
        "licence": "MIT",
        "open_weights": True,
        "search": False,
        "parameters": "2B",
        "training_data": "photographs",
        "contact": "a@example.org",
        "adapter": {"generator": generator.name, "revision": generator.revision},
        **changes,
    }


def write_submission(
    board: Board, result: SubmissionResult, slug: str = "painted", revision: str = "1", **changes: Any
) -> Path:
    """Write the files of a submission and return its folder."""
    folder = board.path / slug / revision
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SYSTEM_FILE).write_text(yaml.safe_dump(system_of(result, slug, revision, **changes), sort_keys=False))
    (folder / RESULT_FILE).write_text(result_text(result))
    return folder


def write_replies(folder: Path, board: Board, grade: Grade) -> None:
    """Write the raw replies of a submission that `make_result` made with the same grades."""
    lines = [
        SubmittedReply(sample=each.id, model=JUDGE, reply=reply_of(grade(place), text=bool(each.text_required)))
        for place, each in enumerate(board.samples)
    ]
    text = "".join(canonical(each.model_dump(mode="json", exclude_defaults=True)) + "\n" for each in lines)
    (folder / REPLIES_FILE).write_text(text)


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Return an image of coarse random tiles, which keeps its look when it is made smaller."""
    data = hashlib.shake_256(str(seed).encode()).digest(8 * 6 * 3)
    return Image.frombytes("RGB", (8, 6), data).resize(size, Image.Resampling.BICUBIC)


def with_pictures(
    result: SubmissionResult, board: Board, slug: str = "painted", *, full: Sequence[int] = (), seed: int = 0
) -> SubmissionResult:
    """Write a thumbnail of every image of a submission, and some scored files; return the result that names them."""
    folder = board.path / slug / "1" / IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(len(result.samples)):
        image = picture(1000 * seed + place)
        small, scored = thumbnail(image), _png(image)
        digests = [hashlib.sha256(data).hexdigest() for data in (small, scored)]
        (folder / f"{digests[0]}.jpg").write_bytes(small)
        if place in full:
            (folder / f"{digests[1]}.png").write_bytes(scored)
        record = SubmittedImage(
            sha256=digests[1],
            width=64,
            height=48,
            format="PNG",
            perceptual=perceptual_hash(image).tobytes().hex(),
            thumbnail=digests[0],
            file=f"{digests[1]}.png" if place in full else "",
        )
        result = with_image(result, place, record)
    return result


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def the_error(report: CheckReport) -> str:
    """Return the only finding, which must be an error."""
    found = [str(each) for each in report.every]
    assert len(found) == 1 and found[0].startswith("error"), found
    assert not report.ok
    return found[0]


def the_warning(report: CheckReport) -> str:
    """Return the only finding, which must be a warning."""
    found = [str(each) for each in report.every]
    assert len(found) == 1 and found[0].startswith("warning"), found
    assert report.ok
    return found[0]
