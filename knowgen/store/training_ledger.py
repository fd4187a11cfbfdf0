"""What a training has spent: reservations of paid calls in `spending.sqlite`, over all calls of the same directory."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knowgen.core.secrets import mask_secrets
from knowgen.store.database import Database
from knowgen.store.ledger import Ledger
from knowgen.store.run import UNPRICED_NOTE
from knowgen.store.schema import open_reader, open_writer

SPENDING_FILE = "spending.sqlite"
"""Name of the file in the directory of a training. Its tables are those of a run's database."""

SPENDING_FILES = "spending*.sqlite*"
"""Pattern of the files of all processes, with those that SQLite writes beside them."""

_ROUNDING = 1e-9


class TrainingLedger:
    """Reservations of paid calls and their costs; thread-safe. One that was never settled counts as spent.

    Args:
        folder: Directory of the training.
        process: Number of this process among those of the training, each of which has a file of its own.

    Raises:
        DataError, ConfigError: The file is damaged, or cannot be written.
    """

    def __init__(self, folder: Path, process: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        path = folder / (f"spending-{process}.sqlite" if process else SPENDING_FILE)
        self._path = path
        self._database = Database(open_writer(path), path, writable=True)
        self._ledger = Ledger(self._database)

    def reserve(self, amount: float, caller: str) -> int:
        """Reserve an amount in US dollars, committed before this returns; return the number of the reservation."""
        return self._ledger.reserve(amount, caller)

    def settle(self, number: int, amount: float | None) -> None:
        """Replace a reservation by the actual cost in US dollars; None keeps the reserved amount."""
        self._ledger.settle(number, amount)

    def spent(self) -> float:
        """Return the US dollars that this process has spent over all calls; open reservations count in full."""
        return self._ledger.spent()

    def total(self) -> float:
        """Return the US dollars that all processes have spent over all calls of the directory.

        Raises:
            DataError: A file is damaged.
        """
        return self.spent() + sum(_spent(path) for path in self._folder.glob("spending*.sqlite") if path != self._path)

    def record(self, caller: str, total: float) -> None:
        """Count what something has spent in all that has records of its own, such as the run of an evaluation.

        Args:
            caller: What it is; what was recorded of it before is counted once.
            total: US dollars.
        """
        known = self._database.read("select coalesce(sum(settled), 0) from reservations where who = ?", (caller,))
        more = total - float(known[0][0])
        if more > _ROUNDING:
            self.settle(self.reserve(more, caller), more)

    def put_note(self, caller: str, kind: str, data: Mapping[str, Any]) -> None:
        """Record that a component made a call of unknown cost. Other notes, which repeat every step, are not kept."""
        if kind == UNPRICED_NOTE:
            sql = "insert into notes (at, who, what, record) values (?, ?, ?, ?)"
            self._database.write(sql, (time.time(), caller, kind, mask_secrets(json.dumps(dict(data)))))

    @property
    def price_unknown(self) -> bool:
        """Return whether a call was paid at a price that is not known."""
        return bool(self._database.read("select 1 from notes where what = ? limit 1", (UNPRICED_NOTE,)))

    def close(self) -> None:
        """Commit and close the file."""
        self._database.close()


def _spent(path: Path) -> float:
    connection, copy = open_reader(path)
    database = Database(connection, path, writable=False)
    try:
        return Ledger(database).spent()
    finally:
        database.close()
        if copy is not None:
            copy.close()
