"""The parts of a diffusers pipeline on this machine: where they are, whether all are there, and which they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError, MissingDependencyError, UsageError
from knowgen.local_models.weights import (
    SAFETENSORS,
    content_id,
    hub_folder,
    is_hub_name,
    looks_like_path,
    not_downloaded,
    online,
    refuse_pickles,
)

INDEX = "model_index.json"
"""Names the pipeline's class and the class of each part, which lies in a folder of its name."""

_TEXTS = (".json", ".txt", ".model", ".jinja")


@dataclass(frozen=True)
class Weights:
    """A pipeline's folder.

    Attributes:
        folder: It holds `model_index.json`.
        revision: Commit on the hub; empty for a folder of the user's.
        pipeline: Class that the folder names.
        parts: Names of its parts.
    """

    folder: Path
    revision: str
    pipeline: str
    parts: tuple[str, ...]

    def digest(self) -> str:
        """Return what names the model by its content: 12 hex digits over the files of its parts."""
        return content_id(self.folder, self._files())

    def _files(self) -> Iterator[Path]:
        yield self.folder / INDEX
        for part in sorted(self.parts):
            for file in sorted((self.folder / part).rglob("*")):
                if file.suffix in {*_TEXTS, SAFETENSORS} and file.is_file():
                    yield file


def find(model: str, revision: str, *, download: bool, where: str, variant: str = "") -> Weights:
    """Finds a pipeline's parts.

    Args:
        model: A folder, or ORG/NAME on the hub.
        revision: Branch, tag or commit on the hub; a folder has none.
        download: May it be fetched from the hub?
        where: Names the generator in errors.
        variant: Names a form of the weights, such as `fp16`; empty for the plain one.

    Raises:
        UsageError: It is neither a folder nor a name of the hub.
        MissingDependencyError: It is not on this machine, or not all of it.
        DataError: It is no pipeline, its weights are pickles, or it brings code of its own.
    """
    folder = Path(model).expanduser()
    commit = ""
    if not folder.is_dir():
        if looks_like_path(model):
            raise MissingDependencyError("there is no such folder", where=where, fix=f"it should hold {INDEX}")
        if not is_hub_name(model, owner=True):
            raise UsageError(
                f"{model!r} is no preset, no folder and no ORG/NAME of the hub",
                where=where,
                fix="presets are listed by `knowgen list generators -v`",
            )
        folder = _from_hub(model, revision, download, variant, where)
        commit = folder.name if folder.parent.name == "snapshots" else revision
    index = _index(folder, where)
    parts = tuple(name for name, what in index.items() if _is_part(what))
    for part in parts:
        _check_part(folder, part, str(index[part][0]), model, where)
    return Weights(folder, commit, str(index["_class_name"]), parts)


def _from_hub(model: str, revision: str, download: bool, variant: str, where: str) -> Path:
    if not download:
        return hub_folder(model, revision=revision, download=False, where=where, option="-g")
    from diffusers import DiffusionPipeline

    more = {"variant": variant} if variant else {}
    try:
        # it fetches what the index names, and only safetensors
        with online():
            return Path(DiffusionPipeline.download(model, revision=revision, use_safetensors=True, **more))
    except (OSError, ValueError) as error:  # every error of the hub's client is one of the two
        raise not_downloaded(model, error, where) from error


def _missing(model: str, where: str, what: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"the weights of {model} {what}", where=where, fix=f"type `hf download {model}`, or give -g download=true"
    )


def _index(folder: Path, where: str) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        raise DataError(f"{folder} holds no {INDEX}, so it is no pipeline", where=where)
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        name = index["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("names no pipeline", where=str(path)) from error
    if not isinstance(name, str):
        raise DataError("asks for code that comes with the weights, which is not run", where=str(path))
    return dict(index)


def _is_part(what: Any) -> bool:
    return isinstance(what, list) and len(what) == 2 and all(isinstance(word, str) for word in what)


def _check_part(folder: Path, part: str, library: str, model: str, where: str) -> None:
    place = folder / part
    if not re.fullmatch(r"\w+", part) or (place / f"{library}.py").exists():
        raise DataError(f"its part {part!r} brings code of its own, which is not run", where=where)
    if not place.is_dir():
        raise _missing(model, where, f"are not complete here: {part} is missing")
    names = {file.name for file in place.iterdir()}
    if "config.json" not in names or names & {"tokenizer_config.json", "preprocessor_config.json"}:
        return  # a tokenizer, a processor, a scheduler: nothing heavy
    if not any(name.endswith(".safetensors") for name in names):
        refuse_pickles(names, part, where)
        raise _missing(model, where, f"are not complete here: {part} has none")
    for name in names:
        if name.endswith(".safetensors.index.json"):
            shards = set(json.loads((place / name).read_text(encoding="utf-8"))["weight_map"].values())
            if absent := sorted(shards - names):
                raise _missing(model, where, f"are not complete here: {part} lacks {absent[0]}")
