"""Where the weights of a local judge lie, and which weights they are."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from knowgen.core.cache import Cache
from knowgen.core.errors import DataError, MissingDependencyError, UsageError

_TOLD_BY_ENDING = (".json", ".jinja", ".txt", ".model")
"""Files beside the weights that decide what a model says: configuration, vocabulary, chat template."""

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_LOOKS_LOCAL = re.compile(r"[.~/\\]|[A-Za-z]:[\\/]")
_HUB_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?\Z")


def weights_folder(model: str, revision: str, download: bool) -> Path:
    """Returns the folder that holds a model.

    Args:
        model: A folder, or a name on the Hugging Face hub that was downloaded before.
        revision: Branch, tag or commit on the hub; empty for the default one. A folder has none.
        download: May it be fetched from the hub?

    Raises:
        UsageError: It is neither a folder nor a name, or a folder comes with a revision.
        MissingDependencyError: The weights are not on this machine, or cannot be fetched.
        DataError: The folder holds no model, or only weights that are kept as pickles.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision:
            raise UsageError("a folder has no revision", where=f"scorer hf:{model}", fix="leave out revision")
    elif _LOOKS_LOCAL.match(model):
        raise MissingDependencyError(
            "there is no such folder",
            where=f"scorer hf:{model}",
            fix="name a folder with config.json and *.safetensors",
        )
    elif not _HUB_NAME.match(model):
        raise UsageError("is neither a folder nor a name on the hub", where=f"scorer hf:{model}")
    else:
        folder = _from_hub(model, revision, download)
    _check_folder(folder, model)
    return folder


def _from_hub(model: str, revision: str, download: bool) -> Path:
    """Returns the hub's local copy of a model, fetched first where that is allowed."""
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "a model of the hub needs the package 'huggingface_hub'", fix="pip install huggingface-hub"
        ) from error
    wanted = [f"*{ending}" for ending in _TOLD_BY_ENDING] + ["*.safetensors"]
    try:
        found = snapshot_download(
            model, revision=revision or None, allow_patterns=wanted, local_files_only=not download
        )
    except (OSError, ValueError) as error:  # every error of the hub's client is one of the two
        what = "cannot be fetched" if download else "its weights are not on this machine"
        detail = " ".join(str(error).split())[:200]
        raise MissingDependencyError(
            f"{what} ({detail})" if download else what,
            where=f"scorer hf:{model}",
            fix="check the name and the network"
            if download
            else f"type: hf download {model}, or give -s download=true",
        ) from error
    return Path(found)


def _check_folder(folder: Path, model: str) -> None:
    where = f"scorer hf:{model}"
    if not (folder / "config.json").is_file():
        raise DataError("holds no config.json, so it is no model", where=where)
    if any(folder.glob("*.safetensors")):
        return
    if any(next(folder.glob(pattern), None) for pattern in _PICKLES):
        raise DataError(
            "its weights are kept as pickles, which can run code when they are opened",
            where=where,
            fix="save them anew as safetensors",
        )
    raise MissingDependencyError(
        "holds no *.safetensors", where=where, fix="fetch the weights, or give -s download=true for a name on the hub"
    )


def weights_id(folder: Path) -> str:
    """Returns what names a model by its content: 12 hex digits over weights, configuration, vocabulary and template.

    Two copies of one model have the same id, wherever they lie. Digests of weights are kept in a cache by path, size
    and time of change, and the hub's own copies carry theirs in the file's name, so this is slow once at most.
    """
    total = hashlib.sha256()
    cache = Cache("embeddings")
    try:
        for file in sorted(folder.iterdir(), key=lambda file: file.name):
            if file.is_file() and file.name.endswith((*_TOLD_BY_ENDING, ".safetensors")):
                total.update(f"{file.name}\0{_digest(file, cache)}\n".encode())
    finally:
        cache.close()
    return total.hexdigest()[:12]


def _digest(file: Path, cache: Cache) -> str:
    """Returns the sha256 of a file, in hex."""
    real = file.resolve()
    if real.parent.name == "blobs" and _DIGEST.match(real.name):
        return real.name  # the hub's cache names large files by their sha256
    if file.suffix != ".safetensors":
        return hashlib.sha256(file.read_bytes()).hexdigest()
    status = real.stat()
    key = f"weights\0{real}\0{status.st_size}\0{status.st_mtime_ns}"
    known = cache.get(key)
    if known is not None:
        return known.decode("ascii")
    with real.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    cache.put(key, found.encode("ascii"))
    return found


def words_of(error: BaseException) -> str:
    """Returns an error's own words on one line, shortened."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
