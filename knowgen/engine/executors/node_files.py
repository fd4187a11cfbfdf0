"""Files that a node of a cluster was sent: images by the hash of their content, shared by the workers of one run there.

The folder is locked by every process that uses it. The last one removes it; if all are killed, a later process does.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from knowgen.core.atomic import write_file
from knowgen.core.scratch import remove_abandoned

_PREFIX = "knowgen.node."
_CHUNK = 1 << 20


class NodeFiles:
    """The files of one run on this node.

    Args:
        run: Name of the run; workers of the same run share the files.
        parent: Folder in which they are kept; the system's folder for temporary files when None.

    Raises:
        OSError: The folder cannot be created.
    """

    def __init__(self, run: str, parent: Path | None = None) -> None:
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        remove_abandoned(_PREFIX, parent)
        self.path = parent / f"{_PREFIX}{os.geteuid()}.{run}"
        self._descriptor: int | None = _share(self.path)
        self._known: dict[tuple[str, int, int, int], str] = {}

    def find(self, path: str, sha256: str) -> str | None:
        """Return where a file with a content is on this node; None if it must be sent.

        Args:
            path: Where the run has it. That is used if this node shares the file system, and the content is the same.
            sha256: SHA-256 hex digest of its content.
        """
        if self._digest(path) == sha256:
            return path
        sent = self._place(path, sha256)
        return str(sent) if sent.is_file() else None

    def put(self, path: str, sha256: str, data: bytes) -> str:
        """Keep a file that was sent, and return where it is.

        Raises:
            ValueError: It has another content.
            OSError: It cannot be written.
        """
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError(f"{path} has changed since it was hashed")
        place = self._place(path, sha256)
        write_file(place, data, durable=False)
        return str(place)

    def _place(self, path: str, sha256: str) -> Path:
        return self.path / f"{sha256}{Path(path).suffix}"

    def _digest(self, path: str) -> str:
        """Return the hash of a file; empty if it cannot be read. One that has not changed is read once."""
        try:
            with Path(path).open("rb") as file:
                state = os.fstat(file.fileno())
                key = (path, state.st_mtime_ns, state.st_size, state.st_ino)
                if key not in self._known:
                    digest = hashlib.sha256()
                    while chunk := file.read(_CHUNK):
                        digest.update(chunk)
                    self._known[key] = digest.hexdigest()
                return self._known[key]
        except OSError:
            return ""

    def close(self) -> None:
        """Remove the folder if no other worker uses it. A second call does nothing."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):  # another worker has it
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = None


def _share(path: Path) -> int:
    """Create a folder if there is none, lock it together with others, and return its descriptor."""
    while True:
        path.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # another process has just removed it
        if os.fstat(descriptor).st_uid != os.geteuid():
            os.close(descriptor)
            raise PermissionError(f"{path} belongs to another user")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if path.is_dir() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
        os.close(descriptor)  # another process removed it before it was locked
