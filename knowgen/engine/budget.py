"""The budget meter of a run: every paid call reserves its worst case in the store before it is sent.

A reservation is replaced by the actual cost when the call ends. If the service does not report a cost, the reservation
counts as spent.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from knowgen.core.errors import BudgetReachedError, ConfigError
from knowgen.store.run import UNPRICED_NOTE

FREE = -1
"""Reservation number of a call that costs nothing."""

_SLACK = 1e-9
"""Rounding error in US dollars that sums of floats may have."""


_MAX_COST = 999_999.0
"""Highest cost of one call in US dollars that is recorded; a service that reports more does not count right."""

PATIENCE_SECONDS = 60.0
"""Seconds a call that does not fit now waits while no other call ends."""

_Operation = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


class SpendingStore(Protocol):
    """Where reservations are written: the store of a run, or that of a training."""

    def spent(self) -> float:
        """Return the total in US dollars, open reservations in full."""
        ...

    def reserve(self, amount: float, caller: str, /) -> int:
        """Reserve an amount, durably, and return the number of the reservation."""
        ...

    def settle(self, number: int, amount: float | None, /) -> None:
        """Replace a reservation by the actual cost; None keeps the reserved amount."""
        ...

    def put_note(self, caller: str, kind: str, data: dict[str, Any], /) -> None:
        """Store a note on how calls were made."""
        ...


class _WaitError(Exception):
    """A call fits only if open calls cost less than reserved: it waits until they are settled."""


class BudgetMeter:
    """The meter of a run. May be used from any thread and any event loop.

    Writing waits for the disk, so the meter has a thread of its own, and no event loop is blocked. Worst cases are many
    times the actual costs and must not end a run by themselves, so a call is refused only if it would not fit even if
    all calls in flight cost nothing.

    Args:
        store: Store of the reservations. Those that a killed run left open count as spent.
        budget: US dollars for all runs of the directory, None for no limit.
        on_refusal: Called when a call is refused, from any thread.
        patience: Seconds a call that does not fit now waits while no other call ends.

    Attributes:
        refusal: Why the first call was refused; empty if none was.
    """

    def __init__(
        self,
        store: SpendingStore,
        budget: float | None,
        on_refusal: Callable[[], None],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._store = store
        self._budget = budget
        self._on_refusal = on_refusal
        self._patience = patience
        self._spent_before = store.spent()
        self._exhausted = False
        self.refusal = ""
        self._open: dict[int, float] = {}
        self._unpriced: dict[int, str] = {}
        self._noted: set[str] = set()
        self._waiting: deque[_Operation] = deque()
        self._work: SimpleQueue[_Operation | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._thread_lock = threading.Lock()

    @property
    def cost(self) -> float:
        """Return US dollars spent by this run so far, open reservations in full."""
        return self._store.spent() - self._spent_before

    async def reserve(self, worst_case: float | None, caller: str) -> int:
        """Reserve the worst case of one call in US dollars; see `knowgen.core.metering.Meter`."""
        if worst_case is None and self._budget is not None:
            raise ConfigError(
                "the price of its calls is unknown, so the budget cannot be enforced",
                where=caller,
                fix="give its prices, or run without --budget",
            )
        if worst_case == 0.0:
            return FREE
        number = int(await self._run(self._reserve, worst_case or 0.0, caller))
        if worst_case is None:
            self._unpriced[number] = caller
        return number

    async def settle(self, number: int, cost: float | None) -> None:
        """Replace a reservation by the actual cost in US dollars; None keeps the worst case."""
        if number == FREE:
            if cost:  # announced as free, but it was not: record it
                await self._run(self._record, cost)
            return
        caller = self._unpriced.pop(number, "")
        if caller and cost is None and caller not in self._noted:
            self._noted.add(caller)
            await self._run(self._store.put_note, caller, UNPRICED_NOTE, {})
        await self._run(self._settle, number, cost)

    def note(self, caller: str, kind: str, data: dict[str, Any]) -> None:
        """Store a note on how calls were made; see `knowgen.core.metering.note`."""
        self._store.put_note(caller, kind, data)

    def close(self) -> None:
        """End the meter's thread after it has written everything. Calls that still wait are refused."""
        with self._thread_lock:
            if self._thread is not None:
                self._work.put(None)
                self._thread = None

    def _reserve(self, worst_case: float, caller: str) -> int:
        if self._budget is not None:
            left = self._budget - self._store.spent() + _SLACK
            if not self._exhausted and left < worst_case <= left + sum(self._open.values()):
                raise _WaitError
            if self._exhausted or worst_case > left:
                self._exhausted = True
                self.refusal = self.refusal or (
                    f"${self._budget:g} allows no further call: ${self._store.spent():.4f} is spent, "
                    f"and a call of {caller} may cost up to ${worst_case:.4f}"
                )
                self._on_refusal()
                raise BudgetReachedError(f"the budget of ${self._budget:g} allows no further call", where=caller)
        number = self._store.reserve(worst_case, caller)
        self._open[number] = worst_case
        return number

    def _settle(self, number: int, cost: float | None) -> None:
        cost = None if cost is None else min(cost, _MAX_COST)
        self._store.settle(number, cost)
        reserved = self._open.pop(number, None)
        if self._budget is None or cost is None or reserved is None or cost <= reserved * (1 + _SLACK) + _SLACK:
            return
        self._exhausted = True  # the worst cases do not hold, so no further call is known to fit
        self.refusal = self.refusal or (
            f"a call cost ${cost:.4f} by the count of its service, more than the ${reserved:.4f} that was reserved: "
            "the budget cannot be kept with these prices and limits"
        )
        self._on_refusal()

    def _record(self, cost: float) -> None:
        cost = min(cost, _MAX_COST)
        self._store.settle(self._store.reserve(cost, "announced as free"), cost)

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        with self._thread_lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._main, name="knowgen budget", daemon=True)
                self._thread.start()
        done: Future[Any] = Future()
        self._work.put((done, function, args))
        result = asyncio.wrap_future(done)
        if function == self._reserve:
            try:
                return await result
            except asyncio.CancelledError:  # a cancelled call is not made, so it needs no reservation
                if not done.cancel():  # it is being reserved at this moment
                    done.add_done_callback(self._release)
                raise
        return await asyncio.shield(result)  # cancelling the caller must not undo what is being written

    def _release(self, done: Future[Any]) -> None:
        """Release the reservation of a call that was cancelled before it learned of it."""
        if not done.cancelled() and done.exception() is None:
            self._work.put((Future(), self._settle, (done.result(), 0.0)))

    def _main(self) -> None:
        while (operation := self._next()) is not None:
            self._execute(operation)
            if operation[1] != self._reserve:  # a call has ended: those that wait may fit now
                waiting, self._waiting = self._waiting, deque()
                for reservation in waiting:
                    self._execute(reservation)
            del operation
        self._refuse_waiting()

    def _next(self) -> _Operation | None:
        """Return the next operation, None at the end. Refuses calls that have waited too long."""
        if self._waiting:
            try:
                return self._work.get(timeout=self._patience)
            except Empty:  # the open calls hang or were abandoned, and will never be settled
                self._refuse_waiting()
        return self._work.get()

    def _refuse_waiting(self) -> None:
        self._exhausted = self._exhausted or bool(self._waiting)
        while self._waiting:
            self._execute(self._waiting.popleft())

    def _execute(self, operation: _Operation) -> None:
        done, function, args = operation
        if done.cancelled():
            return
        try:
            result, error = function(*args), None
        except _WaitError:
            self._waiting.append(operation)
            return
        except BaseException as raised:  # noqa: BLE001 - raised again in the call that waits
            result, error = None, raised
        if not done.set_running_or_notify_cancel():
            if function == self._reserve and error is None:
                self._settle(result, 0.0)  # cancelled at this moment, before the call was made
        elif error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)
