"""`knowgen task prepare`: a published data set becomes a folder on this machine, whole or not at all.

The work goes into a draft folder that nothing reads; a finished draft is renamed to its commit, and only then does
`current.json` name it. Killed at any point, what was in use before is in use still. A data set that is prepared is
left alone, and then neither the hub is asked nor anything heavy loaded.
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

KEPT = ("text_required.json", "text_required.journal.jsonl")
"""Answers that were paid for: kept when the same commit is prepared again."""

_DRAFT = ".draft-"
_LOCK = ".lock"


def prepare(
    name: str,
    *,
    revision: str | None = None,
    data_dir: Path | None = None,
    force: bool = False,
    told: Callable[[str], None] = lambda line: None,
    limits: ArchiveLimits | None = None,
) -> tuple[PreparedData, bool]:
    """Prepares a data set, unless it is prepared.

    Args:
        name: Of the catalog.
        revision: Branch, tag or commit on the hub; when None, the commit that is in use, else `main`.
        data_dir: A folder to read instead of the hub.
        force: Prepare it again; a revision that is named is resolved anew.
        told: Told what is being done.
        limits: What may come out of archives.

    Returns:
        The data set, and whether anything had to be done.

    Raises:
        UsageError: Nobody knows the name, or both a revision and a folder are named.
        DataError: Something of the data set cannot be used.
        ConfigError: Another process is preparing it, or the data folder cannot be written.
    """
    data = data_set(name)
    if revision is not None and data_dir is not None:
        raise UsageError("--revision and --data-dir exclude each other", fix="name one of them")
    found = find_prepared(name)
    if found is not None and not force and _is_that(found, revision, data_dir):
        return found, False
    place = data_home() / name
    with _alone(place, name):
        return _prepare(data, place, found, revision, data_dir, force, told, limits)


def _is_that(found: PreparedData, revision: str | None, data_dir: Path | None) -> bool:
    """Tells whether what is in use is what is asked for."""
    if data_dir is not None:
        return found.source == str(data_dir.resolve())
    return revision is None or revision in (found.revision, found.commit)


def _prepare(
    data: PublishedDataSet,
    place: Path,
    found: PreparedData | None,
    revision: str | None,
    data_dir: Path | None,
    force: bool,
    told: Callable[[str], None],
    limits: ArchiveLimits | None,
) -> tuple[PreparedData, bool]:
    from knowgen.tasks.prepare.archives import ArchiveLimits
    from knowgen.tasks.prepare.build import build

    source = _from_folder(data, data_dir, found, revision)
    if source is None:
        from knowgen.tasks.prepare.hub import resolve
        from knowgen.tasks.prepare.sources import from_hub

        pinned = found.commit if found is not None and found.revision else ""
        asked = revision or pinned or DEFAULT_REVISION
        commit = resolve(data.repo, asked)
        finished = _finished(data.name, place, commit.sha)
        if finished is not None and not force:
            put_current(data.name, finished.folder.name)
            return finished, True
        # the revision the pin came from stays on record when the pinned commit is prepared again
        source = from_hub(data, commit, found.revision if found and not revision else asked, told)
    draft = Path(tempfile.mkdtemp(dir=place, prefix=_DRAFT))
    try:
        index = build(draft, data, source, told, limits or ArchiveLimits())
        return _put_in_place(data.name, place, draft, str(index["commit"])), True
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(place), fix="look at the disk") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _from_folder(
    data: PublishedDataSet, data_dir: Path | None, found: PreparedData | None, revision: str | None
) -> SourceFiles | None:
    """Returns the files of the folder that is named, or that the data in use came from; None where the hub is meant."""
    from knowgen.tasks.prepare.sources import from_folder

    if data_dir is None and revision is None and found is not None and found.source:
        data_dir = Path(found.source)
    return None if data_dir is None else from_folder(data, data_dir)


def _finished(name: str, place: Path, commit: str) -> PreparedData | None:
    """Returns a finished folder of a commit, None when there is none."""
    folders = sorted(place.glob(f"{commit}*"))
    return next((each for folder in folders if (each := read_prepared(name, folder)) is not None), None)


def _put_in_place(name: str, place: Path, draft: Path, commit: str) -> PreparedData:
    """Renames a finished draft, makes it the one in use, and removes what it replaces."""
    earlier = sorted(place.glob(f"{commit}*"))
    for file in KEPT:
        kept = next((folder / file for folder in earlier if (folder / file).is_file()), None)
        if kept is not None:
            shutil.copyfile(kept, draft / file)
    names = (commit, *(f"{commit}-{number}" for number in range(2, len(earlier) + 3)))
    target = next(place / each for each in names if not (place / each).exists())
    draft.chmod(0o755)
    draft.rename(target)
    put_current(name, target.name)
    for folder in earlier:
        shutil.rmtree(folder, ignore_errors=True)
    prepared = read_prepared(name, target)
    assert prepared is not None, "its index was written before it was renamed"
    return prepared


@contextlib.contextmanager
def _alone(place: Path, name: str) -> Iterator[None]:
    """Holds a data set's folder for one process, and clears away what killed ones left. The kernel drops the lock."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}", where=str(place), fix="set KNOWGEN_DATA to a folder of yours"
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
