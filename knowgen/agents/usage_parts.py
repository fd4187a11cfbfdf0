"""Adding up what the parts of an agent used."""

from __future__ import annotations

from collections.abc import Iterable

from knowgen.core.metering import SpendingCount
from knowgen.core.records import Usage, UsagePart


def total_usage(usages: Iterable[Usage]) -> Usage:
    """Return the sum of usages; its cost is None if one of them is not known.

    Example:
        >>> total_usage([Usage(input_tokens=3, cost=0.5), Usage(output_tokens=2, cost=0.25)])
        Usage(input_tokens=3, output_tokens=2, cost=0.75)
    """
    listed = list(usages)
    costs = [usage.cost for usage in listed]
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in listed),
        output_tokens=sum(usage.output_tokens for usage in listed),
        cost=None if any(cost is None for cost in costs) else sum(cost for cost in costs if cost is not None),
    )


def unreported(spent: SpendingCount, reported: Iterable[UsagePart]) -> SpendingCount:
    """Return the paid calls that a tool made and no part of its usage reports."""
    parts = list(reported)
    calls = max(0, spent.calls - sum(part.calls for part in parts))
    if not calls:
        return SpendingCount()
    costs = [part.usage.cost for part in parts]
    if spent.cost is None or any(cost is None for cost in costs):
        return SpendingCount(calls, None)
    return SpendingCount(calls, max(0.0, spent.cost - sum(cost for cost in costs if cost is not None)))


class UsageParts:
    """What each part of a trajectory used, in the order in which the parts were first used.

    Example:
        >>> parts = UsageParts()
        >>> for _ in range(2):
        ...     parts.add(UsagePart(part="search", calls=1, usage=Usage(cost=0.001), seconds=0.5))
        >>> [(part.part, part.calls, part.seconds) for part in parts.listed()]
        [('search', 2, 1.0)]
    """

    def __init__(self) -> None:
        self._parts: dict[str, UsagePart] = {}

    def add(self, part: UsagePart) -> None:
        """Add what a part used."""
        known = self._parts.get(part.part)
        if known is not None:
            part = UsagePart(
                part=part.part,
                calls=known.calls + part.calls,
                usage=total_usage([known.usage, part.usage]),
                seconds=known.seconds + part.seconds,
            )
        self._parts[part.part] = part

    def listed(self) -> list[UsagePart]:
        """Return the sums."""
        return list(self._parts.values())
