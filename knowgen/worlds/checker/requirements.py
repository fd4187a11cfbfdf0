"""Requirements that the ground truth of a world sample sets for an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.records import GroundTruth
from knowgen.worlds.rendering.appearance import Appearance
from knowgen.worlds.rendering.scenes import SCENES


@dataclass(frozen=True, slots=True)
class RequiredSubject:
    """A subject that the image must show.

    Attributes:
        name: Its name.
        appearance: Its appearance.
        distractor: Appearance of its distractor.
    """

    name: str
    appearance: Appearance
    distractor: Appearance


@dataclass(frozen=True, slots=True)
class Requirements:
    """Requirements for an image.

    Attributes:
        texts: Texts that must be readable; empty if none is required.
        subjects: Subjects that must be shown.
        scene: Name of the scene.
    """

    texts: tuple[str, ...]
    subjects: tuple[RequiredSubject, ...]
    scene: str


def read_requirements(truth: GroundTruth) -> Requirements:
    """Return the requirements of a ground truth.

    Raises:
        DataError: If it is not from a world: a subject has no appearance, or the scene is unknown.
    """
    where = f"truth of sample {truth.sample_id!r}"
    scene = truth.extra.get("scene")
    if scene not in SCENES:
        raise DataError(f"extra.scene is {scene!r}", where=where, fix="world_check scores samples of worlds only")
    texts = () if truth.text_required is False else truth.required_text
    return Requirements(texts, tuple(_read_subject(subject, where) for subject in truth.subjects), scene)


def _read_subject(subject: Mapping[str, Any], where: str) -> RequiredSubject:
    appearances = []
    for field in ("look", "look_alike"):
        value = subject.get(field)
        if not isinstance(value, Mapping):
            fix = "world_check scores samples of worlds only"
            raise DataError(f"subject {subject.get('name', '?')!r} has no {field}", where=where, fix=fix)
        appearances.append(Appearance.from_dict(value))
    return RequiredSubject(str(subject.get("name", "")), *appearances)
