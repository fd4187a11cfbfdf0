"""Fetch a published data set from the Hugging Face hub: resolve a revision to a commit, then download that commit.

`huggingface_hub` does the work, so `HF_ENDPOINT`, `HF_HOME`, the token and the cache have their usual meaning, and
files that an interrupted preparation has downloaded are not downloaded again.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from knowgen.clients.hub import call_hub, counting_bar, quiet_hub
from knowgen.core.errors import DataError
from knowgen.core.steps import counted, step

CONNECTIONS = 8
"""Maximum number of files downloaded at the same time."""

SEQUENTIAL_FILES = 16
"""Up to this many files are downloaded one after the other. So few files are large archives, which share the bandwidth
anyway, and a download in a thread cannot be interrupted."""

_COMMIT = re.compile(r"[0-9a-f]{40}\Z")

T = TypeVar("T")


@dataclass(frozen=True)
class Commit:
    """One commit of a dataset repository.

    Attributes:
        repo: Dataset repository, `owner/name`.
        sha: Commit hash, 40 hex digits.
        files: Paths of all files in the repository.
    """

    repo: str
    sha: str
    files: tuple[str, ...]


def resolve(repo: str, revision: str) -> Commit:
    """Return the commit of a revision, and the files in it.

    Args:
        repo: Dataset repository, `owner/name`.
        revision: Branch, tag or commit.

    Raises:
        DataError: The repository or revision does not exist, or the hub cannot be reached.
    """
    info = _call_hub(lambda: _api().dataset_info(repo, revision=revision), repo, revision)
    sha = str(info.sha or "")
    if not _COMMIT.match(sha):
        raise DataError(f"the hub returned no commit for revision {revision!r}", where=repo)
    return Commit(repo, sha, tuple(sorted(str(each.rfilename) for each in info.siblings or ())))


def download(commit: Commit, files: Sequence[str], on_progress: Callable[[str], None]) -> dict[str, Path]:
    """Download files of a commit into the hub cache; cached files are not downloaded again.

    Args:
        commit: Result of `resolve`.
        files: Paths in the repository.
        on_progress: Called with a line of text before the download starts.

    Returns:
        The local path of each file.

    Raises:
        DataError: A file cannot be fetched.
    """
    from huggingface_hub import hf_hub_download

    shows_bytes = "tqdm_class" in inspect.signature(hf_hub_download).parameters  # not in early versions

    def fetch(file: str) -> Path:
        def call() -> str:
            with step(f"fetching {file} (MB)" if shows_bytes else f"fetching {file}") as fetching:
                bar = {"tqdm_class": counting_bar(fetching, megabytes=True)} if shows_bytes else {}
                return str(hf_hub_download(commit.repo, file, repo_type="dataset", revision=commit.sha, **bar))

        return Path(_call_hub(call, f"{commit.repo}/{file}", commit.sha))

    on_progress(f"fetching {len(files)} files of {commit.repo} at {commit.sha[:12]}")
    if len(files) <= SEQUENTIAL_FILES:
        with quiet_hub():
            return {file: fetch(file) for file in files}
    with quiet_hub(), ThreadPoolExecutor(CONNECTIONS) as pool:
        waiting = [pool.submit(fetch, file) for file in files]
        try:
            fetched = counted((each.result() for each in waiting), f"fetching files of {commit.repo}", len(files))
            return dict(zip(files, fetched, strict=True))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi()


def _call_hub(call: Callable[[], T], what: str, revision: str) -> T:
    return call_hub(call, what, revision, missing="or give a local copy with --data-dir")
