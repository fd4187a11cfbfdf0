"""The money of a run: every call's worst case is written down before the call is made."""

from __future__ import annotations

import sqlite3
import time

from knowgen.store.database import Database

_UNITS = 10**12
"""Sums are kept in whole millionths of a millionth of a dollar, so that ten times 0.1 is 1."""


class Ledger:
    """Reservations and what they came to. A reservation that was never settled counts as spent.

    Args:
        database: Of the run.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        total = f"select coalesce(sum(cast(round(coalesce(settled, reserved) * {_UNITS}) as integer)), 0)"
        self._units = int(database.read(f"{total} from reservations")[0][0])

    def reserve(self, amount: float, who: str) -> int:
        """Sets aside an amount in US dollars; it is committed before this returns.

        Returns:
            A number to settle it by.

        Raises:
            ValueError: The amount is negative or no number.
            DataError, ConfigError: It cannot be written down, so the call must not be made.
        """
        _check(amount)
        row = (who, time.time(), amount)
        number = self._database.write("insert into reservations (who, at, reserved) values (?, ?, ?)", row).lastrowid
        self._database.commit()
        if number is None:
            raise RuntimeError("SQLite gave no number for a reservation")
        self._units += _in_units(amount)
        return number

    def settle(self, number: int, amount: float | None) -> None:
        """Replaces a reservation by the true cost in US dollars; None keeps the reserved amount.

        Raises:
            ValueError: There is no such open reservation, or the amount is negative or no number.
        """
        found = self._database.read("select reserved, settled from reservations where number = ?", (number,))
        if not found or found[0][1] is not None:
            raise ValueError(f"there is no open reservation {number}")
        reserved = float(found[0][0])
        true = reserved if amount is None else amount
        _check(true)
        self._database.write("update reservations set settled = ? where number = ?", (true, number))
        self._units += _in_units(true) - _in_units(reserved)

    def spent(self) -> float:
        """Returns US dollars: settled amounts, and open reservations in full."""
        return self._units / _UNITS


def _check(amount: float) -> None:
    if not 0 <= amount < 1e6:
        raise ValueError(f"an amount in US dollars must lie in [0, 1e6): {amount}")


def _in_units(amount: float) -> int:
    return round(amount * _UNITS)


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
