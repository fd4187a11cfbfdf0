"""The books of a run: every paid call reserves its worst case in the store before it is sent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from knowgen.errors import BudgetReachedError, ConfigError
from knowgen.store.run import RunStore

FREE = -1
"""Ticket number of a call that costs nothing."""

_SLACK = 1e-9
"""US dollars by which sums of floats may be off."""


class Books:
    """The meter of a run, used from any thread and any event loop.

    Writing waits for the disk, so a thread of the books' own does it, and no event loop stands still meanwhile.

    Args:
        store: Keeps reservations; those left open by a killed run count as spent.
        budget: US dollars over all runs of the directory, None for no limit.
        on_refusal: Called when a call is refused, from any thread.
    """

    def __init__(self, store: RunStore, budget: float | None, on_refusal: Callable[[], None]) -> None:
        self._store = store
        self._budget = budget
        self._on_refusal = on_refusal
        self._before = store.spent()
        self._exhausted = False
        self._work: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    @property
    def cost(self) -> float:
        """Returns US dollars spent by this run so far, open reservations in full."""
        return self._store.spent() - self._before

    async def reserve(self, worst_case: float | None, who: str) -> int:
        """Sets aside the worst case of one call in US dollars; see `knowgen.calls.Meter`."""
        if worst_case is None and self._budget is not None:
            raise ConfigError(
                "the price of its calls is not known, so no budget can be kept",
                where=who,
                fix="give its prices, or run without --budget",
            )
        if worst_case == 0.0:
            return FREE
        return int(await self._do(self._reserve, worst_case or 0.0, who))

    async def settle(self, number: int, cost: float | None) -> None:
        """Replaces a reservation by the true cost in US dollars; None keeps the worst case."""
        if number == FREE:
            if cost:  # it was announced as free and was not: the books must say so
                await self._do(self._record, cost)
            return
        await self._do(self._store.settle, number, cost)

    def _reserve(self, worst_case: float, who: str) -> int:
        if self._budget is not None:
            left = self._budget - self._store.spent()
            if self._exhausted or worst_case > left + _SLACK:
                self._exhausted = True
                self._on_refusal()
                raise BudgetReachedError(f"the budget of ${self._budget:g} admits no further call", where=who)
        return self._store.reserve(worst_case, who)

    def _record(self, cost: float) -> None:
        self._store.settle(self._store.reserve(cost, "announced as free"), cost)

    async def _do(self, function: Callable[..., Any], *args: Any) -> Any:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="knowgen books", daemon=True)
                self._thread.start()
        done: Future[Any] = Future()
        self._work.put((done, function, args))
        # shielded: a walk that is cancelled must not undo what is being written
        return await asyncio.shield(asyncio.wrap_future(done))

    def _serve(self) -> None:
        while True:
            done, function, args = self._work.get()
            try:
                result = function(*args)
            except BaseException as error:  # noqa: BLE001 - it belongs to the call that waits
                done.set_exception(error)
            else:
                done.set_result(result)
            del done, function, args
