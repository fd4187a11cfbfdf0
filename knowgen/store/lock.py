"""The lock of a run directory: one process at a time. The kernel releases it when its process ends."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path
from weakref import WeakSet

from knowgen.core.errors import ConfigError
from knowgen.store.files import explain_os_error

LOCK_FILE = "run.lock"

_UNSUPPORTED = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL})


class InUseError(ConfigError):
    """Another process holds the lock of a directory."""


class RunLock:
    """Locks a run directory until it is released or the process ends.

    On a file system without locks, the host and pid in the file decide: a dead process of this host does not hold the
    lock; a process of another host is assumed to be alive.

    Args:
        folder: The run directory; must exist.

    Raises:
        InUseError: Another process holds the lock; the message names host and pid.
        ConfigError: The folder cannot be written.
        DataError: The disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_FILE
        self._descriptor = self._acquire()
        _open_locks.add(self)

    def _acquire(self) -> int:
        while True:
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise explain_os_error(error, self.path.parent) from error
            try:
                self._take(descriptor)
                if not self._is_current(descriptor):
                    os.close(descriptor)  # the holder removed the file between our open and our lock
                    continue
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{socket.gethostname()} {os.getpid()}\n".encode(), 0)
            except OSError as error:
                os.close(descriptor)
                raise explain_os_error(error, self.path.parent) from error
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise self._in_use(descriptor) from error
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            if _alive(os.pread(descriptor, 400, 0)):
                raise self._in_use(descriptor) from error

    def _in_use(self, descriptor: int) -> InUseError:
        words = os.pread(descriptor, 400, 0).decode("utf-8", "replace").split()
        holder = f"process {words[1]} on {words[0]}" if len(words) == 2 else "another process"
        return InUseError(
            f"is in use by {holder}", where=str(self.path.parent), fix="wait for it to end or choose another --out"
        )

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._descriptor < 0:
            return
        if self._is_current(self._descriptor):  # the folder may have been replaced by another one
            self.path.unlink(missing_ok=True)  # before the lock is released, so that no other process locks this file
        os.close(self._descriptor)
        self._descriptor = -1
        _open_locks.discard(self)

    def leave(self) -> None:
        """Close the file in a forked process, so that only the parent holds the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


_open_locks: WeakSet[RunLock] = WeakSet()


def _leave_in_child() -> None:
    for lock in list(_open_locks):
        lock.leave()


os.register_at_fork(after_in_child=_leave_in_child)


def _alive(holder: bytes) -> bool:
    """Return whether the process that a lock file names may be alive; one on another host may be."""
    words = holder.decode("utf-8", "replace").split()
    if len(words) != 2 or not words[1].isdigit():
        return False
    if words[0] != socket.gethostname():
        return True
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return int(words[1]) != os.getpid()
