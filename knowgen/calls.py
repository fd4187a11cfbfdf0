"""Paid calls: every request that may cost money reserves its worst case before it is sent.

The engine puts a meter into the context of each sample's walk; adapters and judges only write

    async with paid_call(worst_case=0.012, who="vlm:gpt-4.1") as ticket:
        reply = await client.post(...)
        ticket.settle(cost_of(reply))

A call that leaves the block without settling counts at its worst case, because the far side may have billed it.
Under a budget a call may wait in line until others have come to their end, so one block must not stand inside another.
Outside a run (a script, a test) there is no meter and the block costs nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol


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
class Ticket:
    """One reserved call.

    Attributes:
        number: As the meter gave it; -1 without a meter.
        cost: What the call cost in US dollars, None until it is settled.
    """

    number: int
    cost: float | None = None

    def settle(self, cost: float | None) -> None:
        """Says what the call really cost in US dollars."""
        self.cost = cost


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
async def paid_call(worst_case: float | None, who: str) -> AsyncIterator[Ticket]:
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
        yield Ticket(-1)
        return
    ticket = Ticket(await meter.reserve(worst_case, who))
    try:
        yield ticket
    finally:
        await meter.settle(ticket.number, ticket.cost)
