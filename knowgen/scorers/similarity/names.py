"""How a model that embeds pictures is named, and what such a name stands for; nothing is looked up here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from knowgen.core.errors import UsageError

Family = Literal["tag", "file", "hub", "folder", "dino"]

FORMS = "ARCH/PRETRAINED, ARCH@/path/to/weights, local-dir:FOLDER, hf-hub:ORG/NAME or dino:FOLDER_OR_NAME"

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class ModelName:
    """A name that was understood.

    Attributes:
        text: As the user wrote it.
        family: tag: weights that open_clip lists; file: a checkpoint on disk; hub: an open_clip model in a hub
            repository; folder: the same in a folder; dino: a DINOv2 or DINOv3 model for `transformers`.
        arch: Architecture as open_clip lists it; empty for the last three.
        source: The tag, the file, the repository, the folder, or for dino a folder or a repository.
    """

    text: str
    family: Family
    arch: str
    source: str

    @property
    def has_text(self) -> bool:
        """Does the model embed texts as well?"""
        return self.family != "dino"


def parse_name(text: str) -> ModelName:
    """Understands a model's name.

    Raises:
        UsageError: It has none of the forms.
    """
    if not isinstance(text, str) or not text.strip():
        raise UsageError("needs a model", where="scorer similarity", fix=f"name it as similarity:MODEL, {FORMS}")
    if text.startswith("dino:"):
        return ModelName(text, "dino", "", _given(text, text.removeprefix("dino:")))
    if text.startswith("local-dir:"):
        return ModelName(text, "folder", "", _given(text, text.removeprefix("local-dir:")))
    if text.startswith("hf-hub:"):
        source = _given(text, text.removeprefix("hf-hub:"))
        if not is_hub_name(source):
            raise UsageError(f"{source!r} is no repository", where=_where(text), fix="write hf-hub:ORG/NAME")
        return ModelName(text, "hub", "", source)
    for mark, family in (("@", "file"), ("/", "tag")):
        arch, found, source = text.partition(mark)
        if found and arch and "/" not in arch:
            return ModelName(text, "file" if family == "file" else "tag", arch, _given(text, source))
    raise UsageError(f"{text!r} names no weights", where="scorer similarity", fix=f"write {FORMS}")


def is_hub_name(source: str) -> bool:
    """Tells whether a word has the form of a hub repository, `ORG/NAME`."""
    return bool(_HUB_NAME.fullmatch(source))


def _given(text: str, source: str) -> str:
    if not source.strip():
        raise UsageError(f"{text!r} ends where its weights should be named", where=_where(text), fix=f"write {FORMS}")
    return source


def _where(text: str) -> str:
    return f"scorer similarity:{text}"
