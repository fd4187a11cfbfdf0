"""Functions that create the records of a run."""

from __future__ import annotations

import io
import subprocess
from typing import Any

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
from tests.helpers.processes import start_python


def image_bytes(colour: int = 0, size: tuple[int, int] = (24, 16), kind: str = "PNG") -> bytes:
    """Return the file of a small image, unique to `colour`."""
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


def generation(name: str, image: ImageRef | None = None, repeat: int = 0, **changes: Any) -> Generation:
    fields: dict[str, Any] = {"sample_id": name, "repeat": repeat, "image": image}
    fields["status"] = GenerationStatus.OK if image else GenerationStatus.FAILED
    fields["reason"] = "" if image else "it broke"
    return Generation(**fields | changes)


def score(name: str, image: str, value: float = 0.5, repeat: int = 0, judge_repeat: int = 0, **more: Any) -> Score:
    parsed = ParsedScore(status=ScoreStatus.OK, values=dict.fromkeys(DIMENSIONS, value), rationale="seen")
    fields: dict[str, Any] = {
        "sample_id": name, "repeat": repeat, "scorer": "judge", "judge_repeat": judge_repeat,
        "status": ScoreStatus.OK, "strict": parsed, "image": image,
    }  # fmt: skip
    return Score(**fields | more)


def start_code(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start Python code in a child process that can import the package."""
    return start_python("-c", code, *arguments, **options)
