"""Where a model's files lie on this machine, and their hashes. Nothing is downloaded unless that was asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from knowgen.core.errors import MissingDependencyError
from knowgen.core.spec import fingerprint

_hashes: dict[tuple[str, int, int], str] = {}
"""Digests by path, size and time of change, so that a process reads a checkpoint for its hash once."""


def file_hash(path: Path) -> str:
    """Returns the SHA-256 hex digest of a file's bytes; a file that did not change is read once a process."""
    found = path.stat()
    key = (str(path.resolve()), found.st_size, found.st_mtime_ns)
    if key not in _hashes:
        with path.open("rb") as file:
            _hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[key]


def files_hash(paths: Sequence[Path]) -> str:
    """Returns the digest of one file, or of several together with their names."""
    if len(paths) == 1:
        return file_hash(paths[0])
    return fingerprint([[path.name, file_hash(path)] for path in sorted(paths)])


def versions(*packages: str) -> dict[str, str]:
    """Returns the versions of installed distributions; one that is not installed is left out."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def require_packages(where: str, *modules: str) -> None:
    """Checks that packages are installed, without importing them.

    Raises:
        MissingDependencyError: One is not.
    """
    if missing := [module for module in modules if find_spec(module) is None]:
        raise MissingDependencyError(
            f"needs {', '.join(missing)}, which is not installed", where=where, fix="pip install 'knowgen[models]'"
        )


def hub_file(repository: str, names: Sequence[str], *, download: bool, where: str) -> Path:
    """Returns the first of some files of a hub repository that there is.

    Args:
        repository: ORG/NAME.
        names: File names, the preferred one first.
        download: Fetch it when it is not in the cache?
        where: Names the scorer in errors.

    Raises:
        MissingDependencyError: None is in the cache, and none was to be fetched or none could be.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    fault = ""
    for name in names:
        try:
            with offline(True):  # the client asks its server for other things even where files are to be local
                return Path(hf_hub_download(repository, name, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            if not download:
                continue
        try:
            return Path(hf_hub_download(repository, name))
        except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
            fault = " ".join(str(error).split())[:200]
    if not download:
        raise missing_weights(repository, where)
    raise MissingDependencyError(
        f"{repository} could not be downloaded: {fault}", where=where, fix="check the name, the network and HF_TOKEN"
    )


def hub_folder(repository: str, patterns: Sequence[str], *, download: bool, where: str) -> Path:
    """Returns the folder of a hub repository's files in the cache.

    Args:
        repository: ORG/NAME.
        patterns: Files to fetch, when they are fetched.
        download: Fetch what is not in the cache?
        where: Names the scorer in errors.

    Raises:
        MissingDependencyError: It is not in the cache, and was not to be fetched or could not be.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if not download:
        try:
            with offline(True):
                return Path(snapshot_download(repository, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError) as error:
            raise missing_weights(repository, where) from error
    try:
        return Path(snapshot_download(repository, allow_patterns=list(patterns)))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise MissingDependencyError(
            f"{repository} could not be downloaded: {' '.join(str(error).split())[:200]}",
            where=where,
            fix="check the name, the network and HF_TOKEN",
        ) from error


def missing_weights(repository: str, where: str) -> MissingDependencyError:
    """Says that a repository's weights are not on this machine, and how to get them."""
    return MissingDependencyError(
        f"the weights of {repository} are not on this machine, and nothing is downloaded unasked",
        where=where,
        fix=f"get them with -s download=true, or `hf download {repository}`",
    )


@contextmanager
def offline(on: bool) -> Iterator[None]:
    """Keeps the hub's client off the network, tokenizers and configurations that libraries look up included.

    Args:
        on: False changes nothing.
    """
    if not on:
        yield
        return
    from huggingface_hub import constants

    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    before, earlier = {name: os.environ.get(name) for name in names}, constants.HF_HUB_OFFLINE
    os.environ.update(dict.fromkeys(names, "1"))
    constants.HF_HUB_OFFLINE = True  # read at every request; the environment only when the module was imported
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = earlier
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
