"""Files and folders that are replaced in one step: a reader sees the old content or the new one, never half of it."""

from __future__ import annotations

import errno
import glob
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from knowgen.core.scratch import ScratchFolder
from knowgen.core.steps import step

MOST_WRITERS = 100
"""Maximum number of attempts to put a folder in its place while others put theirs there."""

_OVERTAKEN = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST})
"""Errors that mean that another writer moved the folder away, or its own into its place, a moment ago."""


def replace_folder(fresh: Path, target: Path) -> None:
    """Give a complete folder its final name, in place of an earlier folder of that name.

    The earlier folder is moved aside first and removed last. If the new one cannot take its place, the earlier one is
    moved back before the error is raised. Of several writers at the same time, the last one counts.

    Args:
        fresh: The new folder, on the same file system as `target`.
        target: Its final name. The parent folder exists.

    Raises:
        OSError: A folder cannot be renamed. `target` is what it was before.
    """
    for attempt in range(MOST_WRITERS):
        try:
            _replace_once(fresh, target)
        except OSError as error:
            if error.errno not in _OVERTAKEN or not fresh.exists() or attempt + 1 == MOST_WRITERS:
                raise
        else:
            return


def _replace_once(fresh: Path, target: Path) -> None:
    if not target.exists() and not target.is_symlink():
        fresh.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=_aside_prefix(target), dir=target.parent))
    earlier = aside / target.name
    try:
        target.rename(earlier)
        try:
            fresh.rename(target)
        except BaseException:
            earlier.rename(target)
            raise
    except BaseException:
        if not earlier.exists():  # otherwise the only copy of the earlier folder is in there
            shutil.rmtree(aside, ignore_errors=True)
        raise
    with step("removing earlier files"):
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def folder_draft(target: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield an empty folder beside `target` that takes its name, and its place, when the `with` block ends.

    What killed processes left beside `target` is removed. When the block raises, an earlier folder stays as it is.

    Args:
        target: The final name. Missing parents are created.
        replace: Whether it may take the place of an earlier folder with content.

    Raises:
        OSError: A folder cannot be created or renamed, or an earlier one must not be replaced. It is unchanged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with ScratchFolder(f".{target.name}.new-", target.parent) as draft:
        draft.chmod(0o755)
        yield draft
        if replace:
            replace_folder(draft, target)
        else:
            draft.rename(target)  # an error where a folder with content is, also one that appeared a moment ago
    remove_leftovers(target)


def remove_leftovers(target: Path) -> None:
    """Remove earlier folders that `replace_folder` moved aside and did not remove because it was killed.

    Call it only when `target` is complete: until then a leftover may be the only copy of the earlier folder.
    """
    for folder in target.parent.glob(f"{glob.escape(_aside_prefix(target))}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _aside_prefix(target: Path) -> str:
    return f".{target.name}.old-"


_drafts = itertools.count()


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside a file; what the `with` block writes there becomes the file at its end.

    Each block has a path of its own, so that threads may write the same file at the same time; the last one counts.

    Raises:
        OSError: It cannot be renamed. An earlier file is unchanged, as it is when the block raises.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}-{next(_drafts)}")
    try:
        yield draft
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def write_file(path: Path, data: str | bytes, *, durable: bool = True) -> None:
    """Write a file under a temporary name beside its own, then rename it.

    Args:
        path: The file. Its folder exists.
        data: Its content; text is written as UTF-8.
        durable: Whether the content must survive a power cut once this returns.

    Raises:
        OSError: It cannot be written. An earlier file is unchanged.
    """
    with draft_of(path) as draft, draft.open("wb") as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
