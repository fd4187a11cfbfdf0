"""One SQLite connection for all threads. Writes are done at once and committed in groups, soon after."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from knowgen.core.errors import ConfigError, DataError, KnowgenError

COMMIT_SECONDS = 0.15
"""A write is committed at most this long after it was made, plus the commit itself."""


class Database:
    """A connection behind a lock, with a thread that commits.

    Once a write has failed (a full disk), every later write raises the same error: what SQLite rolled back is gone,
    and nothing may be built on it. Reading goes on.

    Args:
        connection: In autocommit mode, usable from any thread.
        path: Its file, for messages.
        writable: Starts the committing thread.
        before_commit: Called with the connection right before each commit.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        writable: bool,
        before_commit: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        self.path = path
        self._connection = connection
        self._before_commit = before_commit
        self._lock = threading.RLock()
        self._failure: KnowgenError | None = None
        self._pending = threading.Event()
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None
        if writable:
            self._ticker = threading.Thread(target=self._tick, name="knowgen-commit", daemon=True)
            self._ticker.start()

    def write(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Runs a statement that is committed with the next group.

        Raises:
            DataError, ConfigError: The disk is full or cannot be written.
        """
        with self._lock:
            self._raise_failure()
            try:
                if not self._connection.in_transaction:
                    self._connection.execute("begin immediate")
                    self._pending.set()
                return self._connection.execute(sql, parameters)
            except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
                raise  # a mistake of the caller: nothing was written, and what was stays good
            except sqlite3.DatabaseError as error:
                raise self._fail(error) from error

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Returns all rows of a query; what was written but not committed yet is seen.

        Raises:
            DataError: The file is damaged.
        """
        with self._lock:
            try:
                return self._connection.execute(sql, parameters).fetchall()
            except sqlite3.DatabaseError as error:
                raise explain_sqlite_error(error, self.path) from error

    def commit(self) -> None:
        """Commits what was written; returns when it is durable against a killed process.

        Raises:
            DataError, ConfigError: It could not be committed, now or earlier.
        """
        with self._lock:
            self._raise_failure()
            self._pending.clear()
            if not self._connection.in_transaction:
                return
            try:
                if self._before_commit is not None:
                    self._before_commit(self._connection)
                self._connection.execute("commit")
            except sqlite3.DatabaseError as error:
                raise self._fail(error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside is committed together or not at all; other threads wait.

        Raises:
            DataError, ConfigError: As for `commit`.
        """
        with self._lock:
            self.commit()
            try:
                self._connection.execute("begin immediate")
                yield self._connection
                self._connection.execute("commit")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                if isinstance(error, sqlite3.DatabaseError):
                    raise explain_sqlite_error(error, self.path) from error
                raise

    def close(self) -> None:
        """Commits, stops the thread and closes the file, leaving one plain file where no reader holds it open.

        Raises:
            DataError, ConfigError: The last commit failed; the file is closed all the same.
        """
        if self._stop.is_set():
            return
        self._stop.set()
        self._pending.set()
        if self._ticker is not None:
            self._ticker.join()
        with self._lock:  # a thread that a run left behind may be writing, and closing under it ends the process
            try:
                if self._ticker is not None:
                    self.commit()
                    self._leave_wal()
            finally:
                self._connection.close()

    def _leave_wal(self) -> None:
        """Folds the log into the file. Where that cannot be, all is in the log, and the next opening reads it there."""
        kept = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
        self._connection.execute("pragma busy_timeout=200")
        try:
            self._connection.execute("pragma wal_checkpoint(truncate)").fetchone()  # also where a reader looks on
            self._connection.execute("pragma journal_mode=delete").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in kept:
                raise explain_sqlite_error(error, self.path) from error

    def _tick(self) -> None:
        while not self._stop.is_set():
            self._pending.wait()
            if self._stop.wait(COMMIT_SECONDS):
                return
            try:
                self.commit()
            except KnowgenError:
                return  # kept in _failure: the next write, commit or close raises it to somebody who listens

    def _fail(self, error: sqlite3.Error) -> KnowgenError:
        """Remembers a failed write and drops what was not committed."""
        self._failure = explain_sqlite_error(error, self.path)
        if self._connection.in_transaction:
            self._connection.execute("rollback")
        return self._failure

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(self._failure.what, where=self._failure.where, fix=self._failure.fix)


def explain_sqlite_error(error: sqlite3.Error, path: Path) -> KnowgenError:
    """Turns an error of SQLite into one line that says what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    where = str(path)
    again = "run the same command again: what was committed is kept"
    if code == sqlite3.SQLITE_FULL:
        return DataError("the disk is full", where=where, fix=f"free some space and {again}")
    if code == sqlite3.SQLITE_IOERR:
        return DataError(f"cannot be written ({error}); the disk may be full", where=where, fix=again)
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return ConfigError(f"cannot be opened or written ({error})", where=where, fix="mend its permissions")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return ConfigError("another program holds the file locked", where=where, fix=f"close it and {again}")
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return DataError(f"is damaged ({error})", where=where, fix="restore a copy or start again with --fresh")
    return DataError(f"{error}", where=where)
