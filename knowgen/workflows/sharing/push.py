"""Send a run or a board to the hub. What is there is not sent again, so the same command goes on after a fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from knowgen.clients.hub import COMMIT_FILES, HubDataset, HubFile
from knowgen.core.errors import ConfigError, DataError, UsageError
from knowgen.core.scratch import ScratchFolder
from knowgen.core.steps import counted, step
from knowgen.core.text import count, one_line
from knowgen.leaderboards.folder import BOARD_FILE
from knowgen.store.folder import is_run_directory
from knowgen.workflows.sharing.board_package import board_package
from knowgen.workflows.sharing.listing import (
    LISTING_FILE,
    ListedFile,
    Listing,
    git_blob,
    listed,
    read_listing,
)
from knowgen.workflows.sharing.package import Package
from knowgen.workflows.sharing.run_package import run_package
from knowgen.workflows.sharing.sizes import size_text


@dataclass(frozen=True)
class PushOptions:
    """How something is sent.

    Attributes:
        revision: Branch; it is made if it does not exist.
        private: Whether a new repository is private, and an existing one must be.
        images: Whether images are sent.
        licence: Licence, as the hub names it.
        keep_paths: Whether folders of this machine may be in what decides a result.
        replace: Whether another run or board in the repository may be replaced.
        dry_run: Whether everything is prepared and checked, and nothing sent.
    """

    revision: str = "main"
    private: bool = False
    images: bool = True
    licence: str = "unknown"
    keep_paths: bool = False
    replace: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        repo: Repository.
        url: Its address.
        commit: Commit with everything in it; empty for a dry run.
        sent: Number of files sent.
        kept: Number of files that were there already.
        removed: Number of files removed from the repository.
        size: Size of the files sent in bytes.
    """

    repo: str
    url: str
    commit: str
    sent: int
    kept: int
    removed: int
    size: int


def push(
    path: Path, repo: str, options: PushOptions | None = None, show: Callable[[str], None] = lambda line: None
) -> Pushed:
    """Check a run or a board and send it to a dataset repository.

    Args:
        path: A run directory, a board, or a folder of boards.
        repo: `owner/name`.
        options: How it is sent.
        show: Takes lines for the user.

    Raises:
        UsageError: The path is neither, or the repository's name is wrong.
        ConfigError: The token is missing or has no right, the run is in progress, a file has a key or a folder of this
            machine, or the repository holds something else.
        DataError: The run or board is damaged, or the hub cannot be reached.
    """
    options = options or PushOptions()
    hub = HubDataset(repo, options.revision)
    if not options.dry_run:
        hub.require_token()
    with ScratchFolder("knowgen.push.") as stage:
        package = _package(path, stage, repo, options)
        total = f"{count(len(package.files), 'file')} ({count(package.images, 'image')}), {size_text(package.size)}"
        show(f"{package.listing.kind} {one_line(package.listing.name, 80)}: checked, {total}")
        if options.dry_run:
            return Pushed(repo, hub.url, "", len(package.files), 0, 0, package.size)
        return _sent(package, hub, options, show)


def _package(path: Path, stage: Path, repo: str, options: PushOptions) -> Package:
    if is_run_directory(path):
        return run_package(
            path, stage, repo, images=options.images, licence=options.licence, keep_paths=options.keep_paths
        )
    if (path / BOARD_FILE).is_file() or any(path.glob(f"*/{BOARD_FILE}")):
        return board_package(
            path, stage, repo, images=options.images, licence=options.licence, keep_paths=options.keep_paths
        )
    if not path.exists():
        raise UsageError("does not exist", where=str(path), fix="name a run directory or the folder of a board")
    what = f"has neither a run nor a {BOARD_FILE}"
    raise UsageError(what, where=str(path), fix="name a run directory or the folder of a board")


def _sent(package: Package, hub: HubDataset, options: PushOptions, show: Callable[[str], None]) -> Pushed:
    hub.create(private=options.private)
    commit = hub.commit()
    there = hub.files(commit)
    earlier = _earlier(hub, commit, there)
    _refuse_other(package.listing, earlier, there, hub, replace=options.replace)
    known = package.listing.files
    files = counted(package.files.items(), "comparing files with the repository")
    new = {path: file for path, file in files if not _same(file, known.get(path), there.get(path))}
    stale = sorted((set(earlier.files) & set(there)) - set(package.files)) if earlier is not None else []
    size = sum(file.stat().st_size for file in new.values())
    kept = len(package.files) - len(new)
    if not new and not stale:
        show(f"nothing to send: {hub.name} has it already")
        return Pushed(hub.name, hub.url, commit, 0, kept, 0, 0)
    show(f"sending {count(len(new), 'file')}, {size_text(size)}; {kept} are there already")
    # the listing comes last: a reader of the repository can tell a copy that is not complete
    images = {path: file for path, file in new.items() if "/images/" in path}
    rest = {path: file for path, file in new.items() if path not in images}
    message = f"{'Add' if earlier is None else 'Update'} {package.listing.kind} {one_line(package.listing.name, 60)}"
    done = 0
    with step("sending files", len(new)) as sending:
        for batch in _batches(images):
            hub.upload(batch, (), f"{message}: images")
            done += len(batch)
            sending.advance(len(batch))
            show(f"{done} of {count(len(new), 'file')} sent")
        commit = hub.upload(rest, stale, message)
    return Pushed(hub.name, hub.url, commit, len(new), kept, len(stale), size)


def _batches(files: dict[str, Path]) -> Iterator[dict[str, Path]]:
    remaining = iter(files.items())
    while batch := dict(islice(remaining, COMMIT_FILES)):
        yield batch


def _same(file: Path, known: ListedFile | None, there: HubFile | None) -> bool:
    """Return whether the hub has a file with this content; the listing itself has no entry of its own."""
    if there is None or there.size != file.stat().st_size:
        return False
    if there.sha256:
        return there.sha256 == (known or listed(file)).sha256
    return there.blob == git_blob(file)


def _earlier(hub: HubDataset, commit: str, there: dict[str, HubFile]) -> Listing | None:
    """Return the listing of what the repository holds; None if it holds nothing of knowgen."""
    if LISTING_FILE not in there:
        return None
    with ScratchFolder("knowgen.push.") as folder:
        hub.download(commit, [LISTING_FILE], folder)
        try:
            return read_listing((folder / LISTING_FILE).read_bytes(), f"{hub.name}/{LISTING_FILE}")
        except DataError as error:
            raise DataError(error.what, where=error.where, fix="choose another repository") from error


def _refuse_other(
    new: Listing, earlier: Listing | None, there: dict[str, HubFile], hub: HubDataset, *, replace: bool
) -> None:
    """Check that the repository is new, holds this run or board, or a part of it from a push that ended early.

    Raises:
        ConfigError: It holds something else.
    """
    if replace:
        return
    if earlier is None:
        ours = f"{new.kind}/images/"
        others = [path for path in there if path not in (".gitattributes", "README.md") and not path.startswith(ours)]
        if others:
            fix = "choose another repository"
            raise ConfigError(f"holds other files, such as {others[0]!r}", where=hub.name, fix=fix)
    elif (earlier.kind, earlier.identity) != (new.kind, new.identity):
        what = f"holds another {earlier.kind}, of {one_line(earlier.name, 80)}"
        raise ConfigError(what, where=hub.name, fix="choose another repository, or replace it with --replace")
