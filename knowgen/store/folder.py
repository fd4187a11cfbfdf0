"""The folder of a run: what lies in it, how it is made, and how it is emptied to begin anew."""

from __future__ import annotations

import shutil
from pathlib import Path

from knowgen.core.errors import ConfigError
from knowgen.store.images import explain_os_error
from knowgen.store.manifest import MANIFEST_FILE

DATABASE_FILE = "run.sqlite"
IMAGE_FOLDER = "images"
SOURCE_FILE = "source.json"
"""The rows of the results file that was scored, so that they can be written back as they were."""

_RESULTS = (IMAGE_FOLDER, "tables", "report", "logs", "scratch", "summary.json", SOURCE_FILE)
_DATABASE_FILES = (DATABASE_FILE, f"{DATABASE_FILE}-wal", f"{DATABASE_FILE}-shm", f"{DATABASE_FILE}-journal")


def is_run_directory(path: Path) -> bool:
    """Tells whether a folder holds a run: run.json or run.sqlite."""
    return (path / MANIFEST_FILE).is_file() or (path / DATABASE_FILE).is_file()


def make_folder(path: Path, *, fresh: bool) -> None:
    """Makes a run directory's folder where there is none.

    Raises:
        ConfigError: It is a file, cannot be written, or is to be begun anew and is no run directory.
        DataError: The disk is full.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if fresh and any(path.iterdir()) and not is_run_directory(path):
            raise ConfigError("is not empty and no run directory", where=str(path), fix="choose another --out")
    except FileExistsError as error:
        raise ConfigError("is a file", where=str(path), fix="choose another --out") from error
    except OSError as error:
        raise explain_os_error(error, path) from error


def remove_results(path: Path) -> None:
    """Removes what runs write; run.json goes last, so that a kill on the way leaves a run directory.

    Raises:
        ConfigError: Something cannot be removed.
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
