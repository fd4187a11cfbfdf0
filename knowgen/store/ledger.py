"""The costs and the wall time of a run: reservations of paid calls, and its invocations."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from knowgen.store.database import Database

_UNITS = 10**12
"""Sums are computed in whole units of 1e-12 US dollars, so that ten times 0.1 is exactly 1."""


class Ledger:
    """Reservations of paid calls and their actual costs. A reservation that was never settled counts as spent.

    Args:
        database: Database of the run.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        total = f"select coalesce(sum(cast(round(coalesce(settled, reserved) * {_UNITS}) as integer)), 0)"
        self._units = int(database.read(f"{total} from reservations")[0][0])

    def reserve(self, amount: float, caller: str) -> int:
        """Reserve an amount in US dollars, committed before this returns.

        Returns:
            Number of the reservation, for `settle`.

        Raises:
            ValueError: The amount is negative, too large or NaN.
            DataError, ConfigError: The reservation cannot be written, so the call must not be made.
        """
        _check(amount)
        row = (caller, time.time(), amount)
        number = self._database.write("insert into reservations (who, at, reserved) values (?, ?, ?)", row).lastrowid
        self._database.commit()
        if number is None:
            raise RuntimeError("SQLite returned no number for a reservation")
        self._units += _in_units(amount)
        return number

    def settle(self, number: int, amount: float | None) -> None:
        """Replace a reservation by the actual cost in US dollars; None keeps the reserved amount.

        Raises:
            ValueError: The number is not that of an open reservation, or the amount is negative, too large or NaN.
        """
        rows = self._database.read("select reserved, settled from reservations where number = ?", (number,))
        if not rows or rows[0][1] is not None:
            raise ValueError(f"no open reservation {number}")
        reserved = float(rows[0][0])
        cost = reserved if amount is None else amount
        _check(cost)
        self._database.write("update reservations set settled = ? where number = ?", (cost, number))
        self._units += _in_units(cost) - _in_units(reserved)

    def spent(self) -> float:
        """Return the total in US dollars: settled costs, and open reservations in full."""
        return self._units / _UNITS


def _check(amount: float) -> None:
    if not 0 <= amount < 1e6:
        raise ValueError(f"an amount in US dollars must be in [0, 1e6), got {amount}")


def _in_units(amount: float) -> int:
    return round(amount * _UNITS)


class Sessions:
    """The current invocation. Each commit updates the time at which it was last seen.

    Args:
        clock: A clock that never goes back, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._number = 0
        self._clock = clock
        self._started = self._started_at = 0.0

    def start(self, database: Database) -> None:
        """Record the start of an invocation, committed.

        Raises:
            DataError, ConfigError: It cannot be written.
        """
        self._started, self._started_at = time.time(), self._clock()
        now = self._started
        row = database.write("insert into sessions (started, seen, outcome) values (?, ?, '')", (now, now))
        self._number = row.lastrowid or 0
        database.commit()

    def end(self, database: Database, outcome: str) -> None:
        """Record how the invocation ended, committed; do nothing if none was started.

        Raises:
            DataError, ConfigError: It cannot be written.
        """
        if self._number:
            row = (self._now(), outcome, self._number)
            database.write("update sessions set seen = ?, outcome = ? where number = ?", row)
            self._number = 0
            database.commit()

    def seen(self, connection: sqlite3.Connection) -> None:
        """Update the time at which the invocation was last seen, as part of a commit."""
        if self._number:
            connection.execute("update sessions set seen = ? where number = ?", (self._now(), self._number))

    def _now(self) -> float:
        """Return the time since the epoch as if the system's clock had not been set since the start."""
        return self._started + self._clock() - self._started_at


def seconds_of(database: Database) -> float:
    """Return the total wall time of all invocations, in seconds."""
    return float(database.read("select coalesce(sum(max(seen - started, 0.0)), 0.0) from sessions")[0][0])
