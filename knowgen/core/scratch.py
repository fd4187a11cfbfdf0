"""Folders that one process uses for a while. Those that a killed process left behind are removed by a later one.

A folder is locked as long as its process lives; the kernel releases the lock. A file system without locks keeps them.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType


class ScratchFolder:
    """A new folder, removed by `close` or at the end of a `with` block.

    Creating it removes folders of the same parent and prefix whose processes were killed.

    Args:
        prefix: Beginning of its name.
        parent: Folder to create it in; the system's folder for temporary files when None.

    Attributes:
        path: Its path.

    Raises:
        OSError: It cannot be created.

    Example:
        >>> with ScratchFolder("knowgen.example.") as folder:
        ...     folder.is_dir()
        True
        >>> folder.exists()
        False
    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        remove_abandoned(prefix, parent)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            self._descriptor = _lock(self.path)
            if self._descriptor is not None and self.path.is_dir():
                break
            self.close()  # another process took it for abandoned before it was locked

    def close(self) -> None:
        """Remove the folder and everything in it; a second call does nothing."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._descriptor is not None and self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = None

    def __enter__(self) -> Path:
        """Return the path."""
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the folder."""
        self.close()


def remove_abandoned(prefix: str, parent: Path) -> None:
    """Remove the scratch folders of this user with a prefix that no process uses any more."""
    for path in parent.glob(f"{glob.escape(prefix)}*"):
        try:
            state = path.lstat()
        except OSError:  # removed by its process
            continue
        if path.is_symlink() or not path.is_dir() or state.st_uid != os.geteuid():
            continue
        descriptor = _lock(path)
        if descriptor is not None and descriptor >= 0:
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)


def _lock(path: Path) -> int | None:
    """Lock a folder and return its descriptor; None if another process has it or it is gone, -1 if it has no locks."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor
