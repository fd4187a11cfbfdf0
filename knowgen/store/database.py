"""One SQLite connection for all threads. Writes are executed at once and committed in groups."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from knowgen.core.errors import ConfigError, DataError, KnowgenError

COMMIT_SECONDS = 0.15
"""Maximum delay between a write and the start of its commit."""


class Database:
    """A SQLite connection with a lock, and a thread that commits.

    After a write has failed (such as on a full disk), every later write raises the same error, because SQLite rolled
    back what was not committed. Reading remains possible.

    Args:
        connection: Connection in autocommit mode that any thread may use.
        path: Database file, for error messages.
        writable: Whether to start the committing thread.
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
        """Run a statement that is committed with the next group.

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
                raise  # an error of the caller: nothing was written, and earlier writes remain valid
            except sqlite3.DatabaseError as error:
                raise self._fail(error) from error

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query, including writes that are not committed yet.

        Raises:
            DataError: The file is damaged.
        """
        with self._lock:
            try:
                return self._connection.execute(sql, parameters).fetchall()
            except sqlite3.DatabaseError as error:
                raise explain_sqlite_error(error, self.path) from error

    def commit(self) -> None:
        """Commit all writes; after this returns they survive a killed process.

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
        """Commit everything inside together or not at all; other threads wait.

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
        """Commit, stop the thread and close the file, without a separate log file if no reader has it open.

        Raises:
            DataError, ConfigError: The last commit failed; the file is closed all the same.
        """
        if self._stop.is_set():
            return
        self._stop.set()
        self._pending.set()
        if self._ticker is not None:
            self._ticker.join()
        with self._lock:  # another thread may still be writing; closing the connection during that crashes the process
            try:
                if self._ticker is not None:
                    self.commit()
                    self._leave_wal()
            finally:
                self._connection.close()

    def _leave_wal(self) -> None:
        """Merge the write-ahead log into the file. If that is impossible, the next opening reads the log."""
        harmless = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
        self._connection.execute("pragma busy_timeout=200")
        try:
            self._connection.execute("pragma wal_checkpoint(truncate)").fetchone()  # possible even with a reader
            self._connection.execute("pragma journal_mode=delete").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in harmless:
                raise explain_sqlite_error(error, self.path) from error

    def _tick(self) -> None:
        while not self._stop.is_set():
            self._pending.wait()
            if self._stop.wait(COMMIT_SECONDS):
                return
            try:
                self.commit()
            except KnowgenError:
                return  # stored in _failure: the next write, commit or close raises it

    def _fail(self, error: sqlite3.Error) -> KnowgenError:
        """Record a failed write and roll back what was not committed."""
        self._failure = explain_sqlite_error(error, self.path)
        if self._connection.in_transaction:
            self._connection.execute("rollback")
        return self._failure

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(self._failure.what, where=self._failure.where, fix=self._failure.fix)


def has_table(database: Database, name: str) -> bool:
    """Return whether a table exists; one that a later version added is missing in an older file that is only read."""
    return bool(database.read("select 1 from sqlite_master where type = 'table' and name = ?", (name,)))


def explain_sqlite_error(error: sqlite3.Error, path: Path) -> KnowgenError:
    """Return an SQLite error as a one-line error with its fix."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    where = str(path)
    again = "run the same command again: committed results are preserved"
    if code == sqlite3.SQLITE_FULL:
        return DataError("the disk is full", where=where, fix=f"free some space and {again}")
    if code == sqlite3.SQLITE_IOERR:
        return DataError(f"cannot be written ({error}); the disk may be full", where=where, fix=again)
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return ConfigError(f"cannot be opened or written ({error})", where=where, fix="fix its permissions")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return ConfigError("another program has locked the file", where=where, fix=f"close it and {again}")
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return DataError(f"is damaged ({error})", where=where, fix="restore a copy or start again with --fresh")
    return DataError(f"{error}", where=where)
