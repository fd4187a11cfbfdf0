"""What the store's tests build runs from."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from knowgen.core.records import (
    DIMENSIONS,
    Generation,
    GenerationStatus,
    GroundTruth,
    ImageRef,
    ParsedScore,
    Sample,
    Score,
    ScoreStatus,
)
from knowgen.core.spec import GeneratorSpec, RunSpec, ScorerSpec, Selection


def picture(colour: int = 0, size: tuple[int, int] = (24, 16), kind: str = "PNG") -> bytes:
    """The bytes of a small picture that depends on `colour`."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (colour % 256, colour // 256 % 256, 90)).save(buffer, kind)
    return buffer.getvalue()


def spec(*scorers: ScorerSpec, **changes: Any) -> RunSpec:
    fields: dict[str, Any] = {
        "task": "tiny",
        "task_version": "1-abc",
        "selection": Selection(n=4),
        "generator": GeneratorSpec(name="painter", args={"steps": 4}, revision="r1"),
        "scorers": scorers or (ScorerSpec(name="judge", version="1", dimensions=DIMENSIONS),),
    }
    return RunSpec(**fields | changes)


def sample(name: str, **changes: Any) -> Sample:
    fields = {"id": name, "prompt": f"A placard about {name}", "category": "art", "group": "science_and_knowledge"}
    return Sample(**fields | changes)


def items(*names: str) -> list[tuple[Sample, GroundTruth]]:
    return [(sample(name), GroundTruth(sample_id=name, required_text=(name,))) for name in names]


def drawn(name: str, image: ImageRef | None = None, repeat: int = 0, **changes: Any) -> Generation:
    fields: dict[str, Any] = {"sample_id": name, "repeat": repeat, "image": image}
    fields["status"] = GenerationStatus.OK if image else GenerationStatus.FAILED
    fields["reason"] = "" if image else "it broke"
    return Generation(**fields | changes)


def judged(name: str, image: str, value: float = 0.5, repeat: int = 0, judge_repeat: int = 0, **more: Any) -> Score:
    reading = ParsedScore(status=ScoreStatus.OK, values=dict.fromkeys(DIMENSIONS, value), rationale="seen")
    fields: dict[str, Any] = {
        "sample_id": name, "repeat": repeat, "scorer": "judge", "judge_repeat": judge_repeat,
        "status": ScoreStatus.OK, "strict": reading, "image": image,
    }  # fmt: skip
    return Score(**fields | more)


def child(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Starts Python code in a process of its own, with the package at hand."""
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """Short ways to make records."""
    return SimpleNamespace(
        picture=picture, spec=spec, sample=sample, items=items, drawn=drawn, judged=judged, child=child
    )


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users of this machine can reach, unlike pytest's own."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="knowgen-test-"))
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)
