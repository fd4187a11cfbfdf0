"""Parsing the name of an embedding model, without looking it up."""

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
    """A parsed model name.

    Attributes:
        text: Name as the user gives it.
        family: `tag` for weights that open_clip lists, `file` for a checkpoint on disk, `hub` for an open_clip model in
            a hub repository, `folder` for one in a folder, `dino` for a DINOv2 or DINOv3 model for transformers.
        arch: Architecture as open_clip lists it; empty for hub, folder and dino.
        source: Tag, file, repository or folder; for dino a folder or a repository.
    """

    text: str
    family: Family
    arch: str
    source: str

    @property
    def has_text(self) -> bool:
        """Whether the model embeds texts too."""
        return self.family != "dino"


def parse_name(text: str) -> ModelName:
    """Parse the name of a model.

    Args:
        text: Name in one of the forms in `FORMS`.

    Raises:
        UsageError: The name has another form.

    Example:
        >>> parse_name("ViT-B-32/laion2b_s34b_b79k").arch
        'ViT-B-32'
        >>> parse_name("dino:facebook/dinov2-base").source
        'facebook/dinov2-base'
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
            raise UsageError(f"{source!r} is not a hub repository", where=_where(text), fix="write hf-hub:ORG/NAME")
        return ModelName(text, "hub", "", source)
    for mark, family in (("@", "file"), ("/", "tag")):
        arch, separator, source = text.partition(mark)
        if separator and arch and "/" not in arch:
            return ModelName(text, "file" if family == "file" else "tag", arch, _given(text, source))
    raise UsageError(f"{text!r} names no weights", where="scorer similarity", fix=f"write {FORMS}")


def is_hub_name(source: str) -> bool:
    """Return whether a text has the form of a hub repository, `ORG/NAME`."""
    return bool(_HUB_NAME.fullmatch(source))


def _given(text: str, source: str) -> str:
    if not source.strip():
        raise UsageError(f"{text!r} does not name its weights", where=_where(text), fix=f"write {FORMS}")
    return source


def _where(text: str) -> str:
    return f"scorer similarity:{text}"
