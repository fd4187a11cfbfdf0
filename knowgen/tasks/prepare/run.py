"""`knowgen task prepare`: turn a published data set into a folder on this machine, completely or not at all.

The data set is built in a draft folder that no reader opens. A finished draft is renamed after its commit, and then
`current.json` is updated to name it. If the process is killed, the version in use does not change. If the data set is
already prepared, nothing is fetched and no heavy library is imported.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from knowgen.core.errors import ConfigError, UsageError
from knowgen.tasks.catalog import DEFAULT_REVISION, PublishedDataSet, data_set
from knowgen.tasks.data_home import PreparedData, data_home, find_prepared, put_current, read_prepared

if TYPE_CHECKING:
    from knowgen.tasks.prepare.archives import ArchiveLimits
    from knowgen.tasks.prepare.sources import SourceFiles

PRESERVED = ("text_required.json", "text_required.journal.jsonl")
"""Paid judge answers: preserved when the same commit is prepared again."""

_DRAFT = ".draft-"
_LOCK = ".lock"


def prepare(
    name: str,
    *,
    revision: str | None = None,
    data_dir: Path | None = None,
    force: bool = False,
    on_progress: Callable[[str], None] = lambda line: None,
    limits: ArchiveLimits | None = None,
) -> tuple[PreparedData, bool]:
    """Prepare a data set, unless it is already prepared.

    Args:
        name: Name in the catalog.
        revision: Branch, tag or commit on the hub. If None, the commit in use, else `main`.
        data_dir: Folder to read instead of the hub.
        force: Prepare it again; a given revision is resolved again.
        on_progress: Called with a line of text at each step.
        limits: Limits for the archives.

    Returns:
        The data set, and whether anything was done.

    Raises:
        UsageError: The name is unknown, or both a revision and a folder are given.
        DataError: Part of the data set cannot be used.
        ConfigError: Another process is preparing it, or the data folder cannot be written.
    """
    data = data_set(name)
    if revision is not None and data_dir is not None:
        raise UsageError("--revision and --data-dir exclude each other", fix="give one of them")
    current = find_prepared(name)
    if current is not None and not force and _satisfies(current, revision, data_dir):
        return current, False
    place = data_home() / name
    with _locked(place, name):
        return _prepare(data, place, current, revision, data_dir, force, on_progress, limits)


def _satisfies(current: PreparedData, revision: str | None, data_dir: Path | None) -> bool:
    """Return whether the version in use is the requested one."""
    if data_dir is not None:
        return current.source == str(data_dir.resolve())
    return revision is None or revision in (current.revision, current.commit)


def _prepare(
    data: PublishedDataSet,
    place: Path,
    current: PreparedData | None,
    revision: str | None,
    data_dir: Path | None,
    force: bool,
    on_progress: Callable[[str], None],
    limits: ArchiveLimits | None,
) -> tuple[PreparedData, bool]:
    from knowgen.tasks.prepare.archives import ArchiveLimits
    from knowgen.tasks.prepare.build import build

    source = _from_folder(data, data_dir, current, revision)
    if source is None:
        from knowgen.tasks.prepare.hub import resolve
        from knowgen.tasks.prepare.sources import from_hub

        pinned = current.commit if current is not None and current.revision else ""
        requested = revision or pinned or DEFAULT_REVISION
        commit = resolve(data.repo, requested)
        finished = _finished(data.name, place, commit.sha)
        if finished is not None and not force:
            put_current(data.name, finished.folder.name)
            return finished, True
        # when the pinned commit is prepared again, the revision that it was resolved from stays on record
        recorded = current.revision if current and not revision else requested
        source = from_hub(data, commit, recorded, on_progress)
    draft = Path(tempfile.mkdtemp(dir=place, prefix=_DRAFT))
    try:
        index = build(draft, data, source, on_progress, limits or ArchiveLimits())
        return _put_in_place(data.name, place, draft, str(index["commit"])), True
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}", where=str(place), fix="check the disk's free space and permissions"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _from_folder(
    data: PublishedDataSet, data_dir: Path | None, current: PreparedData | None, revision: str | None
) -> SourceFiles | None:
    """Return the files of the given folder, or of the folder the data in use came from; None to use the hub."""
    from knowgen.tasks.prepare.sources import from_folder

    if data_dir is None and revision is None and current is not None and current.source:
        data_dir = Path(current.source)
    return None if data_dir is None else from_folder(data, data_dir)


def _finished(name: str, place: Path, commit: str) -> PreparedData | None:
    """Return the finished folder of a commit, or None."""
    folders = sorted(place.glob(f"{commit}*"))
    return next((each for folder in folders if (each := read_prepared(name, folder)) is not None), None)


def _put_in_place(name: str, place: Path, draft: Path, commit: str) -> PreparedData:
    """Rename a finished draft, make it the version in use, and remove the folders that it replaces."""
    earlier = sorted(place.glob(f"{commit}*"))
    for file in PRESERVED:
        existing = next((folder / file for folder in earlier if (folder / file).is_file()), None)
        if existing is not None:
            shutil.copyfile(existing, draft / file)
    names = (commit, *(f"{commit}-{number}" for number in range(2, len(earlier) + 3)))
    target = next(place / each for each in names if not (place / each).exists())
    draft.chmod(0o755)
    draft.rename(target)
    put_current(name, target.name)
    for folder in earlier:
        shutil.rmtree(folder, ignore_errors=True)
    prepared = read_prepared(name, target)
    assert prepared is not None, "the index was written before the draft was renamed"
    return prepared


@contextlib.contextmanager
def _locked(place: Path, name: str) -> Iterator[None]:
    """Lock a data set's folder and remove drafts of killed processes. The kernel releases the lock on exit."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}", where=str(place), fix="set KNOWGEN_DATA to a writable folder"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError("another process is preparing it", where=name, fix="wait for it to end") from error
        for draft in place.glob(f"{_DRAFT}*"):
            shutil.rmtree(draft, ignore_errors=True)
        yield
    finally:
        os.close(descriptor)
