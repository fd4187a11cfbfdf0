"""Paid calls: every request that may cost money reserves its worst case before it is sent.

The engine puts a meter into the context of each sample's walk; adapters and judges only write

    async with paid_call(worst_case=0.012, who="vlm:gpt-4.1") as ticket:
        reply = await client.post(...)
        ticket.settle(cost_of(reply))

A call that leaves the block without settling counts at its worst case, because the far side may have billed it. So
does one whose usage is not whole (`UsageReader`), as far as what is known of it does not come to more.
Under a budget a call may wait in line until others have come to their end, so one block must not stand inside another.
Outside a run (a script, a test) there is no meter and the block costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

MOST_TOKENS = 10**12
"""A count above this is not believed, and taken at this number."""


class UsageReader:
    """Reads token counts from the usage object of a reply, and notes whether all that were read are whole numbers.

    A count that is not (a string, a fraction, null, negative, a truth value) is read as the least it can mean, 0 when
    it says nothing.

    Args:
        usage: The object as it came; anything else holds no count.

    Attributes:
        complete: Was every count a whole number, and every required one there?
    """

    def __init__(self, usage: Any) -> None:
        self._usage = usage
        self.complete = usage is None or isinstance(usage, Mapping)

    def required(self, *names: str, least: int = 0) -> int:
        """Return a count that must be there.

        Args:
            names: Its key; several lead through nested objects.
            least: A smaller count is not believed.
        """
        count = self.optional(*names)
        if count is None or count < least:
            self.complete = False
        return count or 0

    def optional(self, *names: str) -> int | None:
        """Return a count that may be missing, None where it is; a null in its own place is a count that is not whole.

        Args:
            names: Its key; several lead through nested objects.
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
        """Return the objects of a list, which may be missing."""
        inside = self._usage.get(name) if isinstance(self._usage, Mapping) else None
        if inside is None:
            return []
        entries = [entry for entry in inside if isinstance(entry, Mapping)] if isinstance(inside, list) else []
        if not isinstance(inside, list) or len(entries) < len(inside):
            self.complete = False
        return entries

    def count(self, value: Any) -> int:
        """Return one count, as it came."""
        least, whole = _least(value)
        if not whole or least > MOST_TOKENS:
            self.complete = False
        return min(least, MOST_TOKENS)


def _least(value: Any) -> tuple[int, bool]:
    """Return the least number of tokens that a value can mean, and whether it says so as a whole number."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return 0, False
        return _least(value)[0], False
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return 0, False
    return math.ceil(value), value == int(value)


@dataclass(frozen=True)
class ReportedUsage:
    """What a reply reports of its call.

    Attributes:
        input_tokens: Tokens that went in.
        output_tokens: Tokens that came out.
        cost: US dollars that these come to; None when the price is not known.
        complete: Does it report all that the cost depends on? If not, the counts and the cost are the least there are.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    complete: bool = False

    def charge(self, worst_case: float | None) -> float | None:
        """Return US dollars that the call counts for: its cost, and not less than the worst case where that is open.

        Args:
            worst_case: US dollars reserved for the call, None when unknown.
        """
        if self.complete and self.cost is not None:
            return self.cost
        known = [amount for amount in (self.cost, worst_case) if amount is not None]
        return max(known, default=None)


class Meter(Protocol):
    """What the engine offers to paid calls."""

    async def reserve(self, worst_case: float | None, who: str) -> int:
        """Sets aside the worst case of one call, durably, and returns a ticket number.

        Args:
            worst_case: US dollars, or None when the price is not known.
            who: What is calling, for the books.

        Raises:
            BudgetReachedError: The budget does not admit the call.
            ConfigError: There is a budget and the price is not known.
        """
        ...

    async def settle(self, number: int, cost: float | None) -> None:
        """Replaces a reservation by what the call really cost, in US dollars; None keeps the worst case."""
        ...


@dataclass
class Reservation:
    """One reserved call.

    Attributes:
        number: As the meter gave it; -1 without a meter.
        cost: What the call cost in US dollars, None until it is settled.
    """

    number: int
    cost: float | None = None

    def settle(self, cost: float | None) -> None:
        """Says what the call really cost in US dollars; an amount that is not one leaves it at the worst case."""
        self.cost = cost if cost is not None and 0 <= cost < math.inf else None


current_meter: ContextVar[Meter | None] = ContextVar("knowgen_meter", default=None)

judge_repeat: ContextVar[int] = ContextVar("knowgen_judge_repeat", default=0)
"""Number of the judgement that is being made, from 0: the second of the same picture must be another call."""


def note(who: str, what: str, data: Mapping[str, Any]) -> None:
    """Leaves a note in the run directory: how a judge was called, not what it said. Outside a run it is dropped.

    Args:
        who: What is calling.
        what: Kind of the note, such as `pace`.
        data: Plain data.
    """
    keep = getattr(current_meter.get(), "note", None)
    if keep is not None:
        keep(who, what, dict(data))


@asynccontextmanager
async def paid_call(worst_case: float | None, who: str) -> AsyncIterator[Reservation]:
    """Reserves the worst case of one call and settles it on leaving.

    Args:
        worst_case: The most this call can cost in US dollars; 0.0 for a free endpoint; None when unknown.
        who: What is calling.

    Yields:
        A ticket; call its `settle` as soon as the true cost is known.

    Raises:
        BudgetReachedError: The budget does not admit the call.
        ConfigError: There is a budget and the price is not known.
    """
    meter = current_meter.get()
    if meter is None:
        yield Reservation(-1)
        return
    ticket = Reservation(await meter.reserve(worst_case, who))
    try:
        yield ticket
    finally:
        await meter.settle(ticket.number, ticket.cost)
