"""Paid calls: every request that may cost money reserves its maximum cost before it is sent.

Plugins wrap each paid request:

    async with paid_call(worst_case=0.012, caller="vlm:gpt-4.1") as reservation:
        reply = await client.post(...)
        reservation.settle(cost_of(reply))

In a run, the engine sets the budget meter for each sample task. Outside a run, such as in a script or a test, the block
has no effect.

A call that ends without `settle` counts at its maximum cost, because the service may have billed it. A call whose
reported usage is incomplete (see `UsageReader`) counts at the larger of its maximum and its reported cost. Under a
budget a call may wait until others end, so `paid_call` blocks must not be nested.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from knowgen.core.waiting import DroppedError, sending, waiting

MAX_TOKENS = 10**12
"""Largest plausible token count; larger ones are reduced to it and mark the usage as incomplete."""


class UsageReader:
    """Read token counts from the usage object of a reply, and check that they are valid.

    An invalid count is read as the smallest number that it can mean: `"12"` as 12, 2.5 as 3, and null, a negative
    number or a boolean as 0.

    Args:
        usage: The usage object of the reply. Anything but a mapping has no counts.

    Attributes:
        complete: Whether every count that was read is a whole number >= 0 and every required one is present.

    Example:
        >>> reader = UsageReader({"input_tokens": 120, "details": {"cached": "3"}})
        >>> reader.required("input_tokens"), reader.complete
        (120, True)
        >>> reader.optional("details", "cached"), reader.complete
        (3, False)
    """

    def __init__(self, usage: Any) -> None:
        self._usage = usage
        self.complete = usage is None or isinstance(usage, Mapping)

    def required(self, *names: str, minimum: int = 0) -> int:
        """Return a required count; 0 when it is missing, which marks the usage as incomplete.

        Args:
            names: Keys that lead to it through nested objects.
            minimum: Smallest plausible count; a smaller one marks the usage as incomplete.
        """
        count = self.optional(*names)
        if count is None or count < minimum:
            self.complete = False
        return count or 0

    def optional(self, *names: str) -> int | None:
        """Return a count, or None when its key or an object around it is missing. A null count is invalid.

        Args:
            names: Keys that lead to it through nested objects.
        """
        inside: Any = self._usage
        for name in names:
            if inside is None:
                return None
            if not isinstance(inside, Mapping):
                self.complete = False
                return None
            if name not in inside:
                return None
            inside = inside[name]
        return self.count(inside)

    def entries(self, name: str) -> list[Mapping[str, Any]]:
        """Return the objects in a list of the usage; empty when the list is missing."""
        inside = self._usage.get(name) if isinstance(self._usage, Mapping) else None
        if inside is None:
            return []
        entries = [entry for entry in inside if isinstance(entry, Mapping)] if isinstance(inside, list) else []
        if not isinstance(inside, list) or len(entries) < len(inside):
            self.complete = False
        return entries

    def count(self, value: Any) -> int:
        """Return the smallest number that a value can mean, and mark the usage as incomplete when it is invalid."""
        smallest, valid = _smallest_meaning(value)
        if not valid or smallest > MAX_TOKENS:
            self.complete = False
        return min(smallest, MAX_TOKENS)


def _smallest_meaning(value: Any) -> tuple[int, bool]:
    """Return the smallest number of tokens that a value can mean, and whether the value is a whole number >= 0."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return 0, False
        return _smallest_meaning(value)[0], False
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return 0, False
    return math.ceil(value), value == int(value)


@dataclass(frozen=True)
class ReportedUsage:
    """The usage that a reply reports, with its cost.

    Attributes:
        input_tokens: Tokens of the request.
        output_tokens: Tokens of the reply.
        cost: Cost in US dollars; None when the price is not known.
        complete: Whether the report has every count that the cost depends on. If not, counts and cost are lower bounds.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    complete: bool = False

    def charge(self, worst_case: float | None) -> float | None:
        """Return the amount in US dollars to charge to the budget.

        This is the cost when the usage is complete, else the larger of the cost and the reserved amount; None when both
        are unknown.

        Args:
            worst_case: Amount reserved for the call in US dollars; None when unknown.
        """
        if self.complete and self.cost is not None:
            return self.cost
        known = [amount for amount in (self.cost, worst_case) if amount is not None]
        return max(known, default=None)


class Meter(Protocol):
    """The interface of a budget meter."""

    async def reserve(self, worst_case: float | None, caller: str, /) -> int:
        """Reserve the maximum cost of one call, durably, and return the number of the reservation.

        Args:
            worst_case: Maximum cost in US dollars; None when the price is not known.
            caller: Name of the scorer or generator that calls, for the spend table.

        Raises:
            BudgetReachedError: The call could exceed the budget.
            ConfigError: There is a budget and the price is not known.
        """
        ...

    async def settle(self, number: int, cost: float | None, /) -> None:
        """Replace a reservation by the actual cost in US dollars; None keeps the reserved amount."""
        ...


@dataclass
class Reservation:
    """The reservation of one call.

    Attributes:
        number: Number that the meter assigned; -1 without a meter.
        cost: Actual cost in US dollars; None until it is settled.
    """

    number: int
    cost: float | None = None

    def settle(self, cost: float | None) -> None:
        """Record the actual cost in US dollars; None, a negative or an infinite cost keeps the reserved amount."""
        self.cost = cost if cost is not None and 0 <= cost < math.inf else None


current_meter: ContextVar[Meter | None] = ContextVar("knowgen_meter", default=None)
"""The budget meter of the current run; None outside a run."""


@dataclass
class SpendingCount:
    """What the paid calls of a block cost, those of the tasks it starts included.

    Attributes:
        calls: Number of calls that have ended.
        cost: Their cost in US dollars, a call of unknown cost at its reserved amount; None when that is unknown too.
    """

    calls: int = 0
    cost: float | None = 0.0

    def add(self, cost: float | None) -> None:
        """Add a call of some cost in US dollars; None when it is not known."""
        self.calls += 1
        self.cost = None if cost is None or self.cost is None else self.cost + cost


_spending: ContextVar[tuple[SpendingCount, ...]] = ContextVar("knowgen_spending", default=())


@contextmanager
def spending() -> Iterator[SpendingCount]:
    """Yield an object that counts the paid calls of the block. Blocks may be nested: a call counts in all of them."""
    spent = SpendingCount()
    token = _spending.set((*_spending.get(), spent))
    try:
        yield spent
    finally:
        _spending.reset(token)


reuse_replies: ContextVar[bool] = ContextVar("knowgen_reuse_replies", default=True)
"""Whether a cached reply may answer a request; False in a run with `--fresh`, which asks again."""

judge_repeat: ContextVar[int] = ContextVar("knowgen_judge_repeat", default=0)
"""Number of the current score of an image, from 0. It distinguishes requests that are otherwise identical."""


def note(caller: str, kind: str, data: Mapping[str, Any]) -> None:
    """Store a note in the run directory, such as the request rate of a judge. Has no effect outside a run.

    Args:
        caller: Name of the scorer or generator.
        kind: Kind of the note, such as `pace`.
        data: Plain data.
    """
    store = getattr(current_meter.get(), "note", None)
    if store is not None:
        store(caller, kind, dict(data))


@asynccontextmanager
async def paid_call(worst_case: float | None, caller: str) -> AsyncIterator[Reservation]:
    """Reserve the maximum cost of one call, and settle it at the end of the block.

    Args:
        worst_case: Maximum cost in US dollars; 0.0 for a free service; None when unknown.
        caller: Name of the scorer or generator that calls.

    Yields:
        The reservation. Call its `settle` as soon as the actual cost is known.

    Raises:
        BudgetReachedError: The call could exceed the budget.
        ConfigError: There is a budget and the price is not known.
    """
    meter, number = current_meter.get(), -1
    if meter is not None:
        try:
            with waiting():
                number = await meter.reserve(worst_case, caller)
        except DroppedError:
            if number >= 0:  # reserved, but not sent
                await meter.settle(number, 0.0)
            raise
    reservation = Reservation(number)
    try:
        with sending():
            yield reservation
    finally:
        for spent in _spending.get():
            spent.add(worst_case if reservation.cost is None else reservation.cost)
        if meter is not None:
            await meter.settle(reservation.number, reservation.cost)
