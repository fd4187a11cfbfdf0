"""What is kept between runs, found by content: judge replies, encoded pictures, embeddings.

Each cache is one SQLite file in the user's cache folder, shared by all runs and processes. A cache only ever saves
work: a lost or damaged entry is made again, and nothing that a run needs to be resumed lies here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from knowgen.core.errors import ConfigError

HOME = "KNOWGEN_CACHE"
"""Environment variable that names the cache folder; an empty word or `off` keeps nothing."""

LIMITS = {"replies": 2 << 30, "pictures": 4 << 30, "embeddings": 1 << 30}
"""Bytes each cache may hold before it drops what was not used for longest."""

_TOUCH_SECONDS = 3600.0
"""The time of the last use is noted at most this often, so that reading writes next to nothing."""

_GROUP, _GROUP_SECONDS = 64, 0.5
"""So many entries are written together, or those of so many seconds: a transaction for each would cost more."""

_SLACK = 0.9
"""A cache that is full is emptied to this part of its limit."""


def cache_folder() -> Path | None:
    """Returns where caches lie, None where `KNOWGEN_CACHE` is off."""
    named = os.environ.get(HOME)
    if named is not None:
        return Path(named).expanduser() if named.strip() and named.strip().lower() != "off" else None
    base = os.environ.get("XDG_CACHE_HOME", "").strip()
    return (Path(base) if base else Path.home() / ".cache") / "knowgen"


class FileCache:
    """Files by the digest of their content, `ab/<digest><ending>`, for content that is read in pieces.

    Args:
        name: One of `LIMITS`; also the name of its folder.
        folder: Where caches lie.
        limit: Bytes it may hold; that of `LIMITS` when None.
    """

    def __init__(self, name: str, folder: Path, limit: int | None = None) -> None:
        self.root = folder / f"{name}.files"
        self._limit = LIMITS[name] if limit is None else limit
        self._lock = threading.Lock()
        self._held: int | None = None

    def path(self, digest: str, ending: str) -> Path:
        """Returns where a file lies, whether or not it is there."""
        return self.root / digest[:2] / f"{digest}{ending}"

    def find(self, digest: str, ending: str) -> Path | None:
        """Returns a file and notes that it was used, None when it is not there."""
        path = self.path(digest, ending)
        try:
            if time.time() - path.stat().st_mtime > _TOUCH_SECONDS:
                os.utime(path)
        except OSError:
            return None
        return path

    def grown(self, size: int) -> None:
        """Takes note of a file that was put; drops those not used for longest where there are too many."""
        with self._lock:
            if self._held is None:
                self._held = sum(each[1] for each in self._files())
            else:
                self._held += size
            if self._held > self._limit:
                self._shrink(int(self._limit * _SLACK))

    def totals(self) -> tuple[int, int]:
        """Returns the number of files and their bytes."""
        files = self._files()
        return len(files), sum(each[1] for each in files)

    def clear(self) -> None:
        """Removes every file.

        Raises:
            ConfigError: One cannot be removed.
        """
        try:
            if self.root.exists():
                shutil.rmtree(self.root)
        except OSError as error:
            raise ConfigError(f"cannot be removed ({error.strerror})", where=str(self.root)) from error
        self._held = None

    def _files(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self.root.glob("??/*"):
            with contextlib.suppress(OSError):  # another process has just dropped it
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        return sorted(found)

    def _shrink(self, to: int) -> None:
        files = self._files()
        self._held = sum(each[1] for each in files)
        for _, size, path in files:
            if self._held <= to:
                break
            path.unlink(missing_ok=True)
            self._held -= size


class Cache:
    """Bytes by key. Safe to use from several threads and processes; one that cannot be written keeps nothing.

    Args:
        name: One of `LIMITS`; also the name of its file.
        folder: Where it lies; `cache_folder()` when None.
        limit: Bytes it may hold; that of `LIMITS` when None.
        clock: Current time in seconds since the epoch.

    Attributes:
        fault: Why it keeps nothing, empty when it works.
        hits: Entries found since it was opened.
        misses: Entries looked for in vain since it was opened.
    """

    def __init__(
        self,
        name: str,
        folder: Path | None = None,
        limit: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.fault = ""
        self.hits = self.misses = 0
        self._limit = LIMITS[name] if limit is None else limit
        self._folder = cache_folder() if folder is None else folder
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._held = 0
        self._waiting: dict[str, bytes] = {}
        self._waiting_since = 0.0
        self._clock = clock
        if self._folder is None:
            self.fault = f"{HOME} is off"

    @property
    def path(self) -> Path | None:
        """Its file, None where caches are off."""
        return None if self._folder is None else self._folder / f"{self.name}.sqlite"

    def get(self, key: str) -> bytes | None:
        """Returns what was put under a key, None when there is nothing."""
        with self._lock:
            if key in self._waiting:
                self.hits += 1
                return self._waiting[key]
            found = self._run("select value, used from entries where key = ?", (key,))
            if not found:
                self.misses += 1
                return None
            self.hits += 1
            value, used = found[0]
            if self._clock() - used > _TOUCH_SECONDS:
                self._run("update entries set used = ? where key = ?", (self._clock(), key))
            return bytes(value)

    def put(self, key: str, value: bytes) -> None:
        """Keeps a value under a key; the last one put stands. It is written with others, soon or by `close`."""
        with self._lock:
            now = self._clock()
            self._waiting_since = self._waiting_since if self._waiting else now
            self._waiting[key] = value
            if len(self._waiting) >= _GROUP or now - self._waiting_since >= _GROUP_SECONDS:
                self._write()

    def flush(self) -> None:
        """Writes what waits, so that others see it."""
        with self._lock:
            self._write()

    def totals(self) -> tuple[int, int]:
        """Returns the number of entries and their bytes."""
        with self._lock:
            self._write()
            found = self._run("select count(*), coalesce(sum(size), 0) from entries", ())
        return (int(found[0][0]), int(found[0][1])) if found else (0, 0)

    def clear(self) -> None:
        """Removes every entry.

        Raises:
            ConfigError: The file cannot be removed.
        """
        self.close()
        if self.path is None:
            return
        for ending in ("", "-wal", "-shm"):
            file = self.path.with_name(self.path.name + ending)
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise ConfigError(f"cannot be removed ({error.strerror})", where=str(file)) from error

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        with self._lock:
            self._write()
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _write(self) -> None:
        """Writes what waits in one transaction."""
        if not self._waiting:
            return
        now, rows = self._clock(), self._waiting
        self._waiting = {}
        self._run("begin immediate", ())
        for key, value in rows.items():
            self._run("insert or replace into entries values (?, ?, ?, ?)", (key, value, len(value), now))
        self._run("commit", ())
        self._held += sum(map(len, rows.values()))
        if self._held > self._limit:
            self._shrink(int(self._limit * _SLACK))

    def _shrink(self, to: int) -> None:
        """Drops what was not used for longest until `to` bytes are left."""
        total = self._run("select coalesce(sum(size), 0) from entries", ())
        self._held = int(total[0][0]) if total else 0
        if self._held <= to:
            return
        self._run(
            "delete from entries where key in (select key from (select key, sum(size) over (order by used desc, key)"
            " as kept from entries) where kept > ?)",
            (to,),
        )
        self._held = to

    def _run(self, sql: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """Runs a statement; a cache that fails says so once in `fault` and is empty from then on."""
        if self.fault:
            return []
        try:
            if self._connection is None:
                self._connection = self._open()
            return self._connection.execute(sql, parameters).fetchall()
        except (sqlite3.Error, OSError) as error:
            self.fault = f"{self.path}: {error}"
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
        self._held = int(connection.execute("select coalesce(sum(size), 0) from entries").fetchone()[0])
        return connection
