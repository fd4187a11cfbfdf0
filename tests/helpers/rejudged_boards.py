"""A board of a small task on disk, and submissions that real runs made, to judge and run them again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from knowgen.api import Run, evaluate
from knowgen.core.errors import RefusalError
from knowgen.core.records import ParsedScore
from knowgen.leaderboards.folder import RESULT_FILE, Board, Submission, read_board, result_text
from knowgen.leaderboards.images import KeptImages
from knowgen.leaderboards.records import SubmissionResult, SubmittedGeneration
from knowgen.leaderboards.template import system_template
from knowgen.store.manifest import read_manifest
from knowgen.workflows.board_submission import add_submission, pin_board
from tests.helpers.checked_boards import honest, with_generation
from tests.helpers.small_task import make_task

PIXELS = ("ssim", "lab_histogram_intersection", "edge_orientation_similarity")


class Tiles:
    """Draws coarse tiles that depend on prompt and seed. Another `style` draws others."""

    revision = "1"

    def __init__(self, style: str = "plain", refuses: str = "-") -> None:
        self.style, self.refuses = style, refuses

    def draw(self, prompt: str, references: Any, seed: int) -> Image.Image:
        if self.refuses in prompt:
            raise RefusalError("not this one")
        data = hashlib.shake_256(f"{self.style} {prompt} {seed}".encode()).digest(8 * 6 * 3)
        return Image.frombytes("RGB", (8, 6), data).resize((64, 48), Image.Resampling.BICUBIC)


def make_task_board(
    folder: Path, number: int, scorer: str, version: str, dimensions: Sequence[str], **fields: Any
) -> Board:
    """Write a task of some samples, and a pinned board of it; further fields are those of its scorer."""
    make_task(folder / "small", [f"prompt {place}" for place in range(number)])
    path = folder / "boards" / "small"
    path.mkdir(parents=True)
    content = {
        "title": "Small",
        "task": {"name": "../../small"},
        "scorer": {
            "name": scorer,
            "versions": [version],
            "dimensions": list(dimensions),
            **fields,
        },
        "protocol": "strict",
        "protocol_version": "2",
    }
    (path / "board.yaml").write_text(yaml.safe_dump(content))
    return pin_board(read_board(path)).board


def submit(
    board: Board, generator: str, scorer: str, *, images: KeptImages = "full", name: str = "Tiles", **options: Any
) -> tuple[Submission, Run]:
    """Run the task of a board and add the run to it; return the submission and the run."""
    folder = board.path.parent.parent
    out = folder / "runs" / name
    run = evaluate(str(folder / "small"), generator, scorers=scorer, out=out, workers=0, progress=False, **options)
    manifest = read_manifest(out)
    assert manifest is not None
    system = yaml.safe_load(system_template(manifest, "1")) | {
        "name": name,
        "kind": "image_model",
        "authors": ["A. Author"],
        "licence": "MIT",
        "open_weights": True,
        "parameters": "none",
        "training_data": "none",
        "contact": "a@example.org",
    }
    (out / "system.yaml").write_text(yaml.safe_dump(system))
    added = add_submission(out, board, out / "system.yaml", images=images)
    assert not added.reasons, added.reasons
    return board.submission(name.lower()), run


def fake(
    submission: Submission, board: Board, places: Sequence[int], change: Callable[[ParsedScore], ParsedScore]
) -> SubmissionResult:
    """Change the scores of some samples of a submission, and all claims so that they follow from them."""
    result = submission.read_result()

    def changed(one: SubmittedGeneration) -> SubmittedGeneration:
        scores = tuple(
            score.model_copy(
                update={
                    "strict": change(score.strict),
                    "lenient": None if score.lenient is None else change(score.lenient),
                }
            )
            for score in one.scores
        )
        return one.model_copy(update={"scores": scores})

    for place in places:
        result = with_generation(result, place, changed)
    result = honest(result, board)
    (submission.path / RESULT_FILE).write_text(result_text(result))
    return result


def perfect(parsed: ParsedScore) -> ParsedScore:
    """Return a score with the best value in every dimension."""
    return parsed.model_copy(update={"values": dict.fromkeys(parsed.values, 1.0)})
