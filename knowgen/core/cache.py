"""Caches that all runs share: judge replies, encoded images and embeddings, each stored by the hash of its input.

Each cache is one SQLite file in the user's cache folder, and may be used by several processes at once. Caches only save
work: a lost or damaged entry is computed again, and resuming a run never needs one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from knowgen.core.errors import ConfigError
from knowgen.core.home import expand_user, home_folder
from knowgen.core.text import one_line

FOLDER_VARIABLE = "KNOWGEN_CACHE"
"""Environment variable with the cache folder; caches are off when it is empty or `off`."""

LIMITS = {"replies": 2 << 30, "images": 4 << 30, "embeddings": 1 << 30, "web": 4 << 30}
"""Maximum size of each cache in bytes. A larger cache drops the least recently used entries."""

_TOUCH_SECONDS = 3600.0
"""Minimum time in seconds between two updates of an entry's time of use, so that reading seldom writes."""

_GROUP_ENTRIES, _GROUP_SECONDS = 64, 0.5
"""Number and age in seconds of the entries that are written in one transaction."""

_FILL_AFTER_SHRINKING = 0.9
"""Fraction of its limit that a full cache is reduced to."""


NO_HOME = f"the user has no home folder; set {FOLDER_VARIABLE} to a folder for caches"

_log = logging.getLogger("knowgen.cache")
_warned: set[Path | None] = set()


def cache_folder() -> Path | None:
    """Return the folder of all caches; None when `KNOWGEN_CACHE` turns them off, or the user has no home folder."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named is not None:
        return None if _is_off(named) else expand_user(named.strip())
    base = os.environ.get("XDG_CACHE_HOME", "").strip()
    if base:
        return Path(base) / "knowgen"
    home = home_folder()
    return None if home is None else home / ".cache" / "knowgen"


def why_off() -> str:
    """Return why `cache_folder()` is None."""
    return f"{FOLDER_VARIABLE} is off" if _is_off(os.environ.get(FOLDER_VARIABLE, "?")) else NO_HOME


def _is_off(named: str) -> bool:
    return named.strip().lower() in {"", "off"}


def warn_once(reason: str, folder: Path | None = None) -> None:
    """Log why the caches of a folder are not used, once in a process. It costs time, and no result."""
    if folder not in _warned:
        _warned.add(folder)
        _log.warning("knowgen: no cache: %s", one_line(reason, 300))


class FileCache:
    """Files by the digest of their input, at `ab/<digest><suffix>`, for content that is read in pieces.

    Args:
        name: One of `LIMITS`; also the stem of its folder.
        folder: Folder of all caches.
        limit: Maximum size in bytes; that of `LIMITS` when None.
    """

    def __init__(self, name: str, folder: Path, limit: int | None = None) -> None:
        self.root = folder / f"{name}.files"
        self._limit = LIMITS[name] if limit is None else limit
        self._lock = threading.Lock()
        self._size: int | None = None

    def path(self, digest: str, suffix: str) -> Path:
        """Return the path of a file, whether or not it exists."""
        return self.root / digest[:2] / f"{digest}{suffix}"

    def find(self, digest: str, suffix: str) -> Path | None:
        """Return the path of a file and record its use; None when it does not exist."""
        path = self.path(digest, suffix)
        try:
            used = path.stat().st_mtime
        except OSError:
            return None
        if abs(time.time() - used) > _TOUCH_SECONDS:  # a time in the future is one before the clock was set back
            with contextlib.suppress(OSError):  # the cache of another user can be read
                os.utime(path)
        return path

    def added(self, size: int) -> None:
        """Count a file that was written, and remove the least recently used files when the cache is too large.

        Args:
            size: Size of the new file in bytes.
        """
        with self._lock:
            if self._size is None:
                self._size = sum(each[1] for each in self._files())
            else:
                self._size += size
            if self._size > self._limit:
                self._shrink(int(self._limit * _FILL_AFTER_SHRINKING))

    def totals(self) -> tuple[int, int]:
        """Return the number of files and their size in bytes."""
        files = self._files()
        return len(files), sum(each[1] for each in files)

    def clear(self) -> None:
        """Remove all files.

        Raises:
            ConfigError: A file cannot be removed.
        """
        try:
            if self.root.exists():
                shutil.rmtree(self.root)
        except OSError as error:
            raise _cannot_remove(self.root, error) from error
        self._size = None

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return time of use, size and path of all files, least recently used first."""
        files = []
        for path in self.root.glob("??/*"):
            with contextlib.suppress(OSError):  # another process may have removed it meanwhile
                state = path.stat()
                files.append((state.st_mtime, state.st_size, path))
        return sorted(files)

    def _shrink(self, target: int) -> None:
        files = self._files()
        self._size = sum(each[1] for each in files)
        for _, size, path in files:
            if self._size <= target:
                break
            with contextlib.suppress(OSError):  # removed by another process, or not ours to remove
                path.unlink()
                self._size -= size


class Cache:
    """Bytes by key, for several threads and processes. A cache that cannot be written is empty.

    Args:
        name: One of `LIMITS`; also the stem of its file.
        folder: Folder of all caches; `cache_folder()` when None.
        limit: Maximum size in bytes; that of `LIMITS` when None.
        clock: Returns the current time in seconds since the epoch.

    Attributes:
        error: Why the cache cannot be used; empty when it works.
        hits: Number of lookups that found an entry, since it was opened.
        misses: Number of lookups that found none.
    """

    def __init__(
        self,
        name: str,
        folder: Path | None = None,
        limit: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.error = ""
        self.hits = self.misses = 0
        self._limit = LIMITS[name] if limit is None else limit
        self._folder = cache_folder() if folder is None else folder
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._size = 0
        self._unwritten: dict[str, bytes] = {}
        self._unwritten_since = 0.0
        self._clock = clock
        if self._folder is None:
            self.error = why_off()
            if self.error == NO_HOME:
                warn_once(self.error)

    @property
    def path(self) -> Path | None:
        """Its file; None when caches are off."""
        return None if self._folder is None else self._folder / f"{self.name}.sqlite"

    def get(self, key: str) -> bytes | None:
        """Return the value of a key; None when there is none."""
        with self._lock:
            if key in self._unwritten:
                self.hits += 1
                return self._unwritten[key]
            rows = self._run("select value, used from entries where key = ?", (key,))
            if not rows:
                self.misses += 1
                return None
            self.hits += 1
            value, used = rows[0]
            if abs(self._clock() - used) > _TOUCH_SECONDS:  # also one before the clock was set back
                self._run("update entries set used = ? where key = ?", (self._clock(), key))
            return bytes(value)

    def put(self, key: str, value: bytes) -> None:
        """Set the value of a key. It is written together with later values, or by `flush` or `close`."""
        with self._lock:
            now = self._clock()
            self._unwritten_since = self._unwritten_since if self._unwritten else now
            self._unwritten[key] = value
            if len(self._unwritten) >= _GROUP_ENTRIES or abs(now - self._unwritten_since) >= _GROUP_SECONDS:
                self._write()

    def flush(self) -> None:
        """Write all values, so that other processes see them."""
        with self._lock:
            self._write()

    def totals(self) -> tuple[int, int]:
        """Return the number of entries and their size in bytes."""
        with self._lock:
            self._write()
            rows = self._run("select count(*), coalesce(sum(size), 0) from entries", ())
        return (int(rows[0][0]), int(rows[0][1])) if rows else (0, 0)

    def clear(self) -> None:
        """Remove all entries.

        Raises:
            ConfigError: The file cannot be removed.
        """
        self.close()
        if self.path is None:
            return
        for suffix in ("", "-wal", "-shm"):
            file = self.path.with_name(self.path.name + suffix)
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise _cannot_remove(file, error) from error

    def close(self) -> None:
        """Write all values and close the file; the next use opens it again."""
        with self._lock:
            self._write()
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _write(self) -> None:
        """Write the collected values in one transaction, and shrink the cache when it is too large."""
        if not self._unwritten:
            return
        now, values = self._clock(), self._unwritten
        self._unwritten = {}
        self._run("begin immediate", ())
        for key, value in values.items():
            self._run("insert or replace into entries values (?, ?, ?, ?)", (key, value, len(value), now))
        self._run("commit", ())
        self._size += sum(map(len, values.values()))
        if self._size > self._limit:
            self._shrink(int(self._limit * _FILL_AFTER_SHRINKING))

    def _shrink(self, target: int) -> None:
        """Remove the least recently used entries until at most `target` bytes are left."""
        total = self._run("select coalesce(sum(size), 0) from entries", ())
        self._size = int(total[0][0]) if total else 0
        if self._size <= target:
            return
        self._run(
            "delete from entries where key in (select key from"
            " (select key, sum(size) over (order by used desc, key) as total from entries) where total > ?)",
            (target,),
        )
        self._size = target

    def _run(self, sql: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """Execute a statement. After an error, which is recorded in `error`, the cache is empty."""
        if self.error:
            return []
        try:
            if self._connection is None:
                self._connection = self._open()
            return self._connection.execute(sql, parameters).fetchall()
        except (sqlite3.Error, OSError) as error:
            self.error = f"{self.path}: {error}"
            warn_once(self.error, self._folder)
            if self._connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.close()
                self._connection = None
            return []

    def _open(self) -> sqlite3.Connection:
        assert self.path is not None
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=20.0)
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=normal")
        connection.execute(
            "create table if not exists entries"
            " (key text primary key, value blob not null, size integer not null, used real not null)"
        )
        self._size = int(connection.execute("select coalesce(sum(size), 0) from entries").fetchone()[0])
        return connection


def _cannot_remove(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot be removed ({error.strerror})", where=str(path), fix="check the permissions of the cache folder"
    )
