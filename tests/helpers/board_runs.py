"""A small board, and runs that do or do not belong on it. The images are of one colour; the scorer compares pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from knowgen.cli.main import run
from knowgen.core.errors import NotRecordedError, RefusalError
from knowgen.core.run_config import RunConfig
from knowgen.engine import run as run_engine
from knowgen.engine.options import EngineOptions
from knowgen.leaderboards.folder import Board, Submission, read_board
from knowgen.leaderboards.template import system_template
from knowgen.store.manifest import read_manifest
from knowgen.store.run import RunStore
from knowgen.workflows.board_submission import pin_board
from knowgen.workflows.plan import plan
from knowgen.workflows.run import Run
from tests.helpers.small_task import make_task

PROMPTS = ("one", "two", "three", "four", "five", "six")
SCORER = "pixels"
VERSION = "pixels-3.3"
DIMENSIONS = ["ssim", "lab_histogram_intersection", "edge_orientation_similarity"]


class Painted:
    """Draws an image of one colour. A word in a prompt makes it fail, refuse, or lack its recording."""

    revision = "1"

    def __init__(
        self, size: int = 64, fails: str = "-", refuses: str = "-", offline: str = "-", reason: str = "cannot"
    ) -> None:
        self.size, self.fails, self.refuses, self.offline, self.reason = size, fails, refuses, offline, reason

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        if self.fails in prompt:
            raise ValueError(self.reason)
        if self.refuses in prompt:
            raise RefusalError(self.reason)
        if self.offline in prompt:
            raise NotRecordedError("the call is not in the recording")
        return Image.new("RGB", (self.size, 48), (seed % 256, sum(map(ord, prompt)) % 256, 9))


class Knowing(Painted):
    """Receives the ground truth."""

    privileged = True


def make_board(folder: Path, *, pinned: bool = True, **changes: Any) -> Board:
    """Write a board of the small task, `leaderboards/small`; fields of `board.yaml` can be changed.

    The task is `folder / "small"`, which is made if it does not exist, or another one that is given.
    """
    task = small_task(folder) if "task" not in changes else None
    path = folder / "leaderboards" / str(changes.pop("board", "small"))
    path.mkdir(parents=True)
    file = {
        "title": "Small",
        "task": {"name": str(task)},
        "scorer": {"name": SCORER, "versions": [VERSION], "dimensions": DIMENSIONS},
        "protocol": "strict",
        "protocol_version": "2",
        **changes,
    }
    (path / "board.yaml").write_text(yaml.safe_dump(file, sort_keys=False))
    return pin_board(read_board(path)).board if pinned else read_board(path)


def small_task(folder: Path) -> Path:
    """Return the small task of a folder, which is made if it does not exist."""
    task = folder / "small"
    return task if task.exists() else make_task(task, list(PROMPTS))


def make_run(
    folder: Path, place: str = "run", generator: Any = None, scorers: Sequence[str] = (SCORER,), **options: Any
) -> Run:
    """Generate and score the small task in this process, without the tables and the page that nobody reads here."""
    config = RunConfig(workers=0, progress=False, **options)
    planned = plan(str(small_task(folder)), Painted() if generator is None else generator, scorers, config)
    here = tuple(replace(each, component_ref=None) for each in planned.scorers)  # no worker processes
    path = folder / place
    with RunStore.open(path, planned.spec) as store:
        run_engine(planned.spec, planned.task, planned.generator, here, store, EngineOptions.of(config))
    return Run(path, planned.spec)


def write_system(run_path: Path, folder: Path, **changes: Any) -> Path:
    """Write a valid `system.yaml` for a run; fields can be changed, and those of the adapter as `adapter__NAME`."""
    manifest = read_manifest(run_path)
    assert manifest is not None
    data = yaml.safe_load(system_template(manifest, "1")) | {
        "name": "Painted", "authors": ["A. Author"], "licence": "MIT", "open_weights": True, "parameters": "none",
        "training_data": "none", "contact": "a@example.org",
    }  # fmt: skip
    data["adapter"] |= {key.removeprefix("adapter__"): changes.pop(key) for key in list(changes) if "__" in key}
    path = folder / "system.yaml"
    path.write_text(yaml.safe_dump(data | changes, sort_keys=False))
    return path


def add(board: Board, run_path: Path, system: Path | None = None, *options: str) -> int:
    """Call `knowgen board add` and return its exit code."""
    given = ["--system", str(system)] if system is not None else []
    words = ["board", "add", str(run_path), "--root", str(board.path.parent), "--board", board.name, *given, *options]
    return run(words)


def refusals(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the reasons that were printed; the last line counts them."""
    *reasons, last = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert all(line.startswith("not eligible: ") for line in reasons), reasons
    assert f"{len(reasons)} reason" in last
    return [line.removeprefix("not eligible: ") for line in reasons]


def submissions(board: Board) -> list[str]:
    return [each.key for each in read_board(board.path).submissions()]


def the_only(board: Board) -> Submission:
    (submission,) = board.submissions()
    return submission


def added(board: Board, run_path: Path, *options: str, **changes: Any) -> Submission:
    """Add a run, which must be eligible, and return its submission."""
    system = write_system(run_path, board.path.parents[1], **changes)
    assert add(board, run_path, system, *options) == 0
    return the_only(board)
