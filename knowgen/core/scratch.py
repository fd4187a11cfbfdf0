"""Folders that one process uses for a while. Those that a killed process left behind are removed by a later one.

A folder is locked as long as its process lives; the kernel releases the lock. A file system without locks keeps them.
One that is still open when the process ends is removed then.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

_open: set[ScratchFolder] = set()
"""The folders of this process that have not been closed."""


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
        self._process = os.getpid()
        remove_abandoned(prefix, parent)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            self._descriptor = _lock(self.path)
            if self._descriptor is not None and self.path.is_dir():
                break
            self.close()  # another process took it for abandoned before it was locked
        _open.add(self)

    def close(self) -> None:
        """Remove the folder and everything in it; a second call does nothing."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._descriptor is not None and self._descriptor >= 0:
            with contextlib.suppress(OSError):  # a plugin may have closed all descriptors
                os.close(self._descriptor)
        self._descriptor = None
        _open.discard(self)

    def __enter__(self) -> Path:
        """Return the path."""
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the folder."""
        self.close()


@atexit.register
def close_all() -> None:
    """Remove the open folders of this process. A process that ends by `os._exit` must call it itself."""
    for folder in list(_open):
        if folder._process == os.getpid():  # a forked process has its parent's folders on the list too
            folder.close()


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
