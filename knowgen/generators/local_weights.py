"""Where the parts of a pipeline lie on this machine, whether they are all there, and which they are."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.cache import Cache
from knowgen.core.errors import DataError, MissingDependencyError, UsageError

INDEX = "model_index.json"
"""Names the pipeline's class and the class of each part, which lies in a folder of its name."""

_TEXTS = (".json", ".txt", ".model", ".jinja")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_LOOKS_LOCAL = re.compile(r"[.~/\\]|[A-Za-z]:[\\/]")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+\Z")


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
        """Returns what names the model by its content: 12 hex digits over the files of its parts.

        Two copies have the same one, wherever they lie. The hub's own copies carry the digest of a large file in its
        name; those of other weights are kept in a cache by path, size and time of change.
        """
        total = hashlib.sha256()
        cache = Cache("embeddings")
        try:
            for file in self._files():
                total.update(f"{file.relative_to(self.folder).as_posix()}\0{_digest(file, cache)}\n".encode())
        finally:
            cache.close()
        return total.hexdigest()[:12]

    def _files(self) -> Iterator[Path]:
        yield self.folder / INDEX
        for part in sorted(self.parts):
            for file in sorted((self.folder / part).rglob("*")):
                if file.suffix in {*_TEXTS, ".safetensors"} and file.is_file():
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
        if _LOOKS_LOCAL.match(model):
            raise MissingDependencyError("there is no such folder", where=where, fix=f"it should hold {INDEX}")
        if not _HUB_NAME.match(model):
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
    from huggingface_hub import snapshot_download

    try:
        if not download:
            return Path(snapshot_download(model, revision=revision, local_files_only=True))
        from diffusers import DiffusionPipeline

        more = {"variant": variant} if variant else {}
        # it fetches what the index names, and only safetensors
        return Path(DiffusionPipeline.download(model, revision=revision, use_safetensors=True, **more))
    except (OSError, ValueError) as error:  # every error of the hub's client is one of the two
        if not download:
            raise _missing(model, where, "are not on this machine, and nothing is downloaded unasked") from error
        words = " ".join(str(error).split())[:200]
        raise MissingDependencyError(
            f"{model} cannot be fetched ({words})", where=where, fix="check the name, the network and HF_TOKEN"
        ) from error


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
        if any(name.endswith(_PICKLES) for name in names):
            raise DataError(
                f"the weights of {part} are pickles, which can run code when they are opened",
                where=where,
                fix="save them anew as safetensors",
            )
        raise _missing(model, where, f"are not complete here: {part} has none")
    for name in names:
        if name.endswith(".safetensors.index.json"):
            shards = set(json.loads((place / name).read_text(encoding="utf-8"))["weight_map"].values())
            if absent := sorted(shards - names):
                raise _missing(model, where, f"are not complete here: {part} lacks {absent[0]}")


def _digest(file: Path, cache: Cache) -> str:
    """Returns the sha256 of a file, in hex."""
    real = file.resolve()
    if real.parent.name == "blobs" and _DIGEST.match(real.name):
        return real.name  # the hub's cache names large files by their sha256
    status = real.stat()
    key = f"weights\0{real}\0{status.st_size}\0{status.st_mtime_ns}"
    large = file.suffix == ".safetensors"
    known = cache.get(key) if large else None
    if known is not None:
        return known.decode("ascii")
    with real.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if large:
        cache.put(key, found.encode("ascii"))
    return found
