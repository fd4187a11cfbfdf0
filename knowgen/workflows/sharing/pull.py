"""Fetch a run or a board from the hub into a new folder. What comes is not trusted until it has been checked."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from knowgen.clients.hub import HubDataset
from knowgen.core.errors import ConfigError, DataError, KnowgenError
from knowgen.core.steps import counted, step
from knowgen.core.text import count, one_line
from knowgen.leaderboards.folder import BOARD_FILE
from knowgen.store.files import explain_os_error
from knowgen.store.folder import DATABASE_FILE
from knowgen.store.run import RunStore
from knowgen.workflows.sharing.listing import LISTING_FILE, Kind, Listing, listed, read_listing
from knowgen.workflows.sharing.sizes import size_text
from knowgen.workflows.sharing.truth_images import with_truth_images

_RUN_FILES = ("run.json", "run.sqlite", "summary.json", "source.json")
_RUN_FOLDERS = ("tables/", "images/")


@dataclass(frozen=True)
class Pulled:
    """What a pull left.

    Attributes:
        path: The run directory, the board or the folder of boards.
        kind: What it is.
        name: Name for readers.
        commit: The commit that it is from.
        files: Number of files.
        size: Bytes.
        images: Whether the images are in it.
        truths: Number of samples whose ground-truth image was found in the task on this machine.
    """

    path: Path
    kind: Kind
    name: str
    commit: str
    files: int
    size: int
    images: bool
    truths: int = 0


def pull(
    repo: str, out: Path | None = None, revision: str = "main", show: Callable[[str], None] = lambda line: None
) -> Pulled:
    """Fetch a run or a board into a new folder, which appears only when everything is there and checked.

    A call that was interrupted goes on where it was: what it fetched is in `OUT.partial`.

    Args:
        repo: `owner/name`.
        out: New folder; the name of the repository in the current folder when None.
        revision: Branch, tag or commit.
        show: Takes lines for the user, such as the size before anything is fetched.

    Raises:
        UsageError: The repository's name is wrong.
        ConfigError: The folder exists, the token has no right, or the folder cannot be written.
        DataError: The repository or revision does not exist, is none of knowgen, or is damaged; or the hub cannot be
            reached.
    """
    hub = HubDataset(repo, revision)
    target = out or Path(repo.partition("/")[2])
    if target.exists() or target.is_symlink():
        raise ConfigError("exists already", where=str(target), fix="choose a new folder with -o")
    commit = hub.commit()
    partial = target.with_name(f"{target.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        listing = _listing(hub, commit, partial)
        content = listing.content
        size = sum(file.size for file in content.values())
        name = one_line(listing.name, 80)
        show(f"{listing.kind} {name} at {commit[:12]}: {count(len(content), 'file')}, {size_text(size)}")
        paths = [f"{listing.kind}/{path}" for path in content]
        hub.download(commit, paths, partial)
        _checked(partial / listing.kind, listing, repo)
        truths = with_truth_images(partial / listing.kind) if listing.kind == "run" else 0
        (partial / listing.kind).rename(target)
        shutil.rmtree(partial)
    except OSError as error:
        raise explain_os_error(error, target) from error
    except KnowgenError:
        with contextlib.suppress(OSError):  # one with files is kept: the next call goes on with it
            partial.rmdir()
        raise
    return Pulled(target, listing.kind, name, commit, len(content), size, listing.images, truths)


def _listing(hub: HubDataset, commit: str, partial: Path) -> Listing:
    """Return the listing of a commit, checked against the files that the hub has.

    Raises:
        DataError: It is missing or damaged, or a file that it names is missing or has another size.
    """
    there = hub.files(commit)
    if LISTING_FILE not in there:
        fix = "name a repository that `knowgen push` wrote, or wait for a push that is not complete"
        raise DataError(f"has no {LISTING_FILE}", where=hub.name, fix=fix)
    hub.download(commit, [LISTING_FILE], partial)
    listing = read_listing((partial / LISTING_FILE).read_bytes(), f"{hub.name}/{LISTING_FILE}")
    for path, file in listing.files.items():
        if path.startswith(f"{listing.kind}/") and (path not in there or there[path].size != file.size):
            word = "is missing" if path not in there else "has another size than listed"
            fix = "ask its owner to run `knowgen push` again, or give an earlier --revision"
            raise DataError(f"{path} {word}", where=hub.name, fix=fix)
    _refuse_foreign(listing, hub.name)
    return listing


def _refuse_foreign(listing: Listing, where: str) -> None:
    """Check that a listing has what its kind needs, and nothing else.

    Raises:
        DataError: A file is missing or does not belong to it.
    """
    content = listing.content
    if listing.kind == "board":
        if not any(path == BOARD_FILE or path.endswith(f"/{BOARD_FILE}") for path in content):
            raise DataError(f"has no {BOARD_FILE}", where=where, fix="name the repository of a board")
        return
    for name in _RUN_FILES[:2]:
        if name not in content:
            raise DataError(f"has no run/{name}", where=where, fix="name the repository of a run")
    for path in content:
        if path not in _RUN_FILES and not path.startswith(_RUN_FOLDERS):
            raise DataError(f"has a file that does not belong to a run: {path!r}", where=where)


def _checked(folder: Path, listing: Listing, repo: str) -> None:
    """Check what was fetched: plain files with the listed content, nothing else, and a database that only holds data.

    What an interrupted call left of another commit or repository is removed.

    Raises:
        DataError: Something differs.
    """
    for found in sorted(folder.rglob("*")):
        if (found.is_symlink() or not found.is_dir()) and found.relative_to(folder).as_posix() not in listing.content:
            found.unlink()
    again = "run the same command again, and tell the owner if it stays so"
    for path, expected in counted(listing.content.items(), "checking files"):
        file = folder / path
        if file.is_symlink() or not file.is_file():
            raise DataError(f"{path} is not a plain file", where=repo)
        if listed(file) != expected:
            file.unlink()  # so that the next call fetches it
            raise DataError(f"{path} has another content than listed", where=repo, fix=again)
    if listing.kind == "run":
        _check_database(folder / DATABASE_FILE, repo)
        RunStore.read(folder).close()


@step("checking run.sqlite")
def _check_database(path: Path, repo: str) -> None:
    """Check that a database has tables and indexes alone, and that its pages are sound.

    A trigger or a view would be run by whoever opens the file.

    Raises:
        DataError: It is damaged or has anything else.
    """
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        sql = "select type, name from sqlite_master where type not in ('table', 'index') or sql like 'create virtual%'"
        if other := connection.execute(sql).fetchone():
            raise DataError(f"run.sqlite has a {other[0]}, which no run has", where=repo)
        result = connection.execute("pragma quick_check").fetchone()[0]
        if result != "ok":
            raise DataError(f"run.sqlite is damaged ({one_line(result, 100)})", where=repo)
    except sqlite3.DatabaseError as error:
        raise DataError(f"run.sqlite is damaged ({one_line(error, 100)})", where=repo) from error
    finally:
        connection.close()
