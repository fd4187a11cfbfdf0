"""Weights of local models: find them on this machine, hash them, and contact the hub only on request."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from knowgen.core.cache import Cache
from knowgen.core.errors import DataError, MissingDependencyError
from knowgen.core.spec import fingerprint
from knowgen.core.text import error_message

SAFETENSORS = ".safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""Suffixes of weight files that can run code when they are opened."""

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_LOCAL_PATH = re.compile(r"[.~/\\]|[A-Za-z]:[\\/]")
_HUB_NAME = re.compile(r"(?:[\w.-]+/)?[\w.-]+\Z")

_digests: dict[tuple[str, int, int], str] = {}
"""Digests by path, size and modification time, so that a process hashes a file once."""


def looks_like_path(model: str) -> bool:
    """Return whether a model name can only be a path: it starts with `.`, `~`, a slash or a drive letter.

    Example:
        >>> looks_like_path("./model"), looks_like_path("Qwen/Qwen-Image")
        (True, False)
    """
    return _LOCAL_PATH.match(model) is not None


def is_hub_name(model: str, *, owner: bool = False) -> bool:
    """Return whether a model name can be one of the Hugging Face hub: OWNER/NAME, or NAME unless `owner` is required.

    Example:
        >>> is_hub_name("gpt2"), is_hub_name("gpt2", owner=True)
        (True, False)
    """
    return bool(_HUB_NAME.match(model)) and not looks_like_path(model) and ("/" in model or not owner)


def refuse_pickles(names: Iterable[str], what: str, where: str) -> None:
    """Check that weights without a safetensors file are not pickles.

    Args:
        names: Names of the files in a folder.
        what: The model or its component, for the message.
        where: Names the generator or scorer in errors.

    Raises:
        DataError: One is a pickle.
    """
    if any(name.endswith(PICKLES) for name in names):
        raise DataError(
            f"the weights of {what} are pickles, which can run code when they are opened",
            where=where,
            fix="save them as safetensors",
        )


def file_digest(path: Path, cache: Cache | None = None) -> str:
    """Return the SHA-256 hex digest of a file's bytes.

    A file that does not change is read once: the hub's cache names large files by their digest, digests are kept in
    this process, and those of safetensors files also in `cache`.

    Args:
        path: The file.
        cache: Cache of digests, shared between processes.

    Raises:
        OSError: The file cannot be read.
    """
    real = path.resolve()
    if real.parent.name == "blobs" and _SHA256.match(real.name) and real.is_file():
        return real.name
    status = real.stat()
    file_version = (str(real), status.st_size, status.st_mtime_ns)
    if file_version in _digests:
        return _digests[file_version]
    key = f"weights\0{real}\0{status.st_size}\0{status.st_mtime_ns}"
    stored = cache.get(key) if cache is not None and path.suffix == SAFETENSORS else None
    if stored is not None:
        digest = stored.decode("ascii")
    else:
        with real.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if cache is not None and path.suffix == SAFETENSORS:
            cache.put(key, digest.encode("ascii"))
    _digests[file_version] = digest
    return digest


def files_digest(paths: Sequence[Path]) -> str:
    """Return the digest of one file, or of several together with their names."""
    if len(paths) == 1:
        return file_digest(paths[0])
    return fingerprint([[path.name, file_digest(path)] for path in sorted(paths)])


def content_id(folder: Path, files: Iterable[Path]) -> str:
    """Return an id of a model's content: 12 hex digits over its files and their names.

    Copies of a model in different folders have the same id.

    Args:
        folder: The model's folder.
        files: The files in it that decide what the model computes, in a fixed order.
    """
    content_hash = hashlib.sha256()
    cache = Cache("embeddings")
    try:
        for file in files:
            content_hash.update(f"{file.relative_to(folder).as_posix()}\0{file_digest(file, cache)}\n".encode())
    finally:
        cache.close()
    return content_hash.hexdigest()[:12]


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of installed distributions; one that is not installed is left out."""
    installed = {}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def require_packages(where: str, *modules: str) -> None:
    """Check that packages are installed, without importing them.

    Raises:
        MissingDependencyError: A package is not installed.
    """
    if missing := [module for module in modules if find_spec(module) is None]:
        raise MissingDependencyError(
            f"needs {', '.join(missing)}, which is not installed", where=where, fix="pip install 'knowgen[models]'"
        )


def hub_file(repository: str, names: Sequence[str], *, download: bool, where: str, option: str = "-s ") -> Path:
    """Return the path of the first available file of a hub repository in the cache.

    Args:
        repository: OWNER/NAME.
        names: File names, the preferred one first.
        download: Whether to download a file that is not in the cache.
        where: Names the generator or scorer in errors.
        option: Beginning of the command-line option that takes `download=true`.

    Raises:
        MissingDependencyError: None is in the cache, and `download` is false or the download failed.
    """
    require_packages(where, "huggingface_hub")
    from huggingface_hub import hf_hub_download

    failure: Exception | None = None
    for name in names:
        try:
            with offline():  # even with local_files_only the client makes other requests
                return Path(hf_hub_download(repository, name, local_files_only=True))
        except (OSError, ValueError):  # every error of the hub's client is one of the two
            if not download:
                continue
        try:
            with online():
                return Path(hf_hub_download(repository, name))
        except (OSError, ValueError) as error:
            failure = error
    raise missing_weights(repository, where, option) if failure is None else not_downloaded(repository, failure, where)


def hub_folder(
    repository: str,
    *,
    download: bool,
    where: str,
    patterns: Sequence[str] | None = None,
    revision: str | None = None,
    option: str = "-s ",
) -> Path:
    """Return the folder of a hub repository's files in the cache.

    Args:
        repository: OWNER/NAME.
        download: Whether to download what is not in the cache.
        where: Names the generator or scorer in errors.
        patterns: Patterns of the files that are needed; None for all. Where some of these are known to be missing in
            the cache, the folder counts as missing, whichever others were left out of a download.
        revision: Branch, tag or commit; None for the default branch.
        option: Beginning of the command-line option that takes `download=true`.

    Raises:
        MissingDependencyError: It is not in the cache, and `download` is false or the download failed.
    """
    require_packages(where, "huggingface_hub")
    from huggingface_hub import snapshot_download

    pinned: dict[str, Any] = {} if revision is None else {"revision": revision}
    only = None if patterns is None else list(patterns)
    try:
        if download:
            with online():
                return Path(snapshot_download(repository, allow_patterns=only, **pinned))
        with offline():
            return Path(snapshot_download(repository, allow_patterns=only, local_files_only=True, **pinned))
    except (OSError, ValueError) as error:  # every error of the hub's client is one of the two
        if download:
            raise not_downloaded(repository, error, where) from error
        raise missing_weights(repository, where, option) from error


def missing_weights(repository: str, where: str, option: str = "-s ") -> MissingDependencyError:
    """Return the error for weights that are not on this machine, with the command to get them."""
    return MissingDependencyError(
        f"the weights of {repository} are not on this machine, and nothing is downloaded without a request",
        where=where,
        fix=f"get them with {option}download=true, or `hf download {repository}`",
    )


def not_downloaded(repository: str, error: Exception, where: str) -> MissingDependencyError:
    """Return the error for a repository that could not be downloaded."""
    return MissingDependencyError(
        f"{repository} could not be downloaded: {error_message(error)}",
        where=where,
        fix="check the name, the network and HF_TOKEN",
    )


_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


class _OfflineSwitch:
    """Process-wide switch that keeps the hub's client offline while at least one thread requires it.

    `offline` waits for downloads to end, `online` waits for offline blocks to end.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._offline = self._downloads = 0
        self._environment: dict[str, str | None] = {}
        self._constant = False

    @contextmanager
    def offline(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._downloads)
            if not self._offline:
                self._set()
            self._offline += 1
        try:
            yield
        finally:
            with self._changed:
                self._offline -= 1
                if not self._offline:
                    self._reset()
                self._changed.notify_all()

    @contextmanager
    def online(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._offline)
            self._downloads += 1
        try:
            yield
        finally:
            with self._changed:
                self._downloads -= 1
                self._changed.notify_all()

    def _set(self) -> None:
        from huggingface_hub import constants

        self._environment = {name: os.environ.get(name) for name in _OFFLINE_VARIABLES}
        self._constant = constants.HF_HUB_OFFLINE
        os.environ.update(dict.fromkeys(_OFFLINE_VARIABLES, "1"))
        constants.HF_HUB_OFFLINE = True  # read at every request; the environment only when the module is imported

    def _reset(self) -> None:
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = self._constant
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_switch = _OfflineSwitch()


@contextmanager
def offline(on: bool = True) -> Iterator[None]:
    """Keep the hub's client offline while the block runs, also for tokenizers and configurations.

    Several threads may be in such a block. It waits for downloads of other threads to end, so do not download within
    it.

    Args:
        on: False changes nothing.
    """
    if not on:
        yield
        return
    with _switch.offline():
        yield


@contextmanager
def online() -> Iterator[None]:
    """Keep other threads from switching the hub's client offline while the block downloads."""
    with _switch.online():
        yield
