"""The books of a run: every paid call reserves its worst case in the store before it is sent."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

from knowgen.core.errors import BudgetReachedError, ConfigError
from knowgen.store.run import RunStore

FREE = -1
"""Ticket number of a call that costs nothing."""

_SLACK = 1e-9
"""US dollars by which sums of floats may be off."""


PATIENCE_SECONDS = 60.0
"""So long a call that does not fit now waits for others to come to their end, when none does."""

_Entry = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


class _NotYetError(Exception):
    """A call would fit if those that are open cost nothing: it waits for what they come to."""


class BudgetMeter:
    """The meter of a run, used from any thread and any event loop.

    Writing waits for the disk, so a thread of the books' own does it, and no event loop stands still meanwhile. A call
    is refused only when it would not fit even if all that are under way cost nothing: worst cases are many times what
    calls really cost, and a run must not end on them.

    Args:
        store: Keeps reservations; those left open by a killed run count as spent.
        budget: US dollars over all runs of the directory, None for no limit.
        on_refusal: Called when a call is refused, from any thread.
        patience: Seconds that a call which does not fit now waits for others to end, when none does.

    Attributes:
        refusal: Why the first call was refused; empty when none was.
    """

    def __init__(
        self,
        store: RunStore,
        budget: float | None,
        on_refusal: Callable[[], None],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._patience = patience
        self._store = store
        self._budget = budget
        self._on_refusal = on_refusal
        self._before = store.spent()
        self._exhausted = False
        self.refusal = ""
        self._open: dict[int, float] = {}
        self._held: deque[_Entry] = deque()
        self._work: SimpleQueue[_Entry | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    @property
    def cost(self) -> float:
        """Returns US dollars spent by this run so far, open reservations in full."""
        return self._store.spent() - self._before

    async def reserve(self, worst_case: float | None, who: str) -> int:
        """Sets aside the worst case of one call in US dollars; see `knowgen.core.metering.Meter`."""
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
        await self._do(self._settle, number, cost)

    def note(self, who: str, what: str, data: dict[str, Any]) -> None:
        """Keeps a note on how calls were made; see `knowgen.core.metering.note`."""
        self._store.put_note(who, what, data)

    def close(self) -> None:
        """Ends the books' thread when it has written what was asked for; a call that waits is refused."""
        with self._starting:
            if self._thread is not None:
                self._work.put(None)
                self._thread = None

    def _reserve(self, worst_case: float, who: str) -> int:
        if self._budget is not None:
            left = self._budget - self._store.spent() + _SLACK
            if not self._exhausted and left < worst_case <= left + sum(self._open.values()):
                raise _NotYetError
            if self._exhausted or worst_case > left:
                self._exhausted = True
                self.refusal = self.refusal or (
                    f"${self._budget:g} admits no further call: ${self._store.spent():.4f} is spent, "
                    f"and a call of {who} may cost up to ${worst_case:.4f}"
                )
                self._on_refusal()
                raise BudgetReachedError(f"the budget of ${self._budget:g} admits no further call", where=who)
        number = self._store.reserve(worst_case, who)
        self._open[number] = worst_case
        return number

    def _settle(self, number: int, cost: float | None) -> None:
        self._store.settle(number, cost)
        self._open.pop(number, None)

    def _record(self, cost: float) -> None:
        self._store.settle(self._store.reserve(cost, "announced as free"), cost)

    async def _do(self, function: Callable[..., Any], *args: Any) -> Any:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="knowgen books", daemon=True)
                self._thread.start()
        done: Future[Any] = Future()
        self._work.put((done, function, args))
        answer = asyncio.wrap_future(done)
        if function == self._reserve:
            try:
                return await answer
            except asyncio.CancelledError:  # whoever is cancelled makes no call, so nothing need be set aside
                if not done.cancel():  # it is being set aside just now
                    done.add_done_callback(self._give_back)
                raise
        return await asyncio.shield(answer)  # a walk that is cancelled must not undo what is being written

    def _give_back(self, done: Future[Any]) -> None:
        """Takes back what was set aside for somebody who was cancelled before hearing of it."""
        if not done.cancelled() and done.exception() is None:
            self._work.put((Future(), self._settle, (done.result(), 0.0)))

    def _serve(self) -> None:
        while (entry := self._next()) is not None:
            self._enter(entry)
            if entry[1] != self._reserve:  # a call came to its end: there may be room for those that wait
                waiting, self._held = self._held, deque()
                for held in waiting:
                    self._enter(held)
            del entry
        self._refuse_held()

    def _next(self) -> _Entry | None:
        """Returns what is to be done next, None at the end; refuses those that have waited in vain."""
        if self._held:
            try:
                return self._work.get(timeout=self._patience)
            except Empty:  # what is open hangs or was left behind, and will never be settled
                self._refuse_held()
        return self._work.get()

    def _refuse_held(self) -> None:
        self._exhausted = self._exhausted or bool(self._held)
        while self._held:
            self._enter(self._held.popleft())

    def _enter(self, entry: _Entry) -> None:
        done, function, args = entry
        if done.cancelled():
            return
        try:
            result, error = function(*args), None
        except _NotYetError:
            self._held.append(entry)
            return
        except BaseException as fault:  # noqa: BLE001 - it belongs to the call that waits
            result, error = None, fault
        if not done.set_running_or_notify_cancel():
            if function == self._reserve and error is None:
                self._settle(result, 0.0)  # cancelled just now, before the call was made
        elif error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)
