"""The folder of a run: its file names, and how it is created and cleared."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from knowgen.core.errors import ConfigError
from knowgen.store.files import explain_os_error
from knowgen.store.lock import LOCK_FILE
from knowgen.store.manifest import MANIFEST_FILE

DATABASE_FILE = "run.sqlite"
IMAGE_FOLDER = "images"
SOURCE_FILE = "source.json"
"""Rows of the results file that was scored, so that an export can reproduce them."""

_RESULTS = (
    IMAGE_FOLDER,
    "tables",
    "report",
    "logs",
    "scratch",
    "summary.json",
    SOURCE_FILE,
    "tensorboard",
    "trackers.json",
)
_DATABASE_FILES = (DATABASE_FILE, f"{DATABASE_FILE}-wal", f"{DATABASE_FILE}-shm", f"{DATABASE_FILE}-journal")


def is_run_directory(path: Path) -> bool:
    """Return whether a folder contains a run: run.json or run.sqlite."""
    return (path / MANIFEST_FILE).is_file() or (path / DATABASE_FILE).is_file()


def make_folder(path: Path) -> None:
    """Create the folder of a run if it does not exist.

    Raises:
        ConfigError: The path is a file or cannot be written, or the folder has files but no run.
        DataError: The disk is full.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not is_run_directory(path) and (others := _foreign(path)):
            raise _foreign_error(path, others)
    except FileExistsError as error:
        raise ConfigError("is a file", where=str(path), fix="choose another --out") from error
    except OSError as error:
        raise explain_os_error(error, path) from error


def check_folder(path: Path) -> None:
    """Check that a folder can be that of a run, without creating it.

    Raises:
        ConfigError: The path or one above it is a file or cannot be written, or the folder has files but no run.
    """
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    if not there.is_dir():
        raise ConfigError("is a file", where=str(there), fix="choose another --out")
    if there == path.absolute() and not is_run_directory(path) and (others := _foreign(path)):
        raise _foreign_error(path, others)
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError("cannot be written: Permission denied", where=str(there), fix="choose another --out")


def _foreign_error(path: Path, others: list[str]) -> ConfigError:
    what = f"contains {others[0]!r} and is not a run directory"
    return ConfigError(what, where=str(path), fix="choose an empty or new folder with --out")


def _foreign(path: Path) -> list[str]:
    """Return the names of what is in a folder and is not left by a run that was killed before it wrote run.json."""
    return sorted(each.name for each in path.iterdir() if each.name != LOCK_FILE and not each.name.startswith("."))


def remove_unused(path: Path) -> None:
    """Remove the folder of a run that failed before it had a result. One with logs is kept: they may say why.

    Raises:
        ConfigError: A file cannot be removed.
    """
    logs = path / "logs"
    if logs.is_dir() and any(file.stat().st_size for file in logs.iterdir()):
        return
    remove_results(path)
    try:
        if not any(path.iterdir()):
            path.rmdir()
    except OSError as error:
        raise explain_os_error(error, path) from error


def remove_results(path: Path) -> None:
    """Remove all files that runs write. run.json is removed last, so that a killed removal leaves a run directory.

    Raises:
        ConfigError: A file cannot be removed.
    """
    try:
        for name in (*_DATABASE_FILES, *_RESULTS, MANIFEST_FILE):
            target = path / name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
    except OSError as error:
        raise explain_os_error(error, path) from error
