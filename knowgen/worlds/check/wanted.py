"""What the truth of a world's sample demands of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.records import GroundTruth
from knowgen.worlds.drawing.looks import Look
from knowgen.worlds.drawing.scenes import SCENES


@dataclass(frozen=True, slots=True)
class Subject:
    """A thing that must be seen.

    Attributes:
        name: Its name.
        look: How it looks.
        look_alike: What it is easily taken for.
    """

    name: str
    look: Look
    look_alike: Look


@dataclass(frozen=True, slots=True)
class Wanted:
    """The demands.

    Attributes:
        texts: Texts that must be readable; empty when none is wanted.
        subjects: Things that must be seen.
        scene: The place.
    """

    texts: tuple[str, ...]
    subjects: tuple[Subject, ...]
    scene: str


def read_wanted(truth: GroundTruth) -> Wanted:
    """Reads the demands out of a truth record.

    Raises:
        DataError: It is no truth of a world: subjects without looks, an unknown scene.
    """
    where = f"truth of sample {truth.sample_id!r}"
    scene = truth.extra.get("scene")
    if scene not in SCENES:
        raise DataError(f"extra.scene is {scene!r}", where=where, fix="world_check scores samples of worlds only")
    texts = () if truth.text_required is False else truth.required_text
    return Wanted(texts, tuple(_read_subject(subject, where) for subject in truth.subjects), scene)


def _read_subject(subject: Mapping[str, Any], where: str) -> Subject:
    looks = []
    for field in ("look", "look_alike"):
        value = subject.get(field)
        if not isinstance(value, Mapping):
            fix = "world_check scores samples of worlds only"
            raise DataError(f"subject {subject.get('name', '?')!r} has no {field}", where=where, fix=fix)
        looks.append(Look.from_dict(value))
    return Subject(str(subject.get("name", "")), *looks)
