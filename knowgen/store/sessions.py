"""When each invocation of a run began and was last seen, so that wall time adds up, also over killed ones."""

from __future__ import annotations

import sqlite3
import time

from knowgen.store.database import Database


class Sessions:
    """The invocation that is going on. Every commit notes that it is still there."""

    def __init__(self) -> None:
        self._number = 0

    def start(self, database: Database) -> None:
        """Notes that an invocation begins, committed.

        Raises:
            DataError, ConfigError: It cannot be written.
        """
        now = time.time()
        row = database.write("insert into sessions (started, seen, outcome) values (?, ?, '')", (now, now))
        self._number = row.lastrowid or 0
        database.commit()

    def end(self, database: Database, outcome: str) -> None:
        """Notes how it ended, committed; does nothing where none was begun.

        Raises:
            DataError, ConfigError: It cannot be written.
        """
        if self._number:
            row = (time.time(), outcome, self._number)
            database.write("update sessions set seen = ?, outcome = ? where number = ?", row)
            self._number = 0
            database.commit()

    def seen(self, connection: sqlite3.Connection) -> None:
        """Notes that the invocation is still there, as part of a commit."""
        if self._number:
            connection.execute("update sessions set seen = ? where number = ?", (time.time(), self._number))


def seconds_of(database: Database) -> float:
    """Returns the wall time of all invocations, in seconds."""
    return float(database.read("select coalesce(sum(seen - started), 0.0) from sessions")[0][0])
