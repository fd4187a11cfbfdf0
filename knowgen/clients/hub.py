"""The Hugging Face hub: dataset repositories, their files, uploads, and errors in one line.

`huggingface_hub` does the work, so `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` and a stored login have their usual meaning. No
token is read here into a message or a file.
"""

from __future__ import annotations

import logging as std_logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from knowgen.core.errors import ConfigError, DataError, KnowgenError, UsageError
from knowgen.core.secrets import mask_key_like, mask_secrets
from knowgen.core.steps import LongStep, step
from knowgen.core.text import one_line

COMMIT_FILES = 100
"""Files in one commit, as https://huggingface.co/docs/hub/repositories-recommendations advises (seen 2026-11-29)."""

LISTED_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)

_QUERY = re.compile(r"\?[^\s'\")]*")
_MAX_ERROR_CHARS = 240

T = TypeVar("T")


@dataclass(frozen=True)
class HubFile:
    """A file in a repository.

    Attributes:
        size: Bytes.
        sha256: SHA-256 hex digest, for a file in large-file storage; empty for one in git.
        blob: Id of the blob in git.
    """

    size: int
    sha256: str
    blob: str


class HubDataset:
    """A dataset repository on the hub.

    Args:
        name: `owner/name`.
        revision: Branch, tag or commit.
        missing: What to do when the repository or the hub cannot be reached, beside setting a token.

    Raises:
        UsageError: The name is not `owner/name`.
    """

    def __init__(self, name: str, revision: str = "main", missing: str = "") -> None:
        if not LISTED_REPOSITORY.fullmatch(name):
            raise UsageError(f"{name!r} is not a repository", fix="write OWNER/NAME, as on the hub")
        self.name, self.revision, self._missing = name, revision, missing

    @property
    def url(self) -> str:
        """Address of the repository for readers."""
        endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        return f"{endpoint.rstrip('/')}/datasets/{self.name}"

    def require_token(self) -> None:
        """Check that a token is there at all, before anything is prepared.

        Raises:
            ConfigError: There is none.
        """
        from huggingface_hub import get_token

        if not get_token():
            fix = "run `hf auth login`, or set HF_TOKEN to a token with write access"
            raise ConfigError("no token for the hub", where=self.name, fix=fix)

    def create(self, *, private: bool) -> None:
        """Create the repository and the branch if they do not exist.

        Raises:
            ConfigError: The token may not, or the repository is public where a private one is asked for.
            DataError: The hub cannot be reached.
        """
        api = _api()
        options: dict[str, Any] = {"repo_type": "dataset", "exist_ok": True}
        self._call(lambda: api.create_repo(self.name, private=True if private else None, **options))
        info = self._call(lambda: api.dataset_info(self.name))
        if private and not info.private:
            fix = "make it private in its settings on the hub, or push without --private"
            raise ConfigError("exists already and is public", where=self.name, fix=fix)
        if self.revision != "main":
            self._call(lambda: api.create_branch(self.name, branch=self.revision, **options))

    def commit(self) -> str:
        """Return the commit of the revision.

        Raises:
            ConfigError, DataError: There is none, or the hub cannot be reached.
        """
        info = self._call(lambda: _api().dataset_info(self.name, revision=self.revision))
        if not re.fullmatch(r"[0-9a-f]{40}", str(info.sha or "")):
            raise DataError(f"the hub returned no commit for revision {self.revision!r}", where=self.name)
        return str(info.sha)

    def files(self, commit: str) -> dict[str, HubFile]:
        """Return the files of a commit by their paths.

        Raises:
            ConfigError, DataError: They cannot be listed.
        """
        from huggingface_hub.hf_api import RepoFile

        def call() -> dict[str, HubFile]:
            tree = _api().list_repo_tree(self.name, recursive=True, revision=commit, repo_type="dataset")
            return {
                each.path: HubFile(int(each.size), each.lfs.sha256 if each.lfs else "", str(each.blob_id))
                for each in tree
                if isinstance(each, RepoFile)
            }

        return self._call(call)

    def upload(self, files: Mapping[str, Path], remove: Sequence[str], message: str) -> str:
        """Add or replace files in one commit and remove others, and return the commit.

        Args:
            files: Local file by path in the repository.
            remove: Paths that are removed.
            message: Message of the commit.

        Raises:
            ConfigError, DataError: The hub does not take them.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        operations = [
            *(CommitOperationDelete(path_in_repo=path) for path in remove),
            *(CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(file)) for path, file in files.items()),
        ]

        def call() -> Any:
            with quiet_hub():
                return _api().create_commit(
                    self.name,
                    operations,
                    commit_message=message,
                    repo_type="dataset",
                    revision=self.revision,
                )

        return str(self._call(call).oid)

    def download(self, commit: str, paths: Sequence[str], folder: Path) -> None:
        """Download files of a commit into a folder; those that are there already are not downloaded again.

        Raises:
            ConfigError, DataError: A file cannot be fetched.
        """

        def call() -> None:
            with quiet_hub(), step("fetching files", len(paths)) as fetching:
                _api().snapshot_download(
                    self.name,
                    repo_type="dataset",
                    revision=commit,
                    local_dir=folder,
                    allow_patterns=[_literal(path) for path in paths],
                    tqdm_class=counting_bar(fetching),
                )

        self._call(call)

    def _call(self, call: Callable[[], T]) -> T:
        return call_hub(call, self.name, self.revision, missing=self._missing)


def call_hub(call: Callable[[], T], what: str, revision: str, *, missing: str = "") -> T:
    """Call the hub; an error of the library or its transport becomes one of this package, in one line.

    Args:
        call: Makes the call.
        what: Repository or file, for errors.
        revision: Branch, tag or commit, for errors.
        missing: What else to do when something cannot be fetched, such as `or give a local copy with --data-dir`.

    Raises:
        ConfigError: The token is missing, wrong or has no right.
        DataError: The repository, revision or file does not exist, or the hub cannot be reached.
    """
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    also = f", {missing}" if missing else ""
    try:
        return call()
    except KnowgenError:
        raise
    except GatedRepoError as error:
        raise DataError(
            "its terms must be accepted first", where=what, fix="accept them on the hub, and set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        fix = f"check the name, and set HF_TOKEN if it is private{also}"
        raise DataError("the dataset does not exist or is private", where=what, fix=fix) from error
    except RevisionNotFoundError as error:
        raise DataError(f"unknown revision {revision!r}", where=what, fix="give a branch, tag or commit") from error
    except EntryNotFoundError as error:
        raise DataError(f"a file is missing at revision {revision!r}", where=what, fix="give another one") from error
    except OfflineModeIsEnabled as error:
        raise DataError("HF_HUB_OFFLINE is set", where=what, fix=f"unset it{also}") from error
    except HfHubHTTPError as error:
        raise _of_status(error, what, also) from error
    except Exception as error:  # the exception types of the library and its transport vary between versions
        raise DataError(
            f"the hub cannot be reached or did not answer: {hub_message(error)}",
            where=what,
            fix=f"check the network, HF_ENDPOINT and HF_TOKEN and try again{also}",
        ) from error


def _of_status(error: Any, what: str, also: str) -> KnowgenError:
    """Return the error for a status that the hub answered with."""
    status = error.response.status_code if error.response is not None else 0
    if status == 401:
        fix = "run `hf auth login` again, or set HF_TOKEN to a valid token"
        return ConfigError("the hub does not accept the token", where=what, fix=fix)
    if status == 403:
        owner = what.partition("/")[0]
        fix = f"use a token with write access to {owner}"
        return ConfigError("the token may not do this", where=what, fix=fix)
    if status == 429 or status >= 500:
        fix = "run the same command again later: what was sent is kept"
        return DataError(f"the hub is busy or down ({status})", where=what, fix=fix)
    return DataError(f"the hub refused ({status}): {hub_message(error)}", where=what, fix=f"see the message{also}")


def hub_message(error: Exception) -> str:
    """Return an error's text on one line, without keys and without the queries of URLs, which may be signed."""
    text = mask_key_like(mask_secrets(_QUERY.sub("", str(error))))
    return one_line(text, _MAX_ERROR_CHARS) or type(error).__name__


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="knowgen")


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Keep the progress bars of the library and its warnings of repeated calls off the terminal."""
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    bars, verbosity = not are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity(std_logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            enable_progress_bars()


def counting_bar(shown: LongStep, *, megabytes: bool = False) -> Any:
    """Return a class for the library's bars that draws none, and counts files as a step, or megabytes.

    Args:
        shown: The step. Its total is set where megabytes are counted.
        megabytes: Whether to count the bytes of a file in units of 10^6, and not files.
    """
    from huggingface_hub.utils.tqdm import tqdm

    class CountingBar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            self._counts = (options.get("unit") == "B") is megabytes
            self._units, self._scale = 0.0, 1e-6 if megabytes else 1.0
            if self._counts and megabytes and options.get("total"):
                shown.total = round(options["total"] * self._scale)
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
            self.update(options.get("initial") or 0)

        def update(self, n: float | None = 1) -> None:
            if self._counts:
                before = int(self._units)
                self._units += (n or 0) * self._scale
                shown.advance(int(self._units) - before)

        def __iter__(self) -> Iterator[Any]:
            for each in super().__iter__():
                yield each
                self.update()

    return CountingBar


def _literal(path: str) -> str:
    """Return a pattern of `fnmatch` that fits one path."""
    return re.sub(r"([*?\[])", r"[\1]", path)
