"""Fetching a published data set: a revision becomes a commit, and exactly that commit's files are downloaded.

The hub's own library does the work, so `HF_ENDPOINT`, `HF_HOME`, its token and its cache mean what they mean
everywhere; what was downloaded by a preparation that was killed is not downloaded again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from knowgen.core.errors import DataError, KnowgenError
from knowgen.core.text import one_line

CONNECTIONS = 8
"""Files fetched at once where there are many."""

FEW = 16
"""So few files are archives, which are fetched one after the other: large ones share a line anyway, and a download in
a thread cannot be interrupted."""

_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_QUERY = re.compile(r"\?[^\s'\")]*")
_WORDS = 240

T = TypeVar("T")


@dataclass(frozen=True)
class Commit:
    """One commit of a dataset repository.

    Attributes:
        repo: The repository.
        sha: 40 hex digits.
        files: Paths of its files.
    """

    repo: str
    sha: str
    files: tuple[str, ...]


def resolve(repo: str, revision: str) -> Commit:
    """Asks the hub which commit a revision is, and what files it has.

    Args:
        repo: Dataset repository, `owner/name`.
        revision: Branch, tag or commit.

    Raises:
        DataError: There is no such repository or revision, or the hub cannot be reached.
    """
    info = _asked(lambda: _api().dataset_info(repo, revision=revision), repo, revision)
    sha = str(info.sha or "")
    if not _COMMIT.match(sha):
        raise DataError(f"the hub names no commit for revision {revision!r}", where=repo)
    return Commit(repo, sha, tuple(sorted(str(each.rfilename) for each in info.siblings or ())))


def download(commit: Commit, files: Sequence[str], told: Callable[[str], None]) -> dict[str, Path]:
    """Downloads files of a commit into the hub library's cache; those that are there are not fetched again.

    Args:
        commit: From `resolve`.
        files: Paths in the repository.
        told: Told what is fetched.

    Returns:
        Where each file lies.

    Raises:
        DataError: A file cannot be fetched.
    """
    from huggingface_hub import hf_hub_download

    def fetch(file: str) -> Path:
        def call() -> str:
            return str(hf_hub_download(commit.repo, file, repo_type="dataset", revision=commit.sha))

        return Path(_asked(call, f"{commit.repo}/{file}", commit.sha))

    told(f"fetching {len(files)} files of {commit.repo} at {commit.sha[:12]}")
    if len(files) <= FEW:
        return {file: fetch(file) for file in files}
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        waiting = [pool.submit(fetch, file) for file in files]
        try:
            return dict(zip(files, (each.result() for each in waiting), strict=True))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi()


def _asked(call: Callable[[], T], what: str, revision: str) -> T:
    """Calls the hub; whatever its library or the transport below it raises becomes one line."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return call()
    except GatedRepoError as error:
        raise DataError(
            "the hub wants its terms accepted first", where=what, fix="accept them there, and set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(
            "the hub has no such dataset, or shows it only to some", where=what, fix="set HF_TOKEN, or name --data-dir"
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(f"there is no revision {revision!r}", where=what, fix="name a branch, tag or commit") from error
    except KnowgenError:
        raise
    except Exception as error:  # the library's errors and its transport's differ from version to version
        raise DataError(
            f"cannot be fetched: {_words(error)}",
            where=what,
            fix="look at the network, HF_ENDPOINT and HF_TOKEN and try again, or name a local copy with --data-dir",
        ) from error


def _words(error: Exception) -> str:
    """Returns an error's words on one line, without the queries of addresses, which may be signed."""
    return one_line(_QUERY.sub("", str(error)), _WORDS) or type(error).__name__
